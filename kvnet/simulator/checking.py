"""What all checkers have in common: they look on from outside, judge from ground truth, and fail with a story."""

from __future__ import annotations

from typing import ClassVar, NoReturn

from kvnet.simulator.watching import Watcher
from kvnet.simulator.world import World


class CheckFailed(Exception):
    """A property doesn't hold: which, at which node, about which write."""

    def __init__(self, property_: str, what: str, *, node: str = "", seq: int = 0) -> None:
        """`node` is its id, "" when it is about the whole world; `seq` is that of a write, 0 for none."""
        super().__init__(f"{property_}: {what}")
        self.property = property_
        self.what = what
        self.node = node
        self.seq = seq


class Checker(Watcher):
    """One property."""

    name: ClassVar[str]
    """What the property is called, in a word or two."""

    def __init__(self, world: World) -> None:
        """Watch from now on, for as long as the world runs."""
        self.world = world
        world.watch(self)

    def fail(self, what: str, *, node: str = "", seq: int = 0) -> NoReturn:
        """Say what is wrong.

        Raises:
            CheckFailed: always.
        """
        raise CheckFailed(self.name, what, node=node, seq=seq)
