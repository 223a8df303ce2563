"""The words of the OpenAPI document: what its endpoints share of schemas, parameters and headers."""

from __future__ import annotations

from typing import Any, Final

from kvnet.core.catalog import Scope
from kvnet.limits import Limits

Schema = dict[str, Any]

JSON: Final = "application/json"
BYTES: Final = "application/octet-stream"
TEXT: Final = "text/plain"
FORM: Final = "multipart/form-data"

ANY: Final[Schema] = {}
NULL: Final[Schema] = {"type": "null"}
TEXT_VALUE: Final[Schema] = {"type": "string"}
VERSION: Final[Schema] = {"type": "string", "pattern": "^[0-9]+-[0-9]+$", "examples": ["1-42"]}
MILLISECONDS: Final[Schema] = {"type": "integer", "minimum": 0}
UNIX_SECONDS: Final[Schema] = {"type": "integer", "description": "Seconds since 1970."}
TOKEN_ID: Final[Schema] = {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$"}
HEX_ID: Final[Schema] = {"type": "string", "pattern": "^[0-9a-fA-F]{32}$"}


SCOPES: Final = [str(scope) for scope in Scope]


def ref(name: str) -> Schema:
    """Return a reference to one of the document's schemas."""
    return {"$ref": f"#/components/schemas/{name}"}


def array(items: Schema, **bounds: int) -> Schema:
    return {"type": "array", "items": items} | bounds


def record(required: dict[str, Schema], optional: dict[str, Schema] | None = None) -> Schema:
    """Return an object that has these members, and perhaps those and others."""
    schema: Schema = {"type": "object", "properties": required | (optional or {})}
    if required:
        schema["required"] = list(required)
    return schema


def waited(result: Schema) -> Schema:
    """Return the result of a write, which with KV-Wait tells its spread as well. A text has no room for that."""
    if result is NULL:
        return {"anyOf": [NULL, ref("Spread")]}
    return result if result is TEXT_VALUE else {"anyOf": [result, {"allOf": [result, ref("Spread")]}]}


def success(result: Schema, result_info: Schema | None) -> Schema:
    """Return the envelope around a result."""
    members: dict[str, Schema] = {
        "success": {"const": True},
        "errors": array(ANY, maxItems=0),
        "messages": array({"type": "object"}),
        "result": result,
    }
    if result_info is not None:
        members["result_info"] = result_info
    return record(members)


def failure(codes: list[int]) -> Schema:
    """Return the envelope of an error that has one of these codes."""
    code = {"type": "object", "properties": {"code": {"enum": codes}}}
    return {"allOf": [ref("Failure"), {"properties": {"errors": {"items": code}}}]}


_ERROR: Final = record({"code": {"type": "integer", "minimum": 1000}, "message": TEXT_VALUE})
_SECRET: Final[Schema] = {"type": "string", "description": "The secret; it is never shown again."}
_TOKEN: Final = record(
    {
        "id": TEXT_VALUE,
        "name": TEXT_VALUE,
        "status": {"enum": ["active", "expired"]},
        "scope": {"enum": SCOPES},
        "namespaces": array(HEX_ID) | {"description": "Those it is good for; none for all."},
    },
    {"issued_on": TEXT_VALUE, "expires_on": TEXT_VALUE},
)
_COUNT: Final[Schema] = {"type": "integer", "minimum": 0}

SCHEMAS: Final[dict[str, Schema]] = {
    "Failure": record(
        {
            "success": {"const": False},
            "errors": array({"$ref": "#/components/schemas/Error"}, minItems=1),
            "messages": array({"type": "object"}, maxItems=0),
            "result": NULL,
        }
    ),
    "Error": _ERROR | {"properties": _ERROR["properties"] | {"error_chain": array(_ERROR)}},
    "PageInfo": record(dict.fromkeys(("page", "per_page", "count", "total_count", "total_pages"), _COUNT)),
    "CursorInfo": record(
        {
            "count": _COUNT,
            "cursor": {"type": "string", "description": "Of the next page; empty at the end."},
            "cursors": record({"after": TEXT_VALUE}),
        }
    ),
    "Namespace": record({"id": HEX_ID, "title": TEXT_VALUE, "supports_url_encoding": {"const": True}}),
    "Key": record({"name": TEXT_VALUE}, {"expiration": UNIX_SECONDS, "metadata": ANY}),
    "Account": record(
        {"id": HEX_ID, "name": TEXT_VALUE},
        {"type": TEXT_VALUE, "settings": {"type": "object"}, "created_on": TEXT_VALUE},
    ),
    "Membership": record(
        {"id": TEXT_VALUE, "status": TEXT_VALUE, "account": ref("Account")},
        {"roles": array(TEXT_VALUE), "permissions": {"type": "object"}},
    ),
    "BulkResult": record({"successful_key_count": _COUNT, "unsuccessful_keys": array(TEXT_VALUE)}),
    "BulkValues": record({"values": {"type": "object", "description": "By key; null for one without a value."}}),
    "Spread": record(
        {
            "complete": {"type": "boolean", "description": "Whether as many as were waited for have the write."},
            "applied": _COUNT,
            "of": _COUNT,
            "missing": array(TEXT_VALUE) | {"description": "PoPs that haven't told that they have it."},
            "took_ms": {
                "type": "object",
                "additionalProperties": {"type": "number", "minimum": 0},
                "description": "By PoP: from when it was durable until the coordinator had heard of it.",
            },
        }
    ),
    "Token": _TOKEN,
    "NewToken": {"allOf": [ref("Token"), record({"value": _SECRET})]},
    "TokenState": record({"id": TEXT_VALUE, "status": TEXT_VALUE}),
    "Health": record(
        {"status": {"const": "ok"}, "name": TEXT_VALUE, "pop": TEXT_VALUE, "ready": {"type": "boolean"}}
    ),
    "Usage": record(
        {
            "name": TEXT_VALUE,
            "position": VERSION,
            "months": {"type": "object", "description": "By month and namespace id: operations and byte-seconds."},
            "namespaces": {"type": "object", "description": "By id: title, keys and bytes."},
        }
    ),
    "Status": {"type": "object", "description": "What the node says of itself; operations.md explains it."},
}


def title_body(characters_max: int, optional: dict[str, Schema] | None = None) -> Schema:
    return record({"title": {"type": "string", "minLength": 1, "maxLength": characters_max}}, optional)


def token_body(characters_max: int, namespaces_max: int) -> Schema:
    return record(
        {"name": {"type": "string", "minLength": 1, "maxLength": characters_max}},
        {
            "scope": {"enum": SCOPES, "default": str(Scope.READ)},
            "namespaces": array(HEX_ID, maxItems=namespaces_max)
            | {"description": "Those it is good for; none for all. Not with scope admin."},
            "expires_on": {"type": "string", "format": "date-time", "description": "Never, if left out."},
        },
    )


def pair_schema(limits: Limits) -> Schema:
    """Return one element of a bulk put."""
    return record(
        {
            "key": key_schema(limits),
            "value": {"type": "string", "maxLength": limits.value_bytes_max},
        },
        {
            "base64": {
                "type": "boolean",
                "default": False,
                "description": "Whether the value is base64 of bytes.",
            },
            "expiration": UNIX_SECONDS,
            "expiration_ttl": {"type": "integer", "minimum": limits.ttl_seconds_min},
            "metadata": ANY,
        },
    )


def key_schema(limits: Limits) -> Schema:
    return {"type": "string", "minLength": 1, "maxLength": limits.key_bytes_max}


def query(name: str, schema: Schema, description: str) -> Schema:
    return {"name": name, "in": "query", "required": False, "schema": schema, "description": description}


def path_parameter(name: str, schema: Schema, description: str) -> Schema:
    return {"name": name, "in": "path", "required": True, "schema": schema, "description": description}


def request_header(name: str, schema: Schema, description: str) -> Schema:
    return {"name": name, "in": "header", "required": False, "schema": schema, "description": description}


def answer_header(schema: Schema, description: str, *, always: bool = False) -> Schema:
    return {"schema": schema, "required": always, "description": description}


AT_LEAST: Final = request_header(
    "KV-At-Least",
    VERSION,
    "Wait until the replica has this version; then a read is put to a node that has it, or it is 504.",
)
WAIT_TIMEOUT: Final = request_header(
    "KV-Wait-Timeout-Ms",
    MILLISECONDS | {"maximum": 30_000, "default": 1000},
    "How long KV-At-Least and KV-Max-Staleness-Ms wait, and KV-Wait, by default 10,000.",
)
IF_NONE_MATCH: Final = request_header("If-None-Match", {"type": "string"}, "An ETag; then 304 if it is still so.")
RANGE: Final = request_header("Range", {"type": "string"}, "One range of bytes, such as `bytes=0-999`; then 206.")
IF_RANGE: Final = request_header("If-Range", {"type": "string"}, "An ETag: of another version send all.")
MAX_STALENESS: Final = request_header(
    "KV-Max-Staleness-Ms",
    MILLISECONDS,
    "Don't read from a replica that may be staler: wait for its next beacon, then ask a fresher node, or 503.",
)
REQUEST_ID: Final = request_header(
    "KV-Request-Id",
    {"type": "string", "pattern": "^[!-~]{1,64}$"},
    "Names this write: sent again with the same id, it is answered and not repeated.",
)
WAIT: Final = request_header(
    "KV-Wait",
    {"type": "string", "pattern": r"^(local|all|[0-9]{1,3}(\.[0-9]{1,3})?%)$"},
    "Answer when this replica has the write, or so many PoPs: the result then tells how far it has spread.",
)

POP: Final = answer_header(TEXT_VALUE, "The PoP that answers.", always=True)
RELAYED_BY: Final = answer_header(
    TEXT_VALUE, "The PoP that was asked, where another one answers; absent where it answers itself."
)
POSITION: Final = answer_header(VERSION, "How far the replica is.", always=True)
STALENESS: Final = answer_header(
    MILLISECONDS | {"multipleOf": 500}, "Upper bound on the age of the replica's view; absent while there is none."
)
PENDING: Final = answer_header({"const": "1"}, "The write is durable, but this replica doesn't have it yet.")
RECORD_VERSION: Final = answer_header(VERSION, "The record's version.", always=True)
WRITE_VERSION: Final = answer_header(VERSION, "The write's version.", always=True)
LAST_VERSION: Final = answer_header(VERSION, "The version of the last write; absent if there was none.")
CONTENT_RANGE: Final = answer_header({"type": "string"}, "Which bytes of how many.", always=True)
ETAG: Final = answer_header({"type": "string"}, "The version, in quotes.")
EXPIRATION: Final = answer_header(UNIX_SECONDS, "When the pair expires; absent if never.")
RETRY_AFTER: Final = answer_header({"type": "integer", "minimum": 1}, "Seconds to wait.", always=True)
ALLOW: Final = answer_header({"type": "string"}, "The methods that are answered.")

SECURITY_SCHEMES: Final[dict[str, Schema]] = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "A token of this cluster."},
    "key": {"type": "apiKey", "in": "header", "name": "X-Auth-Key", "description": "The same token."},
    "email": {"type": "apiKey", "in": "header", "name": "X-Auth-Email", "description": "Anything but nothing."},
}
SECURITY: Final[list[dict[str, list[str]]]] = [{"bearer": []}, {"key": [], "email": []}]
