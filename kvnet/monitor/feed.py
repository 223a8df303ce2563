"""From what the nodes' feeds tell to the ledger. Pure; `watch` runs the feeds.

    both            ["hello", name, start id, wall_ms, {"oldest_seq": n}]
                    ["idle", wall_ms, position's seq, counters]
    edge            ["stamps", [[epoch, last seq, wall_ms], …], counters]
    coordinator     ["commits", [[epoch, first seq, last seq, wall_ms, frame bytes, entries], …], counters]

Between them stands ["lost", why] whenever a connection ends or can't be made.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from math import isfinite
from typing import Any, Protocol

from kvnet.core.versions import Version
from kvnet.errors import ProtocolError
from kvnet.monitor.arrivals import Arrivals
from kvnet.monitor.counters import NodeCounters
from kvnet.monitor.judge import Judge
from kvnet.monitor.tally import Windows


class FeedSource(Protocol):
    """Where the monitor hears what nodes tell."""

    def follow(self, node: str) -> AsyncGenerator[list[Any], None]:
        """Yield what `node` tells, for ever: dials again after each `["lost", why]`."""


class NodeFeed:
    """What the monitor knows of one node by its feed."""

    def __init__(self) -> None:
        self.start_id: Any = None
        self.heard_ms: float | None = None
        """Wall time up to which the node has told everything."""
        self.is_open = False
        self.lost_ms: float | None = None
        """When its last connection ended."""
        self.counters = NodeCounters()

    def lost(self, now_ms: float) -> None:
        """The connection ended, or can't be made."""
        if self.is_open:
            self.is_open = False
            self.lost_ms = now_ms

    def told(self, wall_ms: float, counters: Mapping[str, Any]) -> None:
        self.heard_ms = max(self.heard_ms or 0.0, wall_ms)
        self.counters.update(counters)

    def greeted(self, start_id: Any) -> bool:
        """Take a hello; whether the node was restarted since the last one."""
        is_restart = self.start_id is not None and start_id != self.start_id
        if is_restart:
            self.counters.restarted()
        self.start_id = start_id
        self.is_open = True
        return is_restart


class EdgeFeed(NodeFeed):
    """An edge's stamps, on their way into the ledger."""

    def __init__(self, pop: int, arrivals: Arrivals) -> None:
        self._pop = pop
        self._arrivals = arrivals
        self._opened_at: int | None = None  # the seq at which a restarted edge opened, until its time is known
        super().__init__()

    def take(self, message: Sequence[Any]) -> None:
        """Take in one message.

        Raises:
            ProtocolError: it isn't one of an edge; nothing of it was taken.
        """
        match message:
            case ["hello", str(), start_id, int() | float(), {"oldest_seq": int() as oldest_seq}]:
                if self.greeted(start_id):
                    self._opened_at = oldest_seq
                else:  # what it took before, it has had since a time that it has forgotten
                    self._arrivals.stand(self._pop, oldest_seq)
            case ["stamps", [_, *_] as told, dict() as counters]:
                stamps = [_stamp(row) for row in told]
                if stamps[0][0].seq != self._opened_at:  # else the edge tells itself when it opened
                    self._open(stamps[0][1])
                self._opened_at = None
                for version, wall_ms in stamps:
                    self._arrivals.stamp(self._pop, version, wall_ms)
                self.told(stamps[-1][1], counters)
            case ["idle", int() | float() as wall_ms, int(), dict() as counters]:
                self._open(wall_ms)
                self.told(wall_ms, counters)
            case _:
                raise ProtocolError(f"not a message of an edge's feed: {str(message)[:100]}")

    def _open(self, wall_ms: float) -> None:
        """A restarted edge had its position at the latest at `wall_ms`, the first time it tells."""
        if self._opened_at is not None:
            self._arrivals.stand(self._pop, self._opened_at, wall_ms)
            self._opened_at = None


class CoordinatorFeed(NodeFeed):
    """The coordinator's commits, on their way into the ledger and the windows."""

    def __init__(self, arrivals: Arrivals, windows: Windows, judge: Judge) -> None:
        self._arrivals = arrivals
        self._windows = windows
        self._judge = judge
        self.restarts_are_known = False
        """Ground truth tells when the coordinator was down, so the feed needn't."""
        super().__init__()

    def take(self, message: Sequence[Any]) -> None:
        """Take in one message.

        Raises:
            ProtocolError: it isn't one of the coordinator; nothing of it was taken.
        """
        match message:
            case ["hello", str(), start_id, int() | float() as wall_ms, {"oldest_seq": int()}]:
                if self.greeted(start_id) and not self.restarts_are_known:
                    self._judge.outage(self.lost_ms or wall_ms, wall_ms)
            case ["commits", [_, *_] as told, dict() as counters]:
                commits = [_commit(row) for row in told]
                for commit in commits:
                    self._commit(*commit)
                self._arrivals.catch_up()
                self.told(commits[-1][3], counters)
            case ["idle", int() | float() as wall_ms, int(), dict() as counters]:
                self.told(wall_ms, counters)
            case _:
                raise ProtocolError(f"not a message of the coordinator's feed: {str(message)[:100]}")

    def _commit(
        self, epoch: int, first_seq: int, last_seq: int, t0_ms: float, frame_bytes: int, entries: int
    ) -> None:
        head = self._arrivals.head
        frame = self._arrivals.commit(epoch, first_seq, last_seq, t0_ms, frame_bytes, entries)
        if frame is None:
            return
        tally = self._windows.of(t0_ms)
        tally.writes += entries
        tally.frames += 1
        tally.frame_bytes += frame_bytes
        if head is not None and first_seq > head.seq + 1:  # committed, then killed before it could tell
            tally.unjudged += first_seq - head.seq - 1


def _stamp(row: Any) -> tuple[Version, float]:
    match row:
        case [int() as epoch, int() as seq, int() | float() as wall_ms] if isfinite(wall_ms):
            return Version(epoch, seq), float(wall_ms)
    raise ProtocolError(f"not a stamp: {str(row)[:100]}")


def _commit(row: Any) -> tuple[int, int, int, float, int, int]:
    match row:
        case [
            int() as epoch, int() as first, int() as last, int() | float() as wall_ms,
            int() as frame_bytes, int() as entries,
        ] if isfinite(wall_ms) and first <= last:  # fmt: skip
            return epoch, first, last, float(wall_ms), frame_bytes, entries
    raise ProtocolError(f"not a commit: {str(row)[:100]}")
