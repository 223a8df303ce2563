"""The aiohttp server under the service, with its bounds, and with our form for what isn't HTTP at all."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Final

from aiohttp import HttpVersion10, HttpVersion11, StreamReader, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import StreamWriter
from aiohttp.http_exceptions import LineTooLong
from aiohttp.http_parser import RawRequestMessage
from multidict import CIMultiDict

from kvnet.api import codes, envelope
from kvnet.api.service import HttpService

LINE_BYTES_MAX: Final = 16_384
"""A request target: a listing's prefix and cursor, each of the longest key, percent-encoded, fit."""
FIELD_BYTES_MAX: Final = 8_192
"""One header field."""
IDLE_S_MAX: Final = 75
"""How long a connection may rest between requests, or before its first."""
LINGER_S_MAX: Final = 5
"""How long the rest of a refused body is read and dropped, so that its sender gets to see the answer."""

_log = logging.getLogger(__name__)


class _Writer(StreamWriter):
    """Writes answers without Date and Server: nothing here depends on them, and no answer is shorter for them."""

    async def write_headers(self, status_line: str, headers: CIMultiDict[str]) -> None:
        headers.popall("Date", None)
        headers.popall("Server", None)
        await super().write_headers(status_line, headers)


class Connection(web.RequestHandler):
    """One client's connection."""

    __slots__ = ("_on_lost", "_timed")

    def __init__(self, manager: web.Server, *, timed: bool, **settings: Any) -> None:
        """A `timed` connection ends by itself when nothing comes; of another one somebody else takes care."""
        super().__init__(manager, **settings)
        self._timed = timed
        self._on_lost: Callable[[], None] | None = None

    @property
    def idle(self) -> bool:
        """Whether everything that came was answered, and the next request is waited for."""
        return self._waiter is not None and not self._waiter.done() and not self._messages

    def become_timed(self, on_lost: Callable[[], None]) -> None:
        """From here on it ends itself, and then calls `on_lost`."""
        self._timed = True
        self._on_lost = on_lost
        if self._keepalive_handle is None:
            self._next_keepalive_close_time = self._loop.time() + IDLE_S_MAX
            self._keepalive_handle = self._loop.call_at(self._next_keepalive_close_time, self._process_keepalive)

    async def start(self) -> None:
        """Answer what comes, unless the connection has ended before this task had its first turn."""
        if self._manager is not None:
            await super().start()

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        if self._on_lost is not None:
            self._on_lost()

    def _process_keepalive(self) -> None:
        if self._timed:
            super()._process_keepalive()
            return
        self._keepalive_handle = None

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what never became a request; the connection closes after it."""
        if request.writer.output_size:
            raise ConnectionError("an answer has begun already")
        if isinstance(exc, LineTooLong):
            line = LINE_BYTES_MAX in exc.args
            problem = codes.LINE_TOO_LONG if line else codes.HEADERS_TOO_LARGE
            error = problem.error(limit=LINE_BYTES_MAX if line else FIELD_BYTES_MAX)
        elif status < 500:
            error = codes.HTTP_MALFORMED.error(what=(message or "").partition("\n")[0].strip(" :"))
        else:
            _log.error("a request failed outside the service", exc_info=exc)
            error = codes.INTERNAL.error(name="this address")
        response = envelope.failure(error)
        response.force_close()
        return response


class HttpServer(web.Server):
    """A protocol factory for `loop.create_server`."""

    def __init__(self, service: HttpService, **bounds: Any) -> None:
        """Serve `service`; `bounds` replace single settings of aiohttp's connection."""
        # Values are bytes, verbatim: a body that says it is compressed is stored as it came.
        settings: dict[str, Any] = {
            "access_log": None,
            "auto_decompress": False,
            "keepalive_timeout": IDLE_S_MAX,
            "lingering_time": LINGER_S_MAX,
            "max_field_size": FIELD_BYTES_MAX,
            "max_line_size": LINE_BYTES_MAX,
        }
        self._settings = settings | bounds
        super().__init__(service.handle, request_factory=self._request, **self._settings)

    def __call__(self) -> web.RequestHandler:
        return self.connection(timed=True)

    def connection(self, *, timed: bool) -> Connection:
        """Return a protocol for one connection; a `timed` one ends itself when nothing comes."""
        return Connection(self, timed=timed, loop=self._loop, **self._settings)

    def _request(
        self,
        message: RawRequestMessage,
        payload: StreamReader,
        connection: web.RequestHandler,
        _: AbstractStreamWriter,
        task: asyncio.Task[None],
    ) -> web.BaseRequest:
        """Return the request; one of a version that nobody speaks counts as 1.0, and so does its answer."""
        if message.version not in {HttpVersion10, HttpVersion11}:
            message = message._replace(version=HttpVersion10)
        return web.BaseRequest(message, payload, connection, _Writer(connection, self._loop), task, self._loop)
