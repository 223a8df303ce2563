"""A world and everybody who watches it: what holds, what doesn't, and what came of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from random import Random
from typing import Final

from msgspec import Struct

from kvnet.simulator.breaker import Breaker
from kvnet.simulator.checking import Checker, CheckFailed
from kvnet.simulator.clients import Clients, NothingAcknowledgedIsLost
from kvnet.simulator.disturbances import Disturbances
from kvnet.simulator.expiry import ExpiredIsGone
from kvnet.simulator.liveness import AckedInTime, Deliveries, NoStorm, ParentLoops
from kvnet.simulator.node import SimulatedNode
from kvnet.simulator.safety import (
    AcksAreTrue,
    DurableBeforeSent,
    EpochsDiffer,
    EverythingIsBounded,
    FoldOfAPrefix,
    NeverBack,
    NoResurrection,
    OneHistory,
    StalenessIsABound,
    WholeValues,
)
from kvnet.simulator.swarm import Draw, Mode
from kvnet.simulator.world import ROOT, World

LOOK_EVERY_EVENTS: Final = 1000
SETTLE_MS: Final = 1000.0
LOOK_EVERY_MS: Final = 1000.0
OPERATOR_EVERY_MS: Final = 1000.0
REFUSED_LONG_MS: Final = 3000.0
STOPS_MAX: Final = 2
"""How often it may find out only then that it must not write, and be started again."""
OPERATOR_PATIENCE_MS: Final = 30_000.0
"""How long a coordinator may take to write again after the heal, with a person's help."""
STORM_PER_S_MAX: Final = 150.0
"""Control messages a node and second, as the mean over the nodes, that no mix of faults may cause."""
STORM_OF_ONE_MAX: Final = 1000
"""The same of any single node."""


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
    made_anew: int = 0
    """Replicas made of pages."""
    large_values: int = 0
    """Times that a replica showed a large value it hadn't shown before."""
    altered: int = 0
    """Pages and chunks that were changed on their way."""
    hidden: int = 0
    """Times that a replica was seen to hide a record that had expired and was there."""
    removed: int = 0
    """Expired records that a coordinator removed."""
    acked: int = 0
    """Writes at members of which the coordinator was to hear in time, and did."""
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
    """Has everybody look at the whole world, each 1,000 events and each second."""

    name = "looks"

    left = LOOK_EVERY_EVENTS

    def __init__(self, world: World) -> None:
        super().__init__(world)
        world.at(world.now + LOOK_EVERY_MS, self._look, None)

    def on_event(self, node: SimulatedNode) -> None:
        del node
        self.left -= 1
        if self.left <= 0:
            self.left = LOOK_EVERY_EVENTS
            self.world.look()

    def _look(self, _: object) -> None:
        self.world.look()
        self.world.at(self.world.now + LOOK_EVERY_MS, self._look, None)


class Converged(Checker):
    """After the heal all that count are equal within the bound."""

    name = "converges"


class MadeAnew(Checker):
    """Counts the replicas that were made of pages."""

    name = "made anew"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.count = 0

    def on_adopted(self, node: SimulatedNode) -> None:
        del node
        self.count += 1


class Operator(Checker):
    """A person who looks after the coordinator: reads why it refuses to write, and does what that says.

    One whose disk has lost nothing, and that is alone, never has to be told to accept a loss.
    """

    name = "needs no help"

    def __init__(self, world: World, disturbances: Disturbances) -> None:
        super().__init__(world)
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
                if not self.disturbances.excuses:
                    self.fail(f"the coordinator has lost nothing, and refuses: {root.refused_writes}", node=ROOT)
                self.disturbances.excuses.append("told to accept the loss")
                self._restart(accept_loss=True)
        world.at(world.now + OPERATOR_EVERY_MS, self._look, None)

    def _restart(self, *, accept_loss: bool) -> None:
        self.world.crash(ROOT)
        self.world.start(ROOT, accept_loss=accept_loss, recover=True)


class Watched(ABC):
    """A world to which a draw happens, from its start to its verdict."""

    def __init__(self, world: World, drawn: Draw) -> None:
        """Have everybody watch from now on."""
        self.world = world
        self.drawn = drawn
        self.disturbances = Disturbances(world)
        OneHistory(world)
        DurableBeforeSent(world)
        NeverBack(world)
        EpochsDiffer(world, self.disturbances)
        FoldOfAPrefix(world)
        self.whole = WholeValues(world)
        self.anew = MadeAnew(world)
        NoResurrection(world)
        EverythingIsBounded(world)
        StalenessIsABound(world, self.disturbances)
        self.expiry = ExpiredIsGone(world)
        Looker(world)
        self.converged = Converged(world)
        self.deliveries = Deliveries(world, self.disturbances)
        AcksAreTrue(world)
        self.acked = AckedInTime(world, self.disturbances)
        self.faults: Breaker | None = None
        self.clients: Clients | None = None
        self.loops: ParentLoops | None = None
        self.storm: NoStorm | None = None
        self._converged_ms: float | None = None

    def run(self) -> Outcome:
        """Run to the end or to the first property that doesn't hold."""
        try:
            self._run()
        except CheckFailed as failure:
            return self._outcome(failed=str(failure), node=failure.node, seq=failure.seq)
        except AssertionError as broken:
            return self._outcome(failed=f"invariant: {broken}", node=self.world.at_work)
        return self._outcome()

    @abstractmethod
    def _run(self) -> None:
        """Form, write, break, heal and compare."""

    # -- the steps of a run ----------------------------------------------------------------------------------

    def watch_the_tree(self) -> None:
        """Look out for loops of parents and storms from now on."""
        self.loops = ParentLoops(self.world, self.disturbances)
        self.storm = NoStorm(self.world, messages_per_s_max=STORM_PER_S_MAX, of_one_node_max=STORM_OF_ONE_MAX)

    def write_and_break(self, rng: Random, until_ms: float) -> NothingAcknowledgedIsLost:
        """Have clients write until then, and begin with the faults; return who checks what clients were told."""
        drawn = self.drawn
        self.clients = Clients(
            self.world,
            rng,
            rate=drawn.write_rate,
            keys=drawn.keys,
            value_bytes_max=drawn.value_bytes_max,
            until_ms=until_ms,
            large_share=drawn.large_share,
            brief_share=drawn.brief_share,
            waited_share=drawn.waited_share,
        )
        lost = NothingAcknowledgedIsLost(self.world, self.disturbances, self.clients)
        self.faults = Breaker(self.world, self.disturbances, drawn.faults, rng=rng)
        return lost

    def heal(self, *keep: str) -> None:
        """End all faults but those of single nodes in `keep`, and do what an operator would."""
        world = self.world
        if self.faults is not None:
            self.faults.heal(keep=keep)
        Operator(world, self.disturbances)

    def converge(self, lost: NothingAcknowledgedIsLost) -> None:
        """Wait until the coordinator writes and all that count are equal; then nothing may be lost."""
        world = self.world
        bound_ms = world.timers.bound_ms
        began = world.now
        for _ in range(1 + STOPS_MAX):
            if not world.run_while(lambda: not world.is_open, OPERATOR_PATIENCE_MS):
                why = world.root.refused_writes or "no reason"
                self.converged.fail(f"the coordinator doesn't write: {why}", node=ROOT)
            began = world.now
            world.run_while(lambda: world.is_open and bool(self.behind()), bound_ms)
            if world.is_open:
                break
        if behind := self.behind():
            self.converged.fail(
                f"{len(behind)} of {len(world.nodes) - 1} edges are not where the coordinator is "
                f"{bound_ms:.0f} ms after it could write again: {', '.join(behind[:5])}",
                node=behind[0],
                seq=world.root.disk.position.seq,
            )
        self._converged_ms = world.now - began
        self._settle()
        lost.finish([node for node in world.live() if node.id not in self.drawn.broken])
        self.expiry.finish()

    def _settle(self) -> None:
        """Go on until every delivery is judged and every stray message has come; then all must still be equal."""
        world = self.world
        world.run_until(max(self.deliveries.last_due_ms, world.last_stray_ms) + SETTLE_MS)
        if not world.run_while(lambda: bool(self.behind()), world.timers.bound_ms):
            behind = self.behind()
            self.converged.fail(f"{', '.join(behind[:5])} fell behind after all had been equal", node=behind[0])

    def behind(self) -> list[str]:
        """Return the edges that count and don't stand where the coordinator stands."""
        head = self.world.root.disk.position
        broken = self.drawn.broken
        return [
            node.id
            for node in self.world.nodes.values()
            if node.id not in broken and (node.core is None or node.disk.position != head)
        ]

    def _outcome(self, *, failed: str = "", node: str = "", seq: int = 0) -> Outcome:
        drawn, ledger = self.drawn, self.deliveries.ledger
        return Outcome(
            seed=drawn.seed,
            mode=drawn.mode,
            pops=drawn.pops,
            kinds=drawn.kinds,
            faults=dict(sorted(self.faults.begun.items())) if self.faults else {},
            events=self.world.events,
            virtual_ms=round(self.world.now, 3),
            acknowledged=self.clients.told["acknowledged"] if self.clients else 0,
            made_anew=self.anew.count,
            large_values=self.whole.looked,
            altered=sum(sum(each.counts.values()) for each in self.faults.altering.values()) if self.faults else 0,
            hidden=self.expiry.hidden_count,
            removed=self.expiry.removed,
            acked=self.acked.in_time,
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
