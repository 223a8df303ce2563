"""When a PoP was up and connected, as ground truth has it. Wall times in milliseconds since 1970."""

from __future__ import annotations

from collections import deque
from typing import Final

SPANS_KEPT: Final = 64
"""Ended spans of one PoP; what is older no longer excuses or accuses anybody."""


class Presence:
    """The spans of time in which the bound holds for one PoP: it was up and connected all through each."""

    __slots__ = ("_ended", "since_ms")

    def __init__(self) -> None:
        self._ended: deque[tuple[float, float]] = deque(maxlen=SPANS_KEPT)
        self.since_ms: float | None = None
        """Begin of the span that lasts; None while the PoP is down or cut off."""

    def update(self, up_since_ms: float | None, at_ms: float) -> None:
        """Ground truth of `at_ms`: up since then and connected now, or None.

        A PoP that comes back from a cut, its process unharmed, is connected since `at_ms`. A restart that fell
        between two looks ends one span and begins the next.
        """
        if up_since_ms is None:
            self.end(at_ms)
        elif self.since_ms is None:
            away_since_ms = self._ended[-1][1] if self._ended else None
            healed = away_since_ms is not None and up_since_ms <= away_since_ms
            self.since_ms = at_ms if healed else up_since_ms
        elif up_since_ms > self.since_ms:
            self.end(up_since_ms)
            self.since_ms = up_since_ms

    def end(self, at_ms: float) -> None:
        """It is down or cut off from `at_ms` on."""
        if self.since_ms is not None:
            self._ended.append((self.since_ms, max(self.since_ms, at_ms)))
            self.since_ms = None

    def exposure_ms(self, t0_ms: float, until_ms: float) -> float:
        """Return the longest time in one span between these two times: more than the bound breaks it."""
        longest = 0.0
        if self.since_ms is not None:
            longest = max(longest, until_ms - max(self.since_ms, t0_ms))
        for begin_ms, end_ms in self._ended:
            if end_ms > t0_ms:
                longest = max(longest, min(end_ms, until_ms) - max(begin_ms, t0_ms))
        return longest

    def lasted(self, t0_ms: float, until_ms: float) -> bool:
        """Whether one span covers all of the time between."""
        if self.since_ms is not None and self.since_ms <= t0_ms:
            return True
        return any(begin_ms <= t0_ms and until_ms < end_ms for begin_ms, end_ms in self._ended)

    def may_still_tell(self, t0_ms: float, now_ms: float, patience_ms: float) -> bool:
        """Whether it was connected at `t0_ms` and still is, or was until less than `patience_ms` ago.

        What a PoP had before it went is told a moment later.
        """
        if self.since_ms is not None and self.since_ms <= t0_ms:
            return True
        return any(
            begin_ms <= t0_ms < end_ms and now_ms - end_ms < patience_ms for begin_ms, end_ms in self._ended
        )
