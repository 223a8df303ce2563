"""Every endpoint in words and schemas: what it takes, what it answers, what can go wrong, and one example."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from prometheus_client import CONTENT_TYPE_LATEST

from kvnet.api import bulk, keys, tokens
from kvnet.api import openapi_problems as problems
from kvnet.api import openapi_schemas as schemas
from kvnet.api.openapi_problems import Problems
from kvnet.api.openapi_schemas import BYTES, FORM, JSON, TEXT, Schema, array, query, record, ref
from kvnet.api.pages import PAGE_DEFAULT, PAGE_MAX
from kvnet.api.routes import Resource
from kvnet.api.validation import TIME_S_MAX, TITLE_CHARACTERS_MAX
from kvnet.limits import Limits

Place = tuple[Resource, str]
"""Resource and method."""

PROMETHEUS: Final = CONTENT_TYPE_LATEST
NAMESPACES: Final = "/accounts/{account_id}/storage/kv/namespaces"
_NAMESPACE: Final = NAMESPACES + "/{namespace_id}"

PATHS: Final[Mapping[Resource, str]] = {
    Resource.STATUS: "/status",
    Resource.USAGE: "/usage",
    Resource.METRICS: "/metrics",
    Resource.TOKEN_VERIFICATION: "/user/tokens/verify",
    Resource.TOKENS: "/user/tokens",
    Resource.TOKEN: "/user/tokens/{token_id}",
    Resource.TOKEN_VALUE: "/user/tokens/{token_id}/value",
    Resource.ACCOUNTS: "/accounts",
    Resource.ACCOUNT: "/accounts/{account_id}",
    Resource.MEMBERSHIPS: "/memberships",
    Resource.NAMESPACES: NAMESPACES,
    Resource.NAMESPACE: _NAMESPACE,
    Resource.KEYS: _NAMESPACE + "/keys",
    Resource.VALUE: _NAMESPACE + "/values/{key}",
    Resource.METADATA: _NAMESPACE + "/metadata/{key}",
    Resource.BULK: _NAMESPACE + "/bulk",
    Resource.BULK_DELETE: _NAMESPACE + "/bulk/delete",
    Resource.BULK_GET: _NAMESPACE + "/bulk/get",
}
"""Path templates, without the API's prefix."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """One endpoint. What all of its kind share, as the token or `KV-At-Least`, isn't repeated here."""

    id: str
    """A name for programs, unique."""
    summary: str
    detail: str = ""
    """Sentences that follow the summary."""
    query: tuple[Schema, ...] = ()
    body: Mapping[str, Schema] | None = None
    """By content type; the body is required."""
    result: Schema = field(default_factory=lambda: schemas.NULL)
    """Inside the envelope, unless `plain` is given."""
    result_info: Schema | None = None
    plain: Mapping[str, Schema] | None = None
    """By content type: an answer without an envelope."""
    conditional: bool = False
    """Whether a client that has this version already is told so alone."""
    partial: bool = False
    """Whether a part of it may be asked for."""
    headers: Mapping[str, Schema] = field(default_factory=dict)
    """Of the answer."""
    problems: Problems = ()
    example_query: str = ""
    example_body: str = ""
    """curl's arguments for the body."""


_WRITTEN: Final = {"KV-Version": schemas.WRITE_VERSION, "ETag": schemas.ETAG, "KV-Pending": schemas.PENDING}
_BULK_WRITTEN: Final = _WRITTEN | {"KV-Version": schemas.LAST_VERSION}
_READ: Final = {"KV-Version": schemas.RECORD_VERSION, "ETag": schemas.ETAG}

_BULK_DETAIL: Final = (
    "All keys are checked before any is written, and one bad element refuses them all; a request of more than a "
    "few megabytes is written in several stretches, each whole or not at all."
)


def _pages(per_page_max: int, per_page_default: int) -> tuple[Schema, ...]:
    page = {"type": "integer", "minimum": 1, "default": 1}
    per_page = {"type": "integer", "minimum": 1, "maximum": per_page_max, "default": per_page_default}
    return (
        query("page", page, "Which page; one beyond the end is empty."),
        query("per_page", per_page, "How many a page has."),
    )


_ORDER: Final = (
    query("order", {"enum": ["id", "title"], "default": "id"}, "What decides the order."),
    query("direction", {"enum": ["asc", "desc"], "default": "asc"}, "Upwards or downwards."),
)


def describe(limits: Limits) -> dict[Place, Description]:
    """Return every endpoint's description, for a network with these limits."""
    return _of_the_account() | _of_tokens() | _of_namespaces() | _of_pairs(limits) | _of_bulk(limits)


def _of_the_account() -> dict[Place, Description]:
    pages = _pages(PAGE_MAX, PAGE_DEFAULT)
    return {
        (Resource.STATUS, "GET"): Description(
            id="status",
            summary="What the node says of itself",
            detail="JSON without an envelope. Also answered by a node that isn't ready.",
            plain={JSON: ref("Status")},
        ),
        (Resource.USAGE, "GET"): Description(
            id="usage",
            summary="What this node was asked for, by month and namespace, and what its replica holds",
            detail="JSON without an envelope.",
            plain={JSON: ref("Usage")},
        ),
        (Resource.METRICS, "GET"): Description(
            id="metrics",
            summary="What the node counts, for Prometheus",
            plain={PROMETHEUS: schemas.TEXT_VALUE},
        ),
        (Resource.TOKEN_VERIFICATION, "GET"): Description(
            id="verifyToken",
            summary="The id and status of the token that asks",
            result=ref("TokenState"),
        ),
        (Resource.ACCOUNTS, "GET"): Description(
            id="listAccounts",
            summary="The one account that a cluster has",
            query=pages,
            result=array(ref("Account")),
            result_info=ref("PageInfo"),
            problems=problems.PAGES,
        ),
        (Resource.ACCOUNT, "GET"): Description(id="getAccount", summary="The account", result=ref("Account")),
        (Resource.MEMBERSHIPS, "GET"): Description(
            id="listMemberships",
            summary="The membership that every token has in the account",
            query=pages,
            result=array(ref("Membership")),
            result_info=ref("PageInfo"),
            problems=problems.PAGES,
        ),
    }


def _of_tokens() -> dict[Place, Description]:
    return {
        (Resource.TOKENS, "GET"): Description(
            id="listTokens",
            summary="The account's tokens by name, page by page; never their secrets",
            query=_pages(PAGE_MAX, PAGE_DEFAULT),
            result=array(ref("Token")),
            result_info=ref("PageInfo"),
            problems=problems.PAGES,
        ),
        (Resource.TOKENS, "POST"): Description(
            id="createToken",
            summary="Create a token",
            detail="The result's `value` is its secret, which isn't shown again.",
            body={JSON: schemas.token_body(tokens.NAME_CHARACTERS_MAX, tokens.NAMESPACES_MAX)},
            result=ref("NewToken"),
            headers=_WRITTEN,
            problems=problems.NEW_TOKEN,
            example_body='--json \'{"name": "deploy", "scope": "write", "namespaces": ["\'$ID\'"]}\'',
        ),
        (Resource.TOKEN, "GET"): Description(
            id="getToken", summary="One token", result=ref("Token"), problems=problems.TOKEN
        ),
        (Resource.TOKEN, "DELETE"): Description(
            id="revokeToken",
            summary="Revoke a token",
            detail="Each PoP refuses it as soon as it has heard of it. The last admin token stays.",
            result=record({"id": schemas.TEXT_VALUE}),
            headers=_WRITTEN,
            problems=problems.REVOCATION,
        ),
        (Resource.TOKEN_VALUE, "PUT"): Description(
            id="rollToken",
            summary="Give a token another secret, which is the result",
            detail="Each PoP refuses the one before as soon as it has heard of it.",
            result=schemas.TEXT_VALUE,
            headers=_WRITTEN,
            problems=problems.ROLL,
        ),
    }


def _of_namespaces() -> dict[Place, Description]:
    title = {JSON: schemas.title_body(TITLE_CHARACTERS_MAX)}
    chosen = schemas.HEX_ID | {"description": "The id it is to have; a new one, if left out."}
    return {
        (Resource.NAMESPACES, "GET"): Description(
            id="listNamespaces",
            summary="The account's namespaces, page by page",
            query=_pages(PAGE_MAX, PAGE_DEFAULT) + _ORDER,
            result=array(ref("Namespace")),
            result_info=ref("PageInfo"),
            problems=problems.PAGES,
            example_query="per_page=100&order=title",
        ),
        (Resource.NAMESPACES, "POST"): Description(
            id="createNamespace",
            summary="Create a namespace",
            detail="Its title must be new. Other PoPs know it a moment later.",
            body={JSON: schemas.title_body(TITLE_CHARACTERS_MAX, {"id": chosen})},
            result=ref("Namespace"),
            headers=_WRITTEN,
            problems=problems.NEW_NAMESPACE,
            example_body='--json \'{"title": "flags"}\'',
        ),
        (Resource.NAMESPACE, "GET"): Description(
            id="getNamespace", summary="One namespace", result=ref("Namespace")
        ),
        (Resource.NAMESPACE, "PUT"): Description(
            id="renameNamespace",
            summary="Give a namespace another title",
            body=title,
            result=ref("Namespace"),
            headers=_WRITTEN,
            problems=problems.TITLE,
            example_body='--json \'{"title": "switches"}\'',
        ),
        (Resource.NAMESPACE, "DELETE"): Description(
            id="deleteNamespace",
            summary="Delete a namespace with all its pairs",
            detail="Never with a trailing slash.",
            headers=_WRITTEN,
        ),
        (Resource.KEYS, "GET"): Description(
            id="listKeys",
            summary="The keys of a namespace in byte order, page by page",
            detail="A key has `expiration` and `metadata` only where they are set. `result_info.cursor` is empty "
            "at the end.",
            query=(
                query("prefix", {"type": "string"}, "Only keys that begin so."),
                query(
                    "limit",
                    {
                        "type": "integer",
                        "minimum": keys.PAGE_KEYS_MIN,
                        "maximum": keys.PAGE_KEYS_MAX,
                        "default": keys.PAGE_KEYS_MAX,
                    },
                    "How many a page has.",
                ),
                query("cursor", {"type": "string"}, "Of the page before; the prefix goes with it."),
            ),
            result=array(ref("Key")),
            result_info=ref("CursorInfo"),
            problems=problems.LISTING,
            example_query="prefix=user%2F&limit=100",
        ),
    }


def _of_pairs(limits: Limits) -> dict[Place, Description]:
    value: Schema = {"type": "string", "format": "binary", "maxLength": limits.value_bytes_max}
    metadata: Schema = {"type": "string", "contentMediaType": JSON, "description": "JSON text."}
    expiry = (
        query(
            "expiration",
            {"type": "integer", "minimum": 1, "maximum": TIME_S_MAX},
            "When the pair expires, in Unix seconds.",
        ),
        query(
            "expiration_ttl",
            {"type": "integer", "minimum": limits.ttl_seconds_min},
            "In how many seconds it does; wins over `expiration`.",
        ),
    )
    return {
        (Resource.VALUE, "GET"): Description(
            id="getValue",
            summary="The value's bytes",
            plain={BYTES: {"type": "string", "format": "binary"}},
            headers=_READ | {"expiration": schemas.EXPIRATION},
            conditional=True,
            partial=True,
            problems=problems.VALUE_READ,
        ),
        (Resource.VALUE, "PUT"): Description(
            id="putValue",
            summary="Replace the pair whole",
            detail="A body of any type but a form is the value, verbatim; of a form the parts `value` and "
            "`metadata` count. Without metadata or expiry the pair has none afterwards.",
            query=expiry,
            body={BYTES: value, TEXT: {"type": "string"}, FORM: record({"value": value}, {"metadata": metadata})},
            headers=_WRITTEN,
            problems=problems.VALUE + problems.MULTIPART + problems.RATE + problems.BODY,
            example_query="expiration_ttl=300",
            example_body="--data-binary 'hello'",
        ),
        (Resource.VALUE, "DELETE"): Description(
            id="deleteValue",
            summary="Delete the pair, whether or not it exists",
            headers=_WRITTEN,
            problems=problems.RATE,
        ),
        (Resource.METADATA, "GET"): Description(
            id="getMetadata",
            summary="The pair's metadata, or null",
            result=schemas.ANY,
            headers=_READ,
            conditional=True,
            problems=problems.PAIR,
        ),
    }


def _of_bulk(limits: Limits) -> dict[Place, Description]:
    key = schemas.key_schema(limits)
    names = {JSON: array(key, maxItems=bulk.ELEMENTS_MAX)}
    wanted = record(
        {"keys": array(key, minItems=1, maxItems=bulk.GET_KEYS_MAX)},
        {"type": {"enum": ["text", "json"], "default": "text"}, "withMetadata": {"type": "boolean"}},
    )
    return {
        (Resource.BULK, "PUT"): Description(
            id="putMany",
            summary=f"Write up to {bulk.ELEMENTS_MAX:,} pairs; of two for one key the last one counts",
            detail=_BULK_DETAIL,
            body={JSON: array(schemas.pair_schema(limits), maxItems=bulk.ELEMENTS_MAX)},
            result=ref("BulkResult"),
            headers=_BULK_WRITTEN,
            problems=problems.BULK + problems.VALUE,
            example_body='--json \'[{"key": "a", "value": "1"}, {"key": "b", "value": "AAEC", "base64": true}]\'',
        ),
        (Resource.BULK, "DELETE"): Description(
            id="deleteManyWithBody",
            summary="As POST of `bulk/delete`, for older clients",
            detail=_BULK_DETAIL,
            body=names,
            result=ref("BulkResult"),
            headers=_BULK_WRITTEN,
            problems=problems.BULK,
            example_body='--json \'["a", "b"]\'',
        ),
        (Resource.BULK_DELETE, "POST"): Description(
            id="deleteMany",
            summary=f"Delete up to {bulk.ELEMENTS_MAX:,} pairs, whether or not they exist",
            detail=_BULK_DETAIL,
            body=names,
            result=ref("BulkResult"),
            headers=_BULK_WRITTEN,
            problems=problems.BULK,
            example_body='--json \'["a", "b"]\'',
        ),
        (Resource.BULK_GET, "POST"): Description(
            id="getMany",
            summary=f"Read up to {bulk.GET_KEYS_MAX} values as text or as JSON; null for a key without one",
            detail="With `withMetadata` each is an object with `value`, `metadata` and perhaps `expiration`.",
            body={JSON: wanted},
            result=ref("BulkValues"),
            problems=problems.BULK_GET,
            example_body='--json \'{"keys": ["a", "b"], "withMetadata": true}\'',
        ),
    }
