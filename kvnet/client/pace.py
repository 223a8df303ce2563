"""The pace: how long answers take as a rule, and when one is late enough to ask another edge as well.

Asking a second edge for what the first is slow to give, and taking the answer that comes first, is the hedged
request of Dean and Barroso, "The Tail at Scale" (2013). What keeps it from doubling the load of a slow network is
an allowance: each read earns a small part of one more request.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from typing import Final, Literal

from kvnet.client.directory import Edge

HEDGE_ROUND_TRIPS: Final = 3.0
"""Usual answer times after which another edge is asked. Less: more is asked in vain."""
HEDGE_MS_MIN: Final = 25.0
"""However near an edge is, a busy process may pause for so long."""
HEDGE_MS_UNMEASURED: Final = 100.0
"""What stands for it before anything was measured."""
DOUBT_MS_MIN: Final = 100.0
"""Least time that a slow edge has to say that it serves. Less: edges are left that only paused."""
SAMPLES: Final = 31
"""Answer times of an edge that are remembered; their median is the usual one."""
HEDGED_SHARE_MAX: Final = 0.03
"""Second requests per read, in the long run."""
HEDGES_SAVED_MAX: Final = 5.0
"""Second requests that may have been saved up, and that a new client may make."""

Hedge = float | Literal["auto"] | None
"""Milliseconds after which another edge is asked; `auto` by what was measured, None for never."""


class Times:
    """The last answer times of one edge, kept in order: each read asks for their median."""

    def __init__(self) -> None:
        self._last: deque[float] = deque()
        self._ordered: list[float] = []

    def add(self, ms: float) -> None:
        if len(self._last) == SAMPLES:
            del self._ordered[bisect_left(self._ordered, self._last.popleft())]
        self._last.append(ms)
        insort(self._ordered, ms)

    def median(self) -> float:
        """Return the upper one of two; there is at least one."""
        return self._ordered[len(self._ordered) // 2]


class Pace:
    """Answer times by edge, and the allowance of second requests."""

    def __init__(self, hedge: Hedge) -> None:
        self._hedge = hedge
        self._times: dict[Edge, Times] = {}
        self._saved = HEDGES_SAVED_MAX

    def record(self, edge: Edge, ms: float) -> None:
        """Remember how long an answer took to begin."""
        times = self._times.get(edge)
        if times is None:
            times = self._times[edge] = Times()
        times.add(ms)

    def usual_ms(self, edge: Edge) -> float | None:
        """Return the median of the last answer times; None for an edge that nobody measured."""
        times = self._times.get(edge)
        return None if times is None else times.median()

    def hedge_ms(self, edge: Edge) -> float | None:
        """Return how long this edge may take before another one is asked too; None for as long as it likes."""
        if self._hedge != "auto":
            return self._hedge
        usual_ms = self.usual_ms(edge)
        return HEDGE_MS_UNMEASURED if usual_ms is None else max(HEDGE_MS_MIN, HEDGE_ROUND_TRIPS * usual_ms)

    def doubt_ms(self, edge: Edge) -> float:
        """Return how long a slow edge may take to say that it serves before it counts as silent."""
        return max(DOUBT_MS_MIN, self.hedge_ms(edge) or 0.0)

    def earn(self) -> None:
        """Count a read towards the allowance."""
        self._saved = min(HEDGES_SAVED_MAX, self._saved + HEDGED_SHARE_MAX)

    def spend(self) -> bool:
        """Take one second request from the allowance; False when there is none."""
        if self._saved < 1.0:
            return False
        self._saved -= 1.0
        return True
