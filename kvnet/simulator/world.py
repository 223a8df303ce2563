"""A world of nodes in virtual time: no clock, no task, no socket.

Each node is the unchanged protocol core (kvnet/core) with a simulated disk and simulated connections; the
coordinator's writes go through the unchanged writer. Same seed, same world, byte for byte.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from random import Random
from typing import Final

from kvnet.core.frames import Frame, read_frame
from kvnet.core.operations import PutValue
from kvnet.core.root import Phase
from kvnet.core.state import NodeConfig
from kvnet.limits import Limits
from kvnet.simulator.chunk_shelf import CHUNK_LIFE_MS
from kvnet.simulator.desk import NAMESPACE, Desk
from kvnet.simulator.disk import SimulatedDisk
from kvnet.simulator.history import History
from kvnet.simulator.journal import KEEP_ALL, Kept
from kvnet.simulator.node import SimulatedNode
from kvnet.simulator.watching import Tracer, Watcher
from kvnet.simulator.wires import Wires
from kvnet.timers import Timers
from kvnet.topology.schema import COORDINATOR, Topology
from kvnet.topology.wan import Tcp, Wan
from kvnet.transport.address_book import AddressBook

ROOT: Final = COORDINATOR
LAUNCH_MS: Final = 1000.0
"""How soon a process that ended by itself is started again."""


class World(Wires):
    """All nodes of one topology, their links, and what happens next."""

    def __init__(
        self,
        topology: Topology,
        *,
        seed: int,
        timers: Timers | None = None,
        limits: Limits | None = None,
        edge_journal_bytes: int | None = None,
        root_journal: Kept = KEEP_ALL,
        chunk_life_ms: float = CHUNK_LIFE_MS,
        tcp: Tcp = "flight",
        folds: bool = True,
        trace: Tracer | None = None,
    ) -> None:
        """`folds` is False where records don't matter: edges then keep journals alone, which is quicker."""
        rng = Random(seed)
        super().__init__(Wan(topology, tcp=tcp), Random(rng.getrandbits(64)), trace)
        self.topology = topology
        self.timers = timers or topology.timers
        self.limits = limits or replace(topology.limits.resolve(), write_interval_ms=0)
        self.rng = rng
        self.history = History()
        self.durable_at: dict[int, float] = {}
        """By the last seq of each frame: when its fsync was done, the last time if there were two."""
        self.at_work = ""
        """The node that handles an event, or did last."""
        self.events = 0
        """Events that nodes have handled."""
        self.edges_sync = topology.storage.edge_durability == "commit"
        self.desks: dict[str, Desk] = {}
        self.fsync_ms: Callable[[], float] = _at_once
        self.removals_per_s = topology.storage.expiry_removals_per_second
        self.kept_down: Counter[str] = Counter()
        """Nodes that nobody may start, by how many faults say so."""
        self._written = 0
        self._frames: dict[bytes, Frame] = {}
        self._twins = 0
        self._members = tuple(pop.code for pop in topology.pops)
        self._book = AddressBook(topology)
        self._configs: dict[str, NodeConfig] = {}
        self.nodes[ROOT] = SimulatedNode(self, ROOT, SimulatedDisk(kept=root_journal, chunk_life_ms=chunk_life_ms))
        for code in self._members:
            disk = SimulatedDisk(kept=Kept(edge_journal_bytes), folds=folds, chunk_life_ms=chunk_life_ms)
            self.nodes[code] = SimulatedNode(self, code, disk)

    def watch(self, watcher: Watcher) -> None:
        """Tell it of everything from now on."""
        self.heard.add(watcher)

    # -- nodes -----------------------------------------------------------------------------------------------

    def config_of(self, name: str) -> NodeConfig:
        """Return whom this node could know."""
        if name not in self._configs:
            self._configs[name] = self._book.config(name)
        return self._configs[name]

    def start(self, id_: str, *, accept_loss: bool = False, recover: bool = False) -> None:
        """Start a node on the disk it has; the flags matter at the coordinator only."""
        node = self.nodes[id_]
        config = self.config_of(node.name)
        if config.is_root:
            fresh = not self.history.frames
            config = replace(config, accept_loss=accept_loss, recover=recover, fresh=fresh)
        for tell in self.heard.started:
            tell(node)
        node.start(config, Random(self.rng.getrandbits(64)))

    def start_all(self) -> None:
        for id_ in self.nodes:
            self.start(id_)

    def crash(self, id_: str, *, silent: bool = False, power: bool = False) -> None:
        """Stop a node at once. Its process dies and it keeps its disk; its peers' connections break at once.

        `silent`: as if its machine were gone. A connection then breaks USER_TIMEOUT_MS after its peer has sent
        something that nobody acknowledges. `power`: what its disk has not synced may be lost; an edge without sync
        starts empty, as an LMDB environment that wasn't synced may be corrupt.
        """
        node = self.nodes[id_]
        desk = self.desks.get(id_)
        if desk is not None and desk.is_open:
            desk.on_crash()
        node.stop()
        for link in node.all_links():
            other = link.other(node)
            if silent:
                link.is_half_open = True
            else:
                link.alive = False
                self.at(self.now + self.wan.one_way_ms(node.name, other.name), self._hear_of_end, (other, link))
        node.links.clear()
        node.bulk.links.clear()
        if power:
            self._lose_power(node)
        for tell in self.heard.stopped:
            tell(node)

    def launch_again(self, id_: str) -> None:
        """Have a process that has ended by itself started again, unless somebody keeps it down."""
        self.at(self.now + LAUNCH_MS, self._launch, id_)

    def _launch(self, id_: str) -> None:
        node = self.nodes.get(id_)
        if node is not None and node.core is None and not self.kept_down[node.name]:
            self.start(id_)

    def _lose_power(self, node: SimulatedNode) -> None:
        if node.name == ROOT or self.edges_sync:
            if node.disk.lose_power(self.rng):
                for tell in self.heard.emptied:
                    tell(node)
        else:
            self.wipe(node.id)

    def wipe(self, id_: str) -> None:
        """Empty a stopped node's disk."""
        node = self.nodes[id_]
        assert node.core is None, f"{id_} runs"
        node.disk.wipe()
        for tell in self.heard.emptied:
            tell(node)

    def replace_disk(self, id_: str, disk: SimulatedDisk) -> None:
        """Put another disk into a stopped node: an old one, a copy of somebody's."""
        node = self.nodes[id_]
        assert node.core is None, f"{id_} runs"
        is_full, is_lying = node.disk.is_full, node.disk.is_lying
        node.disk = disk.copied()
        node.disk.is_full, node.disk.is_lying = is_full, is_lying  # what is wrong with the machine stays
        for tell in self.heard.emptied:
            tell(node)

    def add_twin(self, id_: str) -> str:
        """Put a second node under this one's name beside it, on a copy of its disk; return what it's called."""
        node = self.nodes[id_]
        self._twins += 1
        twin = SimulatedNode(self, node.name, node.disk.copied(), id_=f"{id_}~{self._twins}")
        self.nodes[twin.id] = twin
        return twin.id

    def live(self) -> list[SimulatedNode]:
        return [node for node in self.nodes.values() if node.core is not None]

    def edges(self) -> list[SimulatedNode]:
        """Return the edges that run."""
        return [node for node in self.nodes.values() if node.core is not None and node.name != ROOT]

    # -- writing ---------------------------------------------------------------------------------------------

    @property
    def is_open(self) -> bool:
        """Whether the coordinator takes writes."""
        core = self.nodes[ROOT].core
        return core is not None and core.root.phase is Phase.OPEN

    @property
    def root(self) -> SimulatedNode:
        """The coordinator."""
        return self.nodes[ROOT]

    @property
    def desk(self) -> Desk:
        """The coordinator's desk."""
        return self.desks[ROOT]

    def open_epoch(self, node: SimulatedNode, epoch: int) -> None:
        """Begin to write there, as its core orders."""
        desk = Desk(self, node, epoch, self.limits)
        desk.fsync_ms = self.fsync_ms
        self.desks[node.id] = desk
        desk.commit()

    def offer_settled(self, node: SimulatedNode, id_: bytes) -> None:
        """Sequence the large value that was offered, as the coordinator's core orders."""
        desk = self.desks.get(node.id)
        if desk is not None:
            desk.settle(id_)

    def close_desk(self, node: SimulatedNode) -> None:
        """Take no writes there any more, as its core orders."""
        desk = self.desks.get(node.id)
        if desk is not None:
            desk.is_closed = True

    def on_durable(self, node: SimulatedNode, frames: Sequence[Frame]) -> None:
        """Take note of what a coordinator has just synced."""
        for frame in frames:
            self.history.add(frame, self.now, node.id)
            self.durable_at[frame.last_seq] = self.now
        for tell in self.heard.durable:
            tell(node, frames)

    def write(self, size: int = 100) -> int:
        """Have the coordinator commit one value of this size at once; return the seq of its frame."""
        assert self.is_open, "the coordinator takes no writes"
        desk = self.desk
        self._written += 1
        value = self._written.to_bytes(8, "big").ljust(size, b"\0")[: max(size, 8)]
        key = b"key-%d" % self.rng.randrange(1000)
        desk.submit([PutValue(NAMESPACE, key, value, b"", 0, 0)], None, _nobody)
        desk.commit()
        return desk.node.disk.position.seq

    def read_frame(self, data: bytes) -> Frame:
        """Read a frame's header, as `core.frames.read_frame` does, once for all nodes."""
        frame = self._frames.get(data)
        if frame is None:
            frame = self._frames[data] = read_frame(data)
        return frame

    def look(self) -> None:
        """Have every watcher look at the whole world."""
        for tell in self.heard.look:
            tell()


def _at_once() -> float:
    return 0.0


def _nobody(durable: bool) -> None:
    """Hear an answer that nobody waits for."""
    del durable
