"""The API as an OpenAPI 3.1 document, made from the endpoints and what is told of them."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any, Final

import msgspec
from aiohttp import web

from kvnet import __version__
from kvnet.api import codes
from kvnet.api import openapi_schemas as schemas
from kvnet.api.codes import Problem
from kvnet.api.endpoints import ENDPOINTS
from kvnet.api.envelope import JSON_HEADERS, RETRY_LATER
from kvnet.api.openapi_endpoints import PATHS, Description, describe
from kvnet.api.openapi_problems import ANYWHERE, problems_on_the_way
from kvnet.api.openapi_schemas import JSON, Schema, path_parameter, ref
from kvnet.api.relaying import READS
from kvnet.api.routes import API_PREFIX, OF_NODE, Resource
from kvnet.core.catalog import Scope
from kvnet.limits import Limits

PATH: Final = "/openapi.json"
OPENAPI_VERSION: Final = "3.1.0"

_ROOT: Final[list[Schema]] = [{"url": "/"}]
"""Where paths stand that aren't served below the prefix."""
_ABOUT: Final = (
    "The REST API of Workers KV, served by every node of a kvnet network. Reads are answered from the node's own "
    "replica; writes go to the coordinator and are answered when this replica has them. HEAD is answered wherever "
    "GET is."
)
_TEXTS: Final = {
    400: "The request can't be understood",
    401: "The token is unknown",
    403: "The token doesn't reach so far",
    404: "Not found",
    405: "The method isn't answered here",
    408: "Nothing of the body came",
    413: "Too large",
    414: "Too long",
    416: "No such part",
    417: "An expectation that can't be met",
    429: "Too early",
    431: "A header is too large",
    500: "A bug",
    502: "The coordinator refuses this node",
    503: "Not now, or not here",
    504: "Not in time",
    507: "The disk is full",
}


def answer(limits: Limits) -> web.Response:
    """Answer with the document; it takes no token."""
    return web.Response(body=_encoded(limits), headers=JSON_HEADERS)


@cache
def _encoded(limits: Limits) -> bytes:
    return msgspec.json.encode(build(limits))


def build(limits: Limits) -> dict[str, Any]:
    """Return the document for a network with these limits."""
    described = describe(limits)
    paths: dict[str, dict[str, Any]] = {
        "/healthz": {"servers": _ROOT, "get": _open("health", "That the process answers", ref("Health"))},
        PATH: {"get": _open("openapi", "This document", {"type": "object"})},
    }
    for resource, endpoints in ENDPOINTS.items():
        item = paths[PATHS[resource]] = _path_item(resource, limits)
        for method, endpoint in endpoints.items():
            description = described[resource, method]
            item[method.lower()] = _operation(resource, method, endpoint.scope, description)
    return {
        "openapi": OPENAPI_VERSION,
        "info": {
            "title": "kvnet",
            "version": __version__,
            "summary": "A key-value store replicated to every point of presence",
            "description": _ABOUT,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": API_PREFIX}],
        "security": schemas.SECURITY,
        "paths": paths,
        "components": {"schemas": schemas.SCHEMAS, "securitySchemes": schemas.SECURITY_SCHEMES},
    }


def problems_of(resource: Resource, method: str, scope: Scope, description: Description) -> list[Problem]:
    """Return everything a request can be refused with, each once, by status and code."""
    found = dict.fromkeys((*problems_on_the_way(resource, scope, method), *description.problems))
    return sorted(found, key=lambda problem: (problem.status, problem.code))


def _path_item(resource: Resource, limits: Limits) -> dict[str, Any]:
    template = PATHS[resource]
    item: dict[str, Any] = {"servers": _ROOT} if resource in OF_NODE else {}
    known = {
        "{account_id}": path_parameter("account_id", schemas.HEX_ID, "The cluster's one account."),
        "{namespace_id}": path_parameter("namespace_id", schemas.HEX_ID, "A namespace's id."),
        "{token_id}": path_parameter("token_id", schemas.TOKEN_ID, "A token's id, not its secret."),
        "{key}": path_parameter(
            "key",
            schemas.key_schema(limits),
            "All that follows, percent-decoded once as UTF-8; `+` and further slashes are literal.",
        ),
    }
    parameters = [parameter for name, parameter in known.items() if name in template]
    if parameters:
        item["parameters"] = parameters
    return item


def _operation(resource: Resource, method: str, scope: Scope, description: Description) -> dict[str, Any]:
    parameters = [*description.query, *_request_headers(resource, method, scope)]
    if description.conditional:
        parameters.append(schemas.IF_NONE_MATCH)
    if description.partial:
        parameters += [schemas.RANGE, schemas.IF_RANGE]
    operation: dict[str, Any] = {
        "operationId": description.id,
        "summary": description.summary,
        "description": f"{description.detail} Takes a token of scope {scope.value}.".strip(),
    }
    if parameters:
        operation["parameters"] = parameters
    if description.body is not None:
        content = {type_: {"schema": schema} for type_, schema in description.body.items()}
        operation["requestBody"] = {"required": True, "content": content}
    headers = {
        "KV-Pop": schemas.POP,
        "KV-Position": schemas.POSITION,
        "KV-Staleness-Ms": schemas.STALENESS,
        **({"KV-Relayed-By": schemas.RELAYED_BY} if scope is Scope.READ and resource in READS else {}),
        **description.headers,
    }
    answers = description.plain
    if answers is None:
        result = description.result
        if schemas.WAIT in parameters:
            result = schemas.waited(result)
        answers = {JSON: schemas.success(result, description.result_info)}
    content = {type_: {"schema": schema} for type_, schema in answers.items()}
    operation["responses"] = {
        "200": {"description": description.summary, "headers": headers, "content": content}
    } | _failures(problems_of(resource, method, scope, description))
    if description.partial:
        some = {"description": "The part asked for", "content": content}
        operation["responses"]["206"] = some | {"headers": headers | {"Content-Range": schemas.CONTENT_RANGE}}
    if description.conditional:
        known = {"description": "The client has it already", "headers": {"ETag": schemas.ETAG}}
        operation["responses"]["304"] = known
    return operation


def _request_headers(resource: Resource, method: str, scope: Scope) -> list[Schema]:
    if resource in OF_NODE:
        return []
    headers = [schemas.AT_LEAST, schemas.WAIT_TIMEOUT]
    if scope is Scope.READ:
        headers.append(schemas.MAX_STALENESS)
    elif method != "GET":
        headers += [schemas.REQUEST_ID, schemas.WAIT]
    return headers


def _open(id_: str, summary: str, schema: Schema) -> dict[str, Any]:
    """Return an operation that takes no token."""
    answer = {"description": summary, "headers": {"KV-Pop": schemas.POP}, "content": {JSON: {"schema": schema}}}
    return {
        "operationId": id_,
        "summary": summary,
        "security": [],
        "responses": {"200": answer} | _failures(ANYWHERE),
    }


def _failures(problems: Iterable[Problem]) -> dict[str, Any]:
    by_status: dict[int, list[Problem]] = {}
    for problem in problems:
        by_status.setdefault(problem.status, []).append(problem)
    return {str(status): _failure(status, rows) for status, rows in sorted(by_status.items())}


def _failure(status: int, rows: list[Problem]) -> dict[str, Any]:
    texts = "\n".join(f"- {row.code}: {row.text}" for row in rows)
    known = {row.code for row in rows}
    beside = {companion["code"] for code in known for companion in codes.COMPANIONS.get(code, ())}
    answer: dict[str, Any] = {
        "description": f"{_TEXTS[status]}.\n\n{texts}",
        "content": {JSON: {"schema": schemas.failure(sorted(known | beside))}},
    }
    if status in RETRY_LATER:
        answer["headers"] = {"Retry-After": schemas.RETRY_AFTER}
    elif status == 405:
        answer["headers"] = {"Allow": schemas.ALLOW}
    return answer
