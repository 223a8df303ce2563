"""A WebSocket as links use it, whichever side dialled: whole binary messages in, writes that never wait."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Coroutine
from typing import Any, Final

from aiohttp import (
    ClientError,
    ClientResponse,
    ClientSession,
    ClientTimeout,
    ClientWebSocketResponse,
    DummyCookieJar,
    TCPConnector,
    WSMsgType,
    web,
)

from kvnet.core.messages import MESSAGE_BYTES_MAX

USER_TIMEOUT_MS: Final = 5000
"""A connection whose data nobody acknowledges for this long is closed by the kernel."""
UNSENT_LOWAT_BYTES: Final = 128 * 1024
"""More than this stays with us instead of in the kernel's send buffer, where nobody sees it."""


class _DialledSocket(ClientWebSocketResponse):
    """aiohttp's client side, which otherwise keeps its transport and its connection to itself."""

    def __init__(
        self, reader: Any, writer: Any, protocol: str | None, response: ClientResponse, *args: Any, **kwargs: Any
    ) -> None:
        super().__init__(reader, writer, protocol, response, *args, **kwargs)
        self.transport: asyncio.Transport = writer.transport
        self.response = response


def new_session() -> ClientSession:
    """Return the one HTTP client of a process: for links, feeds and forwarded writes. Close it at the end."""
    return ClientSession(
        connector=TCPConnector(limit=0, ttl_dns_cache=60),
        cookie_jar=DummyCookieJar(),
        timeout=ClientTimeout(total=None, sock_connect=5),
        ws_response_class=_DialledSocket,
        trust_env=False,
    )


class Connection:
    """One WebSocket connection between two nodes."""

    __slots__ = ("_socket", "_transport")

    def __init__(self, peer_socket: _DialledSocket | web.WebSocketResponse, transport: asyncio.Transport) -> None:
        self._socket = peer_socket
        self._transport = transport
        raw = transport.get_extra_info("socket")
        if raw is not None and raw.family in {socket.AF_INET, socket.AF_INET6}:
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_LOWAT_BYTES)
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT_MS)

    @classmethod
    async def dial(cls, session: ClientSession, url: str) -> Connection:
        """Connect to `url` of a node (http or https).

        Raises:
            OSError, ClientError: nobody is there, or it isn't a node.
        """
        peer_socket = await session.ws_connect(url, compress=0, max_msg_size=MESSAGE_BYTES_MAX)
        assert isinstance(peer_socket, _DialledSocket), "the session is not from new_session()"
        return cls(peer_socket, peer_socket.transport)

    @classmethod
    async def accept(cls, request: web.BaseRequest) -> tuple[Connection, web.WebSocketResponse]:
        """Take the upgrade that `request` asks for; the handler must return the second value at its end.

        Raises:
            web.HTTPBadRequest: it asks for none.
            ConnectionResetError: it is gone already.
        """
        peer_socket = web.WebSocketResponse(compress=False, max_msg_size=MESSAGE_BYTES_MAX)
        await peer_socket.prepare(request)
        transport = request.transport
        if transport is None:
            raise ConnectionResetError("closed while it was being accepted")
        return cls(peer_socket, transport), peer_socket

    async def read(self) -> bytes | None:
        """Return the next message; None at the end, however it came, or when it isn't binary or is too large."""
        message = await self._socket.receive()
        return message.data if message.type is WSMsgType.BINARY else None

    def write(self, data: bytes) -> None:
        """Hand one message to the kernel or, when that is full, to the transport's buffer; never waits.

        What is written to a closing connection is lost; `read` tells of its end.
        """
        if not self._transport.is_closing():
            _run_without_waiting(self._socket.send_bytes(data))

    def buffered_bytes(self) -> int:
        """Bytes that the kernel hasn't taken."""
        return self._transport.get_write_buffer_size()

    def close(self) -> None:
        """Close once everything written is with the kernel; `read` then returns None."""
        self._transport.close()
        self._release()

    def abort(self) -> None:
        """Close now."""
        self._transport.abort()
        self._release()

    def _release(self) -> None:
        """Take the connection out of the session's books; a `read` that was cancelled leaves it there."""
        if isinstance(self._socket, _DialledSocket):
            self._socket.response.close()


def _run_without_waiting(sending: Coroutine[Any, Any, None]) -> None:
    """Run aiohttp's send up to its only possible wait, which comes after the write and is for flow control.

    Flow control is ours (`PeerLinks.unsent_bytes`), so that wait is given up.
    """
    try:
        waits_for = sending.send(None)
    except (StopIteration, ConnectionError, ClientError):
        return
    sending.close()
    if isinstance(waits_for, asyncio.Future):
        # As a task does when it takes a future over: the next write may come to wait for the same one.
        waits_for._asyncio_future_blocking = False  # noqa: SLF001
        waits_for.add_done_callback(lambda future: future.cancelled() or future.exception())
