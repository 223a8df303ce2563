"""What `kvnet sim` checks for a seed, as values that travel between processes: a swarm's world or a schedule's."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass

from msgspec.structs import replace

from kvnet.simulator.faults import AnyFault
from kvnet.simulator.measure import Experiment
from kvnet.simulator.run import Run
from kvnet.simulator.scripted import ScriptedRun, broken_for_good
from kvnet.simulator.story import AnyRun, Memory, Story, outcome_of, tell
from kvnet.simulator.swarm import Mode, size_of
from kvnet.simulator.trace import Trace
from kvnet.simulator.watched import Outcome
from kvnet.topology.schema import Topology
from kvnet.topology.wan import Tcp

Number = tuple[int, Mode]
"""Which of a case's runs: seed and mode."""


@dataclass(frozen=True, slots=True)
class SwarmCase:
    """A world that the seed draws."""

    network: Topology
    options: tuple[str, ...]
    """What was given on the command line that decides a run."""
    pops: int | None
    loss: float | None
    tcp: Tcp

    def network_of(self, seed: int) -> Topology:
        """Return the network that this seed runs on."""
        size = size_of(seed) if self.pops is None else self.pops
        return self.network.with_pops(min(len(self.network.pops), size))

    def build(
        self, number: Number, *, trace: Trace | None = None, progress: Callable[[float], None] | None = None
    ) -> AnyRun:
        """Return the run, about to begin."""
        del progress
        seed, mode = number
        return Run(self.network_of(seed), seed, mode, loss=self.loss, tcp=self.tcp, trace=trace)

    def command(self, number: Number) -> str:
        """Return what replays a run."""
        seed, mode = number
        return shlex.join(["kvnet", "sim", "--swarm", "--seed", str(seed), "--mode", mode, *self.options])


@dataclass(frozen=True, slots=True)
class ScheduleCase:
    """The network as it is, broken as somebody has written."""

    network: Topology
    options: tuple[str, ...]
    experiment: Experiment
    schedule: tuple[AnyFault, ...]

    @property
    def mode(self) -> Mode:
        """What is watched: who may stay broken, and who must not."""
        return Mode.LIVENESS if broken_for_good(self.schedule) else Mode.SAFETY

    def network_of(self, seed: int) -> Topology:
        """Return the network that this seed runs on."""
        del seed
        return self.network

    def build(
        self, number: Number, *, trace: Trace | None = None, progress: Callable[[float], None] | None = None
    ) -> AnyRun:
        """Return the run, about to begin."""
        experiment = replace(self.experiment, seed=number[0])
        return ScriptedRun(self.network, experiment, self.schedule, trace=trace, progress=progress)

    def command(self, number: Number) -> str:
        """Return what replays a run."""
        return shlex.join(["kvnet", "sim", "--seed", str(number[0]), *self.options])


Case = SwarmCase | ScheduleCase


def check(case: Case, number: Number) -> Outcome:
    """Run it to its verdict."""
    return outcome_of(case.build(number))


def story_of(case: Case, failed: Outcome) -> Story:
    """Run a failed run again, and return how it came to that."""
    memory = Memory()
    return tell(case.build((failed.seed, failed.mode), trace=memory), memory, failed)
