"""The simulated network: links between two nodes, each direction a connection of the WAN model."""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, field
from math import inf
from typing import Final

from kvnet.core.messages import Frames, Message
from kvnet.topology.wan import HELD, LinkModel, Wan

CONTROL_BYTES: Final = 90
"""A control message with its share of WebSocket, TCP and IP headers."""


def size_of(message: Message) -> int:
    return CONTROL_BYTES + (sum(map(len, message.frames)) if isinstance(message, Frames) else 0)


@dataclass(slots=True)
class Direction:
    """What is under way from one end to the other, oldest first."""

    model: LinkModel
    queue: deque[tuple[float, int, tuple[Message, ...]]] = field(default_factory=deque)
    """(promised time, bytes, messages)."""
    wake_at: float = inf
    wants_room: bool = False

    def send(self, now: float, messages: tuple[Message, ...]) -> None:
        size = sum(map(size_of, messages))
        self.queue.append((self.model.send(now, size), size, messages))

    def arrivals(self, now: float) -> list[Message]:
        """Take out what has arrived by now."""
        arrived: list[Message] = []
        while self.queue and self.model.due_ms(self.queue[0][0]) <= now:
            arrived.extend(self.queue.popleft()[2])
        return arrived

    def next_due(self) -> float:
        due = self.model.due_ms(self.queue[0][0]) if self.queue else HELD
        return min(due, self.model.dead_at_ms)


class Link:
    """One connection between two nodes; both directions live and die together."""

    def __init__(self, wan: Wan, dialler: str, listener: str, rng: random.Random) -> None:
        self.ends = (dialler, listener)
        self.alive = True
        self.is_half_open = False
        """One end died without a word."""
        self.breaks_at = inf
        """When the other end gives it up."""
        self.directions = {
            dialler: Direction(wan.link(dialler, listener, rng)),
            listener: Direction(wan.link(listener, dialler, rng)),
        }

    def other(self, end: str) -> str:
        return self.ends[1] if end == self.ends[0] else self.ends[0]
