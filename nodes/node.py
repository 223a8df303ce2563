"""What a coordinator and an edge have in common: one replica, its links, its port, and how it starts and stops."""

from __future__ import annotations

import asyncio
import faulthandler
import json
import logging
import math
import os
import random
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final, Literal

import uvloop
from aiohttp import ClientSession, web

from kvnet.api.auth import identify, require
from kvnet.api.backend import Relayed, WriteResult
from kvnet.api.lane import LaneServer
from kvnet.api.plain import PlainReads
from kvnet.api.relaying import QUESTION_BYTES_MAX
from kvnet.api.server import HttpServer
from kvnet.api.service import HttpService
from kvnet.core import freshness
from kvnet.core.catalog import Scope
from kvnet.core.frames import Frame
from kvnet.core.messages import NO_WAY_MS, Ack
from kvnet.core.operations import Operation
from kvnet.core.pieces import LargeRoom
from kvnet.core.replica import Replica
from kvnet.core.spread import Share, Spread
from kvnet.core.state import NEVER
from kvnet.core.versions import Position, Version
from kvnet.errors import ConfigError, RequestError, StorageDamaged
from kvnet.limits import Limits
from kvnet.runtime.bulk import BulkLane
from kvnet.runtime.driver import Driver
from kvnet.runtime.relaying import PATH as READ_PATH
from kvnet.runtime.relaying import RelayDesk
from kvnet.runtime.server import NodeServer, PeerRoutes
from kvnet.storage.clock_file import ClockFile
from kvnet.storage.store import Store
from kvnet.topology.schema import COORDINATOR, MONITOR
from kvnet.topology.wan import Wan, WanState
from kvnet.transport.address_book import AddressBook
from kvnet.transport.feed import PATH as STAMPS_PATH
from kvnet.transport.feed import StampFeed
from kvnet.transport.handshake import START_ID_BYTES, Identity, Purpose
from kvnet.transport.links import BULK_PATH, PeerLinks
from kvnet.transport.links import PATH as LINKS_PATH
from kvnet.transport.shaping import Shaper, monotonic_ms
from kvnet.transport.signing import HEADER, check
from kvnet.transport.sockets import new_session
from nodes.asking import STATUS_PATH
from nodes.compacting import COMPACT_PATH, Compacting
from nodes.context import NodeContext
from nodes.metering import Metering
from nodes.reader_desk import ReaderDesk
from nodes.serving import Announcer
from nodes.snapshots import SNAPSHOT_PATH, Snapshots
from nodes.stores import cluster_id_of, open_store
from nodes.verifying import VERIFY_PATH, Verifying
from nodes.wan_control import LAUNCHER, WAN_PATH

SOCKET_NAME: Final = "http.sock"
"""In the node's folder: the same HTTP for who is on its host."""
LOOK_S: Final = 0.05
LOG_FORMAT: Final = "%(asctime)s %(levelname)s %(name)s %(message)s"

_log = logging.getLogger(__name__)


class Node(ABC):
    """One replica in its process; `api.backend.Backend` towards clients, `runtime.driver.Commands` to the core."""

    role: Literal["coordinator", "edge"]
    cure: str
    """What becomes of this node's replica when it is damaged, in words."""

    def __init__(self, context: NodeContext, *, fresh: bool = True) -> None:
        topology = context.topology
        self.context = context
        self.topology = topology
        self.name = context.name
        self.pop = topology.pop_of(context.name).code
        self.limits: Limits = topology.limits.resolve()
        self.timers = topology.timers
        self.started_ms = monotonic_ms()
        self.me = Identity(
            name=context.name,
            start_id=os.urandom(START_ID_BYTES),
            cluster_id=topology.digest(),
            secret=context.secret,
        )
        self.rng = random.Random(os.urandom(16))
        self.wan = Wan(topology, context.wan_state)
        self.cluster_id = cluster_id_of(topology, context.secret)
        self.large_room = LargeRoom()
        self.large_reads = LargeRoom()
        self._fresh = fresh
        self._stop = asyncio.Event()
        self._broken: BaseException | None = None
        self._desk: ReaderDesk | None = None

    # -- life ------------------------------------------------------------------------------------------------

    async def run(self) -> int:
        """Live until SIGTERM or Ctrl-C; return the exit code."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        self.store = self._open_store()
        try:
            async with new_session() as session:
                await self._serve(session)
        finally:
            faulthandler.disable()
            self._crash_file.close()
            self._clock_file.close()
            self.store.close(clean=self._broken is None)
        return 0 if self._broken is None else 1

    def _open_store(self) -> Store:
        store = open_store(self.topology, self.name, self.context.folder, self.cluster_id)
        if store.discarded:
            _log.error("the replica was thrown away and is made anew from the network: %s", store.discarded)
        # A flipped bit in one of LMDB's own pages can end the process: the next start then trusts nothing here.
        self._crash_file = store.crash_file.open("w")
        faulthandler.enable(self._crash_file)
        self._clock_file = ClockFile(store.clock_file)
        self._metering = Metering(self.context.folder / "usage.json", self.charged_bytes)
        self.usage = self._metering.meter
        return store

    async def _serve(self, session: ClientSession) -> None:
        self.session = session
        topology = self.topology
        known = {COORDINATOR, *(pop.code for pop in topology.pops)}
        self.shaper = Shaper(self.wan, self.name, self.rng)
        self.links = PeerLinks(self.me, session, self.shaper, url_of=topology.url_of, known=known)
        book = AddressBook(topology)
        config = book.config(
            self.name, accept_loss=self.context.accept_loss, recover=self.context.recover, fresh=self._fresh
        )
        self.core = Replica(
            config, self.timers, self.store.journal, self.links, self.rng, lambda: time.time() * 1000
        )
        bulk_links = PeerLinks(
            self.me, session, self.shaper, url_of=topology.url_of, known=known, purpose=Purpose.BULK
        )
        self.bulk_links = bulk_links
        self.bulk = BulkLane(bulk_links, partial(self.store.chunk, checked=False))
        self.clock = freshness.ReplicaClock(self.store.stamp, self._clock_file.reached_ms)
        self._beacon: freshness.BeaconSeen | None = None
        self.feed = StampFeed(
            self.me,
            self.shaper,
            "commits" if self.role == "coordinator" else "stamps",
            readers={MONITOR},
            position_seq=lambda: self.store.position.seq,
            counters=self.counters,
        )
        page = self.store.serving
        self._announcer = (
            None if page is None else Announcer(self.core, self.store, self.clock, page, self.me.start_id)
        )
        self.driver = Driver(
            self._announcer or self.core,
            self.store,
            self.links,
            self.bulk,
            self,
            on_applied=self.on_applied,
            erases=self.role == "edge",
        )
        self.verifying = Verifying(self.store, wait_for=self.wait_for, damaged=self.damaged, cure=self.cure)
        self.snapshots = Snapshots(
            self.store, cluster_id=self.cluster_id, node=self.name, ready=self.ready, damaged=self.damaged
        )
        self.compacting = Compacting(self.store, write=self.in_writer)
        if self.role == "edge" and self.store.position.seq:
            self.feed.add((*self.store.position.version, time.time() * 1000), self.store.position.seq)
        self._service = HttpService(self, extra={"/peer": PeerRoutes(self.peer_routes()).handle})
        port, socket_path = topology.port_of(self.name), self.context.folder / SOCKET_NAME
        lanes = LaneServer(HttpServer(self._service), PlainReads(self))
        host, readers = topology.listen.host, topology.readers_of(self.name)
        server = NodeServer(lanes, host, port, socket_path, shared=readers > 0)
        if readers:
            self._desk = ReaderDesk(
                self.context.folder,
                lanes,
                count=readers,
                meter=self.usage,
                now_s=self.now_s,
                damaged=self.damaged,
            )
            self._desk.check_port(host, port)
        await server.start()
        if self._desk is not None:
            self._desk.start()
        self.context.say_ready()
        self._metering.start()
        self.begin()
        self.driver.start()
        try:
            await self._stop.wait()
        finally:
            await self.end()
            self.driver.stop()
            self.feed.close()
            self.bulk.stop()
            await self.bulk_links.close()
            await self.links.close()
            self.shaper.close()
            if self._desk is not None:
                await self._desk.stop()
            await server.stop()
            await self._metering.stop()
        if self._broken is not None:
            _log.critical("stopped by a failure: %s", self._broken)

    @abstractmethod
    def begin(self) -> None:
        """Do what this role does once it listens."""

    @abstractmethod
    async def end(self) -> None:
        """Finish what this role has begun."""

    def peer_routes(self) -> dict[str, Any]:
        others = {name for name in self.topology.node_names() if name not in {self.name, MONITOR}}
        desk = RelayDesk(self.me, others, self._answer_peer, question_bytes_max=QUESTION_BYTES_MAX)
        return {
            READ_PATH: desk.handle,
            LINKS_PATH: self.links.accept,
            BULK_PATH: self.bulk_links.accept,
            STAMPS_PATH: self.feed.accept,
            STATUS_PATH: self._tell_status,
            VERIFY_PATH: self._verify,
            SNAPSHOT_PATH: self._save,
            COMPACT_PATH: self._compact,
            WAN_PATH: self._change_wan,
        }

    def on_applied(self, frames: Sequence[Frame], position: Position, wall_ms: float) -> None:
        """Hear of every commit of the driver."""
        self.clock.on_applied(frames[-1].stamp if frames else self.store.stamp)
        if self._announcer is not None:
            self._announcer.tell()
        if self.role == "edge":  # what a coordinator catches up with are somebody else's commits
            self.feed.add((position.epoch, position.seq, wall_ms), position.seq)

    # -- runtime.driver.Commands -----------------------------------------------------------------------------

    def open_epoch(self, epoch: int) -> None:
        raise AssertionError(f"{self.name} was ordered to open epoch {epoch}")

    def refuse_writes(self, why: str) -> None:
        raise AssertionError(f"{self.name} was ordered to refuse writes: {why}")

    def offer_settled(self, id_: bytes) -> None:
        raise AssertionError(f"{self.name} was told of an offer that isn't its own: {id_.hex()}")

    def acks_came(self, acks: Sequence[Ack]) -> None:
        raise AssertionError(f"{self.name} was told what {acks[0].member} has, which only the coordinator is")

    @abstractmethod
    def emptied(self) -> None: ...

    def broken(self, error: BaseException) -> None:
        self._broken = error
        self._stop.set()

    # -- api.backend.Backend ---------------------------------------------------------------------------------

    def now_s(self) -> float:
        """Replica time; never back, not even over a restart, so what it once found expired never comes back."""
        self.hear_time()
        now_s = self.clock.now_ms(monotonic_ms()) / 1000
        self._clock_file.note(now_s)
        return now_s

    def hear_time(self) -> None:
        """Tell the clock what the root says, of which this host's own wall is no witness."""
        state = self.core.state
        if state.beacon_at > NEVER:
            self.clock.on_beacon(state.beacon_time_ms, state.beacon_at)

    def staleness_ms(self) -> float:
        self._beacon = self.core.state.beacon_seen(self.store.position.seq) or self._beacon
        return freshness.staleness_ms(
            now_ms=monotonic_ms(),
            wall_ms=time.time() * 1000,
            beacon=self._beacon,
            applied_stamp=self.store.stamp,
        )

    def charged_bytes(self) -> Mapping[bytes, int]:
        """What is charged for at this node: the data set is the coordinator's to count, once."""
        return {}

    @abstractmethod
    def ready(self) -> bool: ...

    @abstractmethod
    async def write(
        self, operations: Sequence[Operation], request_id: bytes | None, *, waited: bool = False
    ) -> WriteResult: ...

    @abstractmethod
    async def spread(self, version: Version, share: Share, timeout_ms: float) -> Spread: ...

    async def wait_for(self, version: Version, timeout_ms: float) -> bool:
        return await self.driver.wait_for(version, timeout_ms)

    async def wait_until_fresh(self, staleness_ms: float, timeout_ms: float) -> bool:
        """Look until the time is over, or only as long as a beacon may come by whose path the view is as new."""
        give_up_ms = monotonic_ms() + timeout_ms
        while self.staleness_ms() > staleness_ms:
            left_ms = give_up_ms - monotonic_ms()
            least_ms = 2 * self.core.state.latency_ms
            if left_ms <= 0 or (math.isfinite(least_ms) and least_ms >= staleness_ms):
                return False
            await asyncio.sleep(min(LOOK_S, left_ms / 1000))
        return True

    async def relay(
        self, question: bytes, *, head_only: bool, at_least: Version | None, staleness_ms: float | None
    ) -> Relayed | str:
        """Ask nobody: at the root there is nobody who knows more."""
        del question, head_only, at_least, staleness_ms
        return "nobody"

    def damaged(self, damage: StorageDamaged) -> None:
        self.driver.damaged(damage)

    async def in_writer(self, task: Callable[[], None]) -> None:
        """Have this done in the thread that writes the store."""
        task()

    def counters(self) -> Mapping[str, Any]:
        """What the monitor and `/status` are told, counted since this start."""
        stream, links = self.core.stream, self.links.counters
        return {
            "frame_bytes_received": stream.frame_bytes_received,
            "frame_bytes_sent": stream.frame_bytes_sent,
            "frames_received": stream.frames_received,
            "frames_duplicate": stream.frames_duplicate,
            "messages_sent": links["messages_sent"],
            "messages_received": links["messages_received"],
            "control_messages_sent": links["control_messages_sent"],
            "link_count": len(self.links.peers),
            "parent": self.parent,
            "asks": self.core.lateness.asks_sent,
            "ladder_asks": self.core.lateness.ladder_asks_sent,
        }

    @property
    def parent(self) -> str | None:
        """The parent whose beacons come first, of several."""
        parents = self.core.state.parents.values()
        best = max(parents, key=lambda parent: (parent.beacon, -parent.beacon_at), default=None)
        return None if best is None else best.name

    def status(self) -> dict[str, Any]:
        state = self.core.state
        return {
            "name": self.name,
            "role": self.role,
            "pop": self.pop,
            "ready": self.ready(),
            "position": str(self.store.position.version),
            "head": str(max(Version(state.beacon.epoch, state.head_seq), self.store.position.version)),
            "digest": f"{self.store.digest:032x}",
            "parent": self.parent,
            "parents": list(state.parents),
            "children": list(state.children),
            "links": self.links.peers,
            "rtt_ms": {name: round(neighbour.rtt_typical_ms, 2) for name, neighbour in state.neighbours.items()},
            "late": state.late_since is not None,
            "latency_ms": round(min(state.latency_ms, NO_WAY_MS), 2),
            "path": list(state.path),
            "staleness_ms": round(self.staleness_ms(), 1),
            "uptime_ms": round(monotonic_ms() - self.started_ms),
            "verified": self.store.verified,
            "damaged": self.driver.damage or None,
            "discarded": self.store.discarded or None,
            "bootstrap": self._bootstrap_status(),
            "namespaces": self._namespaces_status(),
            "store": {**self.store.stats(), "compacting": self.store.is_compacting},
            "counters": dict(self.counters()),
            "driver": self.driver.status(),
            "large_values": self.core.offers.status(),
            "waits_for_chunks": state.lacks_chunks,
            "readers": None if self._desk is None else self._desk.status(),
        }

    def _bootstrap_status(self) -> dict[str, Any] | None:
        """How far the replica in the making is; None when there is none."""
        told = self.core.bootstrap_status()
        return None if told is None else {**told, "keys": self.store.bootstrap_keys}

    def _namespaces_status(self) -> dict[str, dict[str, Any]]:
        """What each namespace holds, by id; `bytes` are those of keys, metadata and values."""
        tallies, namespaces = dict(self.store.tallies), self.store.namespaces
        return {
            namespace.hex(): {
                "title": namespaces[namespace].title,
                "keys": tally.keys,
                "bytes": tally.size_bytes,
            }
            for namespace, tally in tallies.items()
            if namespace in namespaces
        }

    # -- for other nodes and the command line ----------------------------------------------------------------

    def _authorise(self, request: web.BaseRequest, body: bytes) -> None:
        """Let in an admin's token, or a node's signature.

        Raises:
            RequestError: neither.
        """
        if "Authorization" in request.headers:
            require(identify(request.headers, self.store.tokens, self.now_s), Scope.ADMIN)
            return
        known = (*self.topology.node_names(), LAUNCHER)
        check(self.me, known, request.headers.get(HEADER), request.method, request.path, body)

    async def _answer_peer(self, request: web.BaseRequest, question: bytes) -> web.Response:
        return await self._service.answer_peer(request, question)

    async def _tell_status(self, request: web.BaseRequest) -> web.StreamResponse:
        self._authorise(request, b"")
        return web.json_response(self.status())

    async def _verify(self, request: web.BaseRequest) -> web.StreamResponse:
        """Compute digests again from the stored bytes."""
        self._authorise(request, b"")
        return await self.verifying.answer(request.query)

    async def _save(self, request: web.BaseRequest) -> web.StreamResponse:
        """Send all that is stored here, as a snapshot."""
        self._authorise(request, b"")
        return await self.snapshots.answer(request)

    async def _compact(self, request: web.BaseRequest) -> web.StreamResponse:
        """Give what is free in the replica's file back to the disk."""
        self._authorise(request, await request.read())
        if request.method != "POST":
            raise RequestError(405, 10001, "compact: POST it")
        return await self.compacting.answer()

    async def _change_wan(self, request: web.BaseRequest) -> web.StreamResponse:
        """Put another state of the simulated network in force at this node, unless it is older than what is."""
        body = await request.read()
        self._authorise(request, body)
        if request.method == "PUT":
            try:
                state = WanState.from_dict(json.loads(body))
                if state.version >= self.wan.state.version:
                    self.shaper.apply_wan_state(state)
            except (ValueError, ConfigError) as error:
                raise RequestError(400, 10012, f"invalid request body: {error}") from None
        return web.json_response(self.wan.state.to_dict())


def run(node_type: type[Node], context: NodeContext, **options: Any) -> int:
    """Run a node of this type on an event loop of its own and return its exit code."""
    logging.basicConfig(level=context.log_level.upper(), format=LOG_FORMAT)

    async def main() -> int:
        return await node_type(context, **options).run()

    return uvloop.run(main())
