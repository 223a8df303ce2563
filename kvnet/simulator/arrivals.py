"""When each node had each frame: the truth that convergence is computed from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import inf

from kvnet.core.frames import Frame
from kvnet.simulator.node import SimulatedNode
from kvnet.simulator.watching import Watcher
from kvnet.simulator.world import ROOT, World


class Arrivals(Watcher):
    """Notes when each edge applied the frame that ends at a seq, the first time."""

    def __init__(self, world: World) -> None:
        """Watch from now on."""
        self.world = world
        self.at_ms: dict[int, dict[str, float]] = {}
        """By the frame's last seq, by node."""
        world.watch(self)

    def on_applied(self, node: SimulatedNode, frames: Sequence[Frame]) -> None:
        if node.name == ROOT:
            return
        now = self.world.now
        for frame in frames:
            self.at_ms.setdefault(frame.last_seq, {}).setdefault(node.id, now)

    def on_adopted(self, node: SimulatedNode) -> None:
        """A replica made of pages has everything up to where it stands, and had not what came before to show."""
        if node.name == ROOT:
            return
        position = node.disk.position.seq
        for seq in self.world.durable_at:
            if seq <= position:
                self.at_ms.setdefault(seq, {}).setdefault(node.id, self.world.now)

    def lag_ms(self, seq: int, node: str) -> float:
        """Return how long after its fsync a node had this frame; inf if it hasn't."""
        return self.at_ms.get(seq, {}).get(node, inf) - self.world.durable_at[seq]

    def converged_ms(self, seq: int, nodes: Iterable[str]) -> float:
        """Return how long after its fsync the last of these nodes had this frame; inf if one hasn't."""
        held = self.at_ms.get(seq, {})
        return max((held.get(node, inf) for node in nodes), default=-inf) - self.world.durable_at[seq]
