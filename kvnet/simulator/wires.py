"""The links of a simulated world: how they come up, what they carry, and how they end."""

from __future__ import annotations

from heapq import heappush
from math import inf
from random import Random
from typing import Final

from kvnet.core.events import (
    UNSENT_BYTES_MAX,
    BulkReceived,
    DialFailed,
    LinkWritable,
    MessageReceived,
    PeerUp,
)
from kvnet.core.messages import BulkMessage, Frames, Message
from kvnet.core.replica import Replica
from kvnet.simulator.network import DIAL_TIMEOUT_MS, Direction, Link, dial_ms
from kvnet.simulator.node import SimulatedNode
from kvnet.simulator.timeline import Timeline
from kvnet.simulator.watching import Hooks, Tampering, Tracer
from kvnet.topology.link import USER_TIMEOUT_MS
from kvnet.topology.wan import Wan

ROOM_CHECK_MS: Final = 5.0


class Wires(Timeline):
    """All links between the nodes, two for each pair at most: one for pages and chunks, one for all else."""

    def __init__(self, wan: Wan, rng: Random, trace: Tracer | None) -> None:
        super().__init__()
        self.wan = wan
        self.trace = trace
        self.tampering: Tampering | None = None
        self.bulk_tampering: Tampering | None = None
        """The same of pages and chunks."""
        self.heard = Hooks()
        """What watchers want to hear; see `World.watch`."""
        self.nodes: dict[str, SimulatedNode] = {}
        self.last_stray_ms = -inf
        """When the last message that was held back outside its connection is delivered."""
        self._network_rng = rng

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
                node.bulk.on_lost(peer)
            else:
                node.feed(DialFailed(peer))

    def _dialled(self, dial: tuple[SimulatedNode, Replica, str, bool]) -> None:
        node, core, peer, bulk = dial
        other = self.nodes[peer]
        if node.core is not core:
            return
        both_run = other.core is not None
        if both_run and (node.put_off(self._dialled, dial) or other.put_off(self._dialled, dial)):
            return  # the handshake waits for both
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
            node.bulk.on_up(peer)
            other.bulk.on_up(node.name)  # it may have been dialling as well
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
            link.breaks_at = self.now + self._silence_ms(node, link)
            self.at(link.breaks_at, self.close, link)
        direction = link.forth if link.forth.sender is node else link.back
        tampering = self.bulk_tampering if bulk else self.tampering
        if tampering is not None:
            messages = tampering.tamper(direction, messages)
            if not messages:
                return
        direction.send(self.now, messages)
        due = direction.next_due()
        if due < direction.wake_at:
            self._wake(direction, due)

    def _silence_ms(self, node: SimulatedNode, link: Link) -> float:
        """How long it takes to see that a link's other machine was gone; one that is back says so at once."""
        other = link.other(node).name
        is_back = self.nodes[other].core is not None
        is_cut = self.wan.is_cut(node.name, other) or self.wan.is_cut(other, node.name)
        return self.wan.rtt_ms(node.name, other) if is_back and not is_cut else USER_TIMEOUT_MS

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
            for link in [*node.links.values(), *node.bulk.links.values()]:
                direction = link.direction(node)
                direction.model.on_change(self.now)
                self._wake(direction, direction.next_due())


def _bulk_event(peer: str, message: Message) -> BulkReceived:
    assert isinstance(message, BulkMessage), "a bulk link carries nothing else"
    return BulkReceived(peer, message)
