"""What may be heard of a world from outside: who watches it, who writes down what happens, who tampers with it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from kvnet.core.events import Effect, Event
from kvnet.core.frames import Frame
from kvnet.core.messages import Ack, Message
from kvnet.simulator.network import Direction

if TYPE_CHECKING:
    from kvnet.simulator.node import SimulatedNode


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

    def on_acks(self, node: SimulatedNode, acks: Sequence[Ack]) -> None:
        """A coordinator has heard these."""

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
        self.acks: list[Callable[[SimulatedNode, Sequence[Ack]], None]] = []
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
