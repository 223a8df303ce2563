"""What must hold in every world, looked at from outside: the nodes don't know that they are watched."""

from __future__ import annotations

from typing import Final

from kvnet.simulator.world import World

LOOK_EVERY_MS: Final = 100.0


class ParentLoops:
    """Looks for nodes that only serve each other, and fails when they do so for too long.

    A node stands on ground if it is the coordinator, or has no parent that runs, or one of its parents stands on
    ground. With two parents a loop can form; it gets no new beacon, so it ends at the late limit.
    """

    def __init__(self, world: World, *, lasting_ms_max: float = 2000.0) -> None:
        """Look from now on, for as long as the world runs."""
        self.world = world
        self.lasting_ms_max = lasting_ms_max
        self.longest_ms = 0.0
        self._since: dict[str, float] = {}
        self._look()

    def _look(self) -> None:
        now = self.world.now
        self._since = {name: self._since.get(name, now) for name in nodes_without_ground(self.world)}
        for name, since in self._since.items():
            self.longest_ms = max(self.longest_ms, now - since)
            assert now - since <= self.lasting_ms_max, f"{name} is in a loop of parents since {since:.0f} ms"
        self.world.at(now + LOOK_EVERY_MS, self._look)


def nodes_without_ground(world: World) -> list[str]:
    """Return the nodes from which every chain of parents goes round in circles."""
    children: dict[str, list[str]] = {}
    standing: list[str] = []
    for node in world.live():
        assert node.core is not None
        parents = [name for name in node.core.state.parents if world.nodes[name].core is not None]
        for parent in parents:
            children.setdefault(parent, []).append(node.name)
        if not parents:
            standing.append(node.name)
    grounded = dict.fromkeys(standing)
    while standing:
        for child in children.get(standing.pop(), ()):
            if child not in grounded:
                grounded[child] = None
                standing.append(child)
    return [node.name for node in world.live() if node.name not in grounded]
