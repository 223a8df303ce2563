"""What is swept: knobs of the protocol beside their defaults, conditions, sizes, losses."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Final

from bench._support.simulated import CLEAN, Case, Condition
from kvnet.timers import Timers
from kvnet.topology.wan import Tcp

CONDITIONS: Final = (
    CLEAN,
    Condition("1 % loss", loss=0.01),
    Condition("5 % loss", loss=0.05),
    Condition("20 % loss", loss=0.2),
    Condition("10 % crashed", crashed=0.1),
    Condition("30 % crashed", crashed=0.3),
    Condition("30 % cut, 20 s", cut=0.3),
)
SIZES: Final = (10, 30, 100, 330, 1000, 3000, 10_000)
SIZES_QUICK: Final = (10, 30, 60)
SIZE_CONDITIONS: Final = (CLEAN, CONDITIONS[3])
LOSSES: Final = (0.0, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4)
LOSSES_QUICK: Final = (0.0, 0.05, 0.2, 0.4)
TCP_MODELS: Final[tuple[Tcp, ...]] = ("flight", "sack")
LARGE_POPS: Final = 1000
LARGE_WRITES_MAX: Final = 400
"""Writes to a network of more than 1,000 PoPs: 20 s are enough for a p99, and it takes minutes as it is."""

Values = tuple[float, ...]
Changes = tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class Sweep:
    """One question: how one or two knobs matter."""

    name: str
    question: str
    knobs: tuple[str, ...]
    values: tuple[Values, ...]

    def defaults(self) -> Values:
        """Return the values that were chosen."""
        timers = Timers()
        return tuple(getattr(timers, knob) for knob in self.knobs)

    def settings(self) -> tuple[Values, ...]:
        """Return all values, in order, the defaults among them."""
        return tuple(sorted({*self.values, self.defaults()}))

    def changes(self, values: Values) -> Changes:
        """Return what differs from the defaults, so that the default is one case in all sweeps."""
        named = zip(self.knobs, values, self.defaults(), strict=True)
        return tuple((knob, value) for knob, value, default in named if value != default)


SWEEPS: Final = {
    sweep.name: sweep
    for sweep in (
        Sweep(
            "degree",
            "How many links does an edge need?",
            ("nearest_links", "random_links"),
            ((2, 2), (3, 3), (4, 4), (6, 4), (4, 6), (6, 6)),
        ),
        Sweep("children", "How many children should an edge take?", ("children_max",), ((4,), (8,), (16,))),
        Sweep(
            "coordinator",
            "How many links and children does the coordinator need?",
            ("coordinator_links", "coordinator_children_max"),
            ((4, 8), (4, 16), (8, 8), (8, 16), (8, 32), (16, 16), (16, 32)),
        ),
        Sweep(
            "beacons",
            "How often should the coordinator tell how far it is?",
            ("beacon_interval_ms", "beacon_interval_busy_ms"),
            ((1000, 500), (500, 500), (500, 250), (250, 125)),
        ),
        Sweep(
            "lateness",
            "After how many silent beacon intervals is a node late?",
            ("late_intervals",),
            ((1.5,), (2.0,), (2.5,), (3.5,)),
        ),
        Sweep(
            "second-parent",
            "How long should a second parent stay?",
            ("second_parent_review_ms",),
            ((2500,), (5000,), (10_000,), (30_000,)),
        ),
    )
}


def setting_text(values: Iterable[float]) -> str:
    """Return a setting as tables and plots name it: `4 / 4` has two knobs."""
    return " / ".join(f"{value:,g}" for value in values)


def sweep_cases(sweep: Sweep, pops: int, writes: int, seeds: Sequence[int]) -> list[Case]:
    """Return the cases that answer a sweep's question in one network."""
    return [
        Case(pops=pops, condition=condition, changes=sweep.changes(values), writes=writes, seed=seed)
        for condition, values, seed in product(CONDITIONS, sweep.settings(), seeds)
    ]


def size_cases(sizes: Sequence[int], writes: int, seeds: Sequence[int]) -> list[Case]:
    """Return the cases that tell how time grows with size."""
    return [
        Case(pops=pops, condition=condition, writes=writes_to(pops, writes), seed=seed)
        for pops, condition, seed in product(sizes, SIZE_CONDITIONS, seeds)
    ]


def loss_cases(pops: int, losses: Sequence[float], writes: int, seeds: Sequence[int]) -> list[Case]:
    """Return the cases that tell how time grows with loss, by both models of what a lost packet costs."""
    return [
        Case(pops=pops, condition=loss_condition(loss), tcp=tcp, writes=writes, seed=seed)
        for tcp, loss, seed in product(TCP_MODELS, losses, seeds)
    ]


def loss_condition(loss: float) -> Condition:
    return Condition(f"{100 * loss:g} % loss", loss=loss) if loss else CLEAN


def writes_to(pops: int, writes: int) -> int:
    """Return how many writes a network of this size gets."""
    return min(writes, LARGE_WRITES_MAX) if pops > LARGE_POPS else writes


def bound_end(violations: dict[float, int]) -> float | None:
    """Return the least loss under which the bound was broken; None if it never was."""
    return min((loss for loss, count in violations.items() if count), default=None)
