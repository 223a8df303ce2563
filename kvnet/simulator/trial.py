"""A network under a steady load for some seconds: how soon its PoPs have the writes, and how full its links are.

What a rate leads to is simulated; whether a network stands it, is judged in plan.py.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from enum import Enum, auto
from math import inf
from random import Random
from typing import Final, NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from kvnet.core.events import UNSENT_BYTES_MAX
from kvnet.core.frames import Frame
from kvnet.core.operations import PutValue
from kvnet.core.versions import GENESIS
from kvnet.simulator.desk import NAMESPACE
from kvnet.simulator.measure import FORMED_MS_MAX, NotFormed
from kvnet.simulator.network import Link
from kvnet.simulator.node import SimulatedNode
from kvnet.simulator.sizes import Sizes
from kvnet.simulator.watching import Watcher
from kvnet.simulator.world import ROOT, World
from kvnet.topology.schema import Topology
from kvnet.topology.wan import Tcp

WARM_UP_MS: Final = 20_000.0
"""From when the network has formed until the first write; the tree improves meanwhile."""
SETTLE_SHARE: Final = 0.2
"""Of a trial: what happens before isn't counted as its steady state."""
LOOK_MS: Final = 73.0
"""Between two looks at the queues; not in step with the hand-outs."""
KEYS: Final = 10_000
LEGS_MAX: Final = 5
REST_MS: Final = 2000.0
EVENT_S: Final = 40e-6
FRAME_S: Final = 6e-6
BYTE_S: Final = 1.2e-9
WRITE_S: Final = 25e-6
"""What simulating an event, a frame's arrival, its bytes, and a write took on the machine of bench/README.md."""


class Verdict(Enum):
    """What a load says of a network, before it is waited for."""

    HOLDS = auto()
    BREAKS = auto()
    UNSURE = auto()


class Flow(NamedTuple):
    """One direction of a link in the steady part of a trial."""

    sender: str
    receiver: str
    bps: float
    """Bits per second that left."""
    frame_share: float
    """Of the looks at it: its receiver was a child."""
    full_share: float
    """Of those looks: no less than 128 KiB waited, or the cursor for room."""


class Trial(Struct, frozen=True, kw_only=True):
    """What came of a load; times in milliseconds, flows from the steady part of its last leg."""

    rate: float
    writes: int
    seconds: float
    """Virtual time in which it was written."""
    times: tuple[tuple[float, int], ...]
    """(until the last PoP had them, writes), ascending; inf for those that one still lacks."""
    behind_ms: float
    """Age of the oldest frame that the hindmost PoP lacked, in the mean over the last looks."""
    growth: float
    """By how many seconds a second that grew."""
    hindmost: tuple[str, str]
    """The link behind which PoPs are that far back: (parent, child)."""
    flows: tuple[Flow, ...]
    """Directions of links that carried frames."""
    sent_bps: dict[str, float]
    received_bps: dict[str, float]
    children: dict[str, int]
    unsent_bytes_max: int
    unsent_link: tuple[str, str]
    control_share: float
    """Of all bytes on links, those that are not frames."""
    frames_per_s: float
    frame_bytes_per_write: float
    redundancy: float
    """Frame bytes received ÷ bytes needed."""
    is_drained: bool
    """All PoPs have all of it."""
    work_s: float
    """About how long it took to simulate; counted, not timed, so that it's the same each time."""


class Spread(Watcher):
    """When the last PoP had each frame, without remembering who had it when."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.begin()
        self.frames_taken = 0
        self.bytes_taken = 0
        self._held: dict[str, int] = {}
        world.watch(self)

    def begin(self) -> None:
        """Forget what was; count from the next frame on."""
        self.frames: list[tuple[float, int, int]] = []
        """(durable at, writes, bytes) of each frame."""
        self.everywhere_at: list[float] = []
        self._missing: list[int] = []
        self._index: dict[int, int] = {}

    def on_durable(self, node: SimulatedNode, frames: Sequence[Frame]) -> None:
        del node
        for frame in frames:
            self._index[frame.last_seq] = len(self.frames)
            self.frames.append((self.world.now, frame.last_seq - frame.first_seq + 1, len(frame.data)))
            self.everywhere_at.append(inf)
            self._missing.append(len(self.world.nodes) - 1)

    def on_applied(self, node: SimulatedNode, frames: Sequence[Frame]) -> None:
        if node.name == ROOT:
            return
        held, index, missing = self._held.get(node.name, 0), self._index, self._missing
        for frame in frames:
            self.bytes_taken += len(frame.data)
            at = index.get(frame.last_seq)
            if at is None or frame.last_seq <= held:
                continue
            missing[at] -= 1
            if not missing[at]:
                self.everywhere_at[at] = self.world.now
        self.frames_taken += len(frames)
        self._held[node.name] = max(held, frames[-1].last_seq)

    def oldest_missing_at(self, seq: int) -> float:
        """Return when the frame after this seq became durable; now, if there is none of this trial."""
        at = self._index.get(seq)
        after = 0 if at is None else at + 1
        return self.frames[after][0] if after < len(self.frames) else self.world.now


class Stage:
    """A formed network, to which it is written again and again."""

    def __init__(
        self, topology: Topology, *, seed: int, tcp: Tcp, told: Callable[[float], None] | None = None
    ) -> None:
        """Form the network and let it come to rest; `told` hears how much of what it does is done.

        Raises:
            NotFormed: it didn't come together.
        """
        gc.collect()  # the world before this one
        self.world = world = World(
            topology,
            seed=seed,
            edge_journal_bytes=topology.storage.edge_journal_mib * 1024 * 1024,
            tcp=tcp,
            folds=False,
        )
        self.spread = Spread(world)
        self._told = told or _nobody
        self._written = 0
        world.start_all()
        unformed = [name for name in world.nodes if name != ROOT]

        def is_unformed() -> bool:
            if not world.is_open:
                return True
            while unformed and self._stands(unformed[-1]):
                unformed.pop()
            return bool(unformed)

        if not world.run_while(is_unformed, FORMED_MS_MAX):
            raise NotFormed(f"{len(unformed)} of {len(world.nodes) - 1} PoPs have not formed: {unformed[:5]}")
        self._run_until(world.now + WARM_UP_MS)

    def on_progress(self, told: Callable[[float], None]) -> None:
        """Have somebody else told from now on."""
        self._told = told

    def _stands(self, name: str) -> bool:
        node = self.world.nodes[name]
        head = self.world.root.disk.position
        return node.core is not None and bool(node.core.state.parents) and node.disk.position == head != GENESIS

    def _run_until(self, until: float) -> None:
        began = self.world.now
        while self.world.now < until:
            self.world.run_until(min(until, self.world.now + LOOK_MS))
            self._told((self.world.now - began) / (until - began))

    @property
    def work_s(self) -> float:
        """About how long everything so far took to simulate."""
        spread = self.spread
        return (
            EVENT_S * self.world.events
            + FRAME_S * spread.frames_taken
            + BYTE_S * spread.bytes_taken
            + WRITE_S * self._written
        )

    def run(
        self,
        rate: float,
        sizes: Sizes,
        duration_ms: float,
        rng: Random,
        *,
        judge: Callable[[Trial], Verdict],
        to_the_end: bool = False,
    ) -> Trial:
        """Write at this rate for so long, then wait until all have it, at most for the bound.

        While `judge` is unsure of what it sees it is written for as long again, LEGS_MAX times in all: a network
        that falls behind may still help itself. What has broken isn't waited for, unless `to_the_end`.
        """
        world = self.world
        work_before = self.work_s
        self.spread.begin()
        began, written = world.now, 0
        while True:
            looks = Looks(self)
            written = self._write(rate, sizes, duration_ms, rng, looks, began, written)
            told = looks.trial(rate, written, (world.now - began) / 1000)
            verdict = judge(told)
            if verdict is not Verdict.UNSURE or world.now - began >= (LEGS_MAX - 0.5) * duration_ms:
                break
        if verdict is Verdict.HOLDS or to_the_end:
            world.run_while(self._is_behind(), world.timers.bound_ms)
        times: dict[float, int] = {}
        for (durable_at, writes, _), at in zip(self.spread.frames, self.spread.everywhere_at, strict=True):
            times[at - durable_at] = times.get(at - durable_at, 0) + writes
        is_drained = not self._is_behind()()
        if is_drained:
            world.run_until(world.now + REST_MS)
        return replace(
            told, times=tuple(sorted(times.items())), is_drained=is_drained, work_s=self.work_s - work_before
        )

    def _write(
        self,
        rate: float,
        sizes: Sizes,
        duration_ms: float,
        rng: Random,
        looks: Looks,
        began: float,
        written: int,
    ) -> int:
        """Go on with what began then; return how much is written by now."""
        world = self.world
        leg = world.now
        end, settled = leg + duration_ms, leg + SETTLE_SHARE * duration_ms
        every_ms = max(1000 / rate, float(world.timers.group_commit_ms))
        next_write, next_look = began + written * 1000 / rate, leg + LOOK_MS
        while world.now < end:
            if world.now >= next_write:
                due = int((world.now - began) * rate / 1000) + 1
                self._submit(due - written, sizes, rng)
                written, next_write = due, max(next_write, leg) + every_ms
            if world.now >= next_look:
                next_look += LOOK_MS
                looks.look()
                self._told((world.now - leg) / duration_ms)
            if looks.window is None and world.now >= settled:
                looks.open_window()
            world.run_until(min(end, next_write, next_look, end if looks.window else settled))
        return written

    def _is_behind(self) -> Callable[[], bool]:
        world = self.world
        last = world.root.disk.position.seq
        left = world.edges()

        def behind() -> bool:
            while left and left[-1].disk.position.seq >= last:
                left.pop()
            return bool(left)

        return behind

    def _submit(self, count: int, sizes: Sizes, rng: Random) -> None:
        """Have the coordinator take so many writes; they share the next commit."""
        desk = self.world.desk
        for _ in range(count):
            self._written += 1
            value = self._written.to_bytes(8, "big").ljust(sizes.draw(rng), b"\0")
            key = b"key-%012d" % (self._written % KEYS)
            desk.submit([PutValue(NAMESPACE, key, value, b"", 0, 0)], None, _unheard)
        desk.commit_soon()


class Window(NamedTuple):
    """What had passed when the steady part began."""

    at: float
    sent: dict[tuple[str, str], tuple[Link, int, int]]
    """By sender and receiver: their link, bytes handed to it, bytes of them that still waited."""
    frames_sent: int
    frames_received: int
    """Bytes of frames, all nodes together."""


class Looks:
    """What is seen of the queues while it is written."""

    def __init__(self, stage: Stage) -> None:
        self.world = stage.world
        self.spread = stage.spread
        self.window: Window | None = None
        self._looks = 0
        self._behind: list[float] = []
        self._seen: dict[tuple[str, str], int] = {}
        self._full: dict[tuple[str, str], int] = {}
        self._unsent = (0, "", "")
        self._began = stage.world.now

    def open_window(self) -> None:
        """From now on the state is steady."""
        self.window = Window(self.world.now, self._sent(), *self._frame_bytes())

    def look(self) -> None:
        world, now = self.world, self.world.now
        head = world.root.disk.position.seq
        oldest = now
        for node in world.nodes.values():
            if node.disk.position.seq < head:
                oldest = min(oldest, self.spread.oldest_missing_at(node.disk.position.seq))
        self._behind.append(now - oldest)
        if self.window is None:
            return
        self._looks += 1
        for node in world.live():
            if node.core is None:
                continue
            for name, child in node.core.state.children.items():
                unsent = node.unsent_bytes(name)
                pair = node.name, name
                self._seen[pair] = self._seen.get(pair, 0) + 1
                if child.waiting or unsent >= UNSENT_BYTES_MAX:
                    self._full[pair] = self._full.get(pair, 0) + 1
                if unsent > self._unsent[0]:
                    self._unsent = unsent, *pair

    def trial(self, rate: float, writes: int, seconds: float) -> Trial:
        """Return what was seen, as long as nothing has been waited for."""
        world, window = self.world, self.window
        assert window is not None
        now = world.now
        flows = []
        sent: dict[str, float] = dict.fromkeys(world.nodes, 0.0)
        received: dict[str, float] = dict.fromkeys(world.nodes, 0.0)
        handed_bytes = 0
        for pair, (link, handed, waits) in self._sent().items():
            was, handed_before, waited = window.sent.get(pair, (link, 0, 0))
            if was is not link:
                handed_before = waited = 0
            # What left: what was handed over, and waited before, and doesn't wait now.
            left = 8000 * (handed - handed_before + waited - waits) / max(1.0, now - max(window.at, link.since))
            handed_bytes += handed - handed_before
            sent[pair[0]] += left
            received[pair[1]] += left
            seen = self._seen.get(pair, 0)
            if seen:
                flows.append(Flow(*pair, left, seen / self._looks, self._full.get(pair, 0) / seen))
        frames_sent, frames_received = self._frame_bytes()
        frames_sent -= window.frames_sent
        written = sum(size for _, _, size in self.spread.frames)
        steady = [size for at, _, size in self.spread.frames if at > window.at]
        quarter = max(1, len(self._behind) // 4)
        early = sum(self._behind[quarter : 2 * quarter]) / quarter
        late = sum(self._behind[-quarter:]) / quarter
        needed = sum(steady) * (len(world.nodes) - 1)
        return Trial(
            rate=rate,
            writes=writes,
            seconds=seconds,
            times=(),
            behind_ms=late,
            growth=(late - early) / ((now - self._began) / 2),
            hindmost=self._hindmost(),
            flows=tuple(flows),
            sent_bps=sent,
            received_bps=received,
            children={node.name: len(node.core.state.children) for node in world.live() if node.core is not None},
            unsent_bytes_max=self._unsent[0],
            unsent_link=self._unsent[1:],
            control_share=max(0.0, 1 - frames_sent / handed_bytes) if handed_bytes else 0.0,
            frames_per_s=len(self.spread.frames) / seconds,
            frame_bytes_per_write=written / max(1, writes),
            redundancy=(frames_received - window.frames_received) / needed if needed else 1.0,
            is_drained=False,
            work_s=0.0,
        )

    def _sent(self) -> dict[tuple[str, str], tuple[Link, int, int]]:
        now = self.world.now
        sent = {}
        for node in self.world.nodes.values():
            for peer, link in node.links.items():
                direction = link.direction(node)
                sent[node.name, peer] = link, direction.bytes_sent, direction.model.unsent_bytes(now)
        return sent

    def _frame_bytes(self) -> tuple[int, int]:
        streams = [node.core.stream for node in self.world.live() if node.core is not None]
        return sum(each.frame_bytes_sent for each in streams), sum(each.frame_bytes_received for each in streams)

    def _hindmost(self) -> tuple[str, str]:
        """Return the link where the way to the hindmost PoP falls back."""
        world = self.world
        nodes = world.nodes
        child = min(world.edges(), key=lambda node: node.disk.position.seq)
        head = world.root.disk.position.seq
        passed = {child.name}
        while child.core is not None and child.core.state.parents:
            parent = nodes[next(iter(child.core.state.parents))]
            is_level = head - parent.disk.position.seq < (head - child.disk.position.seq) / 2
            if is_level or parent.name == ROOT or parent.name in passed:
                return parent.name, child.name
            child = parent
            passed.add(child.name)
        return "", child.name


def _nobody(done: float) -> None:
    """Hear of progress that nobody follows."""
    del done


def _unheard(durable: bool) -> None:
    """Hear an answer that nobody waits for."""
    del durable
