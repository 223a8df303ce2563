"""Replica time, which decides expiry, and staleness, which is told with every read. Pure arithmetic.

Wall times are milliseconds since 1970; `now_ms` and `beacon_at_ms` are this process's monotonic clock.
"""

from __future__ import annotations

from typing import NamedTuple

from kvnet.core.clock import stamp_ms


class ReplicaClock:
    """The coordinator's time, as a replica knows it: never back, not even over a restart.

    It is the largest (beacon time + monotonic time since it arrived) ever seen, and not below the last applied
    stamp, nor below what it was before a restart. Two replicas differ by at most their latencies from the root.
    The root itself takes its own wall for a beacon: set back, it no longer counts, and time goes on regardless.
    """

    def __init__(self, stamp: int = 0, reached_ms: float = 0.0) -> None:
        """`stamp` is the store's last applied one, `reached_ms` what this clock has told before."""
        self._floor_ms: float = max(stamp_ms(stamp), reached_ms)
        self._offset_ms: float | None = None  # wall minus monotonic time, the largest that a beacon gave

    def on_beacon(self, beacon_time_ms: float, beacon_at_ms: float) -> None:
        """A beacon of the root's wall time `beacon_time_ms` arrived at monotonic `beacon_at_ms`."""
        offset = beacon_time_ms - beacon_at_ms
        if self._offset_ms is None or offset > self._offset_ms:
            self._offset_ms = offset

    def go_on(self, now_ms: float) -> None:
        """Time passes from here on, at monotonic `now_ms`, though nobody has told what time it is.

        For the root: its followers' time went on as well while it was away. Without it a root whose wall was set
        back and that was restarted would stand still, and what it makes live for a minute be expired elsewhere.
        """
        self.on_beacon(self._floor_ms, now_ms)

    def on_applied(self, stamp: int) -> None:
        """A frame with this stamp was applied."""
        self._floor_ms = max(self._floor_ms, stamp_ms(stamp))

    def now_ms(self, now_ms: float) -> float:
        """Return replica time in milliseconds since 1970; 0 for an empty replica that has heard nothing."""
        if self._offset_ms is not None:
            self._floor_ms = max(self._floor_ms, self._offset_ms + now_ms)
        return self._floor_ms


class BeaconSeen(NamedTuple):
    """A beacon whose head this replica has applied."""

    at_ms: float
    """When it came, by this process's monotonic clock."""
    time_ms: float
    """The root's wall clock when it was sent."""
    held_ms: float
    """How long nodes on its path sat on it."""
    latency_ms: float
    """One way from the root, by the least round trips of its path."""


def staleness_ms(*, now_ms: float, wall_ms: float, beacon: BeaconSeen | None, applied_stamp: int) -> float:
    """Return an upper bound on the age of a replica's view.

    With a beacon: the time since it arrived, what it was held for and the round trips on its path; or its age by
    the wall clocks, where that is more: then packets were lost on its way, which round trips don't tell. Before
    the first: the age of the last applied frame by this host's clock, all that a replica can know that was
    restarted alone.
    """
    if beacon is None:
        return max(0.0, wall_ms - stamp_ms(applied_stamp))
    by_path = max(0.0, now_ms - beacon.at_ms) + beacon.held_ms + 2 * beacon.latency_ms
    return max(by_path, wall_ms - beacon.time_ms)
