"""What a network of a given size, load and line will need, and what breaks first when it is written to faster.

A plan is simulated, not computed: the asked rate first, then short trials at others. What is computed is where to
look next. How much is tried is bounded by counted work, not by a clock: a seed gives the same plan anywhere.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from math import ceil, inf, isfinite, sqrt
from random import Random
from statistics import median
from typing import Final, Literal

from msgspec import Struct
from msgspec.structs import replace

from kvnet.core.frames import FRAME_BYTES_TARGET
from kvnet.errors import ConfigError
from kvnet.simulator.sizes import Sizes, parse_sizes
from kvnet.simulator.trial import BYTE_S, EVENT_S, FRAME_S, WRITE_S, Flow, Stage, Trial, Verdict
from kvnet.simulator.world import ROOT
from kvnet.topology.schema import Topology
from kvnet.topology.wan import Tcp, Wan

COMMIT_WRITES_PER_S: Final = 90_000.0
"""At most so many are made durable: 11 µs an entry, in commits of 20 frames of 20 (bench/README.md); assumed."""
ENTRY_BYTES: Final = 70
"""About what a value's key, namespace and hash add in a frame; only bounds are computed with it."""
BYTES_PER_S_MAX: Final = 200e6
"""Written in a second; more isn't simulated."""
TRIAL_BYTES_MAX: Final = 500e6
PLANNED_WRITES: Final = 300
PLANNED_MS: Final = (10_000.0, 60_000.0)
"""The asked rate is written for so many writes, and at least and at most for so long."""
PROBE_MS: Final = 4000.0
PROBE_WRITES: Final = 20
"""A probe has at least so many."""
EVENTS_PER_S: Final = 20.0
"""At a node, about, when it is busy."""
SPARE_S: Final = 3.0
"""Until all have a probe's writes, and the network rests."""
PROBE_MS_MAX: Final = 20_000.0
TRIALS_MAX: Final = 12
NEAR: Final = 1.1
"""What holds and what breaks are told apart to this factor."""
BEFORE: Final = 0.85
BEYOND: Final = 1.15
"""How far on either side of the computed limit it's tried."""
USED_SHARE: Final = 0.5
"""A link is judged that led to a child at so many of the looks."""
FULL_SHARE: Final = 0.9
FULL_USE: Final = 0.97
"""A link is saturated that is full at so many looks, or is used for so much of its speed."""
GROWTH: Final = 0.2
GROWN_MS: Final = 1000.0
"""A network falls behind for good whose hindmost PoP is this far behind, and by so many seconds a second more."""

Kind = Literal["bound", "link", "uplink", "commit"]


class Break(Struct, frozen=True, kw_only=True):
    """The first limit that was met, or would be."""

    kind: Kind
    rate: float
    """Writes a second at which it breaks, to a tenth; the lowest at which it was seen to."""
    nodes: tuple[str, ...] = ()
    """Where: a link's two ends, or a node."""
    measured: float = 0.0
    allowed: float = 0.0
    """Of `link`: share of the looks; of `uplink`: bit/s; of `bound`: ms; of `commit`: writes a second."""
    links: tuple[int, int] = (0, 0)
    """Of `link`: how many were saturated, of how many that carry frames."""
    also: tuple[Kind, ...] = ()
    """What else broke in the same trial."""


class Step(Struct, frozen=True, kw_only=True):
    """One trial of the search."""

    rate: float
    seconds: float
    converge_p99_ms: float | None
    """None if what broke was plain before all had it."""
    behind_ms: float
    broke: tuple[Kind, ...] = ()


class Plan(Struct, frozen=True, kw_only=True):
    """A network under a load; times in milliseconds, flows in bits per second."""

    network: str
    pops: int
    rate: float
    sizes: str
    size_mean: float
    link_mbps: float | None
    uplink_mbps: float | None
    loss: float
    tcp: str
    seed: int
    writes: int
    seconds: float
    """Virtual time in which they were written."""
    bound_ms: float
    floor_ms: float
    converge_p50_ms: float
    converge_p99_ms: float
    converge_max_ms: float
    stretch_p50: float
    stretch_p99: float
    late: int
    """Writes that a PoP hadn't within the bound."""
    redundancy: float
    link_median_bps: float
    """Over the directions of links that carry frames."""
    busiest_link: tuple[str, str]
    busiest_link_bps: float
    received_median_bps: float
    """By an edge."""
    received_most: str
    received_most_bps: float
    coordinator_bps: float
    coordinator_children: int
    busiest_relay: str
    relay_children: int
    relay_bps: float
    unsent_bytes_max: int
    unsent_link: tuple[str, str]
    control_share: float
    """Of the bytes on links: what isn't frames, headers among it."""
    frames_per_s: float
    frame_bytes_per_write: float
    journal_bytes_per_day: float
    """At the coordinator, which keeps all of it."""
    edge_journal_mib: int
    edge_tail_s: float
    """How far back the journal of an edge reaches at this rate."""
    breaks: Break | None
    """What breaks first; None if nothing did up to `holds_rate`."""
    holds_rate: float | None
    """The highest rate that was seen to hold."""
    ended: Literal["found", "volume", "effort", "trials"]
    """Why no further rate was tried."""
    steps: tuple[Step, ...]
    work_s: float
    """About how long simulating it took on the machine of bench/README.md; counted."""


def check(
    topology: Topology, rate: float, link_mbps: float | None, uplink_mbps: float | None, mean: float
) -> None:
    """Refuse what can't be planned.

    Raises:
        ConfigError: says what to change.
    """
    if len(topology.pops) < 2:
        raise ConfigError(f"{topology.name} has one PoP, and nothing spreads in it: add PoPs, or give --pops N")
    if not (isfinite(rate) and rate > 0):
        raise ConfigError(f"a rate of {rate:g} writes a second plans nothing: give one above 0, such as 20")
    for name, mbps in (("link speed", link_mbps), ("uplink", uplink_mbps)):
        if mbps is not None and not (isfinite(mbps) and mbps > 0):
            raise ConfigError(f"{name} of {mbps:g} Mbit/s carries nothing: give one above 0, or none for no limit")
    if rate > COMMIT_WRITES_PER_S:
        raise ConfigError(
            f"{rate:,.0f} writes a second are more than the {COMMIT_WRITES_PER_S:,.0f} that one disk commits: "
            "lower --rate, or split the keys over several networks"
        )
    if rate * (mean + ENTRY_BYTES) > BYTES_PER_S_MAX:
        raise ConfigError(
            f"{rate * mean / 1e6:,.0f} MB written a second are more than the {BYTES_PER_S_MAX / 1e6:,.0f} that "
            "can be simulated: lower --rate, or plan smaller values"
        )


def plan(
    topology: Topology,
    rate: float,
    sizes: str = "100",
    *,
    link_mbps: float | None = None,
    uplink_mbps: float | None = None,
    loss: float | None = None,
    tcp: Tcp = "flight",
    seed: int = 1,
    effort_s: float = 120.0,
    progress: Callable[[float, str], None] | None = None,
) -> Plan:
    """Simulate this network at `rate` writes a second, then look for the rate at which something breaks.

    `link_mbps` is the speed of each connection and direction, the topology's if None; `uplink_mbps` what a node
    may send in all, judged afterwards. `effort_s` bounds the search in seconds of the machine of bench/README.md;
    a network whose first simulation alone is long gets twice that instead. `progress` hears the fraction that is
    done, and of what.

    Raises:
        ConfigError: nothing that can be planned.
        NotFormed: the network didn't come together.
    """
    distribution = parse_sizes(sizes, topology.limits.resolve().value_bytes_max)
    check(topology, rate, link_mbps, uplink_mbps, distribution.mean)
    if loss is not None:
        topology = topology.with_loss(loss)
    if link_mbps is not None:
        topology = replace(topology, wan=replace(topology.wan, bandwidth_mbps=float(link_mbps)))
    planning = Planning(topology, rate, distribution, uplink_mbps, tcp, seed, progress or _nobody)
    was_enabled = gc.isenabled()
    gc.disable()  # a world makes no cycles while it runs, and is gone as a whole
    try:
        planning.run(effort_s)
    finally:
        if was_enabled:
            gc.enable()
    return planning.told(sizes)


class Planning:
    """One plan in the making."""

    def __init__(
        self,
        topology: Topology,
        rate: float,
        sizes: Sizes,
        uplink_mbps: float | None,
        tcp: Tcp,
        seed: int,
        progress: Callable[[float, str], None],
    ) -> None:
        self.topology = topology
        self.rate = rate
        self.sizes = sizes
        self.uplink_bps = None if uplink_mbps is None else 1e6 * uplink_mbps
        self.tcp: Tcp = tcp
        self.seed = seed
        self.trials: list[Trial] = []
        self.broke: list[tuple[Kind, ...]] = []
        self.ended: Literal["found", "volume", "effort", "trials"] = "trials"
        self._progress = progress
        self._done = 0.0
        mbps = topology.wan.bandwidth_mbps
        self._link_bps = None if mbps is None else 1e6 * mbps
        self._stage: Stage | None = None
        self._work_s = 0.0
        self._effort_s = inf
        self._rate_max = min(COMMIT_WRITES_PER_S, BYTES_PER_S_MAX / (sizes.mean + ENTRY_BYTES))

    # -- trials ----------------------------------------------------------------------------------------------

    def run(self, effort_s: float) -> None:
        """Simulate the asked rate, then others."""
        least, most = PLANNED_MS
        self._try(self.rate, min(most, max(least, 1000 * PLANNED_WRITES / self.rate)), to_the_end=True)
        self._effort_s = max(effort_s, 2 * self._work_s)
        self._work_s = 0.0
        while len(self.trials) < TRIALS_MAX:
            rate = self._next_rate()
            if rate is None:
                return
            if self._work_s + self._work_of(rate) > self._effort_s:
                self.ended = "effort"
                return
            self._try(rate, self._probe_ms(rate))

    def _probe_ms(self, rate: float) -> float:
        return min(PROBE_MS_MAX, max(PROBE_MS, 1000 * PROBE_WRITES / rate), self._duration_ms_max(rate))

    def _duration_ms_max(self, rate: float) -> float:
        return 1000 * TRIAL_BYTES_MAX / (rate * (self.sizes.mean + ENTRY_BYTES))

    def _work_of(self, rate: float) -> float:
        """Return about how long a probe will take."""
        seconds = self._probe_ms(rate) / 1000
        nodes = len(self.topology.pops)
        bytes_per_s = rate * (self.sizes.mean + ENTRY_BYTES)
        frames_per_s = min(rate, 1000 / self.topology.timers.group_commit_ms) + bytes_per_s / FRAME_BYTES_TARGET
        arrivals = nodes * seconds * (frames_per_s * FRAME_S + bytes_per_s * BYTE_S)
        return arrivals + rate * seconds * WRITE_S + nodes * (seconds + SPARE_S) * EVENTS_PER_S * EVENT_S

    def _try(self, rate: float, duration_ms: float, *, to_the_end: bool = False) -> None:
        number = len(self.trials) + 1
        note = f"{rate:,.3g} writes a second" if rate < 1000 else f"{rate:,.0f} writes a second"
        duration_ms = min(duration_ms, self._duration_ms_max(rate))

        def tell(done: float) -> None:
            spent = self._work_s / self._effort_s
            self._done = min(1.0, max(self._done, spent, (number - 1 + done) / TRIALS_MAX))
            self._progress(self._done, f"trial {number}: {note}")

        if self._stage is None:
            self._stage = Stage(self.topology, seed=self.seed, tcp=self.tcp, told=tell)
            self._work_s += self._stage.work_s
        self._stage.on_progress(tell)
        trial = self._stage.run(
            rate,
            self.sizes,
            duration_ms,
            Random(f"kvnet plan {self.seed} {number}"),
            judge=self._judge,
            to_the_end=to_the_end,
        )
        self._work_s += trial.work_s
        self.trials.append(trial)
        self.broke.append(self._broken(trial))
        if self.broke[-1] or not trial.is_drained:
            self._stage = None  # what an overload leaves behind must not count against the next rate

    def _judge(self, trial: Trial) -> Verdict:
        if self._saturated(trial) or self._over_uplink(trial) is not None:
            return Verdict.BREAKS
        if trial.behind_ms > self.topology.timers.bound_ms:
            return Verdict.BREAKS
        return Verdict.UNSURE if _falls_behind(trial) else Verdict.HOLDS

    # -- judging ---------------------------------------------------------------------------------------------

    def _saturated(self, trial: Trial) -> list[Flow]:
        """Return the links that carry no more, those of the coordinator first: what they hold back fills no other.

        Where packets are lost each link carries another rate, and a PoP behind a full one finds another parent. So
        these count only once a PoP is too late.
        """
        by_use = inf if self._link_bps is None else FULL_USE * self._link_bps
        forgives = self.topology.wan.loss > 0 and trial.behind_ms <= self.topology.timers.bound_ms
        full = [
            flow
            for flow in trial.flows
            if flow.frame_share >= USED_SHARE
            and (flow.bps >= by_use or (flow.full_share >= FULL_SHARE and not forgives))
        ]
        return sorted(full, key=lambda flow: (flow.sender != ROOT, -flow.full_share, -flow.bps, flow[:2]))

    def _over_uplink(self, trial: Trial) -> str | None:
        """Return the node that sends most, if that is more than it may."""
        if self.uplink_bps is None:
            return None
        most = max(trial.sent_bps, key=lambda name: (trial.sent_bps[name], name))
        return most if trial.sent_bps[most] > self.uplink_bps else None

    def _broken(self, trial: Trial) -> tuple[Kind, ...]:
        kinds: list[Kind] = []
        if self._saturated(trial):
            kinds.append("link")
        if self._over_uplink(trial) is not None:
            kinds.append("uplink")
        bound = self.topology.timers.bound_ms
        is_late = bool(trial.times) and percentile(trial.times, 0.99) > bound
        if _falls_behind(trial) or trial.behind_ms > bound or (is_late and (trial.is_drained or not kinds)):
            kinds.append("bound")
        return tuple(kinds)

    def _estimate(self, trial: Trial) -> float:
        """Return the rate at which something should break, going by what this one used: a hint, no more."""
        used = [trial.rate / self._rate_max]
        if self._link_bps is not None:
            used += [flow.bps / self._link_bps for flow in trial.flows]
        if self.uplink_bps is not None:
            used.append(max(trial.sent_bps.values()) / self.uplink_bps)
        return trial.rate / max(used)

    def _next_rate(self) -> float | None:
        """Return what to try next: farther out, then between what holds and what breaks; None at the end."""
        held = [trial for trial, broke in zip(self.trials, self.broke, strict=True) if not broke]
        broken = [trial.rate for trial, broke in zip(self.trials, self.broke, strict=True) if broke]
        if not held:
            return min(broken) / 2
        best = max(held, key=lambda trial: trial.rate)
        if not broken:
            if best.rate >= self._rate_max:
                self.ended = "found" if self._rate_max == COMMIT_WRITES_PER_S else "volume"
                return None
            hint = self._estimate(best)
            if self.topology.wan.loss:  # links carry less than their speed, and nothing tells how much
                return min(self._rate_max, 2 * best.rate)
            if hint >= self._rate_max:
                return self._rate_max
            if BEFORE * hint < 2 * best.rate:
                return min(self._rate_max, max(BEYOND * hint, NEAR * best.rate))
            return BEFORE * hint
        low, high = best.rate, min(broken)
        if high <= NEAR * low:
            self.ended = "found"
            return None
        return _between(low, high)

    # -- telling ---------------------------------------------------------------------------------------------

    def _break(self) -> Break | None:
        broken = [(trial, broke) for trial, broke in zip(self.trials, self.broke, strict=True) if broke]
        if not broken:
            if self.ended == "found":
                rate = COMMIT_WRITES_PER_S
                return Break(kind="commit", rate=rate, nodes=(ROOT,), measured=rate, allowed=rate)
            return None
        trial, kinds = min(broken, key=lambda each: each[0].rate)
        kind, also = kinds[0], kinds[1:]
        if kind == "link":
            full = self._saturated(trial)
            return Break(
                kind=kind,
                rate=trial.rate,
                nodes=full[0][:2],
                measured=full[0].full_share,
                allowed=FULL_SHARE,
                links=(len(full), sum(flow.frame_share >= USED_SHARE for flow in trial.flows)),
                also=also,
            )
        node = self._over_uplink(trial)
        if kind == "uplink" and node is not None and self.uplink_bps is not None:
            sent = trial.sent_bps[node]
            return Break(
                kind=kind, rate=trial.rate, nodes=(node,), measured=sent, allowed=self.uplink_bps, also=also
            )
        late_ms = percentile(trial.times, 0.99) if trial.is_drained else trial.behind_ms
        return Break(
            kind="bound",
            rate=trial.rate,
            nodes=tuple(name for name in trial.hindmost if name),
            measured=late_ms,
            allowed=float(self.topology.timers.bound_ms),
        )

    def told(self, sizes: str) -> Plan:
        """Return what was found."""
        trial, topology = self.trials[0], self.topology
        floor = Wan(topology).floor_ms()
        p50, p99 = percentile(trial.times, 0.5), percentile(trial.times, 0.99)
        bound = float(topology.timers.bound_ms)
        edges = [pop.code for pop in topology.pops]
        busiest = max(trial.flows, key=lambda flow: (flow.bps, flow[:2]))
        relay = max(edges, key=lambda name: (trial.sent_bps[name], name))
        receiver = max(edges, key=lambda name: (trial.received_bps[name], name))
        bytes_per_s = trial.frame_bytes_per_write * trial.rate
        tail_mib = topology.storage.edge_journal_mib
        held = [each.rate for each, broke in zip(self.trials, self.broke, strict=True) if not broke]
        return Plan(
            network=topology.name,
            pops=len(edges),
            rate=trial.rate,
            sizes=sizes,
            size_mean=self.sizes.mean,
            link_mbps=topology.wan.bandwidth_mbps,
            uplink_mbps=None if self.uplink_bps is None else self.uplink_bps / 1e6,
            loss=topology.wan.loss,
            tcp=self.tcp,
            seed=self.seed,
            writes=trial.writes,
            seconds=trial.seconds,
            bound_ms=bound,
            floor_ms=floor,
            converge_p50_ms=p50,
            converge_p99_ms=p99,
            converge_max_ms=trial.times[-1][0],
            stretch_p50=p50 / floor if floor else inf,
            stretch_p99=p99 / floor if floor else inf,
            late=sum(writes for time, writes in trial.times if time > bound),
            redundancy=trial.redundancy,
            link_median_bps=median(flow.bps for flow in trial.flows if flow.frame_share >= USED_SHARE),
            busiest_link=busiest[:2],
            busiest_link_bps=busiest.bps,
            received_median_bps=median(trial.received_bps[name] for name in edges),
            received_most=receiver,
            received_most_bps=trial.received_bps[receiver],
            coordinator_bps=trial.sent_bps[ROOT],
            coordinator_children=trial.children[ROOT],
            busiest_relay=relay,
            relay_children=trial.children[relay],
            relay_bps=trial.sent_bps[relay],
            unsent_bytes_max=trial.unsent_bytes_max,
            unsent_link=trial.unsent_link,
            control_share=trial.control_share,
            frames_per_s=trial.frames_per_s,
            frame_bytes_per_write=trial.frame_bytes_per_write,
            journal_bytes_per_day=86_400 * bytes_per_s,
            edge_journal_mib=tail_mib,
            edge_tail_s=tail_mib * 1024 * 1024 / bytes_per_s,
            breaks=self._break(),
            holds_rate=max(held, default=None),
            ended=self.ended,
            steps=tuple(self._step(each, broke) for each, broke in zip(self.trials, self.broke, strict=True)),
            work_s=sum(each.work_s for each in self.trials),
        )

    def _step(self, trial: Trial, broke: tuple[Kind, ...]) -> Step:
        p99 = percentile(trial.times, 0.99)
        return Step(
            rate=trial.rate,
            seconds=trial.seconds,
            converge_p99_ms=p99 if isfinite(p99) else None,
            behind_ms=trial.behind_ms,
            broke=broke,
        )


def percentile(times: tuple[tuple[float, int], ...], share: float) -> float:
    """Return the smallest time that at least this share of the writes doesn't exceed."""
    left = max(1, ceil(share * sum(writes for _, writes in times)))
    for time, writes in times:
        left -= writes
        if left <= 0:
            return time
    return inf


def _falls_behind(trial: Trial) -> bool:
    return trial.growth >= GROWTH and trial.behind_ms >= GROWN_MS


def _between(low: float, high: float) -> float:
    """Return a rate half way on the scale of ratios, of as many digits as people say."""
    middle = sqrt(low * high)
    return float(f"{middle:.3g}") if low < float(f"{middle:.3g}") < high else middle


def _nobody(done: float, note: str) -> None:
    """Hear of progress that nobody follows."""
    del done, note
