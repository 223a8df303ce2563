"""The ledger of arrivals: every frame the coordinator committed, and when each PoP had it.

Pure bookkeeping, in wall milliseconds. PoPs are numbers here. Per frame and PoP there is one store and one count,
for a hundred and fifty PoPs take two hundred frames a second. What it means is for the judge, who empties
`complete`, `late`, `dropped` and `superseded` after each message.
"""

from __future__ import annotations

from array import array
from collections import deque
from enum import Enum, auto
from math import inf, isnan, nan
from typing import Final

from kvnet.core.versions import Version

FRAMES_KEPT: Final = 32_768
"""Frames whose times are known; older ones are judged as they leave."""
STAMPS_WAITING_MAX: Final = 4096
"""Stamps of one PoP that are ahead of the coordinator's feed. Beyond it the oldest lose their times."""
_DROPPED_AT_ONCE: Final = 1024
_ANY_EPOCH: Final = 2**32
_NO_LAGS: Final = array("f")


class FrameState(Enum):
    """What is still expected of a frame."""

    OPEN = auto()
    """Some PoP that counts may not have it yet."""
    CLOSED = auto()
    """Its convergence is known."""
    SUPERSEDED = auto()
    """A later epoch began before its end, by order of the operator: no PoP will have it."""


class CommittedFrame:
    """One frame of the journal, from its fsync on."""

    __slots__ = ("bytes", "entries", "epoch", "first_seq", "lags", "last_seq", "missing", "state", "t0_ms")

    def __init__(
        self, epoch: int, first_seq: int, last_seq: int, t0_ms: float, frame_bytes: int, entries: int, pops: int
    ) -> None:
        self.epoch = epoch
        self.first_seq = first_seq
        self.last_seq = last_seq
        self.t0_ms = t0_ms
        """Its fsync was done."""
        self.bytes = frame_bytes
        self.entries = entries
        self.missing = pops
        """PoPs that don't have it."""
        self.lags = array("f", [nan]) * pops
        """By PoP: milliseconds from `t0_ms` to its commit there, NaN where it is missing, infinity where it is
        since a time that nobody can tell any more. Empty once closed."""
        self.state = FrameState.OPEN

    @property
    def version(self) -> Version:
        """Where it begins."""
        return Version(self.epoch, self.first_seq)


class Arrivals:
    """All frames of the window in order, and one pointer per PoP to the first frame it lacks."""

    def __init__(self, pops: int, bound_ms: float) -> None:
        self._pops = pops
        self._bound_ms = bound_ms
        self._frames: list[CommittedFrame] = []
        self._base = 0  # the number of the first frame in the list
        self._first_open = 0  # no open frame has a smaller number
        self._next = [0] * pops
        self._waiting: list[deque[tuple[Version, float]]] = [deque() for _ in range(pops)]
        self.positions = [Version(0, 0)] * pops
        """The newest version each PoP has told."""
        self.head: Version | None = None
        """The newest version the coordinator has told."""
        self.complete: list[CommittedFrame] = []
        """Open frames that no PoP lacks."""
        self.late: list[tuple[CommittedFrame, int, float]] = []
        """Frame, PoP and wall time of each arrival that took longer than the bound, by whatever excuse."""
        self.dropped: list[tuple[CommittedFrame, list[int]]] = []
        """Frames that left the window while these PoPs lacked them."""
        self.superseded: list[CommittedFrame] = []
        """Frames that an epoch left behind."""

    def commit(
        self, epoch: int, first_seq: int, last_seq: int, t0_ms: float, frame_bytes: int, entries: int
    ) -> CommittedFrame | None:
        """Take a frame the coordinator made durable; None when it is known already.

        Frames that a lower epoch had at or after its first seq are superseded.
        """
        if self.head is not None:
            if (epoch, last_seq) <= self.head:
                return None
            if epoch > self.head.epoch and first_seq <= self.head.seq:
                self._supersede(first_seq)
        frame = CommittedFrame(epoch, first_seq, last_seq, t0_ms, frame_bytes, entries, self._pops)
        self._frames.append(frame)
        self.head = Version(epoch, last_seq)
        if len(self._frames) > FRAMES_KEPT:
            self._drop_oldest(_DROPPED_AT_ONCE)
        return frame

    def catch_up(self) -> None:
        """Apply the stamps that waited for frames; after a batch of `commit`."""
        for pop, waiting in enumerate(self._waiting):
            if waiting:
                self._apply(pop, waiting)

    def stamp(self, pop: int, version: Version, wall_ms: float) -> None:
        """`pop` committed a batch at `wall_ms` that brought it to `version`; repeated ones change nothing."""
        self.positions[pop] = version
        self._take(pop, version, wall_ms)

    def stand(self, pop: int, seq: int, wall_ms: float = nan) -> None:
        """`pop` has had everything up to `seq` since `wall_ms`; without it, since a time that nobody can tell."""
        self.positions[pop] = Version(self.positions[pop].epoch, seq)
        self._take(pop, Version(_ANY_EPOCH, seq), wall_ms)

    def missing_at(self, pop: int) -> list[CommittedFrame]:
        """Return the frames that `pop` lacks, oldest first, superseded ones among them."""
        return self._frames[self._next[pop] - self._base :]

    def open_frames(self) -> list[tuple[CommittedFrame, list[int]]]:
        """Return the open frames, oldest first, each with the PoPs that lack it, the furthest behind first.

        The lists of PoPs are shared between frames: don't change them.
        """
        end = self._base + len(self._frames)
        behind = sorted((number, pop) for pop, number in enumerate(self._next) if number < end)
        found = []
        lacking: list[int] = []
        reached = 0
        for number in range(max(self._first_open, self._base), end):
            while reached < len(behind) and behind[reached][0] <= number:
                lacking = [*lacking, behind[reached][1]]
                reached += 1
            frame = self._frames[number - self._base]
            if frame.state is FrameState.OPEN:
                found.append((frame, lacking))
            elif not found:
                self._first_open = number + 1
        return found

    def close(self, frame: CommittedFrame) -> None:
        """Let go of a frame's times."""
        frame.state = FrameState.CLOSED
        frame.lags = _NO_LAGS

    def _take(self, pop: int, version: Version, wall_ms: float) -> None:
        waiting = self._waiting[pop]
        if not waiting:
            self._cover(pop, version, wall_ms)
            if not self._is_known(version):
                waiting.append((version, wall_ms))
            return
        newest = waiting[-1][0]
        if version.seq > newest.seq or newest.epoch < version.epoch < _ANY_EPOCH:
            waiting.append((version, wall_ms))
        if len(waiting) > STAMPS_WAITING_MAX:
            waiting.popleft()
            waiting[0] = (waiting[0][0], nan)
        self._apply(pop, waiting)

    def _apply(self, pop: int, waiting: deque[tuple[Version, float]]) -> None:
        while waiting:
            version, wall_ms = waiting[0]
            self._cover(pop, version, wall_ms)  # also beyond the head: what is known and not above it is in it
            if not self._is_known(version):
                return
            waiting.popleft()

    def _is_known(self, version: Version) -> bool:
        """Whether the coordinator has told of all frames up to there."""
        head = self.head
        return head is not None and (version.seq <= head.seq or version.epoch < head.epoch)

    def _cover(self, pop: int, version: Version, wall_ms: float) -> None:
        """Note that `pop` has all frames up to `version`; NaN for a time that isn't known."""
        epoch, seq = version
        frames, base, bound_ms = self._frames, self._base, self._bound_ms
        index, end = self._next[pop] - base, len(frames)
        while index < end:
            frame = frames[index]
            state = frame.state
            if state is not FrameState.SUPERSEDED:
                if frame.last_seq > seq or frame.epoch > epoch:
                    break
                lag_ms = wall_ms - frame.t0_ms
                if lag_ms > bound_ms:
                    self.late.append((frame, pop, wall_ms))
                if state is FrameState.OPEN:
                    frame.lags[pop] = inf if isnan(lag_ms) else max(lag_ms, 0.0)
                    frame.missing -= 1
                    if frame.missing == 0:
                        self.complete.append(frame)
            index += 1
        self._next[pop] = base + index

    def _supersede(self, first_seq: int) -> None:
        for frame in reversed(self._frames):
            if frame.last_seq < first_seq:
                return
            frame.state = FrameState.SUPERSEDED
            frame.lags = _NO_LAGS
            self.superseded.append(frame)

    def _drop_oldest(self, count: int) -> None:
        for number, frame in enumerate(self._frames[:count], start=self._base):
            lacking = [pop for pop, following in enumerate(self._next) if following <= number]
            if frame.state is not FrameState.SUPERSEDED and lacking:
                self.dropped.append((frame, lacking))
        del self._frames[:count]
        self._base += count
        self._next = [max(following, self._base) for following in self._next]
