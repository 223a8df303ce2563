"""The knobs of the protocol: times in milliseconds, and how many of what.

The topology reads them, the core obeys them. Defaults were chosen by simulation (docs/protocol.md).
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

Milliseconds = Annotated[int, Meta(ge=1, le=3_600_000, extra={"write": "whole milliseconds"})]
Count = Annotated[int, Meta(ge=1, le=1000, extra={"write": "a whole number"})]
Intervals = Annotated[float, Meta(ge=1, le=100, extra={"write": "how many beacon intervals"})]


class Timers(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How often nodes speak, how long they wait, how many links they keep; the same for all nodes."""

    beacon_interval_ms: Milliseconds = 500
    """Time between two beacons of an idle coordinator. More: staleness and the discovery of a silent parent
    take longer. Less: more idle traffic."""
    beacon_interval_busy_ms: Milliseconds = 250
    """The same while frames left within the last second; at most beacon_interval_ms."""
    advert_interval_ms: Milliseconds = 5000
    """Time between two adverts on one link. Less: neighbours know each other's position and load better, for
    messages on every link of the overlay."""
    late_intervals: Intervals = 2.0
    """Beacon intervals without a newer beacon after which a node is late. Less: faster repair, more asks for
    nothing when packets are lost."""
    link_replace_ms: Milliseconds = 5000
    """A link down for this long is replaced by one to another PoP."""
    replaced_link_retry_ms: Milliseconds = 60_000
    """How often one of the replaced links is tried again."""
    ask_widen_ms: Milliseconds = 300
    """A late node that got no answer from the best neighbours asks all of them after this time."""
    ladder_after_ms: Milliseconds = 1000
    """A late node whose neighbours have nothing newer for this long asks beyond them."""
    ladder_step_ms: Milliseconds = 1000
    """Time between two rungs of that ladder. Less: a cut-off node is back sooner, a dead coordinator is
    asked more."""
    second_parent_review_ms: Milliseconds = 10_000
    """How often a node asks itself whether it still needs its second parent."""
    peer_bar_ms: Milliseconds = 60_000
    """A peer whose history contradicts ours is not listened to for this long."""
    nearest_links: Count = 4
    """Links each edge keeps to its nearest PoPs. More: shorter paths and more to repair from, for more
    adverts."""
    random_links: Count = 4
    """Links each edge keeps to random PoPs, one of them for ever; they hold the overlay together."""
    coordinator_links: Count = 8
    """Links the coordinator keeps, in at least three regions."""
    children_max: Count = 8
    """Children of an edge that is not in need. More: a flatter tree, slower relays."""
    coordinator_children_max: Count = 16
    """Children the coordinator takes at most: what a write costs it in copies."""
    group_commit_ms: Milliseconds = 5
    """Writes that arrive within this time share one fsync and one frame. More: fewer fsyncs, slower answers."""
    hand_out_interval_ms: Milliseconds = 100
    """Least time between two hand-outs of a coordinator that cuts more than 30 frames a second. More: all nodes
    wake up less often, so a loaded network costs less; less: writes arrive sooner under load."""
    visibility_wait_ms: Milliseconds = 1000
    """How long an edge that passed on a write waits to see it in its own replica before it answers."""
    bound_ms: Milliseconds = 10_000
    """The promise: every connected PoP has a write after at most this time. The monitor judges by it."""
