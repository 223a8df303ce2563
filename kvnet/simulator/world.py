"""A world of nodes in virtual time: one heap of things to happen, no clock, no task, no socket.

Each node is the unchanged protocol core (kvnet/core) with a simulated disk and simulated connections; the
coordinator's writes go through the unchanged writer. Same seed, same world, byte for byte.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from heapq import heappop, heappush
from math import inf
from random import Random
from typing import Any, Final, Protocol

from kvnet.core.events import (
    UNSENT_BYTES_MAX,
    BulkReceived,
    DialFailed,
    Effect,
    Event,
    LinkWritable,
    MessageReceived,
    PeerUp,
)
from kvnet.core.frames import Frame, read_frame
from kvnet.core.messages import BulkMessage, Frames, Message
from kvnet.core.operations import PutValue
from kvnet.core.replica import Replica
from kvnet.core.root import Phase
from kvnet.core.state import NodeConfig
from kvnet.limits import Limits
from kvnet.simulator.desk import NAMESPACE, Desk
from kvnet.simulator.disk import SimulatedDisk
from kvnet.simulator.history import History
from kvnet.simulator.network import DIAL_TIMEOUT_MS, Direction, Link, dial_ms
from kvnet.simulator.node import SimulatedNode
from kvnet.timers import Timers
from kvnet.topology.link import USER_TIMEOUT_MS
from kvnet.topology.schema import COORDINATOR, Topology
from kvnet.topology.wan import Tcp, Wan
from kvnet.transport.address_book import AddressBook

ROOT: Final = COORDINATOR
ROOM_CHECK_MS: Final = 5.0


class Watcher:
    """Looks on from outside, told of everything; the nodes don't know. Overridden in part."""

    def on_event(self, node: SimulatedNode) -> None:
        """The node has just handled one event, and nothing of it is carried out beyond its turn."""

    def on_applied(self, node: SimulatedNode, frames: Sequence[Frame]) -> None:
        """The node's disk has just taken these frames."""

    def on_adopted(self, node: SimulatedNode) -> None:
        """The node's readers see another replica, made of pages."""

    def on_emptied(self, node: SimulatedNode) -> None:
        """The node has thrown its replica away, or its disk was wiped."""

    def on_started(self, node: SimulatedNode) -> None:
        """The node begins, on the disk it has."""

    def on_stopped(self, node: SimulatedNode) -> None:
        """The node is gone."""

    def on_durable(self, node: SimulatedNode, frames: Sequence[Frame]) -> None:
        """A coordinator's fsync of these frames is done, and nobody has heard of them."""

    def on_sent(self, node: SimulatedNode, peer: str, messages: Sequence[Message]) -> None:
        """The node has handed these messages to a link."""

    def look(self) -> None:
        """Look at the whole world, as is done now and then and at the end."""


class Hooks:
    """For each thing that watchers may hear of, those that listen; without watchers it costs next to nothing."""

    def __init__(self) -> None:
        self.event: list[Callable[[SimulatedNode], None]] = []
        self.applied: list[Callable[[SimulatedNode, Sequence[Frame]], None]] = []
        self.adopted: list[Callable[[SimulatedNode], None]] = []
        self.emptied: list[Callable[[SimulatedNode], None]] = []
        self.started: list[Callable[[SimulatedNode], None]] = []
        self.stopped: list[Callable[[SimulatedNode], None]] = []
        self.durable: list[Callable[[SimulatedNode, Sequence[Frame]], None]] = []
        self.sent: list[Callable[[SimulatedNode, str, Sequence[Message]], None]] = []
        self.look: list[Callable[[], None]] = []

    def add(self, watcher: Watcher) -> None:
        """Listen with those methods that the watcher's class has of its own."""
        for name, listeners in vars(self).items():
            method = "look" if name == "look" else f"on_{name}"
            if getattr(type(watcher), method) is not getattr(Watcher, method):
                listeners.append(getattr(watcher, method))


class Tracer(Protocol):
    """Who writes down what happens."""

    def on_event(self, node: SimulatedNode, event: Event) -> None: ...
    def on_effect(self, node: SimulatedNode, effect: Effect) -> None: ...
    def on_send(self, node: SimulatedNode, peer: str, message: Message) -> None: ...
    def on_fault(self, now_ms: float, text: str) -> None: ...


class Tampering(Protocol):
    """What may happen to single messages, beyond what TCP lets happen."""

    def tamper(self, direction: Direction, messages: list[Message]) -> list[Message]:
        """Return what the connection carries instead of these messages."""


class World:
    """All nodes of one topology, their links, and what happens next."""

    def __init__(
        self,
        topology: Topology,
        *,
        seed: int,
        timers: Timers | None = None,
        limits: Limits | None = None,
        edge_journal_bytes: int | None = None,
        tcp: Tcp = "flight",
        folds: bool = True,
        trace: Tracer | None = None,
    ) -> None:
        """`folds` is False where records don't matter: edges then keep journals alone, which is quicker."""
        self.topology = topology
        self.timers = timers or topology.timers
        self.limits = limits or replace(topology.limits.resolve(), write_interval_ms=0)
        self.rng = Random(seed)
        self.wan = Wan(topology, tcp=tcp)
        self.now = 0.0
        self.trace = trace
        self.tampering: Tampering | None = None
        self.heard = Hooks()
        """What watchers want to hear; see `watch`."""
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
        self._network_rng = Random(self.rng.getrandbits(64))
        self._heap: list[tuple[float, int, Callable[[Any], object], Any]] = []
        self._order = 0
        self.last_stray_ms = -inf
        """When the last message that was held back outside its connection is delivered."""
        self._written = 0
        self._frames: dict[bytes, Frame] = {}
        self._twins = 0
        self._members = tuple(pop.code for pop in topology.pops)
        self._book = AddressBook(topology)
        self._configs: dict[str, NodeConfig] = {}
        self.nodes = {ROOT: SimulatedNode(self, ROOT, SimulatedDisk())}
        for code in self._members:
            disk = SimulatedDisk(journal_bytes_max=edge_journal_bytes, folds=folds)
            self.nodes[code] = SimulatedNode(self, code, disk)

    def watch(self, watcher: Watcher) -> None:
        """Tell it of everything from now on."""
        self.heard.add(watcher)

    # -- time ------------------------------------------------------------------------------------------------

    def at(self, time_ms: float, action: Callable[[Any], object], argument: Any) -> None:
        """Have `action(argument)` happen then, after all that was ordered for that time before."""
        self._order += 1
        heappush(self._heap, (time_ms, self._order, action, argument))

    def run_until(self, time_ms: float) -> None:
        heap = self._heap
        while heap and heap[0][0] <= time_ms:
            self.now, _, action, argument = heappop(heap)
            action(argument)
        self.now = max(self.now, time_ms)

    def run_while(self, condition: Callable[[], bool], limit_ms: float) -> bool:
        """Run until the condition fails; return False if it still held after `limit_ms`."""
        end = self.now + limit_ms
        while condition():
            if not self._heap or self._heap[0][0] > end:
                return False
            self.run_until(self._heap[0][0])
        return True

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
        for link in [*node.links.values(), *node.bulk_links.values()]:
            other = link.other(node)
            if silent:
                link.is_half_open = True
            else:
                link.alive = False
                self.at(self.now + self.wan.one_way_ms(node.name, other.name), self._hear_of_end, (other, link))
        node.links.clear()
        node.bulk_links.clear()
        if power:
            self._lose_power(node)
        for tell in self.heard.stopped:
            tell(node)

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

    # -- links -----------------------------------------------------------------------------------------------

    def dial(self, node: SimulatedNode, peer: str, *, bulk: bool = False) -> None:
        dialling = node.dialling_of(bulk)
        if peer in node.links_of(bulk) or peer in dialling:
            return
        dialling[peer] = None
        wait = dial_ms(self.wan, node.name, peer, self._network_rng)
        if wait == inf:
            self.at(self.now + DIAL_TIMEOUT_MS, self._dial_failed, (node, node.core, peer, bulk))
        else:
            self.at(self.now + wait, self._dialled, (node, node.core, peer, bulk))

    def _dial_failed(self, dial: tuple[SimulatedNode, Replica, str, bool]) -> None:
        node, core, peer, bulk = dial
        if node.core is core:
            node.dialling_of(bulk).pop(peer, None)
            if peer in node.links_of(bulk):
                return
            if bulk:
                node.on_bulk_lost(peer)
            else:
                node.feed(DialFailed(peer))

    def _dialled(self, dial: tuple[SimulatedNode, Replica, str, bool]) -> None:
        node, core, peer, bulk = dial
        other = self.nodes[peer]
        if node.core is not core:
            return
        stalled = max(node.stalled_until, other.stalled_until)
        if stalled > self.now and other.core is not None:
            self.at(stalled, self._dialled, dial)  # the handshake waits for both
            return
        if other.core is None or other is node:
            self._dial_failed(dial)
            return
        if self.wan.is_cut(node.name, peer) or self.wan.is_cut(peer, node.name):
            self.at(self.now + DIAL_TIMEOUT_MS, self._dial_failed, dial)  # the way was cut meanwhile
            return
        node.dialling_of(bulk).pop(peer, None)
        ours, theirs = node.links_of(bulk), other.links_of(bulk)
        if peer in ours:
            return
        rtt = self.wan.rtt_ms(node.name, peer)
        link = Link(self.wan, node, other, self._network_rng, self.now, bulk=bulk)
        ours[peer] = link
        stale = theirs.get(node.name)
        theirs[node.name] = link
        if stale is not None:
            stale.alive = False
            rival = stale.other(other)
            if rival is not node:
                self.at(self.now + self.wan.one_way_ms(peer, node.name), self._hear_of_end, (rival, stale))
            other.on_lost(node.name, bulk=bulk)
        if bulk:
            node.on_bulk_up(peer)
            return
        other.feed(PeerUp(node.name, rtt))
        if ours.get(peer) is link:
            node.feed(PeerUp(peer, rtt))

    def close(self, link: Link) -> None:
        """End a connection, for both ends at once."""
        if not link.alive:
            return
        link.alive = False
        for node in (link.forth.sender, link.back.sender):
            self._lose(node, link)

    def _hear_of_end(self, loss: tuple[SimulatedNode, Link]) -> None:
        self._lose(*loss)

    def _lose(self, node: SimulatedNode, link: Link) -> None:
        peer = link.other(node).name
        links = node.links_of(link.bulk)
        if links.get(peer) is link:
            del links[peer]
            node.on_lost(peer, bulk=link.bulk)

    def send(self, node: SimulatedNode, peer: str, messages: list[Message], *, bulk: bool = False) -> None:
        """Hand these messages to the link, as one WebSocket message."""
        link = node.links_of(bulk).get(peer)
        if link is None:
            return
        if self.trace is not None:
            for message in messages:
                self.trace.on_send(node, peer, message)
        for tell in self.heard.sent:
            tell(node, peer, messages)
        for message in messages:
            if type(message) is Frames:
                break
        else:
            node.control_messages_sent += not bulk
        if link.is_half_open and link.breaks_at == inf:
            link.breaks_at = self.now + USER_TIMEOUT_MS
            self.at(link.breaks_at, self.close, link)
        direction = link.forth if link.forth.sender is node else link.back
        if self.tampering is not None and not bulk:
            messages = self.tampering.tamper(direction, messages)
            if not messages:
                return
        direction.send(self.now, messages)
        due = direction.next_due()
        if due < direction.wake_at:
            self._wake(direction, due)

    def await_room(self, direction: Direction) -> None:
        """Tell the sender as soon as the link takes more."""
        direction.wants_room = True
        self._wake(direction, self.now + 1)

    def _wake(self, direction: Direction, at_ms: float) -> None:
        at_ms = max(at_ms, self.now)
        if at_ms < direction.wake_at:
            direction.wake_at = at_ms
            self._order += 1
            heappush(self._heap, (at_ms, self._order, self._deliver, direction))

    def _deliver(self, direction: Direction) -> None:
        link = direction.link
        if direction.wake_at != self.now or not link.alive:
            return  # it was wanted sooner, and has been there
        direction.wake_at = inf
        if self.now >= direction.model.dead_at_ms:
            self.close(link)
            return
        receiver = direction.receiver
        if self.now < receiver.stalled_until:
            self._wake(direction, receiver.stalled_until)
            return
        messages = direction.arrivals(self.now)
        is_heard = not link.is_half_open and receiver.links_of(link.bulk).get(direction.sender.name) is link
        if messages and is_heard and link.bulk:
            receiver.turn([_bulk_event(direction.sender.name, message) for message in messages])
        elif messages and is_heard:
            if receiver.overflows(messages):
                self.close(link)
                return
            name = direction.sender.name
            receiver.turn([MessageReceived(name, message) for message in messages])
        self._go_on(direction)

    def _go_on(self, direction: Direction) -> None:
        """Come back for what this direction has next, unless its connection has just ended."""
        if not direction.link.alive:
            return
        if direction.wants_room:
            self._tell_of_room(direction)
        due = direction.next_due()
        if due < direction.wake_at:
            self._wake(direction, due)

    def _tell_of_room(self, direction: Direction) -> None:
        if direction.model.unsent_bytes(self.now) < UNSENT_BYTES_MAX:
            direction.wants_room = False
            direction.sender.feed(LinkWritable(direction.receiver.name))
        else:
            self._wake(direction, self.now + ROOM_CHECK_MS)

    def look_at(self, direction: Direction) -> None:
        """See what has arrived there while its receiver stood still."""
        self._wake(direction, max(self.now, direction.next_due()))

    def send_stray(self, direction: Direction, message: Message, after_ms: float) -> None:
        """Deliver a message out of its order, so much later."""
        self.last_stray_ms = max(self.last_stray_ms, self.now + after_ms)
        self.at(self.now + after_ms, self._deliver_stray, (direction, message))

    def _deliver_stray(self, stray: tuple[Direction, Message]) -> None:
        """Deliver a message out of its order, if its two nodes have any link."""
        direction, message = stray
        receiver, sender = direction.receiver, direction.sender.name
        if receiver.core is not None and sender in receiver.links:
            receiver.feed(MessageReceived(sender, message))

    def wan_changed(self) -> None:
        """Tell every link that the WAN is not what it was."""
        for node in list(self.nodes.values()):
            for link in [*node.links.values(), *node.bulk_links.values()]:
                direction = link.direction(node)
                direction.model.on_change(self.now)
                self._wake(direction, direction.next_due())

    def look(self) -> None:
        """Have every watcher look at the whole world."""
        for tell in self.heard.look:
            tell()


def _bulk_event(peer: str, message: Message) -> BulkReceived:
    assert isinstance(message, BulkMessage), "a bulk link carries nothing else"
    return BulkReceived(peer, message)


def _at_once() -> float:
    return 0.0


def _nobody(durable: bool) -> None:
    """Hear an answer that nobody waits for."""
    del durable
