"""The monitor's HTTP: /healthz, /status, /report, /report.txt, POST /mark. Thin; the answers are `watch`'s.

    GET  /report[?since=MARK]       everything, or what was committed since that mark
    POST /mark  {"name": "…"}       begins a window of that name

All but /healthz need a bearer token of the cluster, whatever its scope. Errors have the form of the API.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, Final, Protocol

from aiohttp import web

from kvnet.errors import RequestError
from kvnet.monitor.report import report_text

_BEARER: Final = re.compile(r"(?i:bearer) +([\x21-\x7e]{1,1024})")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class Reporter(Protocol):
    """What is asked here."""

    def report(self, since: str | None) -> dict[str, Any] | None: ...
    def mark(self, name: str) -> dict[str, Any]: ...
    def status(self) -> dict[str, Any]: ...


async def handle(
    reporter: Reporter, authorize: Callable[[str], bool], request: web.BaseRequest
) -> web.StreamResponse:
    """Answer one request."""
    try:
        if request.path == "/healthz":
            return _json({"status": "ok", "name": "monitor", "ready": True})
        _check_token(request, authorize)
        return await _answer(reporter, request)
    except RequestError as error:
        errors = [{"code": error.code, "message": error.message}]
        return _json({"success": False, "errors": errors, "messages": [], "result": None}, status=error.status)


async def _answer(reporter: Reporter, request: web.BaseRequest) -> web.Response:
    match request.method, request.path:
        case (("GET" | "HEAD"), "/report"):
            return _json(_report(reporter, request))
        case (("GET" | "HEAD"), "/report.txt"):
            return web.Response(text=report_text(_report(reporter, request)))
        case (("GET" | "HEAD"), "/status"):
            return _json(reporter.status())
        case "POST", "/mark":
            return _json(reporter.mark(await _mark_name(request)))
        case _, "/report" | "/report.txt" | "/status" | "/mark":
            raise RequestError(405, 10405, "Method not allowed")
        case _:
            text = "the monitor answers /report, /report.txt, /mark, /status and /healthz only"
            raise RequestError(404, 7003, text)


def _check_token(request: web.BaseRequest, authorize: Callable[[str], bool]) -> None:
    authorization = request.headers.get("Authorization")
    if authorization is None:
        raise RequestError(400, 9106, "Missing X-Auth-Key, X-Auth-Email or Authorization headers")
    bearer = _BEARER.fullmatch(authorization.strip())
    if bearer is None:
        raise RequestError(400, 6003, "Invalid request headers")
    if not authorize(bearer[1]):
        raise RequestError(401, 10000, "Authentication error")


def _report(reporter: Reporter, request: web.BaseRequest) -> dict[str, Any]:
    since = request.query.get("since")
    report = reporter.report(since)
    if report is None:
        raise RequestError(
            404, 10001, f"no mark is called {since!r:.80} since the monitor's start: set it with POST /mark"
        )
    return report


async def _mark_name(request: web.BaseRequest) -> str:
    """Read the name of a mark."""
    try:
        name = json.loads(await request.read())["name"]
    except (web.HTTPException, ValueError, KeyError, TypeError):
        name = None
    if not isinstance(name, str) or not _NAME.fullmatch(name) or name == "start":
        raise RequestError(
            400, 10001, 'the body is {"name": "…"} with up to 64 letters, digits, dots, dashes; not "start"'
        )
    return name


def _json(document: Any, status: int = 200) -> web.Response:
    return web.Response(status=status, text=json.dumps(document), content_type="application/json")
