"""A node's journal in a simulated world: what the core reads, kept in memory; survives a crash of its node."""

from __future__ import annotations

from bisect import bisect_left, bisect_right

from kvnet.core.frames import Frame
from kvnet.core.versions import GENESIS, Position
from kvnet.errors import BeyondHorizon


class SimulatedJournal:
    """The journal port over a list of frames; checks that they are one chain."""

    def __init__(self, bytes_max: int | None = None) -> None:
        self.frames: list[Frame] = []
        self._firsts: list[int] = []
        self._bytes = 0
        self._bytes_max = bytes_max
        self._base = GENESIS

    @property
    def position(self) -> Position:
        return self.frames[-1].position if self.frames else self._base

    @property
    def horizon_seq(self) -> int:
        return self._base.seq

    def append(self, frame: Frame) -> None:
        here = self.position
        assert frame.first_seq == here.seq + 1, f"a gap: {frame.first_seq} after {here}"
        assert frame.chain_before == here.chain, f"another history: {frame.position} after {here}"
        assert frame.epoch >= here.epoch, "an epoch that goes back"
        self.frames.append(frame)
        self._firsts.append(frame.first_seq)
        self._bytes += len(frame.data)
        while self._bytes_max is not None and self._bytes > self._bytes_max and len(self.frames) > 1:
            dropped = self.frames.pop(0)
            self._firsts.pop(0)
            self._bytes -= len(dropped.data)
            self._base = dropped.position

    def clear(self) -> None:
        self.frames.clear()
        self._firsts.clear()
        self._bytes = 0
        self._base = GENESIS

    def frames_after(self, seq: int, bytes_max: int) -> list[Frame]:
        if seq < self._base.seq:
            raise BeyondHorizon(f"the journal begins after {self._base}")
        taken: list[Frame] = []
        size = 0
        for frame in self.frames[bisect_left(self._firsts, seq + 1) :]:
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
