"""The simulated network: links between two nodes, each direction a connection of the WAN model."""

from __future__ import annotations

from math import inf
from random import Random
from typing import TYPE_CHECKING, Final

from kvnet.core.messages import Chunk, Frames, Message, Page
from kvnet.topology.wan import HELD, LinkModel, Wan

if TYPE_CHECKING:
    from kvnet.simulator.node import SimulatedNode

CONTROL_BYTES: Final = 90
"""A control message with its share of WebSocket, TCP and IP headers."""
DIAL_TIMEOUT_MS: Final = 5000.0
DIAL_FLIGHTS: Final = 4
"""TCP's handshake, then the proof both ways: two round trips until both know."""
SYN_RTO_MS: Final = 200.0


def size_of(messages: list[Message]) -> int:
    """Return the bytes these messages are on the wire."""
    size = CONTROL_BYTES * len(messages)
    for message in messages:
        if type(message) is Frames:
            size += sum(map(len, message.frames))
        elif type(message) is Page:
            size += len(message.body)
        elif type(message) is Chunk:
            size += len(message.data)
    return size


class Direction:
    """One way of a link: what is under way, oldest first."""

    __slots__ = ("bytes_sent", "link", "model", "queue", "receiver", "sender", "wake_at", "wants_room")

    def __init__(self, link: Link, sender: SimulatedNode, receiver: SimulatedNode, model: LinkModel) -> None:
        self.link = link
        self.sender = sender
        self.receiver = receiver
        self.model = model
        self.queue: list[tuple[float, list[Message]]] = []
        """(promised time, messages); rarely more than one, so a list is smaller than a deque and no slower."""
        self.wake_at = inf
        self.wants_room = False
        self.bytes_sent = 0

    def send(self, now: float, messages: list[Message]) -> None:
        size = size_of(messages)
        self.bytes_sent += size
        self.queue.append((self.model.send(now, size), messages))

    def arrivals(self, now: float) -> list[Message]:
        """Take out what has arrived by now."""
        queue = self.queue
        if not queue or self.model.due_ms(queue[0][0]) > now:
            return []
        arrived = queue.pop(0)[1]
        while queue and self.model.due_ms(queue[0][0]) <= now:
            arrived = arrived + queue.pop(0)[1]
        return arrived

    def next_due(self) -> float:
        """Return when something happens here next: an arrival, or the connection's death."""
        model = self.model
        due = model.due_ms(self.queue[0][0]) if self.queue else HELD
        return min(model.dead_at_ms, due)


class Link:
    """One connection between two nodes; both directions live and die together."""

    __slots__ = ("alive", "back", "breaks_at", "bulk", "forth", "is_half_open", "since")

    def __init__(
        self, wan: Wan, dialler: SimulatedNode, listener: SimulatedNode, rng: Random, now: float, *, bulk: bool
    ) -> None:
        self.alive = True
        self.bulk = bulk
        """For pages and chunks, beside the one for all else."""
        self.since = now
        self.is_half_open = False
        """One end died without a word."""
        self.breaks_at = inf
        """When the other end gives it up."""
        self.forth = Direction(self, dialler, listener, wan.link(dialler.name, listener.name, rng))
        self.back = Direction(self, listener, dialler, wan.link(listener.name, dialler.name, rng))

    def direction(self, sender: SimulatedNode) -> Direction:
        return self.forth if self.forth.sender is sender else self.back

    def other(self, end: SimulatedNode) -> SimulatedNode:
        return self.back.sender if self.forth.sender is end else self.forth.sender


def dial_ms(wan: Wan, dialler: str, listener: str, rng: Random) -> float:
    """Return how long it takes until both ends know of a new connection; inf when it is given up."""
    rtt = wan.rtt_ms(dialler, listener)
    if wan.is_cut(dialler, listener) or wan.is_cut(listener, dialler):
        return inf
    wait = 2 * rtt
    for flight in range(DIAL_FLIGHTS):
        loss = wan.loss(dialler, listener) if flight % 2 == 0 else wan.loss(listener, dialler)
        rto = SYN_RTO_MS + rtt
        while loss and wait <= DIAL_TIMEOUT_MS and rng.random() < loss:
            wait += rto
            rto *= 2
    return wait if wait <= DIAL_TIMEOUT_MS else inf
