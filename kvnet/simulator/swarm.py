"""Swarm testing: a seed draws a network, a load and a mix of faults; then everything is watched.

Groce et al. 2012: a random subset of all kinds of faults for each run finds more than all of them in every run.
For 20 virtual seconds things break; then they heal, and what was promised must come true.

    safety     everything may fail, and everybody returns
    liveness   a connected core must converge while the rest stays broken for good
    torture    single messages are lost, repeated, late, replayed and changed as well: only safety counts meanwhile
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum
from random import Random
from typing import Final

from msgspec import Struct

from kvnet.simulator.chunk_shelf import CHUNK_LIFE_MS
from kvnet.simulator.desk import CrashPoint
from kvnet.simulator.faults import (
    Alter,
    AnyFault,
    Bandwidth,
    Burst,
    Clock,
    Crash,
    CrashInCommit,
    FlippedBit,
    FullDisk,
    HangUp,
    Loss,
    LyingDisk,
    Partition,
    Pause,
    Slow,
    SlowDisk,
    Spike,
    Tamper,
    Twin,
)
from kvnet.simulator.world import ROOT

FAULTS_MS: Final = 20_000.0
WARM_UP_MS: Final = 3_000.0
POPS_MIN: Final = 12
POPS_MAX: Final = 60
KINDS_PER_RUN: Final = (2, 6)
FAULTS_PER_RUN: Final = (4, 24)
FOREVER_MS: Final = 86_400_000.0


class Mode(StrEnum):
    """What a swarm run is after."""

    SAFETY = "safety"
    LIVENESS = "liveness"
    TORTURE = "torture"


class Draw(Struct, frozen=True, kw_only=True):
    """Everything that a seed decides, or in its place a schedule that somebody has written."""

    seed: int
    mode: Mode
    pops: int
    profile: str
    loss: float
    jitter_sigma: float
    write_rate: float
    keys: int
    value_bytes_max: int
    edge_journal_bytes: int
    edge_durability: str
    large_share: float
    """Of the writes, those of a value that travels in chunks."""
    chunk_life_ms: float = CHUNK_LIFE_MS
    """How long a chunk is kept that no record names."""
    brief_share: float = 0.0
    """Of the writes, those with a time to live."""
    waited_share: float = 0.0
    """Of the writes, those for which receipts are wanted."""
    removals_per_s: int = 200
    root_journal_bytes: int = 0
    """What the coordinator's journal keeps; 0 for all."""
    root_journal_ms: float = 86_400_000.0
    kinds: tuple[str, ...]
    """The kinds of faults in the mix."""
    broken: tuple[str, ...] = ()
    """Liveness: the edges that stay broken."""
    faults: tuple[AnyFault, ...] = ()


class _Dice:
    """The dice of one run."""

    def __init__(self, rng: Random, nodes: Sequence[str], regions: Sequence[str]) -> None:
        self.rng = rng
        self.edges = [name for name in nodes if name != ROOT]
        self.nodes = list(nodes)
        self.regions = list(regions)

    def time(self) -> float:
        return round(self.rng.uniform(0, FAULTS_MS), 1)

    def lasting(self, most_ms: float) -> float:
        """A duration, short ones as likely as long ones."""
        factor: float = (most_ms / 100) ** self.rng.random()
        return round(min(most_ms, 100 * factor), 1)

    def some(self, share: float) -> tuple[str, ...]:
        count = max(1, round(len(self.edges) * self.rng.uniform(0, share)))
        return tuple(self.rng.sample(self.edges, count))

    def node(self) -> str:
        return self.rng.choice(self.nodes)

    def pair(self) -> tuple[str, str]:
        a, b = self.rng.sample(self.nodes, 2)
        return a, b


def _crash(dice: _Dice) -> AnyFault:
    rng = dice.rng
    nodes = (ROOT,) if rng.random() < 0.2 else dice.some(0.3)
    return Crash(
        at_ms=dice.time(),
        lasts_ms=dice.lasting(20_000),
        nodes=nodes,
        silent=rng.random() < 0.5,
        power=rng.random() < 0.5,
    )


def _wipe(dice: _Dice) -> AnyFault:
    nodes = (ROOT,) if dice.rng.random() < 0.1 else dice.some(0.3)
    return Crash(at_ms=dice.time(), lasts_ms=dice.lasting(10_000), nodes=nodes, wiped=True)


def _old_disk(dice: _Dice) -> AnyFault:
    nodes = (ROOT,) if dice.rng.random() < 0.3 else dice.some(0.2)
    at = dice.time()
    before = round(dice.rng.uniform(0, at), 1)
    return Crash(at_ms=at, lasts_ms=dice.lasting(5000), nodes=nodes, disk_from_ms=before)


def _restart(dice: _Dice) -> AnyFault:
    """A mass restart: many at once, back within a moment."""
    return Crash(at_ms=dice.time(), lasts_ms=dice.lasting(2000), nodes=dice.some(1.0))


def _commit(dice: _Dice) -> AnyFault:
    point = dice.rng.choice(list(CrashPoint))
    return CrashInCommit(at_ms=dice.time(), lasts_ms=dice.lasting(8000), point=point)


def _pause(dice: _Dice) -> AnyFault:
    nodes = (ROOT,) if dice.rng.random() < 0.2 else dice.some(0.2)
    return Pause(at_ms=dice.time(), lasts_ms=dice.lasting(30_000), nodes=nodes)


def _slow(dice: _Dice) -> AnyFault:
    cpu_ms = dice.rng.choice([0.5, 2.0, 10.0])
    return Slow(at_ms=dice.time(), lasts_ms=dice.lasting(20_000), nodes=dice.some(0.2), cpu_ms=cpu_ms)


def _full(dice: _Dice) -> AnyFault:
    nodes = (ROOT,) if dice.rng.random() < 0.3 else dice.some(0.2)
    return FullDisk(at_ms=dice.time(), lasts_ms=dice.lasting(10_000), nodes=nodes)


def _lying(dice: _Dice) -> AnyFault:
    nodes = (ROOT,) if dice.rng.random() < 0.4 else dice.some(0.2)
    return LyingDisk(at_ms=dice.time(), lasts_ms=dice.lasting(10_000), nodes=nodes)


def _flipped(dice: _Dice) -> AnyFault:
    return FlippedBit(at_ms=dice.time(), lasts_ms=dice.lasting(10_000), nodes=dice.some(0.2))


def _alter(dice: _Dice) -> AnyFault:
    rng = dice.rng
    return Alter(
        at_ms=dice.time(),
        lasts_ms=dice.lasting(10_000),
        pages=rng.choice([0.05, 0.5]),
        chunks=rng.choice([0.0, 0.2]),
        forged=rng.random() < 0.5,
    )


def _slow_disk(dice: _Dice) -> AnyFault:
    most = dice.rng.choice([5.0, 50.0, 2000.0])
    return SlowDisk(at_ms=dice.time(), lasts_ms=dice.lasting(20_000), least_ms=1.0, most_ms=most)


def _clock(dice: _Dice) -> AnyFault:
    rng = dice.rng
    step = rng.choice([-1000.0, 1000.0, 0.0, -3_600_000.0, 3_600_000.0])
    nodes = (ROOT,) if rng.random() < 0.3 else dice.some(0.3)
    drift = rng.uniform(-200, 200)
    return Clock(at_ms=dice.time(), lasts_ms=FAULTS_MS, nodes=nodes, step_ms=step, drift_ppm=drift)


def _twin(dice: _Dice) -> AnyFault:
    node = ROOT if dice.rng.random() < 0.3 else dice.rng.choice(dice.edges)
    return Twin(at_ms=dice.time(), lasts_ms=dice.lasting(10_000), node=node)


def _region(dice: _Dice) -> AnyFault:
    return Partition(
        at_ms=dice.time(),
        lasts_ms=dice.lasting(20_000),
        senders=(dice.rng.choice(dice.regions),),
        one_way=dice.rng.random() < 0.3,
    )


def _partition(dice: _Dice) -> AnyFault:
    """Any set of nodes cut off from the rest; the coordinator with its relays among them, or alone, at times."""
    return Partition(
        at_ms=dice.time(),
        lasts_ms=dice.lasting(20_000),
        senders=(ROOT, *dice.some(0.3)) if dice.rng.random() < 0.3 else dice.some(0.5),
        one_way=dice.rng.random() < 0.3,
    )


def _flapping(dice: _Dice) -> AnyFault:
    return Partition(
        at_ms=dice.time(),
        lasts_ms=dice.lasting(20_000),
        senders=dice.some(0.2),
        flapping_ms=dice.rng.choice([300.0, 1000.0, 4000.0, 10_000.0]),
    )


def _clog(dice: _Dice) -> AnyFault:
    """A connection stands still, and what it holds arrives later, or never."""
    a, b = dice.pair()
    return Partition(at_ms=dice.time(), lasts_ms=dice.lasting(5000), senders=(a,), receivers=(b,), one_way=True)


def _spike(dice: _Dice) -> AnyFault:
    a, b = dice.pair()
    extra = dice.rng.choice([100.0, 500.0, 3000.0])
    return Spike(at_ms=dice.time(), lasts_ms=dice.lasting(10_000), sender=a, receiver=b, extra_ms=extra)


def _burst(dice: _Dice) -> AnyFault:
    a, b = dice.pair()
    return Burst(
        at_ms=dice.time(),
        lasts_ms=dice.lasting(20_000),
        sender=a,
        receiver=b,
        loss=dice.rng.uniform(0.2, 0.9),
        bad_ms=dice.rng.uniform(100, 5000),
        good_ms=dice.rng.uniform(500, 5000),
    )


def _loss(dice: _Dice) -> AnyFault:
    return Loss(at_ms=dice.time(), lasts_ms=dice.lasting(20_000), loss=dice.rng.choice([0.05, 0.2, 0.4, 0.6]))


def _bandwidth(dice: _Dice) -> AnyFault:
    return Bandwidth(at_ms=dice.time(), lasts_ms=dice.lasting(20_000), mbps=dice.rng.choice([1.0, 10.0, 100.0]))


def _hang_up(dice: _Dice) -> AnyFault:
    a, b = dice.pair()
    return HangUp(at_ms=dice.time(), a=a, b=b)


KINDS: Final[dict[str, Callable[[_Dice], AnyFault]]] = {
    "crash": _crash,
    "wipe": _wipe,
    "old disk": _old_disk,
    "mass restart": _restart,
    "crash in a commit": _commit,
    "pause": _pause,
    "slow": _slow,
    "full disk": _full,
    "lying disk": _lying,
    "flipped bit": _flipped,
    "altered pages": _alter,
    "slow disk": _slow_disk,
    "clock": _clock,
    "twin": _twin,
    "region cut off": _region,
    "partition": _partition,
    "flapping": _flapping,
    "clog": _clog,
    "spike": _spike,
    "burst": _burst,
    "loss": _loss,
    "bandwidth": _bandwidth,
    "hang up": _hang_up,
}


def size_of(seed: int) -> int:
    """Return how many PoPs this seed's network has."""
    return Random(seed).randint(POPS_MIN, POPS_MAX)


def draw(seed: int, mode: Mode, pops: Sequence[str], regions: Sequence[str], *, loss: float | None = None) -> Draw:
    """Return what this seed decides for a network of these PoPs; `loss` overrides its own."""
    rng = Random(f"kvnet swarm {seed} {mode}")
    dice = _Dice(rng, [ROOT, *pops], regions)
    kinds = tuple(rng.sample(sorted(KINDS), rng.randint(*KINDS_PER_RUN)))
    drawn_loss = rng.choice([0.0, 0.0, 0.0, 0.01, 0.05, 0.2])
    faults = [KINDS[rng.choice(kinds)](dice) for _ in range(rng.randint(*FAULTS_PER_RUN))]
    if mode is Mode.TORTURE:
        faults.extend(_torture(dice))
    broken: tuple[str, ...] = ()
    if mode is Mode.LIVENESS:
        broken = dice.some(0.5)
        faults.extend(_lasting(dice, broken))
    return Draw(
        seed=seed,
        mode=mode,
        pops=len(pops),
        profile=rng.choice(["internet", "backbone"]),
        loss=drawn_loss if loss is None else loss,
        jitter_sigma=rng.choice([0.0, 0.05, 0.3]),
        write_rate=rng.choice([2.0, 20.0, 50.0]),
        keys=rng.choice([3, 50, 300]),
        value_bytes_max=rng.choice([100, 5000, 65_000]),
        edge_journal_bytes=rng.choice([2000, 50_000, 1_000_000]),
        edge_durability=rng.choice(["none", "commit"]),
        large_share=rng.choice([0.0, 0.0, 0.02]),
        chunk_life_ms=rng.choice([CHUNK_LIFE_MS, 15_000.0]),
        brief_share=rng.choice([0.0, 0.1, 0.3]),
        removals_per_s=rng.choice([4, 200]),
        root_journal_bytes=rng.choice([0, 5000, 1_000_000]),
        root_journal_ms=rng.choice([86_400_000.0, 5000.0]),
        waited_share=rng.choice([0.0, 0.05, 1.0]),
        kinds=kinds,
        broken=broken,
        faults=tuple(faults),
    )


def _torture(dice: _Dice) -> list[AnyFault]:
    rng = dice.rng
    return [
        Tamper(
            at_ms=dice.time(),
            lasts_ms=dice.lasting(20_000),
            drop=rng.choice([0.0, 0.01, 0.2]),
            duplicate=rng.choice([0.0, 0.05, 0.5]),
            reorder=rng.choice([0.0, 0.05, 0.5]),
            replay=rng.choice([0.0, 0.01, 0.1]),
            corrupt=rng.choice([0.0, 0.001, 0.02]),
            replay_after_ms=(1000.0, rng.choice([10_000.0, 30_000.0, 180_000.0])),
        )
        for _ in range(rng.randint(1, 3))
    ]


def _lasting(dice: _Dice, broken: Sequence[str]) -> list[AnyFault]:
    """Faults of the edges that stay broken, none of which ever ends."""
    faults: list[AnyFault] = []
    for name in broken:
        at = dice.time()
        match dice.rng.randrange(4):
            case 0:
                faults.append(Crash(at_ms=at, lasts_ms=FOREVER_MS, nodes=(name,), silent=True))
            case 1:
                faults.append(Pause(at_ms=at, lasts_ms=FOREVER_MS, nodes=(name,)))
            case 2:
                faults.append(Partition(at_ms=at, lasts_ms=FOREVER_MS, senders=(name,), flapping_ms=2000.0))
            case _:
                faults.append(
                    Partition(at_ms=at, lasts_ms=FOREVER_MS, senders=(name,), one_way=dice.rng.random() < 0.5)
                )
    return faults
