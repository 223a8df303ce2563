"""The stamps feed: what a node tells the monitor about when it had what.

    at first            ["hello", name, start id, wall_ms, {"oldest_seq": n}], then everything kept, as below
    edge                ["stamps", [[epoch, last seq, wall_ms], …], counters]
    coordinator         ["commits", [[epoch, first seq, last seq, wall_ms, frame bytes, entries], …], counters]
    nothing new for 2 s ["idle", wall_ms, position's seq, counters]

News leaves at most every 250 ms. A minute of it is kept, so a monitor that was restarted misses nothing: whatever
this node took after `oldest_seq` is in what it then gets. Same handshake and WAN as gossip, but no loss, and some
slack: nobody waits for stamps, which carry their time, so they go with what wakes the node anyway.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Container, Mapping
from contextlib import aclosing
from math import inf
from typing import Any, Final, Literal, NamedTuple

import msgpack
from aiohttp import ClientError, ClientSession, web

from kvnet.errors import ConfigError
from kvnet.transport.greeting import answer_greeting, greet
from kvnet.transport.handshake import NONCE_BYTES, Answer, HandshakeRefused, Identity, Purpose
from kvnet.transport.shaping import SLACK_MS, Shaper, Wire
from kvnet.transport.sockets import Connection

PATH: Final = "/peer/v1/stamps"
NEWS_INTERVAL_MS: Final = 250.0
IDLE_INTERVAL_MS: Final = 2000.0
"""Far below the monitor's patience with a feed that says nothing, 5 s."""
KEPT_MS: Final = 60_000
KEPT_ROWS_MAX: Final = 60_000
READERS_MAX: Final = 4
UNREAD_BYTES_MAX: Final = 4 * 1024 * 1024
"""A reader that is further behind is disconnected; it comes back and gets the last minute."""
HANDSHAKE_TIMEOUT_S: Final = 5.0
RETRY_FIRST_S: Final = 0.25
RETRY_MAX_S: Final = 5.0

Row = tuple[int | float, ...]
Counters = Mapping[str, Any]


class _Batch(NamedTuple):
    """Rows that left together, packed: a minute of them costs little memory."""

    wall_ms: float
    last_seq: int
    rows: int
    packed: bytes


class StampFeed:
    """The node's side: collects rows, keeps a minute of them, tells whoever reads."""

    def __init__(
        self,
        me: Identity,
        shaper: Shaper,
        kind: Literal["stamps", "commits"],
        *,
        readers: Container[str],
        position_seq: Callable[[], int],
        counters: Callable[[], Counters],
    ) -> None:
        """`readers` may read; `position_seq` and `counters` are asked when something is sent."""
        self._me = me
        self._shaper = shaper
        self._kind = kind
        self._readers = readers
        self._position_seq = position_seq
        self._counters = counters
        self._oldest_seq = position_seq()
        self._new: list[Row] = []
        self._new_last_seq = 0
        self._kept: deque[_Batch] = deque()
        self._kept_rows = 0
        self._open: dict[Connection, Wire] = {}
        self._told_ms = -inf
        self._closed = False
        self.scheduled_ms = inf
        """When it is looked next whether there is something to tell; the shaper's part."""
        self.slack_ms = SLACK_MS

    def add(self, row: Row, last_seq: int) -> None:
        """Tell that this happened: a row of this feed's kind; `last_seq` is where the replica then stood."""
        self._new.append(row)
        self._new_last_seq = last_seq
        if len(self._new) == 1:
            self._tick_at(max(self._shaper.now_ms(), self._told_ms + NEWS_INTERVAL_MS))

    async def accept(self, request: web.BaseRequest) -> web.StreamResponse:
        """Serve one reader to its end."""
        if self._closed or len(self._open) >= READERS_MAX:
            return web.Response(status=503, text="no room for another reader of stamps: try again later\n")
        try:
            connection, response = await Connection.accept(request)
        except web.HTTPBadRequest as error:
            return web.Response(status=error.status, text=f"this address takes WebSockets only: {error.text}\n")
        answer = Answer(self._me, self._readers, Purpose.STAMPS, os.urandom(NONCE_BYTES))
        try:
            async with asyncio.timeout(HANDSHAKE_TIMEOUT_S):
                greeted = await answer_greeting(
                    answer,
                    connection,
                    lambda peer: self._shaper.open(
                        peer, connection.write, connection.abort, lossy=False, slack_ms=SLACK_MS
                    ),
                )
            try:
                self._begin(connection, greeted.wire)
                while await connection.read() is not None:
                    pass  # readers have nothing to say
            finally:
                self._open.pop(connection, None)
                greeted.wire.close()
        except (OSError, HandshakeRefused):
            pass  # the reader knows why, and logs it
        finally:
            connection.close()
        return response

    def close(self) -> None:
        """Disconnect all readers."""
        self._closed = True
        self._shaper.cancel(self)
        for connection in self._open:
            connection.close()

    def _begin(self, connection: Connection, wire: Wire) -> None:
        if self._closed:
            raise ConnectionResetError("shutting down")
        self._tick()  # what is new goes to the other readers, and is kept from here on
        wall_ms = time.time() * 1000
        counters = self._counters()
        wire.send(_pack(["hello", self._me.name, self._me.start_id, wall_ms, {"oldest_seq": self._oldest_seq}]))
        for batch in self._kept:
            wire.send(_pack([self._kind, msgpack.unpackb(batch.packed), counters]))
        self._open[connection] = wire
        self._tick_at(self._shaper.now_ms() + IDLE_INTERVAL_MS)

    def on_due(self, until_ms: float) -> None:
        """Tell what there is to tell; the shaper's part."""
        del until_ms
        self._tick()

    def _tick_at(self, at_ms: float) -> None:
        """Look whether there is something to tell at this time, or earlier."""
        if not self._closed and at_ms < self.scheduled_ms:
            self._shaper.schedule(self, at_ms)

    def _tick(self) -> None:
        now_ms = self._shaper.now_ms()
        batch = self._settle()
        if self._open:
            told: list[Any]
            if batch is None:
                told = ["idle", time.time() * 1000, self._position_seq(), self._counters()]
            else:
                told = [self._kind, batch, self._counters()]
            data = _pack(told)
            for connection, wire in self._open.items():
                wire.send(data)
                if wire.queued_bytes + connection.buffered_bytes() > UNREAD_BYTES_MAX:
                    connection.abort()
            self._tick_at(now_ms + IDLE_INTERVAL_MS)
        self._told_ms = now_ms
        self._forget_old()

    def _settle(self) -> list[Row] | None:
        """Move what is new to what is kept; return it."""
        if not self._new:
            return None
        rows, self._new = self._new, []
        self._kept.append(_Batch(time.time() * 1000, self._new_last_seq, len(rows), msgpack.packb(rows)))
        self._kept_rows += len(rows)
        return rows

    def _forget_old(self) -> None:
        since = time.time() * 1000 - KEPT_MS
        while self._kept and (self._kept[0].wall_ms < since or self._kept_rows > KEPT_ROWS_MAX):
            batch = self._kept.popleft()
            self._kept_rows -= batch.rows
            self._oldest_seq = max(self._oldest_seq, batch.last_seq)


async def follow(
    me: Identity, session: ClientSession, shaper: Shaper, node: str, url: str
) -> AsyncGenerator[list[Any], None]:
    """Yield what `node` at `url` tells, for ever; ["lost", why] whenever the connection ends or can't be made.

    Dials again after 0.25 s, then ever later up to 5 s.
    """
    retry_s = RETRY_FIRST_S
    while True:
        why = "the node closed the connection"
        try:
            async with aclosing(_follow_once(me, session, shaper, node, url)) as feed:
                async for told in feed:
                    retry_s = RETRY_FIRST_S
                    yield told
        except (OSError, ClientError, ConfigError, HandshakeRefused, ValueError) as error:
            why = f"{type(error).__name__}: {error}"
        yield ["lost", why]
        await asyncio.sleep(retry_s)
        retry_s = min(RETRY_MAX_S, retry_s * 2)


async def _follow_once(
    me: Identity, session: ClientSession, shaper: Shaper, node: str, url: str
) -> AsyncGenerator[list[Any], None]:
    wire: Wire | None = None
    connection: Connection | None = None
    try:
        async with asyncio.timeout(HANDSHAKE_TIMEOUT_S):
            connection = await Connection.dial(session, url + PATH)
            wire = shaper.open(node, connection.write, connection.abort, lossy=False)
            await greet(me, node, Purpose.STAMPS, connection, wire)
        while (data := await connection.read()) is not None:
            told = msgpack.unpackb(data)
            if not isinstance(told, list) or not told or not isinstance(told[0], str):
                raise ValueError("not a message of a stamps feed")
            yield told
    finally:
        if wire is not None:
            wire.close()
        if connection is not None:
            connection.close()


def _pack(fields: list[Any]) -> bytes:
    packed: bytes = msgpack.packb(fields)
    return packed
