"""A reader: a process that answers reads on its edge's port, from the edge's replica, and hands on all else.

It serves as long as its node lives, or is away for a moment: the replica stays what it was, and what only a node
can answer waits for it. Which connections are whose the kernel decides: both listen on one port.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import msgspec
import uvloop

from kvnet.api import codes, envelope
from kvnet.api.backend import Relayed, WriteResult
from kvnet.api.lane import LaneServer
from kvnet.api.plain import PlainReads
from kvnet.api.reading import is_read
from kvnet.api.server import HttpServer
from kvnet.api.service import HttpService
from kvnet.core.operations import Operation
from kvnet.core.pieces import LargeRoom
from kvnet.core.spread import Share, Spread
from kvnet.core.usage import UsageMeter
from kvnet.core.versions import Version
from kvnet.errors import RequestError, StorageDamaged
from kvnet.reader.shared import SharedStore
from kvnet.runtime.channel import DAMAGED, HELLO, STOP, USAGE, Channel
from kvnet.runtime.handing import HandOver
from kvnet.runtime.server import NodeServer
from kvnet.runtime.unix_socket import short_path
from nodes.context import NodeContext
from nodes.files import store_folder
from nodes.reader_desk import LOCK_NAME, SOCKET_NAME

LOG_FORMAT: Final = "%(asctime)s %(levelname)s %(name)s reader %(process)d: %(message)s"
RETRY_S: Final = 0.05
"""How soon a node that is away is looked for again."""
TICK_S: Final = 0.25
"""How often reads are told to the node, which is what a killed reader may forget."""
LOOK_S: Final = 0.02
ROWS_MAX: Final = 500
"""Namespaces of which one message tells."""

_log = logging.getLogger(__name__)


class Reader:
    """One reader; `api.backend.Backend` towards its clients, `api.lane.Elsewhere` for what isn't its own."""

    def __init__(self, context: NodeContext) -> None:
        topology = context.topology
        self.name = context.name
        self.pop = topology.pop_of(context.name).code
        self.limits = topology.limits.resolve()
        self.large_room = LargeRoom()
        self.large_reads = LargeRoom()
        self.store: SharedStore
        self.usage = UsageMeter()
        self.usage.turn(time.time())
        self._address = topology.listen.host, topology.port_of(context.name)
        self._folder = context.folder
        self._hand_over = HandOver(self._refusal)
        self._channel: Channel | None = None
        self._refused: object | None = None
        """The environment in which damage was found: nothing of it is served."""
        self._ending = asyncio.Event()
        self._told_to_end = False
        self._failure = ""
        self._connecting: asyncio.Task[None] | None = None

    async def run(self) -> int:
        """Serve until the node says that it is enough; return the exit code, 0 for that alone."""
        loop = asyncio.get_running_loop()
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal's is for the node, which then tells
        loop.add_signal_handler(signal.SIGTERM, self._ending.set)
        await self._connect()
        lock = _share_lock(self._folder)
        try:
            self.store = SharedStore(store_folder(self._folder))
            self._plain = PlainReads(self)
            lanes = LaneServer(HttpServer(HttpService(self)), self._plain, self)
            server = NodeServer(lanes, *self._address, shared=True)
            await server.start()
            ticking = loop.create_task(self._tick())
            await self._ending.wait()
            ticking.cancel()
            await server.stop()
            self._tell_usage()
        finally:
            self._hand_over.close()
            if self._connecting is not None:
                self._connecting.cancel()
            if self._channel is not None:
                self._channel.close()
            os.close(lock)
        if self._failure:
            _log.error("%s", self._failure)
        return 0 if self._told_to_end else 1

    # -- towards the node ------------------------------------------------------------------------------------

    async def _connect(self) -> None:
        """Return when the node listens."""
        path = self._folder / SOCKET_NAME
        while not self._ending.is_set():
            connecting = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            try:
                with short_path(path) as name:
                    connecting.connect(name)
            except OSError:
                connecting.close()
                await asyncio.sleep(RETRY_S)
                continue
            channel = self._channel = Channel(connecting, self._on_message, self._on_lost)
            channel.send(HELLO, b"%d" % os.getpid())
            self._hand_over.connect(channel)
            return

    def _on_lost(self) -> None:
        self._channel = None
        self._hand_over.connect(None)
        self._connecting = asyncio.get_running_loop().create_task(self._connect())

    def _on_message(self, kind: bytes, content: bytes, files: list[int]) -> None:
        del content
        for file in files:
            os.close(file)
        if kind == STOP:
            self._told_to_end = True
            self._ending.set()

    async def _tick(self) -> None:
        while True:
            if self.store.is_replaced:  # by that of another kvnet, or the folder is gone
                self._failure = "the node's folder is another one: beginning anew"
                self._ending.set()
                return
            if self._plain.seen != self._plain.changes[0]:
                self._plain.renew()  # an idle reader lets go of what was replaced
            self._tell_usage()
            await asyncio.sleep(TICK_S)

    def _tell_usage(self) -> None:
        """Have the node count what was read here; while it is away, it is counted on."""
        channel = self._channel
        if channel is None:
            return
        self._plain.count()
        counts = {
            namespace.hex(): (counted.reads, counted.lists)
            for month in self.usage.months.values()
            for namespace, counted in month.items()
            if counted.reads or counted.lists
        }
        rows = list(counts.items())
        for start in range(0, len(rows), ROWS_MAX):
            channel.send(USAGE, msgspec.json.encode(dict(rows[start : start + ROWS_MAX])))
        if rows and channel.is_open:
            self.usage = UsageMeter()
            self.usage.turn(time.time())

    # -- api.lane.Elsewhere ----------------------------------------------------------------------------------

    def keeps(self, request: bytes) -> bool:
        return is_read(request, self)

    def take(self, connection: int, received: bytes) -> None:
        self._hand_over.take(connection, received)

    def _refusal(self, received: bytes) -> bytes:
        """Return the answer to what only the node could answer, while it is away."""
        del received
        body = envelope.failed(self._away())
        head = (
            f"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: 1\r\n"
            f"KV-Pop: {self.pop}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        return head.encode() + body

    def _away(self) -> RequestError:
        text = f"{self.name} isn't ready: it is started again; reads go on, try again in a second"
        return RequestError(503, codes.NOT_READY.code, text)

    # -- api.backend.Backend ---------------------------------------------------------------------------------

    def now_s(self) -> float:
        return self.store.now_s()

    def staleness_ms(self) -> float:
        return self.store.staleness_ms()

    def ready(self) -> bool:
        if self._refused is not None and self.store.view.environment is not self._refused:
            self._refused = None
        return self._refused is None and self.store.serves

    async def write(
        self, operations: Sequence[Operation], request_id: bytes | None, *, waited: bool = False
    ) -> WriteResult:
        """Refuse: writes are the node's, and were handed to it."""
        del operations, request_id, waited
        raise self._away()

    async def spread(self, version: Version, share: Share, timeout_ms: float) -> Spread:
        """Refuse, likewise."""
        del version, share, timeout_ms
        raise self._away()

    async def wait_for(self, version: Version, timeout_ms: float) -> bool:
        return await _until(lambda: self.store.position.version >= version, timeout_ms)

    async def wait_until_fresh(self, staleness_ms: float, timeout_ms: float) -> bool:
        return await _until(lambda: self.staleness_ms() <= staleness_ms, timeout_ms)

    async def relay(
        self, question: bytes, *, head_only: bool, at_least: Version | None, staleness_ms: float | None
    ) -> Relayed | str:
        """Ask nobody: what this view can't answer was handed to the node, which asks."""
        del question, head_only, at_least, staleness_ms
        return "nobody"

    def damaged(self, damage: StorageDamaged) -> None:
        """Serve this replica no more, and have the node throw it away."""
        _log.error("damaged: %s", damage)
        self._refused = self.store.view.environment
        self._plain.renew()
        if self._channel is not None:
            self._channel.send(DAMAGED, str(damage).encode()[:1000])

    def status(self) -> dict[str, Any]:
        return {"name": self.name, "pop": self.pop, "ready": self.ready()}


async def _until(condition: Callable[[], bool], timeout_ms: float) -> bool:
    """Whether it came true in time."""
    loop = asyncio.get_running_loop()
    give_up = loop.time() + timeout_ms / 1000
    while not condition():
        left_s = give_up - loop.time()
        if left_s <= 0:
            return False
        await asyncio.sleep(min(LOOK_S, left_s))
    return True


def _share_lock(folder: Path) -> int:
    """Hold what tells the node that some of its readers have its port."""
    lock = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(lock, fcntl.LOCK_SH)
    return lock


def main(context: NodeContext) -> int:
    """Be a reader of the edge `context.name`; return the exit code."""
    logging.basicConfig(level=context.log_level.upper(), format=LOG_FORMAT)

    async def run() -> int:
        return await Reader(context).run()

    with suppress(KeyboardInterrupt):
        return uvloop.run(run())
    return 1
