"""How fast writes are everywhere in a simulated network, and what that costs."""

from __future__ import annotations

import gc
from collections.abc import Callable
from math import ceil, inf
from random import Random
from typing import Final

from msgspec import Struct

from kvnet.core.versions import GENESIS
from kvnet.errors import KvnetError
from kvnet.simulator.arrivals import Arrivals
from kvnet.simulator.trace import Trace
from kvnet.simulator.world import ROOT, World
from kvnet.timers import Timers
from kvnet.topology.schema import Topology
from kvnet.topology.wan import Tcp

FORMED_MS_MAX: Final = 60_000.0
IDLE_MS: Final = 10_000.0
"""How long an idle network is watched for what it says then."""
SLOWEST_TOLD: Final = 5


class Experiment(Struct, frozen=True, kw_only=True):
    """What is written, and what is broken."""

    writes: int = 1200
    rate: float = 20.0
    """Writes a second."""
    size: int = 100
    """Bytes of a value."""
    seed: int = 1
    warm_up_ms: float = 20_000.0
    """From when the network has formed until the first write; the tree improves meanwhile."""
    crashed: float = 0.0
    """Fraction of the edges that lose power as the writes begin, noticed by nobody."""
    cut: float = 0.0
    """Fraction of the edges that are cut off as the writes begin."""
    cut_ms: float = 20_000.0
    """How long they are."""
    tcp: Tcp = "flight"


class Measured(Struct, frozen=True, kw_only=True):
    """What came of it; times in milliseconds. A write's time is when the last connected PoP had it."""

    pops: int
    writes: int
    rate: float
    loss: float
    seed: int
    tcp: str
    floor_ms: float
    converge_p50_ms: float
    converge_p99_ms: float
    converge_max_ms: float
    stretch_p50: float
    stretch_p99: float
    redundancy: float
    """Frame bytes received ÷ bytes needed."""
    coordinator_copies: float
    """Times that the coordinator sent a frame, in the mean."""
    violations: int
    """Writes that a connected PoP didn't have within the bound."""
    formed_ms: float
    healed_ms: float | None = None
    """From the end of a cut until all were equal."""
    control_idle_per_s: float
    """Control messages a node and second, as the mean over the nodes, in an idle network."""
    control_busy_per_s: float
    """The same while it was written to."""
    hops_max: int
    """Nodes on the longest path from the coordinator."""
    busiest_link: tuple[str, str] = ("", "")
    busiest_link_bps: float = 0.0
    """Bits per second over the busiest direction of a link."""
    busiest_relay: str = ""
    busiest_relay_bps: float = 0.0
    """Bits per second that this node sent, to all its peers together."""
    coordinator_bps: float = 0.0
    node_received_bps: float = 0.0
    """Bits per second that a node received, as the mean over the edges."""
    unsent_bytes_max: int = 0
    """The most that waited on one link at any look."""
    slowest: tuple[tuple[str, float], ...] = ()
    """The PoPs that had writes last, with the median of their time."""
    events: int = 0
    virtual_ms: float = 0.0


class NotFormed(KvnetError):
    """The network didn't come together; the message says who is missing."""


def percentile(ordered: list[float], share: float) -> float:
    """Return the smallest value that at least this share of the values doesn't exceed; nan of none."""
    return ordered[max(0, ceil(share * len(ordered)) - 1)] if ordered else float("nan")


class Measuring:
    """One network, formed, then written to."""

    def __init__(
        self,
        topology: Topology,
        experiment: Experiment,
        *,
        timers: Timers | None = None,
        write: Callable[[str], None] | None = None,
        progress: Callable[[float], None] | None = None,
    ) -> None:
        """`write` is given a trace's lines, `progress` the fraction that is done, now and then."""
        self.experiment = experiment
        self.world = World(
            topology,
            seed=experiment.seed,
            timers=timers,
            tcp=experiment.tcp,
            folds=False,
            trace=Trace(write) if write else None,
        )
        self.arrivals = Arrivals(self.world)
        self._progress = progress or _nobody
        self._rng = Random(f"kvnet measure {experiment.seed}")
        self._unsent = 0
        self._unformed = [name for name in self.world.nodes if name != ROOT]
        self._cut_off: list[str] = []

    def run(self) -> Measured:
        """Return what was measured.

        Raises:
            NotFormed: the network didn't come together.
        """
        gc.collect()
        was_enabled = gc.isenabled()
        gc.disable()  # a world makes no cycles while it runs, and is gone as a whole
        try:
            return self._run()
        finally:
            if was_enabled:
                gc.enable()

    def _run(self) -> Measured:
        world, experiment = self.world, self.experiment
        world.start_all()
        if not world.run_while(lambda: not self._is_formed(), FORMED_MS_MAX):
            missing = [node.name for node in world.edges() if not self._stands(node.name)]
            raise NotFormed(f"{len(missing)} of {len(world.nodes) - 1} PoPs have not formed: {missing[:5]}")
        formed_ms = world.now
        idle_ms = min(IDLE_MS, experiment.warm_up_ms)
        world.run_until(world.now + experiment.warm_up_ms - idle_ms)
        control = self._control()
        world.run_until(world.now + idle_ms)
        idle_per_s = (self._control() - control) / len(world.nodes) / max(idle_ms / 1000, 1e-9)
        self._break()
        before = self._counts()
        began = world.now
        control = self._control()
        seqs = self._write()
        busy_s = (world.now - began) / 1000
        busy_per_s = (self._control() - control) / max(1, len(world.live())) / busy_s
        healed_ms = self._heal() if experiment.cut else None
        self._drain(seqs)
        return self._measured(seqs, formed_ms, healed_ms, idle_per_s, busy_per_s, before, busy_s)

    # -- forming ---------------------------------------------------------------------------------------------

    def _stands(self, name: str) -> bool:
        world = self.world
        node = world.nodes[name]
        head = world.root.disk.position
        return node.core is not None and bool(node.core.state.parents) and node.disk.position == head != GENESIS

    def _is_formed(self) -> bool:
        if not self.world.is_open:
            return False
        while self._unformed and self._stands(self._unformed[-1]):
            self._unformed.pop()
        return not self._unformed

    # -- breaking --------------------------------------------------------------------------------------------

    def _break(self) -> None:
        world, experiment = self.world, self.experiment
        edges = [node.name for node in world.edges()]
        for name in self._rng.sample(edges, round(experiment.crashed * len(edges))):
            world.crash(name, silent=True)
        self._cut_off = self._rng.sample(edges, round(experiment.cut * len(edges)))
        if self._cut_off:
            world.wan.isolate(self._cut_off)
            world.wan_changed()

    def _heal(self) -> float:
        """End the cut; return how long it took until all were equal."""
        world = self.world
        world.wan.heal_all()
        world.wan_changed()
        healed_at = world.now
        head = world.root.disk.position
        left = list(self._cut_off)

        def behind() -> bool:
            while left and world.nodes[left[-1]].disk.position.seq >= head.seq:
                left.pop()
            return bool(left)

        world.run_while(behind, world.timers.bound_ms)
        return inf if left else world.now - healed_at

    # -- writing ---------------------------------------------------------------------------------------------

    def _write(self) -> list[int]:
        world, experiment = self.world, self.experiment
        every_ms = 1000 / experiment.rate
        seqs = []
        end = world.now + experiment.cut_ms if experiment.cut else inf
        looked_at = world.now
        for number in range(experiment.writes):
            if world.now >= end:
                break
            seqs.append(world.write(experiment.size))
            world.run_until(world.now + every_ms)
            if world.now - looked_at >= 1000:
                looked_at = world.now
                self._look_at_queues()
                self._progress(number / experiment.writes)
        return seqs

    def _look_at_queues(self) -> None:
        for node in self.world.nodes.values():
            for link in node.links.values():
                self._unsent = max(self._unsent, link.direction(node).model.unsent_bytes(self.world.now))

    def _drain(self, seqs: list[int]) -> None:
        """Run until all have all, at most for as long as the bound allows."""
        world = self.world
        last = seqs[-1]
        left = [node for node in world.edges() if node.core is not None]

        def behind() -> bool:
            while left and left[-1].disk.position.seq >= last:
                left.pop()
            return bool(left)

        world.run_while(behind, world.timers.bound_ms)
        self._progress(1.0)

    # -- reckoning -------------------------------------------------------------------------------------------

    def _control(self) -> int:
        return sum(node.control_messages_sent for node in self.world.nodes.values())

    def _counts(self) -> dict[str, tuple[int, int]]:
        """Return the bytes of frames that each node has received and sent so far."""
        return {
            node.name: (node.core.stream.frame_bytes_received, node.core.stream.frame_bytes_sent)
            for node in self.world.live()
            if node.core is not None
        }

    def _measured(
        self,
        seqs: list[int],
        formed_ms: float,
        healed_ms: float | None,
        idle_per_s: float,
        busy_per_s: float,
        before: dict[str, tuple[int, int]],
        busy_s: float,
    ) -> Measured:
        world, experiment = self.world, self.experiment
        cut_off = set(self._cut_off)
        counted = [node.name for node in world.edges() if node.name not in cut_off]
        times = sorted(self.arrivals.converged_ms(seq, counted) for seq in seqs)
        floor = world.wan.floor_ms()
        after = self._counts()
        frames = {frame.last_seq: len(frame.data) for frame in world.root.journal.frames}
        needed = sum(frames[seq] for seq in dict.fromkeys(seqs))
        edges = [node.name for node in world.edges()]
        received = {name: after[name][0] - before[name][0] for name in edges}
        sent = {name: after[name][1] - before[name][1] for name in (ROOT, *edges)}
        lags = {name: sorted(self.arrivals.lag_ms(seq, name) for seq in seqs) for name in counted}
        medians = sorted(((name, percentile(lag, 0.5)) for name, lag in lags.items()), key=lambda each: -each[1])
        link, link_bytes = self._busiest_link()
        relay = max(edges, key=lambda name: (sent[name], name), default="")
        seconds = world.now / 1000
        paths = [len(node.core.state.path) for node in world.edges() if node.core is not None]
        p50, p99 = percentile(times, 0.5), percentile(times, 0.99)
        return Measured(
            pops=len(world.topology.pops),
            writes=len(seqs),
            rate=experiment.rate,
            loss=world.wan.state.loss,
            seed=experiment.seed,
            tcp=experiment.tcp,
            floor_ms=floor,
            converge_p50_ms=p50,
            converge_p99_ms=p99,
            converge_max_ms=times[-1],
            stretch_p50=p50 / floor if floor else inf,
            stretch_p99=p99 / floor if floor else inf,
            redundancy=sum(received.values()) / (needed * len(edges)),
            coordinator_copies=sent[ROOT] / needed,
            violations=sum(time > world.timers.bound_ms for time in times),
            formed_ms=formed_ms,
            healed_ms=healed_ms,
            control_idle_per_s=idle_per_s,
            control_busy_per_s=busy_per_s,
            hops_max=max(paths, default=0),
            busiest_link=link,
            busiest_link_bps=8 * link_bytes / seconds,
            busiest_relay=relay,
            busiest_relay_bps=8 * sent.get(relay, 0) / busy_s,
            coordinator_bps=8 * sent[ROOT] / busy_s,
            node_received_bps=8 * sum(received.values()) / max(1, len(edges)) / busy_s,
            unsent_bytes_max=self._unsent,
            slowest=tuple(medians[:SLOWEST_TOLD]),
            events=world.events,
            virtual_ms=world.now,
        )

    def _busiest_link(self) -> tuple[tuple[str, str], int]:
        best: tuple[tuple[str, str], int] = (("", ""), 0)
        for node in self.world.nodes.values():
            for peer, link in node.links.items():
                sent = link.direction(node).bytes_sent
                if sent > best[1]:
                    best = (node.name, peer), sent
        return best


def measure(
    topology: Topology,
    experiment: Experiment,
    *,
    timers: Timers | None = None,
    write: Callable[[str], None] | None = None,
    progress: Callable[[float], None] | None = None,
) -> Measured:
    """Simulate this network and what is written to it.

    Raises:
        NotFormed: the network didn't come together.
    """
    return Measuring(topology, experiment, timers=timers, write=write, progress=progress).run()


def _nobody(done: float) -> None:
    """Hear of progress that nobody follows."""
    del done
