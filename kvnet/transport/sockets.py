"""A WebSocket as links use it, whichever side dialled: whole binary messages in, writes that never wait.

aiohttp makes the connection and its upgrade. From there on the transport is ours: a message costs no future, no
task and no wake-up of its own. aiohttp hears of the end, and takes the connection out of its books.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from aiohttp import (
    ClientResponse,
    ClientSession,
    ClientTimeout,
    ClientWebSocketResponse,
    DummyCookieJar,
    TCPConnector,
    web,
)

from kvnet.core.messages import MESSAGE_BYTES_MAX
from kvnet.transport.handshake import HANDSHAKE_BYTES_MAX
from kvnet.transport.websocket import CloseCode, FrameReader, Opcode, Violation, header, mask, mask_keys

USER_TIMEOUT_MS: Final = 5000
"""A connection whose data nobody acknowledges for this long is closed by the kernel."""
UNSENT_LOWAT_BYTES: Final = 128 * 1024
"""More than this stays with us instead of in the kernel's send buffer, where nobody sees it."""
JOINED_BYTES_MAX: Final = 16 * 1024
"""A longer message is written after its header instead of being copied behind it."""
READ_AHEAD_BYTES: Final = 256 * 1024
"""More than this isn't taken from the kernel for somebody who calls `read` too rarely."""
PONGS_UNSENT_MAX_BYTES: Final = 64 * 1024
"""Who doesn't read what we write gets no more answers to pings."""

_log = logging.getLogger(__name__)


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


class Connection(asyncio.Protocol):
    """One WebSocket connection between two nodes; the protocol of its transport.

    Until `trust` is called, the peer may say one short message at a time, and is cut off if it says more.
    """

    __slots__ = (
        "_former",
        "_is_over",
        "_keys",
        "_on_message",
        "_reader",
        "_response",
        "_transport",
        "_trusted",
        "_unread",
        "_unread_bytes",
        "_waiter",
    )

    def __init__(
        self, transport: asyncio.Transport, former: asyncio.BaseProtocol, response: ClientResponse | None
    ) -> None:
        """Take `transport` over from aiohttp's protocol `former`; `response` is the dialler's answer, or None."""
        self._transport = transport
        self._former: asyncio.BaseProtocol | None = former
        self._response = response
        dialled = response is not None
        self._keys = mask_keys() if dialled else None
        self._reader = FrameReader(self._on_control, masked=not dialled, message_bytes_max=HANDSHAKE_BYTES_MAX)
        self._trusted = False
        self._is_over = False
        self._unread: deque[bytes] = deque()
        self._unread_bytes = 0
        self._waiter: asyncio.Future[None] | None = None
        self._on_message: Callable[[bytes], None] = self._keep
        raw = transport.get_extra_info("socket")
        if raw is not None and raw.family in {socket.AF_INET, socket.AF_INET6}:
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_LOWAT_BYTES)
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT_MS)
        transport.set_protocol(self)

    @classmethod
    async def dial(cls, session: ClientSession, url: str) -> Connection:
        """Connect to `url` of a node (http or https).

        Raises:
            OSError, ClientError: nobody is there, or it isn't a node.
        """
        peer_socket = await session.ws_connect(url, compress=0)
        assert isinstance(peer_socket, _DialledSocket), "the session is not from new_session()"
        response = peer_socket.response
        assert response.connection is not None
        assert response.connection.protocol is not None
        connection = cls(peer_socket.transport, response.connection.protocol, response)
        connection._hear_nothing_early(peer_socket)
        return connection

    @classmethod
    async def accept(cls, request: web.BaseRequest) -> tuple[Connection, web.WebSocketResponse]:
        """Take the upgrade that `request` asks for; the handler must return the second value at its end.

        Raises:
            web.HTTPBadRequest: it asks for none.
            ConnectionResetError: it is gone already.
        """
        peer_socket = web.WebSocketResponse(compress=False)
        await peer_socket.prepare(request)
        if request.transport is None:
            raise ConnectionResetError("closed while it was being accepted")
        connection = cls(request.transport, request.protocol, None)
        connection._hear_nothing_early(peer_socket)
        return connection, peer_socket

    def trust(self) -> None:
        """The peer has proven itself: from now on its messages may have MESSAGE_BYTES_MAX bytes."""
        self._trusted = True
        self._reader.message_bytes_max = MESSAGE_BYTES_MAX

    async def read(self) -> bytes | None:
        """Return the next message; None at the end, however it came."""
        if not self._unread:
            await self._wait()
            if not self._unread:
                return None
        message = self._unread.popleft()
        self._unread_bytes -= len(message)
        if not self._unread and not self._transport.is_closing():
            self._transport.resume_reading()
        return message

    async def pass_on(self, on_message: Callable[[bytes], None]) -> None:
        """Call `on_message` with each message as soon as it is there; return at the end of the connection."""
        while self._unread:
            on_message(self._unread.popleft())
        self._unread_bytes = 0
        if not self._transport.is_closing():
            self._transport.resume_reading()
        self._on_message = on_message
        try:
            await self._wait()
        finally:
            self._on_message = _drop

    def write(self, data: bytes) -> None:
        """Hand one message to the kernel or, when that is full, to the transport's buffer; never waits.

        What is written to a closing connection is lost; the end of `read` or `pass_on` tells of it.
        """
        self._write(Opcode.BINARY, data)

    def buffered_bytes(self) -> int:
        """Bytes that the kernel hasn't taken."""
        return self._transport.get_write_buffer_size()

    def close(self, code: CloseCode = CloseCode.NORMAL) -> None:
        """Close once everything written is with the kernel; `read` returns what has come, then None."""
        if not self._transport.is_closing():
            self._write(Opcode.CLOSE, code.to_bytes(2, "big"))
        self._transport.close()
        self._release()

    def abort(self) -> None:
        """Close now."""
        self._transport.abort()
        self._release()

    # -- asyncio.Protocol ------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        try:
            self._reader.feed(data, self._on_message)
        except Violation as violation:
            _log.debug("a peer broke the protocol: %s", violation)
            self.close(violation.code)

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_over = True
        self._on_message = _drop
        if self._former is not None:
            self._former.connection_lost(exc)
            self._former = None
        self._release()
        self._wake()

    # -- inside ----------------------------------------------------------------------------------------------

    def _hear_nothing_early(self, peer_socket: Any) -> None:
        """Close if the peer spoke before it was its turn: that went to aiohttp's reader, not to ours.

        A part of a message that is lost there leaves a stream that makes no sense, which ends it as well.
        """
        if peer_socket._reader._buffer:  # noqa: SLF001 - there is no public way to look without waiting
            self.close(CloseCode.PROTOCOL_ERROR)

    def _write(self, opcode: int, data: bytes) -> None:
        transport = self._transport
        if transport.is_closing():
            return
        if self._keys is None:
            head = header(opcode, len(data))
        else:
            key = next(self._keys)
            head = header(opcode, len(data), key)
            data = mask(key, data)
        if len(data) <= JOINED_BYTES_MAX:
            transport.write(head + data)
        else:
            transport.write(head)
            transport.write(data)

    def _keep(self, message: bytes) -> None:
        self._unread.append(message)
        self._unread_bytes += len(message)
        if not self._trusted and len(self._unread) > 1:
            raise Violation(CloseCode.UNPROVEN, "it doesn't wait for our answer")
        if self._unread_bytes > READ_AHEAD_BYTES and not self._transport.is_closing():
            self._transport.pause_reading()
        self._wake()

    def _on_control(self, opcode: Opcode, payload: bytes) -> None:
        if opcode is Opcode.PING and self.buffered_bytes() < PONGS_UNSENT_MAX_BYTES:
            self._write(Opcode.PONG, payload)
        elif opcode is Opcode.CLOSE:
            self.close()

    async def _wait(self) -> None:
        """Return when there is something unread, or nothing to come any more."""
        if self._is_over:
            return
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _release(self) -> None:
        """Take the connection out of the session's books, which would wait for its end when they are closed."""
        if self._response is not None:
            self._response.close()
            self._response = None


def _drop(message: bytes) -> None:
    del message  # nobody listens any more
