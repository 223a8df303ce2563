"""The fast lane: one connection, answered where its bytes arrive as long as they are plain reads.

Whatever isn't, goes to aiohttp's protocol, bytes and all, which answers on the same connection; the next plain
read is answered here again, if it comes when nothing is under way. Requests are told apart by their heads, which
must leave no room for two readings: a connection on which one doesn't, is aiohttp's from then on.

Where several processes serve one port, a connection may be another one's from a request on that isn't for this one
to answer: it leaves, with what came of it, once all before it is answered.
"""

from __future__ import annotations

import asyncio
import re
import resource
from functools import partial
from time import monotonic
from typing import Any, Final, Protocol

from kvnet.api.heads import END, read_block
from kvnet.api.plain import NO_SHAPE, PlainReads
from kvnet.api.server import IDLE_S_MAX, Connection, HttpServer

PART_BYTES_MAX: Final = 8192
"""A head of which this much came and no end is aiohttp's to bear or refuse."""
HEAD_S_MAX: Final = 15
"""How long a head may take to come."""
AT_ONCE: Final = 64
"""Requests of one connection that are taken before others have their turn."""
SWEEP_S: Final = 2.5
CONNECTIONS_MAX: Final = 16_384
FILES_KEPT: Final = 256
"""File descriptors that clients don't get: the replica, the journal, peers and the log need theirs."""
UNSENT_BYTES_MAX: Final = 512 * 1024
"""A client that takes its answers more slowly is not read from."""
LEAVE_LOOK_S: Final = 0.01
"""How soon a connection that leaves is looked at again, while answers on it are under way."""

_METHOD: Final = re.compile(rb"[A-Z]+ /")
_DIGITS: Final = re.compile(r"[0-9]{1,15}")


class Elsewhere(Protocol):
    """Another process that answers on the same port what this one doesn't."""

    def keeps(self, request: bytes) -> bool:
        """Whether the request with this head is to be answered here."""

    def take(self, connection: int, received: bytes) -> None:
        """Go on with a connection, by its descriptor, of which this came and wasn't answered; it is copied."""


class Lane(asyncio.Protocol):
    """One connection."""

    __slots__ = (
        "_clear",
        "_given_up",
        "_head_s",
        "_heard",
        "_lanes",
        "_leaving",
        "_left",
        "_paused",
        "_plain",
        "_quiet_s",
        "_rest",
        "_resting",
        "_shape",
        "_slow",
        "_transport",
        "_write",
    )

    def __init__(self, lanes: LaneServer, plain: PlainReads) -> None:
        self._lanes = lanes
        self._plain = plain
        self._rest = b""
        """What came and isn't a whole head yet, or has to wait until the client takes its answers."""
        self._slow: Connection | None = None
        """aiohttp's side, once it was needed."""
        self._left = 0
        """Bytes of a body that are still to go there."""
        self._paused = False
        self._given_up = False
        """Whether the connection is aiohttp's alone."""
        self._leaving = False
        """Whether everything from `_rest` on is for another process."""
        self._resting = False
        """Whether more has come than is answered at once, and others have their turn."""
        self._shape = NO_SHAPE
        """Of the last plain read: the next one is mostly of the same."""
        self._clear = True
        """Surely nothing of all this; False if it has to be looked at."""
        self._heard = True
        """Whether anything came since the last sweep."""
        self._quiet_s = 0.0
        """How long nothing has come."""
        self._head_s = 0.0
        """How long the head has been coming that `_rest` begins with."""

    def connection_made(self, transport: Any) -> None:
        self._transport: asyncio.Transport = transport
        self._write = transport.write
        transport.set_write_buffer_limits(high=UNSENT_BYTES_MAX)
        self._lanes.opened(self)

    def data_received(self, data: bytes) -> None:
        plain = self._plain
        if plain.changes[0] != plain.seen or monotonic() >= plain.until:
            plain.renew()
        self._heard = True
        if self._clear or self._is_clear():
            hot = plain.hot
            if hot:
                kept = hot.get(data)
                if kept is not None:
                    answer, shape = kept
                    if not shape.hits:
                        plain.uncounted.append(shape)
                    shape.hits += 1
                    self._write(answer)
                    return
            shape = self._shape
            if data.startswith(shape.begin) and data.endswith(shape.rest):
                key = data[shape.start : shape.end]
            else:
                shape, key = plain.find(data)
                self._shape = shape
            if shape is not NO_SHAPE:
                told = plain.read(shape, key, data)
                if told is not None:
                    self._write(told)
                    return
        self._receive(data)

    def _is_clear(self) -> bool:
        """Whether what comes now is the beginning of a request that may be answered at once."""
        return not self._rest and not self._left and not self._paused and (self._slow is None or self._slow.idle)

    def _receive(self, data: bytes) -> None:
        """Take what came, request by request: some of them, and then others have their turn."""
        self._clear = False
        if self._leaving or self._resting:
            self._rest += data
            return
        if self._rest:
            data = self._rest + data if data else self._rest
            self._rest = b""
        at = taken = 0
        answers: list[bytes] = []
        while at < len(data):
            if self._left:
                body = data[at : at + self._left]
                self._left -= len(body)
                at += len(body)
                self._pass_on(body)
                continue
            end = data.find(END, at)
            if end < 0 or self._paused or taken == AT_ONCE:
                break
            taken += 1
            self._head_s = 0.0
            request = data[at : end + len(END)]
            answer = self._plain.answer(request) if self._slow is None or self._slow.idle else None
            if answer is None:
                self._send(answers)
                left = _body_bytes(request)
                if left is None or not self._lanes.keeps(request):
                    self._give_up(data[at:])
                    return
                self._left = left
                self._pass_on(request)
            else:
                answers.append(answer)
            at += len(request)
        self._send(answers)
        rest = data[at:]
        if not rest:
            self._clear = self._slow is None and not self._paused
        elif END in rest:
            self._rest = rest
            if not self._paused:
                self._resting = True
                self._transport.pause_reading()
                asyncio.get_running_loop().call_soon(self._go_on)
        elif len(rest) > PART_BYTES_MAX or not _begins(rest):
            self._give_up(rest)
        else:
            self._rest = rest

    def _send(self, answers: list[bytes]) -> None:
        if answers:
            self._write(b"".join(answers))
            answers.clear()

    def _go_on(self) -> None:
        """Others have had their turn."""
        self._resting = False
        if self._paused or self._transport.is_closing():
            return
        self._transport.resume_reading()
        self._receive(b"")

    def _pass_on(self, data: bytes) -> None:
        """Have aiohttp answer this; its connection begins with the first."""
        if self._slow is None:
            self._slow = self._lanes.connection(timed=False)
            self._slow.connection_made(self._transport)
            if self._paused:
                self._slow.pause_writing()
        self._plain.count()
        self._slow.data_received(data)

    def _give_up(self, data: bytes) -> None:
        """From here on the connection is aiohttp's alone, or another process's where there is one."""
        self._left = 0
        if self._lanes.elsewhere is not None:
            self._rest = data
            self._leaving = True
            self._transport.pause_reading()
            self._leave(self._lanes.elsewhere)
            return
        self._given_up = True
        self._pass_on(data)
        assert self._slow is not None
        self._slow.become_timed(partial(self._lanes.closed, self))
        self._transport.set_protocol(self._slow)

    def _leave(self, elsewhere: Elsewhere) -> None:
        """Let another process go on with the connection, as soon as all that came before is answered and sent."""
        if self._transport.is_closing():
            return
        busy = self._slow is not None and not self._slow.idle
        if busy or self._transport.get_write_buffer_size():
            asyncio.get_running_loop().call_later(LEAVE_LOOK_S, self._leave, elsewhere)
            return
        self._plain.count()
        elsewhere.take(self._transport.get_extra_info("socket").fileno(), self._rest)
        self._transport.abort()

    def pause_writing(self) -> None:
        self._paused = True
        self._clear = False
        if self._slow is not None:
            self._slow.pause_writing()
        if self._slow is None or self._slow.idle:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._paused = False
        if self._slow is not None:
            self._slow.resume_writing()
        if self._leaving or self._resting:
            return
        if self._slow is None or self._slow.idle:
            self._transport.resume_reading()
        if self._rest:
            self._receive(b"")

    def eof_received(self) -> None:
        """Nothing more will come; what was asked is answered, and the connection ends."""
        if self._slow is not None:
            self._slow.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._slow is not None:
            self._slow.connection_lost(exc)
        self._lanes.closed(self)

    def sweep(self) -> None:
        """End a connection on which nothing has come for too long; to be called every SWEEP_S."""
        if self._given_up or self._leaving or (self._slow is not None and not self._slow.idle):
            self._quiet_s = self._head_s = 0.0
            return
        self._quiet_s = 0.0 if self._heard else self._quiet_s + SWEEP_S
        self._head_s = self._head_s + SWEEP_S if self._rest and not self._paused else 0.0
        self._heard = False
        if self._quiet_s >= IDLE_S_MAX or self._head_s >= HEAD_S_MAX:
            self._transport.abort()

    def close(self) -> None:
        """End the connection unless it is aiohttp's, or aiohttp still answers on it and ends it then."""
        if self._given_up:
            return
        if self._slow is None or self._slow.idle:
            self._transport.close()


class LaneServer:
    """A protocol factory for `loop.create_server`: the fast lane in front of an `HttpServer`."""

    def __init__(self, server: HttpServer, plain: PlainReads, elsewhere: Elsewhere | None = None) -> None:
        """`elsewhere` is who answers what isn't kept here; None if that is nobody."""
        self._server = server
        self._plain = plain
        self.elsewhere = elsewhere
        self._lanes: set[Lane] = set()
        """Every connection, those that are aiohttp's alone by now included."""
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._most = min(CONNECTIONS_MAX, max(1, files - FILES_KEPT))
        self._sweeper: asyncio.TimerHandle | None = None

    def __call__(self) -> asyncio.Protocol:
        if len(self._lanes) >= self._most:
            return _Refused()
        return Lane(self, self._plain)

    def keeps(self, request: bytes) -> bool:
        """Whether the request with this head is answered in this process."""
        return self.elsewhere is None or self.elsewhere.keeps(request)

    def connection(self, *, timed: bool) -> Connection:
        """Return aiohttp's side of a connection; a `timed` one ends itself when nothing comes."""
        return self._server.connection(timed=timed)

    def opened(self, lane: Lane) -> None:
        self._lanes.add(lane)
        if self._sweeper is None:
            self._sweeper = asyncio.get_running_loop().call_later(SWEEP_S, self._sweep)

    def closed(self, lane: Lane) -> None:
        self._lanes.discard(lane)

    def pre_shutdown(self) -> None:
        for lane in list(self._lanes):
            lane.close()
        self._server.pre_shutdown()

    async def shutdown(self, timeout_s: float) -> None:
        """End every connection; one that is being answered has so long."""
        await self._server.shutdown(timeout_s)
        for lane in list(self._lanes):
            lane.close()
        if self._sweeper is not None:
            self._sweeper.cancel()
        self._plain.close()

    def _sweep(self) -> None:
        for lane in list(self._lanes):
            lane.sweep()
        self._sweeper = None
        if self._lanes:
            self._sweeper = asyncio.get_running_loop().call_later(SWEEP_S, self._sweep)


class _Refused(asyncio.Protocol):
    """A connection too many."""

    def connection_made(self, transport: Any) -> None:
        transport.abort()


def _begins(data: bytes) -> bool:
    """Whether this can be the beginning of a request in origin form."""
    return _METHOD.match(data) is not None or (len(data) < 16 and data.replace(b" /", b"").isalpha())


def _body_bytes(request: bytes) -> int | None:
    """Return how long the body is that follows this head; None if that isn't plain.

    An upgrade, as that to a WebSocket, makes something else of the connection.
    """
    at = request.find(b"\r\n")
    fields = read_block(request[at:])
    if fields is None or not request.endswith(b" HTTP/1.1", 0, at) or not _METHOD.match(request):
        return None
    if "transfer-encoding" in fields or "upgrade" in fields:
        return None
    length = fields.get("content-length")
    if length is None:
        return 0
    return int(length) if _DIGITS.fullmatch(length) else None
