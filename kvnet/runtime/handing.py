"""A client's connection that goes on in another process: descriptor, what came of it, and no byte lost."""

from __future__ import annotations

import asyncio
import os
import socket
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, NamedTuple

from kvnet.runtime.channel import CONNECTION, LONG_CONNECTION, MESSAGE_BYTES_MAX, Channel

WAIT_S: Final = 5.0
"""How long a connection waits for a node that is away; a launcher has started it again by then."""
WAITING_MAX: Final = 1024
_DRAINED_BYTES: Final = 65_536


def send_connection(channel: Channel, connection: int, received: bytes) -> None:
    """Let the other end go on with a connection, whose descriptor is closed here."""
    if len(received) < MESSAGE_BYTES_MAX:
        channel.send(CONNECTION, received, [connection])
        return
    file = os.memfd_create("received", os.MFD_CLOEXEC)
    with os.fdopen(os.dup(file), "wb") as writing:
        writing.write(received)
    channel.send(LONG_CONNECTION, b"", [connection, file])


def read_connection(kind: bytes, content: bytes, files: list[int]) -> tuple[socket.socket, bytes] | None:
    """Return the connection that a message carries, and what came of it; None if it carries none."""
    if kind == LONG_CONNECTION and len(files) == 2:
        with os.fdopen(files.pop(), "rb") as file:
            file.seek(0)
            content = file.read()
    if len(files) != 1:
        for each in files:
            os.close(each)
        return None
    try:
        return socket.socket(fileno=files[0]), content
    except OSError:
        os.close(files[0])
        return None


class Arriving(asyncio.Protocol):
    """Begins a connection that another process had: what came there comes first."""

    def __init__(self, protocol: asyncio.Protocol, received: bytes) -> None:
        self._protocol = protocol
        self._received = received

    def connection_made(self, transport: Any) -> None:
        transport.set_protocol(self._protocol)
        self._protocol.connection_made(transport)
        if not transport.is_closing():
            self._protocol.data_received(self._received)


async def go_on_with(factory: Callable[[], Any], connection: socket.socket, received: bytes) -> None:
    """Serve a connection of which this came already."""
    connection.setblocking(False)
    try:
        await asyncio.get_running_loop().connect_accepted_socket(lambda: Arriving(factory(), received), connection)
    except OSError:  # its client is gone
        connection.close()


class _Waiting(NamedTuple):
    connection: int
    received: bytes
    since: float


class HandOver:
    """Hands connections to a node that may be away for a moment."""

    def __init__(self, refusal: Callable[[bytes], bytes]) -> None:
        """`refusal` gives the answer to a request, by its first bytes, whose node didn't come back in time."""
        self._refusal = refusal
        self._channel: Channel | None = None
        self._waiting: deque[_Waiting] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def connect(self, channel: Channel | None) -> None:
        """The node is there, or None: it is away."""
        self._channel = channel
        while channel is not None and channel.is_open and self._waiting:
            waiting = self._waiting.popleft()
            send_connection(channel, waiting.connection, waiting.received)

    def take(self, connection: int, received: bytes) -> None:
        """Hand on a copy of this descriptor, now or when the node is back."""
        own = os.dup(connection)
        if self._channel is not None and self._channel.is_open:
            send_connection(self._channel, own, received)
            return
        waiting = _Waiting(own, received, asyncio.get_running_loop().time())
        if len(self._waiting) >= WAITING_MAX:
            self._refuse(waiting)
            return
        self._waiting.append(waiting)
        self._look()

    def close(self) -> None:
        """Refuse what waits."""
        while self._waiting:
            self._refuse(self._waiting.popleft())
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting and self._waiting[0].since + WAIT_S <= loop.time():
            self._refuse(self._waiting.popleft())
        if self._timer is not None:
            self._timer.cancel()
        self._timer = loop.call_at(self._waiting[0].since + WAIT_S, self._look) if self._waiting else None

    def _refuse(self, waiting: _Waiting) -> None:
        """Answer, and hang up; what its client has sent is read first, since it would see a reset otherwise."""
        with socket.socket(fileno=waiting.connection) as connection, suppress(OSError):
            connection.setblocking(False)
            connection.send(self._refusal(waiting.received))
            connection.shutdown(socket.SHUT_WR)
            connection.recv(_DRAINED_BYTES)
