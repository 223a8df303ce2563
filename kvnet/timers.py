"""The protocol's knobs: every timer in milliseconds and every count, with what more and less of it does.

The defaults were chosen by simulation (docs/protocol.md tells the arithmetic of the bound).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Timers:
    """All timers and counts of one network; every node of it must use the same."""

    beacon_interval_ms: int = 500
    """Time between beacons of an idle coordinator. Less: fresher staleness and faster repair, more messages."""
    beacon_interval_busy_ms: int = 250
    """The same while a frame left within the last second."""
    advert_interval_ms: int = 5000
    """Time between adverts over every link. Less: better parents sooner, more control messages."""
    late_intervals: float = 2.5
    """Beacon intervals without a newer beacon after which a node is late. Below 2, one lost beacon is an alarm."""
    ask_widen_ms: int = 300
    """Time after which a late node asks all its neighbours instead of the best four."""
    ladder_after_ms: int = 1000
    """Time without anybody newer after which a late node climbs the repair ladder."""
    ladder_step_ms: int = 1000
    """Time between two rungs of the ladder."""
    second_parent_review_ms: int = 10_000
    """Time between reviews of whether a second parent still helps."""
    link_replace_ms: int = 5000
    """Time a link stays down before another peer takes its place."""
    replaced_link_retry_ms: int = 60_000
    """Time between attempts to win back a replaced link."""
    peer_bar_ms: int = 60_000
    """Time a peer whose history differs from ours isn't listened to."""
    nearest_links: int = 4
    """Links to the nearest PoPs. More: shorter paths, more adverts."""
    random_links: int = 4
    """Links to random PoPs, one of them pinned. More: better survival of regional failures, more adverts."""
    coordinator_links: int = 8
    """Links the coordinator dials, in at least three regions; also its copies of every frame."""
    children_max: int = 8
    """Children an edge serves by choice; a late node is taken beyond it."""
    coordinator_children_max: int = 16
    """Children the coordinator ever takes."""
    group_commit_ms: int = 5
    """Longest wait of a write for others to share its fsync."""
    visibility_wait_ms: int = 1000
    """Longest wait of a forwarded write's answer for the replica of the PoP it was made at."""
    bound_ms: int = 10_000
    """The bound the monitor asserts."""
