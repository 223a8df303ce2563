"""A log-bucketed histogram: any number of samples in bounded memory, every percentile within 0.2 %."""

from __future__ import annotations

from math import ceil, frexp, ldexp
from typing import Final

_STEPS: Final = 256
"""Buckets per doubling: a bucket is at most 0.4 % wide, its middle at most 0.2 % off."""
_SMALLEST: Final = 2.0**-10
"""Anything smaller counts as this; in milliseconds a microsecond."""


class Histogram:
    """Counts of positive samples by bucket; only buckets that were hit take memory."""

    __slots__ = ("_counts", "count", "maximum")

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}
        self.count = 0
        self.maximum = 0.0
        """The largest sample, exactly."""

    def add(self, sample: float, weight: int = 1) -> None:
        """Count `sample` as often as `weight` says."""
        mantissa, exponent = frexp(max(sample, _SMALLEST))
        bucket = exponent * _STEPS + int((mantissa - 0.5) * (2 * _STEPS))
        self._counts[bucket] = self._counts.get(bucket, 0) + weight
        self.count += weight
        self.maximum = max(self.maximum, sample)

    def merge(self, other: Histogram) -> None:
        """Count everything that `other` has counted."""
        for bucket, count in other._counts.items():
            self._counts[bucket] = self._counts.get(bucket, 0) + count
        self.count += other.count
        self.maximum = max(self.maximum, other.maximum)

    def percentile(self, fraction: float) -> float | None:
        """Return the sample that `fraction` of all samples don't exceed (nearest rank); None without samples."""
        if self.count == 0:
            return None
        rank = max(1, ceil(fraction * self.count))
        seen = 0
        for bucket in sorted(self._counts):
            seen += self._counts[bucket]
            if seen >= rank:
                return min(_middle(bucket), self.maximum)
        raise AssertionError("the buckets hold less than the count")


def _middle(bucket: int) -> float:
    exponent, step = divmod(bucket, _STEPS)
    return ldexp(0.5 + (step + 0.5) / (2 * _STEPS), exponent)
