"""One run of a schedule that somebody has written: this topology, these faults, and everybody who watches a swarm.

A fault that lasts FOREVER_MS stays for good: whom it breaks need not converge, everybody else must.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Final

from kvnet.errors import ConfigError
from kvnet.simulator.breaker import Breaker
from kvnet.simulator.disturbances import Disturbances
from kvnet.simulator.faults import AnyFault, Partition, read_schedule
from kvnet.simulator.measure import FORMED_MS_MAX, Experiment
from kvnet.simulator.swarm import FOREVER_MS, Draw, Mode
from kvnet.simulator.trace import Trace
from kvnet.simulator.watched import Watched
from kvnet.simulator.world import ROOT, World
from kvnet.topology.schema import Topology

KEYS: Final = 300


def load_schedule(path: Path, topology: Topology) -> list[AnyFault]:
    """Return the schedule of a file, known to fit this network.

    Raises:
        ConfigError: unreadable, not a schedule, or one that can't be carried out; one line.
    """
    schedule = read_schedule(path)
    if not schedule:
        raise ConfigError(f"{path} holds no faults: a run without any is `kvnet sim` without --faults")
    throwaway = World(topology, seed=0)  # whoever breaks a world knows best what it can break
    Breaker(throwaway, Disturbances(throwaway), schedule, rng=Random(0))
    return schedule


class ScriptedRun(Watched):
    """A network that forms, is written to, broken as the schedule says, healed, and compared."""

    def __init__(
        self,
        topology: Topology,
        experiment: Experiment,
        schedule: Sequence[AnyFault],
        *,
        trace: Trace | None = None,
        progress: Callable[[float], None] | None = None,
    ) -> None:
        """The schedule begins with the writes, after the warm-up; `progress` is given the fraction of it done."""
        self.experiment = experiment
        self.kept = broken_for_good(schedule)
        """Nodes and regions that stay broken, as the schedule calls them."""
        self._progress = progress
        world = World(topology, seed=experiment.seed, tcp=experiment.tcp, trace=trace)
        drawn = Draw(
            seed=experiment.seed,
            mode=Mode.LIVENESS if self.kept else Mode.SAFETY,
            pops=len(topology.pops),
            profile=topology.wan.profile,
            loss=topology.wan.loss,
            jitter_sigma=topology.wan.jitter_sigma,
            write_rate=experiment.rate,
            keys=KEYS,
            value_bytes_max=experiment.size,
            edge_journal_bytes=0,
            large_share=0.0,
            edge_durability=topology.storage.edge_durability,
            kinds=tuple(dict.fromkeys(str(fault.__struct_config__.tag) for fault in schedule)),
            broken=tuple(name for name in world.wan.members(self.kept) if name in world.nodes),
            faults=tuple(schedule),
        )
        super().__init__(world, drawn)

    @property
    def writes_ms(self) -> float:
        """How long it is written to."""
        return 1000 * self.experiment.writes / self.experiment.rate

    @property
    def lasts_ms(self) -> float:
        """How long it is written to and broken, from the end of the warm-up on."""
        faults = self.drawn.faults
        ends = (fault.at_ms + (fault.lasts_ms if fault.lasts_ms < FOREVER_MS else 0.0) for fault in faults)
        return max(self.writes_ms, *ends)

    def _run(self) -> None:
        world, experiment, broken = self.world, self.experiment, self.drawn.broken
        world.start_all()
        if not world.run_while(lambda: not world.is_open or bool(self.behind()), FORMED_MS_MAX):
            behind = self.behind() or [ROOT]
            self.converged.fail(f"not formed, before anything broke: {', '.join(behind[:5])}", node=behind[0])
        self.watch_the_tree()
        world.run_until(world.now + experiment.warm_up_ms)
        began = world.now
        lost = self.write_and_break(Random(f"kvnet scripted {experiment.seed}"), began + self.writes_ms)
        self._run_and_tell(began + self.lasts_ms)
        self.heal(*self.kept, *broken)
        if ROOT not in broken:  # nobody has to stand where a coordinator stands that stays away
            self.converge(lost)
        world.look()

    def _run_and_tell(self, end: float) -> None:
        world, began = self.world, self.world.now
        while world.now < end:
            world.run_until(min(end, world.now + 1000))
            if self._progress is not None:
                self._progress((world.now - began) / (end - began))


def broken_for_good(schedule: Sequence[AnyFault]) -> tuple[str, ...]:
    """Return whom faults break that never end, as the schedule calls them."""
    names: dict[str, None] = {}
    for fault in schedule:
        if fault.lasts_ms >= FOREVER_MS:
            of_nodes = fault.senders if isinstance(fault, Partition) else getattr(fault, "nodes", ())
            names.update(dict.fromkeys(of_nodes))
    return tuple(names)
