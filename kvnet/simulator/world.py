"""A world of nodes in virtual time: one heap of things to happen, no clock, no task, no socket.

Each node is the unchanged protocol core with a simulated journal; the driver here does what the asyncio driver
does: carries out effects in order, one `Applied` for each turn, one message per link and turn.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import count
from math import inf
from typing import Final

from kvnet.core.entries import Epoch, Put, record_hash
from kvnet.core.events import (
    UNSENT_BYTES_MAX,
    Applied,
    Apply,
    AwaitWritable,
    Connect,
    DeadlineReached,
    DialFailed,
    Disconnect,
    Effect,
    Empty,
    Event,
    FramesCut,
    LinkWritable,
    MessageReceived,
    OpenEpoch,
    PeerLost,
    PeerUp,
    RefuseWrites,
    Report,
    Send,
    SetDeadline,
    Started,
)
from kvnet.core.frames import Frame, cut_frame
from kvnet.core.messages import Frames, Message
from kvnet.core.replica import Replica
from kvnet.core.root import Phase
from kvnet.core.versions import GENESIS
from kvnet.simulator.disk import SimulatedJournal
from kvnet.simulator.network import Link
from kvnet.timers import Timers
from kvnet.topology.link import USER_TIMEOUT_MS
from kvnet.topology.schema import Topology
from kvnet.topology.wan import Wan
from kvnet.transport.address_book import AddressBook

ROOT: Final = "coordinator"
DIAL_TIMEOUT_MS: Final = 5000.0


class Node:
    """One node: its core while it runs, its journal for ever."""

    def __init__(self, name: str, journal: SimulatedJournal) -> None:
        self.name = name
        self.journal = journal
        self.core: Replica | None = None
        self.links: dict[str, Link] = {}
        self.dialling: set[str] = set()
        self.deadline = inf
        self.reports: list[tuple[float, str, str]] = []
        self.control_messages_sent = 0
        """WebSocket messages without a frame; all that is pending for a link in one turn is one."""
        self.refused_writes = ""
        self.now = 0.0

    def unsent_bytes(self, peer: str) -> int:
        link = self.links.get(peer)
        return link.directions[self.name].model.unsent_bytes(self.now) if link else 0


class World:
    """All nodes of one topology, their links, and what happens next."""

    def __init__(
        self,
        topology: Topology,
        *,
        seed: int,
        timers: Timers | None = None,
        edge_journal_bytes: int | None = None,
        trace: Callable[[float, str, str], None] | None = None,
    ) -> None:
        self.topology = topology
        self.timers = timers or topology.timers
        self.rng = random.Random(seed)
        self.wan = Wan(topology)
        self.now = 0.0
        self.trace = trace
        self.arrivals: dict[int, dict[str, float]] = {}
        """When each node applied the frame that ends at this seq, by seq and node."""
        self.cut_at: dict[int, float] = {}
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        members = tuple(pop.code for pop in topology.pops)
        book = AddressBook(topology)
        self.configs = {name: book.config(name) for name in (ROOT, *members)}
        self.nodes: dict[str, Node] = {ROOT: Node(ROOT, SimulatedJournal())}
        for code in members:
            self.nodes[code] = Node(code, SimulatedJournal(edge_journal_bytes))
        self.events = 0

    # -- time ------------------------------------------------------------------------------------------------

    def at(self, time_ms: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._heap, (time_ms, next(self._order), action))

    def run_until(self, time_ms: float) -> None:
        heap = self._heap
        while heap and heap[0][0] <= time_ms:
            self.now, _, action = heapq.heappop(heap)
            self.events += 1
            action()
        self.now = time_ms

    def run_while(self, condition: Callable[[], bool], limit_ms: float) -> bool:
        """Run until the condition fails; return False if it still held after `limit_ms`."""
        end = self.now + limit_ms
        while condition():
            if not self._heap or self._heap[0][0] > end:
                return False
            self.run_until(self._heap[0][0])
        return True

    # -- nodes -----------------------------------------------------------------------------------------------

    def start(self, name: str, *, accept_loss: bool = False, recover: bool = False) -> None:
        """Start a node on the journal it has; the flags matter at the coordinator only."""
        node = self.nodes[name]
        assert node.core is None, f"{name} runs already"
        node.refused_writes = ""
        config = replace(self.configs[name], accept_loss=accept_loss, recover=recover, fresh=not self.cut_at)
        rng = random.Random(self.rng.getrandbits(64))
        node.core = Replica(config, self.timers, node.journal, node, rng, lambda: self.now)
        self._feed(node, Started())

    def start_all(self) -> None:
        for name in self.nodes:
            self.start(name)

    def crash(self, name: str, *, silent: bool = False) -> None:
        """Stop a node; it keeps its journal. Its peers' connections break at once.

        `silent`: as if its machine lost power. A connection then breaks USER_TIMEOUT_MS after its peer has sent
        something that nobody acknowledges.
        """
        node = self.nodes[name]
        node.core = None
        node.deadline = inf
        node.dialling.clear()
        for peer, link in list(node.links.items()):
            del node.links[peer]
            if silent:
                link.is_half_open = True
                continue
            link.alive = False
            lose = partial(self._lose, self.nodes[peer], link)
            self.at(self.now + self.wan.one_way_ms(name, peer), lose)

    def wipe(self, name: str) -> None:
        """Empty a stopped node's disk."""
        assert self.nodes[name].core is None, f"{name} runs"
        self.nodes[name].journal.clear()

    def live(self) -> list[Node]:
        return [node for node in self.nodes.values() if node.core is not None]

    # -- the driver ------------------------------------------------------------------------------------------

    def _feed(self, node: Node, event: Event) -> None:
        pending: list[Event] = [event]
        outbox: dict[str, list[Message]] = {}
        while pending:
            core = node.core
            if core is None:
                return
            event = pending.pop(0)
            node.now = self.now
            if self.trace is not None:
                self.trace(self.now, node.name, f"< {event}")
            applied: list[Frame] = []
            for effect in core.handle(event, self.now):
                self._carry_out(node, effect, outbox, pending, applied)
            core.check_invariants()
            if applied:
                self._apply(node, applied)
                pending.append(Applied(node.journal.position))
        for peer, messages in outbox.items():
            self._send(node, peer, tuple(messages))

    def _carry_out(
        self,
        node: Node,
        effect: Effect,
        outbox: dict[str, list[Message]],
        pending: list[Event],
        applied: list[Frame],
    ) -> None:
        match effect:
            case Send(peer, message):
                outbox.setdefault(peer, []).append(message)
            case Apply(frames):
                applied.extend(frames)
            case SetDeadline(at_ms):
                self._arm(node, at_ms)
            case Connect(peer):
                self._dial(node, peer)
            case Disconnect(peer, _):
                link = node.links.get(peer)
                if link is not None:
                    self._close(link)
            case AwaitWritable(peer):
                link = node.links.get(peer)
                if link is not None:
                    link.directions[node.name].wants_room = True
                    self._wake(link, node.name, self.now + 1)
            case Empty():
                applied.clear()
                node.journal.clear()
                pending.append(Applied(GENESIS))
            case OpenEpoch(epoch):
                nonce = self.rng.getrandbits(128).to_bytes(16, "big")
                pending.append(FramesCut((self._cut(node, [Epoch(epoch, nonce)], epoch),)))
            case RefuseWrites(why):
                node.refused_writes = why
            case Report(what, detail):
                node.reports.append((self.now, what, detail))
        if self.trace is not None and not isinstance(effect, Send):
            self.trace(self.now, node.name, f"> {effect}")

    def _apply(self, node: Node, frames: list[Frame]) -> None:
        for frame in frames:
            node.journal.append(frame)
            self.arrivals.setdefault(frame.last_seq, {})[node.name] = self.now

    def _arm(self, node: Node, at_ms: float) -> None:
        node.deadline = at_ms
        core = node.core

        def fire() -> None:
            if node.core is core and node.deadline == at_ms:
                self._feed(node, DeadlineReached())

        self.at(max(at_ms, self.now), fire)

    # -- writing ---------------------------------------------------------------------------------------------

    @property
    def is_open(self) -> bool:
        """Whether the coordinator takes writes."""
        core = self.nodes[ROOT].core
        return core is not None and core.root.phase is Phase.OPEN

    def write(self, size: int = 100) -> int:
        """Have the coordinator cut a frame of one entry; return its seq."""
        assert self.is_open, "the coordinator takes no writes"
        node = self.nodes[ROOT]
        epoch, seq = node.journal.position.epoch, node.journal.position.seq + 1
        key, value = b"key-%d" % self.rng.randrange(1000), bytes(size)
        digest = record_hash(bytes(16), key, value, b"", 0, epoch, seq)
        frame = self._cut(node, [Put(bytes(16), key, value, b"", 0, digest)], epoch)
        self._feed(node, FramesCut((frame,)))
        return frame.last_seq

    def _cut(self, node: Node, entries: list[Epoch] | list[Put], epoch: int) -> Frame:
        here = node.journal.position
        frame = cut_frame(
            epoch=epoch,
            first_seq=here.seq + 1,
            stamp=int(self.now) << 16,
            chain_before=here.chain,
            digest_after=bytes(16),
            entries=entries,
        )
        node.journal.append(frame)
        self.cut_at[frame.last_seq] = self.now
        return frame

    # -- links -----------------------------------------------------------------------------------------------

    def _dial(self, node: Node, peer: str) -> None:
        if peer in node.links or peer in node.dialling:
            return
        node.dialling.add(peer)
        core = node.core
        wan = self.wan
        rtt = wan.rtt_ms(node.name, peer)
        if wan.is_cut(node.name, peer) or wan.is_cut(peer, node.name):
            self.at(self.now + DIAL_TIMEOUT_MS, lambda: self._dial_failed(node, core, peer))
            return
        # TCP's handshake, then the proof both ways: two round trips until both know.
        wait = 2 * rtt
        for _ in range(4):  # each of the four flights may be lost
            rto = 200.0 + rtt
            while self.rng.random() < wan.loss(node.name, peer):
                wait += rto
                rto *= 2
        if wait > DIAL_TIMEOUT_MS:
            self.at(self.now + DIAL_TIMEOUT_MS, lambda: self._dial_failed(node, core, peer))
        else:
            self.at(self.now + wait, lambda: self._dialled(node, core, peer, rtt))

    def _dial_failed(self, node: Node, core: Replica | None, peer: str) -> None:
        if node.core is core:
            node.dialling.discard(peer)
            if peer not in node.links:
                self._feed(node, DialFailed(peer))

    def _dialled(self, node: Node, core: Replica | None, peer: str, rtt: float) -> None:
        other = self.nodes[peer]
        if node.core is not core:
            return
        if other.core is None:
            self._dial_failed(node, core, peer)
            return
        node.dialling.discard(peer)
        if peer in node.links:
            return
        link = Link(self.wan, node.name, peer, random.Random(self.rng.getrandbits(64)))
        node.links[peer] = link
        stale = other.links.pop(node.name, None)
        if stale is not None:
            stale.alive = False
        other.links[node.name] = link
        if stale is not None:
            self._feed(other, PeerLost(node.name))
        self._feed(other, PeerUp(node.name, rtt))
        if node.links.get(peer) is link:
            self._feed(node, PeerUp(peer, rtt))

    def _close(self, link: Link) -> None:
        if not link.alive:
            return
        link.alive = False
        for end in link.ends:
            self._lose(self.nodes[end], link)

    def _lose(self, node: Node, link: Link) -> None:
        peer = link.other(node.name)
        if node.links.get(peer) is link:
            del node.links[peer]
            self._feed(node, PeerLost(peer))

    def _send(self, node: Node, peer: str, messages: tuple[Message, ...]) -> None:
        link = node.links.get(peer)
        if link is None:
            return
        if self.trace is not None:
            for message in messages:
                self.trace(self.now, node.name, f"-> {peer} {_brief(message)}")
        node.control_messages_sent += not any(type(message) is Frames for message in messages)
        if link.is_half_open and link.breaks_at == inf:
            link.breaks_at = self.now + USER_TIMEOUT_MS
            self.at(link.breaks_at, lambda: self._close(link))
        direction = link.directions[node.name]
        direction.send(self.now, messages)
        self._wake(link, node.name, direction.next_due())

    def _wake(self, link: Link, sender: str, at_ms: float) -> None:
        direction = link.directions[sender]
        if at_ms == inf or at_ms >= direction.wake_at:
            return
        direction.wake_at = at_ms
        self.at(max(at_ms, self.now), lambda: self._deliver(link, sender, at_ms))

    def _deliver(self, link: Link, sender: str, woken_at: float) -> None:
        direction = link.directions[sender]
        if not link.alive or direction.wake_at != woken_at:
            return
        direction.wake_at = inf
        if self.now >= direction.model.dead_at_ms:
            self._close(link)
            return
        receiver = self.nodes[link.other(sender)]
        for message in direction.arrivals(self.now):
            if receiver.core is None or receiver.links.get(sender) is not link:
                break
            self._feed(receiver, MessageReceived(sender, message))
        if direction.wants_room and link.alive:
            if direction.model.unsent_bytes(self.now) < UNSENT_BYTES_MAX:
                direction.wants_room = False
                self._feed(self.nodes[sender], LinkWritable(link.other(sender)))
            else:
                self._wake(link, sender, self.now + 5)
        if link.alive:
            self._wake(link, sender, direction.next_due())

    def wan_changed(self) -> None:
        """Tell every link that the WAN is not what it was."""
        for node in self.nodes.values():
            for link in node.links.values():
                direction = link.directions[node.name]
                direction.model.on_change(self.now)
                self._wake(link, node.name, direction.next_due())


def _brief(message: Message) -> str:
    return f"Frames({len(message.frames)})" if isinstance(message, Frames) else str(message)
