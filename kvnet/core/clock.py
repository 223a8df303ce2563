"""The hybrid logical clock: stamps for people, expiry and staleness. It never decides who wins.

Kulkarni et al. 2014, with one writer: only the coordinator stamps, so the counter part merely keeps stamps of
one millisecond apart.
"""

from __future__ import annotations

from typing import Final

COUNTER_BITS: Final = 16
SKEW_ALARM_MS: Final = 1000
"""A clock this far ahead of the wall is reported: the wall was set back."""


class HybridClock:
    """Stamps that never go back, whatever the wall does."""

    __slots__ = ("last",)

    def __init__(self, last: int = 0) -> None:
        self.last = last

    def stamp(self, wall_ms: int) -> int:
        """Return a stamp above every earlier one, and at least the wall's time."""
        self.last = max(wall_ms << COUNTER_BITS, self.last + 1)
        return self.last

    def ahead_ms(self, wall_ms: int) -> int:
        """How far the last stamp is ahead of the wall; above SKEW_ALARM_MS is worth an alarm."""
        return max(0, (self.last >> COUNTER_BITS) - wall_ms)


def stamp_ms(stamp: int) -> int:
    """The stamp's time in milliseconds since 1970."""
    return stamp >> COUNTER_BITS
