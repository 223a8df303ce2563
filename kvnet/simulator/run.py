"""One run of one seed: the world that it draws, what watches it, and what came of it."""

from __future__ import annotations

import gc
from collections.abc import Callable
from random import Random
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from kvnet.limits import Limits
from kvnet.simulator.checking import Checker, CheckFailed
from kvnet.simulator.clients import Clients, NothingAcknowledgedIsLost
from kvnet.simulator.disturbances import Disturbances
from kvnet.simulator.faults import Faults
from kvnet.simulator.liveness import Deliveries, NoStorm, ParentLoops
from kvnet.simulator.node import SimulatedNode
from kvnet.simulator.safety import (
    DurableBeforeSent,
    EpochsDiffer,
    EverythingIsBounded,
    FoldOfAPrefix,
    NeverBack,
    NoResurrection,
    OneHistory,
    StalenessIsABound,
)
from kvnet.simulator.swarm import FAULTS_MS, WARM_UP_MS, Mode, draw_plan, size_of
from kvnet.simulator.trace import Trace
from kvnet.simulator.world import ROOT, World
from kvnet.topology.schema import Topology
from kvnet.topology.wan import Tcp

LOOK_EVERY_EVENTS: Final = 1000
OPERATOR_EVERY_MS: Final = 1000.0
REFUSED_LONG_MS: Final = 3000.0
OPERATOR_PATIENCE_MS: Final = 30_000.0
"""How long a coordinator may take to write again after the heal, with a person's help."""
STORM_PER_S_MAX: Final = 150.0
"""Control messages a node and second, as the mean over the nodes, that no mix of faults may cause."""


class Outcome(Struct, frozen=True, kw_only=True):
    """What came of a run."""

    seed: int
    mode: Mode
    pops: int
    kinds: tuple[str, ...]
    faults: dict[str, int]
    """How many of each kind took effect."""
    events: int
    virtual_ms: float
    acknowledged: int
    converged_ms: float | None = None
    """From the heal, or from when the coordinator wrote again, until all that count were equal."""
    excuses: tuple[str, ...] = ()
    ledger: dict[str, int] = {}
    """Deliveries in time, and those that weren't by what explains them."""
    loop_ms: float = 0.0
    """The longest that a loop of parents lasted."""
    storm_per_s: float = 0.0
    """The most control messages a node in any second, as the mean over the nodes."""
    failed: str = ""
    """The property that doesn't hold, and how it shows; "" if all hold."""
    node: str = ""
    seq: int = 0
    at_ms: float = 0.0


class Looker(Checker):
    """Has everybody look at the whole world, each time that many events have passed."""

    name = "looks"

    def on_event(self, node: SimulatedNode) -> None:
        del node
        self.left -= 1
        if self.left <= 0:
            self.left = LOOK_EVERY_EVENTS
            self.world.look()

    left = LOOK_EVERY_EVENTS


class Converged(Checker):
    """After the heal all that count are equal within the bound."""

    name = "converges"


class Operator:
    """A person who looks after the coordinator: reads why it refuses to write, and does what that says."""

    def __init__(self, world: World, disturbances: Disturbances) -> None:
        self.world = world
        self.disturbances = disturbances
        self.refused_since: float | None = None
        world.at(world.now, self._look, None)

    def _look(self, _: object) -> None:
        world, root = self.world, self.world.root
        if root.core is None or world.is_open or not root.refused_writes:
            self.refused_since = None
        elif self.refused_since is None:
            self.refused_since = world.now
        if self.refused_since is not None:
            long = world.now - self.refused_since >= REFUSED_LONG_MS
            if "--recover" in root.refused_writes and "--accept-loss" not in root.refused_writes:
                self._restart(accept_loss=False)
            elif long:
                self.disturbances.excuses.append("told to accept the loss")
                self._restart(accept_loss=True)
        world.at(world.now + OPERATOR_EVERY_MS, self._look, None)

    def _restart(self, *, accept_loss: bool) -> None:
        self.world.crash(ROOT)
        self.world.start(ROOT, accept_loss=accept_loss, recover=True)


class Run:
    """A seed's world, from its start to its verdict."""

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
        self.plan = plan = draw_plan(seed, mode, codes, regions, loss=loss)
        wan = replace(
            topology.wan,
            profile=plan.profile if topology.wan.profile != "matrix" else "matrix",
            loss=plan.loss,
            jitter_sigma=plan.jitter_sigma,
        )
        storage = replace(topology.storage, edge_durability=plan.edge_durability)
        self.world = world = World(
            replace(topology, wan=wan, storage=storage),
            seed=seed,
            limits=Limits(),
            edge_journal_bytes=plan.edge_journal_bytes,
            tcp=tcp,
            trace=trace,
        )
        self.disturbances = Disturbances(world)
        self.faults: Faults | None = None
        self.clients: Clients | None = None
        OneHistory(world)
        DurableBeforeSent(world)
        NeverBack(world)
        EpochsDiffer(world, self.disturbances)
        FoldOfAPrefix(world)
        NoResurrection(world)
        EverythingIsBounded(world)
        StalenessIsABound(world, self.disturbances)
        Looker(world)
        self.converged = Converged(world)
        self.deliveries = Deliveries(world, self.disturbances)
        self.loops: ParentLoops | None = None
        self.storm: NoStorm | None = None
        self._converged_ms: float | None = None

    def run(self) -> Outcome:
        """Run to the end or to the first property that doesn't hold."""
        world = self.world
        try:
            self._run()
        except CheckFailed as failure:
            return self._outcome(failed=str(failure), node=failure.node, seq=failure.seq)
        except AssertionError as broken:
            return self._outcome(failed=f"invariant: {broken}", node=world.at_work)
        finally:
            gc.unfreeze()
        return self._outcome()

    def _run(self) -> None:
        world, plan = self.world, self.plan
        world.start_all()
        rng = Random(f"kvnet run {plan.seed}")
        self.loops = ParentLoops(world, self.disturbances)
        self.storm = NoStorm(world, messages_per_s_max=STORM_PER_S_MAX)
        world.run_until(WARM_UP_MS)
        end = WARM_UP_MS + FAULTS_MS
        self.clients = Clients(
            world,
            rng,
            rate=plan.write_rate,
            keys=plan.keys,
            value_bytes_max=plan.value_bytes_max,
            until_ms=end,
        )
        lost = NothingAcknowledgedIsLost(world, self.disturbances, self.clients)
        self.faults = Faults(world, self.disturbances, plan.faults, rng=rng)
        world.run_until(end)
        self.faults.heal(keep=plan.broken)
        if "two coordinators" in self.disturbances.excuses and world.root.core is not None:
            world.crash(ROOT)  # whoever finds that out restarts the one that stays: its new epoch overrules
            world.start(ROOT)
        Operator(world, self.disturbances)
        self._converge()
        world.look()
        lost.finish([node for node in world.live() if node.id not in plan.broken])

    def _converge(self) -> None:
        """Wait until the coordinator writes and all that count are equal."""
        world = self.world
        if not world.run_while(lambda: not world.is_open, OPERATOR_PATIENCE_MS):
            self.converged.fail(
                f"the coordinator doesn't write: {world.root.refused_writes or 'no reason'}", node=ROOT
            )
        began = world.now
        bound_ms = world.timers.bound_ms
        if not world.run_while(lambda: bool(self._behind()), bound_ms):
            behind = self._behind()
            self.converged.fail(
                f"{len(behind)} of {len(world.nodes) - 1} edges are not where the coordinator is "
                f"{bound_ms:.0f} ms after it could write again: {', '.join(behind[:5])}",
                node=behind[0],
                seq=world.root.disk.position.seq,
            )
        self._converged_ms = world.now - began

    def _behind(self) -> list[str]:
        """Return the edges that count and don't stand where the coordinator stands."""
        head = self.world.root.disk.position
        broken = self.plan.broken
        return [
            node.id
            for node in self.world.nodes.values()
            if node.id not in broken and (node.core is None or node.disk.position != head)
        ]

    def _outcome(self, *, failed: str = "", node: str = "", seq: int = 0) -> Outcome:
        plan, ledger = self.plan, self.deliveries.ledger
        return Outcome(
            seed=plan.seed,
            mode=plan.mode,
            pops=plan.pops,
            kinds=plan.kinds,
            faults=dict(sorted(self.faults.begun.items())) if self.faults else {},
            events=self.world.events,
            virtual_ms=round(self.world.now, 3),
            acknowledged=self.clients.told["acknowledged"] if self.clients else 0,
            converged_ms=self._converged_ms,
            excuses=tuple(dict.fromkeys(self.disturbances.excuses)),
            ledger={
                "in time": ledger.in_time,
                **dict(sorted(ledger.excused.items())),
                "abandoned": ledger.abandoned,
            },
            loop_ms=self.loops.longest_ms if self.loops else 0.0,
            storm_per_s=round(self.storm.most_per_s, 1) if self.storm else 0.0,
            failed=failed,
            node=node,
            seq=seq,
            at_ms=round(self.world.now, 3),
        )


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
