"""One run of one seed: the world that it draws, what watches it, and what came of it."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from msgspec.structs import replace

from kvnet.limits import Limits, profile
from kvnet.simulator.journal import Kept
from kvnet.simulator.swarm import FAULTS_MS, WARM_UP_MS, Mode, draw, size_of
from kvnet.simulator.trace import Trace
from kvnet.simulator.watched import Outcome, Watched
from kvnet.simulator.world import World
from kvnet.topology.schema import Topology
from kvnet.topology.wan import Tcp


class Run(Watched):
    """A seed's world: formed, broken for 20 s, healed, compared."""

    def __init__(
        self,
        topology: Topology,
        seed: int,
        mode: Mode,
        *,
        loss: float | None = None,
        tcp: Tcp = "flight",
        trace: Trace | None = None,
    ) -> None:
        """`topology` is as large as is wanted; `loss` overrides what the seed draws."""
        codes = [pop.code for pop in topology.pops]
        regions = sorted({pop.region for pop in topology.pops})
        drawn = draw(seed, mode, codes, regions, loss=loss)
        wan = replace(
            topology.wan,
            profile=drawn.profile if topology.wan.profile != "matrix" else "matrix",
            loss=drawn.loss,
            jitter_sigma=drawn.jitter_sigma,
        )
        storage = replace(
            topology.storage,
            edge_durability=drawn.edge_durability,
            expiry_removals_per_second=drawn.removals_per_s,
        )
        world = World(
            replace(topology, wan=wan, storage=storage),
            seed=seed,
            limits=profile("workers-kv") if drawn.large_share else Limits(),
            edge_journal_bytes=drawn.edge_journal_bytes,
            root_journal=Kept(drawn.root_journal_bytes or None, drawn.root_journal_ms),
            chunk_life_ms=drawn.chunk_life_ms,
            tcp=tcp,
            trace=trace,
        )
        super().__init__(world, drawn)

    def _run(self) -> None:
        world, drawn = self.world, self.drawn
        world.start_all()
        self.watch_the_tree()
        world.run_until(WARM_UP_MS)
        end = WARM_UP_MS + FAULTS_MS
        lost = self.write_and_break(Random(f"kvnet run {drawn.seed}"), end)
        world.run_until(end)
        self.heal(*drawn.broken)
        self.converge(lost)
        world.look()


def run_seed(
    topology: Topology,
    seed: int,
    mode: Mode,
    *,
    pops: int | None = None,
    loss: float | None = None,
    tcp: Tcp = "flight",
    write: Callable[[str], None] | None = None,
    only: tuple[str, ...] = (),
) -> Outcome:
    """Run one seed over this topology, as large as the seed says unless `pops` does; `write` is given a trace."""
    size = min(len(topology.pops), size_of(seed) if pops is None else pops)
    trace = Trace(write, only=only) if write else None
    return Run(topology.with_pops(size), seed, mode, loss=loss, tcp=tcp, trace=trace).run()
