"""A journal in memory: frames in one chain, the oldest dropped as a node's retention says."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from copy import copy
from typing import NamedTuple

from kvnet.core.clock import stamp_ms
from kvnet.core.frames import Frame
from kvnet.core.versions import GENESIS, Position
from kvnet.errors import BeyondHorizon


class Kept(NamedTuple):
    """What a journal drops: frames that are older than `age_ms` beside the newest one, and those over `bytes_max`.

    None is no limit. The last frame always stays.
    """

    bytes_max: int | None = None
    age_ms: float | None = None
    """Between two stamps, so that neither an idle network nor a wall that is set back drops anything."""


KEEP_ALL = Kept()


class SimulatedJournal:
    """The journal port over a list of frames; checks that they are one chain."""

    __slots__ = ("_base", "_bytes", "_firsts", "_kept", "frames")

    def __init__(self, kept: Kept = KEEP_ALL) -> None:
        self.frames: list[Frame] = []
        self._firsts: list[int] = []
        self._bytes = 0
        self._kept = kept
        self._base = GENESIS

    @property
    def position(self) -> Position:
        return self.frames[-1].position if self.frames else self._base

    @property
    def horizon_seq(self) -> int:
        return self._base.seq

    def append(self, frame: Frame) -> None:
        last = self.frames[-1] if self.frames else None
        if last is None:
            seq, chain, epoch = self._base.seq, self._base.chain, self._base.epoch
        else:
            seq, chain, epoch = last.last_seq, last.chain_after, last.epoch
        assert frame.first_seq == seq + 1, f"a gap: {frame.first_seq} after {seq}"
        assert frame.chain_before == chain, f"another history: {frame.position} after seq {seq}"
        assert frame.epoch >= epoch, "an epoch that goes back"
        self.frames.append(frame)
        self._firsts.append(frame.first_seq)
        self._bytes += len(frame.data)
        if self._kept is not KEEP_ALL:
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        bytes_max, age_ms = self._kept
        oldest_ms = 0.0 if age_ms is None else stamp_ms(self.frames[-1].stamp) - age_ms
        while len(self.frames) > 1:
            is_over = bytes_max is not None and self._bytes > bytes_max
            if not is_over and stamp_ms(self.frames[0].stamp) >= oldest_ms:
                return
            dropped = self.frames.pop(0)
            self._firsts.pop(0)
            self._bytes -= len(dropped.data)
            self._base = dropped.position

    def truncate(self, count: int) -> None:
        """Forget all but the oldest `count` frames."""
        self._bytes -= sum(len(frame.data) for frame in self.frames[count:])
        del self.frames[count:], self._firsts[count:]

    def clear(self, base: Position = GENESIS) -> None:
        """Hold no frame, and begin after this position."""
        self.frames.clear()
        self._firsts.clear()
        self._bytes = 0
        self._base = base

    def limit(self, kept: Kept) -> None:
        """Keep no more than that from the next frame on."""
        self._kept = kept

    # -- as a port of its own: a replica that is nothing but a journal

    verified = True
    bootstrap = None

    @property
    def served(self) -> Position:
        return self.position

    def lacking_chunks(self, hashes: Sequence[bytes]) -> list[bytes]:
        del hashes
        return []

    def copied(self) -> SimulatedJournal:
        """Return one of the same frames that goes its own way from here."""
        other = copy(self)
        other.frames = self.frames.copy()
        other._firsts = self._firsts.copy()  # noqa: SLF001  (one of its own kind)
        return other

    def frames_after(self, seq: int, bytes_max: int) -> list[Frame]:
        if seq < self._base.seq:
            raise BeyondHorizon(f"the journal begins after {self._base}")
        taken: list[Frame] = []
        size = 0
        for index in range(bisect_left(self._firsts, seq + 1), len(self.frames)):
            frame = self.frames[index]
            size += len(frame.data)
            if taken and size > bytes_max:
                break
            taken.append(frame)
        return taken

    def holds(self, position: Position) -> bool:
        return self.end_before(position.seq) == position

    def end_before(self, seq: int) -> Position | None:
        if seq < self._base.seq:
            return None
        index = bisect_right(self._firsts, seq)
        if index and self.frames[index - 1].last_seq > seq:
            index -= 1
        return self.frames[index - 1].position if index else self._base
