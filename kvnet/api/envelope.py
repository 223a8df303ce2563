"""The v4 envelope around every answer but a value's bytes."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from aiohttp import web

from kvnet.api import codes
from kvnet.errors import RequestError

JSON_HEADERS: Final = {"Content-Type": "application/json"}
RETRY_LATER: Final = frozenset({429, 503})
"""Statuses whose cure is time: their answers always say how much."""

_encode = msgspec.json.Encoder().encode


def plain(document: Any) -> web.Response:
    """Return a 200 whose body is `document` alone, for what isn't part of the v4 API."""
    return web.Response(body=_encode(document), headers=JSON_HEADERS)


def success(
    result: Any = None, *, result_info: Any = None, messages: list[dict[str, Any]] | None = None
) -> web.Response:
    document = {"success": True, "errors": [], "messages": messages or [], "result": result}
    if result_info is not None:
        document["result_info"] = result_info
    return web.Response(body=_encode(document), headers=JSON_HEADERS)


def failed(error: RequestError) -> bytes:
    """Return the body of an answer that is an error."""
    entry: dict[str, Any] = {"code": error.code, "message": error.message}
    if error.code in codes.CHAINS:
        entry["error_chain"] = codes.CHAINS[error.code]
    errors = [entry, *codes.COMPANIONS.get(error.code, [])]
    return _encode({"success": False, "errors": errors, "messages": [], "result": None})


def failure(error: RequestError) -> web.Response:
    response = web.Response(status=error.status, body=failed(error), headers={**JSON_HEADERS, **error.headers})
    if error.status in RETRY_LATER:
        response.headers.setdefault("Retry-After", "1")
    return response


def iso_time(time_s: int) -> str:
    """Return a time as the API spells it."""
    return datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
