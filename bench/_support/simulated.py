"""Cases: one network in virtual time, written to under one condition; and running many of them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import lru_cache
from math import inf
from multiprocessing import active_children, get_context
from statistics import median
from typing import Any, Final, TypeVar

from msgspec import to_builtins
from msgspec.structs import replace

from kvnet.errors import KvnetError
from kvnet.simulator.measure import Experiment, Measured, Measuring, NotFormed
from kvnet.timers import Timers
from kvnet.topology.generation import generated
from kvnet.topology.load import load
from kvnet.topology.schema import Topology
from kvnet.topology.wan import Tcp
from nodes.parent import die_with_parent

RATE: Final = 20.0
CUT_MS: Final = 20_000.0
COORDINATOR_PLACE: Final = "iad"

TaskT = TypeVar("TaskT")
ResultT = TypeVar("ResultT")


@dataclass(frozen=True, slots=True)
class Condition:
    """What a network suffers while it is written to."""

    name: str
    loss: float = 0.0
    """Fraction of all packets lost, from the network's start."""
    crashed: float = 0.0
    """Fraction of the edges that die without a word as the writes begin."""
    cut: float = 0.0
    """Fraction of the edges that nothing reaches for 20 s, from when the writes begin; the writes end with it."""


CLEAN: Final = Condition("no loss")


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """All that decides a run; equal cases come out equal."""

    pops: int
    condition: Condition = CLEAN
    changes: tuple[tuple[str, float], ...] = ()
    """Knobs of `Timers` that are not as by default, by name, in order."""
    profile: str = "backbone"
    tcp: Tcp = "flight"
    writes: int = 1200
    rate: float = RATE
    seed: int = 1

    def network(self) -> Topology:
        """Return the network: coordinator in Ashburn, no jitter."""
        network = _network(self.pops)
        wan = replace(network.wan, profile=self.profile, jitter_sigma=0.0, loss=self.condition.loss)
        return replace(network, wan=wan, timers=replace(Timers(), **dict(self.changes)))

    def experiment(self) -> Experiment:
        """Return what is written to it, and what is broken."""
        condition = self.condition
        return Experiment(
            writes=self.writes,
            rate=self.rate,
            seed=self.seed,
            crashed=condition.crashed,
            cut=condition.cut,
            cut_ms=CUT_MS,
            tcp=self.tcp,
        )


@dataclass(frozen=True, slots=True)
class Ran:
    """What came of a case."""

    case: Case
    measured: Measured | None
    """None if the network didn't form."""
    why: str
    """What the simulator said then."""
    cpu_s: float
    """Processor time of the run, without making the network."""

    @property
    def events_per_s(self) -> float:
        """Simulated events per second of one core."""
        return self.measured.events / self.cpu_s if self.measured else 0.0

    @property
    def speed(self) -> float:
        """Virtual time ÷ processor time."""
        return self.measured.virtual_ms / 1000 / self.cpu_s if self.measured else 0.0


@dataclass(frozen=True, slots=True)
class Spread:
    """The same figure of several seeds."""

    median: float
    low: float
    high: float

    def text(self, digits: int = 0) -> str:
        """Return `153 (151–160)`; the median alone where that is all there is to say."""
        middle, low, high = (shown(value, digits) for value in (self.median, self.low, self.high))
        return middle if low == high else f"{middle} ({low}–{high})"


@dataclass(frozen=True, slots=True)
class Seeds:
    """The runs of one case under several seeds."""

    runs: tuple[Ran, ...]

    @property
    def unformed(self) -> int:
        """Networks that didn't form."""
        return sum(run.measured is None for run in self.runs)

    @property
    def violations(self) -> int:
        """Writes, of all seeds, that a connected PoP didn't have within the bound."""
        return sum(run.measured.violations for run in self.runs if run.measured)

    @property
    def writes(self) -> int:
        return sum(run.measured.writes for run in self.runs if run.measured)

    def spread(self, field: str) -> Spread | None:
        """Return a field of `Measured` over the networks that formed; None without any, or if it has no value."""
        values = [getattr(run.measured, field) for run in self.runs if run.measured]
        return spread([float(value) for value in values if value is not None])


def spread(values: Sequence[float]) -> Spread | None:
    """Return these values' median and range; None of none."""
    return Spread(median(values), min(values), max(values)) if values else None


def shown(value: float, digits: int = 0) -> str:
    """Return a number as tables show it; what never came has a word."""
    return "never" if value == inf else f"{value:,.{digits}f}"


def run_case(case: Case) -> Ran:
    """Simulate it."""
    measuring = Measuring(case.network(), case.experiment())
    began_s = time.process_time()
    try:
        measured, why = measuring.run(), ""
    except NotFormed as failure:
        measured, why = None, str(failure)
    return Ran(case, measured, why, time.process_time() - began_s)


def document(ran: Ran) -> dict[str, Any]:
    """Return what JSON keeps of a run; what never came is null."""
    told: dict[str, Any] = {"seed": ran.case.seed, "cpu_s": round(ran.cpu_s, 3)}
    if ran.measured is None:
        return told | {"not_formed": ran.why}
    return told | {name: _plain(value) for name, value in to_builtins(ran.measured).items()}


def in_order(do: Callable[[TaskT], ResultT], tasks: Sequence[TaskT], jobs: int) -> Iterator[ResultT]:
    """Yield `do(task)` for each task; with several jobs it is done by processes of their own.

    Whoever stops listening stops those.

    Raises:
        KvnetError: one of those ended by itself.
    """
    if min(jobs, len(tasks)) <= 1:
        yield from map(do, tasks)
        return
    others = set(active_children())
    finished = False
    pool = ProcessPoolExecutor(
        min(jobs, len(tasks)), get_context("spawn"), initializer=_be_worker, initargs=(os.getpid(),)
    )
    try:
        yield from pool.map(do, tasks)
        finished = True
    except BrokenProcessPool:
        raise KvnetError(
            "a process ended by itself, perhaps for want of memory: try again with --jobs 1"
        ) from None
    finally:
        if not finished:
            for process in set(active_children()) - others:
                process.terminate()
        pool.shutdown(cancel_futures=True)


def _be_worker(parent_pid: int) -> None:
    """Leave Ctrl-C to the parent, and end with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    die_with_parent(parent_pid)


@lru_cache
def _network(pops: int) -> Topology:
    """Return the network of this size: 152 are those of 2018, others the best spread of 2026, or more around them.

    Raises:
        ConfigError: it can't be that large.
    """
    source = load("world-2018" if pops == SIZE_2018 else "world-2026")
    return generated(replace(source, coordinator=replace(source.coordinator, place=COORDINATOR_PLACE)), pops)


def _plain(value: Any) -> Any:
    """JSON has no infinity, and nobody reads the 14th digit."""
    if isinstance(value, float):
        return None if value == inf else round(value, 4)
    return value


SIZE_2018: Final = 152
