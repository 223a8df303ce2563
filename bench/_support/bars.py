"""The bars: what the protocol has to reach in simulation, each with the experiment that it is measured in.

All of them: coordinator in Ashburn, no jitter, the TCP model `flight`, values of 100 bytes, 20 writes a second
from 20 s after the network has formed. A write's time is when the last edge had it that runs and isn't cut off.

    no loss, loss   1,200 writes (60 s); loss on every link, from the network's start. p50 and p99 are of all
                    writes.
    crashed         1,200 writes (60 s). At the first of them a random 10 or 30 % of the edges are gone without a
                    word: their peers' connections stay open and silent. p99 is of all 1,200 writes, so it leaves
                    out 12 of those that the repair delays; it counts the edges that are left.
    cut             400 writes (20 s). At the first of them a random 30 % of the edges are cut off together from
                    all others and the coordinator; they reach each other. After 20 s the cut and the writes end;
                    the time runs until each of them has what the coordinator had then.
    10,000 PoPs     400 writes (20 s); the network is generated around the cities of world-2026.
    speed           600 writes (30 s), forming and idling included; processor time of one process that does
                    nothing else, without making the network. 300 at 10 a second beside real time.

A bar holds if the median over the seeds reaches it; of violations, none may be under any seed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from math import inf
from operator import attrgetter, ge, le
from typing import Final

from bench._support.simulated import CLEAN, Case, Condition, Ran, Spread, spread
from kvnet.simulator.measure import Measured

POPS: Final = 330
POPS_LARGE: Final = 10_000
WRITES_QUICK: Final = 100
SPEED_RUNS: Final = 3


class Verdict(StrEnum):
    """Whether a bar holds."""

    PASS = "pass"  # noqa: S105 - no password
    MEDIAN = "pass, not under every seed"
    FAIL = "FAIL"


@dataclass(frozen=True, slots=True)
class Bar:
    """One figure of an experiment, and what it has to be."""

    what: str
    unit: str
    value: Callable[[Ran], float]
    bar: float
    at_least: bool = False
    """Whether more is better."""
    every_seed: bool = False
    """Whether the median isn't enough."""
    digits: int = 0

    def judge(self, values: Sequence[float]) -> Verdict:
        """Return whether it holds for the seeds' values."""
        reached = ge if self.at_least else le
        summed = _summed(values)
        if reached(self.worst(summed), self.bar):
            return Verdict.PASS
        return Verdict.MEDIAN if not self.every_seed and reached(summed.median, self.bar) else Verdict.FAIL

    def worst(self, summed: Spread) -> float:
        return summed.low if self.at_least else summed.high


@dataclass(frozen=True, slots=True)
class Trial:
    """One experiment and its bars; `case` is any of its seeds."""

    name: str
    case: Case
    bars: tuple[Bar, ...]

    def cases(self, seeds: Iterable[int], writes: int | None = None) -> list[Case]:
        return [replace(self.case, seed=seed, writes=writes or self.case.writes) for seed in seeds]


@dataclass(frozen=True, slots=True)
class Judged:
    """A bar and what was measured."""

    trial: str
    bar: Bar
    values: tuple[float, ...]

    @property
    def verdict(self) -> Verdict:
        return self.bar.judge(self.values)

    @property
    def summed(self) -> Spread:
        return _summed(self.values)


def judge(trials: Iterable[Trial], done: Mapping[Case, Ran]) -> list[Judged]:
    """Return each bar of these trials with the values of all its seeds that were run."""
    return [
        Judged(trial.name, bar, tuple(bar.value(ran) for case, ran in done.items() if _is_of(trial, case)))
        for trial in trials
        for bar in trial.bars
    ]


def judge_speed(events: Sequence[Ran], slow: Sequence[Ran]) -> list[Judged]:
    """Return the bars of speed, for runs at 20 and at 10 writes a second."""
    return [
        Judged(f"{POPS} PoPs, 20 writes/s", EVENTS_PER_S, tuple(ran.events_per_s for ran in events)),
        Judged(f"{POPS} PoPs, 10 writes/s", SPEED, tuple(ran.speed for ran in slow)),
    ]


def _is_of(trial: Trial, case: Case) -> bool:
    return replace(case, seed=trial.case.seed, writes=trial.case.writes) == trial.case


def _summed(values: Sequence[float]) -> Spread:
    summed = spread(values)
    assert summed is not None, "a bar without a run"
    return summed


def _measured(field: str) -> Callable[[Ran], float]:
    """Return what reads a field of `Measured`; a network that didn't form, or heal, never comes to it."""
    read: Callable[[Measured], float | None] = attrgetter(field)

    def value(ran: Ran) -> float:
        told = read(ran.measured) if ran.measured else None
        return inf if told is None else told

    return value


NO_VIOLATION: Final = Bar("violations of 10 s", "writes", _measured("violations"), 0, every_seed=True)
EVENTS_PER_S: Final = Bar(
    "simulated events per second of one core", "", attrgetter("events_per_s"), 100_000, at_least=True
)
SPEED: Final = Bar("virtual ÷ processor time", "×", attrgetter("speed"), 1, at_least=True, digits=1)


def _stretch(share: int, most: float) -> Bar:
    return Bar(f"p{share}", "× floor", _measured(f"stretch_p{share}"), most, digits=3)


def _p99_ms(most: float) -> Bar:
    return Bar("p99", "ms", _measured("converge_p99_ms"), most)


CLEAN_BARS: Final = (
    _stretch(50, 1.10),
    _stretch(99, 1.15),
    Bar("redundancy: bytes received ÷ needed", "", _measured("redundancy"), 1.05, digits=3),
    Bar("copies that the coordinator sends", "", _measured("coordinator_copies"), 8, digits=2),
    Bar("control messages, idle", "/node/s", _measured("control_idle_per_s"), 5, digits=2),
    Bar("control messages, busy", "/node/s", _measured("control_busy_per_s"), 20, digits=2),
    NO_VIOLATION,
)
TRIALS: Final = (
    Trial("no loss", Case(pops=POPS), CLEAN_BARS),
    Trial(
        "no loss, internet",
        Case(pops=POPS, profile="internet"),
        (_stretch(50, 1.15), _stretch(99, 1.25), NO_VIOLATION),
    ),
    *(
        Trial(
            f"{loss} % loss",
            Case(pops=POPS, condition=Condition(f"{loss} % loss", loss=loss / 100)),
            (_p99_ms(most), NO_VIOLATION),
        )
        for loss, most in ((1, 700), (5, 800), (20, 1900))
    ),
    *(
        Trial(
            f"{crashed} % crashed",
            Case(pops=POPS, condition=Condition(f"{crashed} % crashed", crashed=crashed / 100)),
            (_p99_ms(most), NO_VIOLATION),
        )
        for crashed, most in ((10, 500), (30, 800))
    ),
    Trial(
        "30 % cut for 20 s",
        Case(pops=POPS, condition=Condition("30 % cut, 20 s", cut=0.3)),
        (Bar("all equal after the heal", "ms", _measured("healed_ms"), 1000), NO_VIOLATION),
    ),
    Trial(
        "10,000 PoPs, no loss",
        Case(pops=POPS_LARGE, condition=CLEAN, writes=400),
        (_stretch(50, 1.4), NO_VIOLATION),
    ),
    Trial(
        "10,000 PoPs, 20 % loss",
        Case(pops=POPS_LARGE, condition=Condition("20 % loss", loss=0.2), writes=400),
        (NO_VIOLATION,),
    ),
)
SPEED_CASES: Final = tuple(Case(pops=POPS, writes=600, seed=seed) for seed in range(1, SPEED_RUNS + 1))
SLOW_CASES: Final = tuple(Case(pops=POPS, writes=300, rate=10.0, seed=seed) for seed in range(1, SPEED_RUNS + 1))
