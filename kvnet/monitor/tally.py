"""What a measuring window adds up to. Windows follow each other; a report joins all from one mark on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from kvnet.monitor.histogram import Histogram

VIOLATIONS_LISTED_MAX: Final = 200
"""Violations of one window that are kept in words; all are counted."""
MARKS_MAX: Final = 32
"""Windows that can be told apart; beyond it the two oldest become one."""


@dataclass(frozen=True, slots=True)
class Violation:
    """One frame that a PoP, up and connected, didn't have in time."""

    write: str
    """Version of its first entry."""
    writes: int
    """Entries in it."""
    pop: str
    lag_ms: float
    """How long the PoP was up and connected without it, at the longest."""
    why: str


class Tally:
    """The sums of one window."""

    def __init__(self, name: str, since_ms: float, pops: int, counters: Mapping[str, Mapping[str, int]]) -> None:
        """`counters` are the totals of each node when the window began."""
        self.name = name
        self.since_ms = since_ms
        self.counters = counters
        self.writes = 0
        self.frames = 0
        self.frame_bytes = 0
        self.unjudged = 0
        """Writes whose spread nobody can tell any more, or that nobody was connected for."""
        self.superseded = 0
        """Writes that an epoch left behind."""
        self.converge = Histogram()
        """Milliseconds until the last connected PoP had a write; one sample per write."""
        self.arrivals = [Histogram() for _ in range(pops)]
        """The same for each PoP alone."""
        self.violations: list[Violation] = []
        self.violation_count = 0
        """Pairs of a write and a PoP."""

    def blame(self, violation: Violation) -> None:
        self.violation_count += violation.writes
        if len(self.violations) < VIOLATIONS_LISTED_MAX:
            self.violations.append(violation)

    def merge(self, later: Tally) -> None:
        """Take in the window that follows."""
        self.writes += later.writes
        self.frames += later.frames
        self.frame_bytes += later.frame_bytes
        self.unjudged += later.unjudged
        self.superseded += later.superseded
        self.converge.merge(later.converge)
        for mine, theirs in zip(self.arrivals, later.arrivals, strict=True):
            mine.merge(theirs)
        self.violation_count += later.violation_count
        self.violations += later.violations[: VIOLATIONS_LISTED_MAX - len(self.violations)]


class Windows:
    """All windows since the monitor's start, the first of which is called `start`."""

    def __init__(self, pops: int, since_ms: float) -> None:
        self._pops = pops
        self._tallies = [Tally("start", since_ms, pops, {})]

    def mark(self, name: str, now_ms: float, counters: Mapping[str, Mapping[str, int]]) -> None:
        """Begin a window: frames with a t0 from `now_ms` on belong to it."""
        self._tallies.append(Tally(name, now_ms, self._pops, counters))
        if len(self._tallies) > MARKS_MAX:
            self._tallies[0].merge(self._tallies.pop(1))

    def of(self, t0_ms: float) -> Tally:
        """Return the window a frame belongs to."""
        for tally in reversed(self._tallies):
            if tally.since_ms <= t0_ms:
                return tally
        return self._tallies[0]

    def since(self, name: str) -> Sequence[Tally] | None:
        """Return all windows from the newest mark called so; None when there is none (any more)."""
        for i in reversed(range(len(self._tallies))):
            if self._tallies[i].name == name:
                return self._tallies[i:]
        return None
