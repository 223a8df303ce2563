"""The judge: from arrivals and ground truth to convergence and violations. Pure; the caller gives the time.

A PoP's ten seconds for a write start at t0, the write's fsync, or when the PoP last became up and connected,
whichever is later. So a write is a violation at a PoP exactly if some span of being up and connected held more
than the bound of time after t0 without it. Its convergence is when the last PoP had it of those that were
connected all the time from t0 until they had it; one that broke the bound counts with the time it took at least.

No word from a PoP excuses nobody: a write is overdue as soon as the PoP's own feed says so, or `SILENCE_MS` later
when the feed says nothing. Should a feed that comes back prove it wrong, the violation is gone from the report:
overdue writes are found afresh each time, only arrivals are final.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import inf, isinf, isnan
from typing import Final

from kvnet.monitor.arrivals import Arrivals, CommittedFrame, FrameState
from kvnet.monitor.presence import Presence
from kvnet.monitor.tally import VIOLATIONS_LISTED_MAX, Violation, Windows

SILENCE_MS: Final = 5000.0
"""How long a feed may say nothing before a write counts as overdue, or its PoP as gone, without its word."""


@dataclass(slots=True)
class Overdue:
    """What is missing at some PoPs although its time is over, found at one moment."""

    violations: list[Violation] = field(default_factory=list)
    """The first of them."""
    violation_count: int = 0
    """Pairs of a write and a PoP."""
    waits: list[tuple[float, int]] = field(default_factory=list)
    """Of each frame that is still waited for: how long by now, and how many writes are in it."""


class Judge:
    """Judges one ledger; call `digest` after each message that reached it."""

    def __init__(self, pops: Sequence[str], bound_ms: float, arrivals: Arrivals, windows: Windows) -> None:
        self._pops = pops
        self._bound_ms = bound_ms
        self._arrivals = arrivals
        self._windows = windows
        self._presences = [Presence() for _ in pops]
        self.has_observed = False
        """Whether ground truth was ever told."""
        self._all_since_ms = inf  # since when every PoP is up and connected; inf while one isn't

    def observe(self, up_since_ms: Mapping[str, float], at_ms: float) -> None:
        """Take in ground truth of `at_ms`: since when each PoP is up; those not in it are down or cut off."""
        for pop, presence in zip(self._pops, self._presences, strict=True):
            presence.update(up_since_ms.get(pop), at_ms)
        self.has_observed = True
        self._note_all()

    def outage(self, begin_ms: float, end_ms: float) -> None:
        """Nobody was connected between: the coordinator was down."""
        for presence in self._presences:
            if presence.since_ms is not None and presence.since_ms < end_ms:
                presence.end(begin_ms)
                presence.since_ms = end_ms
        self._note_all()

    def since_ms(self, pop: int) -> float | None:
        """Return since when this PoP is up and connected."""
        return self._presences[pop].since_ms

    def digest(self, now_ms: float) -> None:
        """Record everything that the ledger has found out since the last time."""
        arrivals = self._arrivals
        for frame, pop, wall_ms in arrivals.late:
            lag_ms = self._presences[pop].exposure_ms(frame.t0_ms, wall_ms)
            if lag_ms > self._bound_ms:
                self._blame(frame, pop, lag_ms, "arrived late")
        arrivals.late.clear()
        for frame in arrivals.superseded:
            self._windows.of(frame.t0_ms).superseded += frame.entries
        arrivals.superseded.clear()
        for frame, lacking in arrivals.dropped:
            for pop in lacking:
                lag_ms = self._presences[pop].exposure_ms(frame.t0_ms, now_ms)
                if lag_ms > self._bound_ms:
                    self._blame(frame, pop, lag_ms, "had not arrived when the monitor had to forget it")
            if frame.state is FrameState.OPEN:
                self._close(frame, now_ms)
        arrivals.dropped.clear()
        for frame in arrivals.complete:
            if frame.state is FrameState.OPEN:
                self._close(frame, now_ms)
        arrivals.complete.clear()

    def settle(self, now_ms: float) -> list[CommittedFrame]:
        """Close the frames that no connected PoP lacks any more; return those that stay open.

        A PoP that came up or back after a frame's t0 isn't waited for: it has a bound of its own.
        """
        still_open = []
        for frame, lacking in self._arrivals.open_frames():
            if any(self._presences[pop].may_still_tell(frame.t0_ms, now_ms, SILENCE_MS) for pop in lacking):
                still_open.append(frame)
            else:
                self._close(frame, now_ms)
        return still_open

    def overdue(self, since_ms: float, heard_ms: Sequence[float], now_ms: float) -> Overdue:
        """Return what was committed from `since_ms` on and is missing although its time is over.

        `heard_ms` is when each PoP's feed last spoke.
        """
        found = Overdue()
        waited_for: dict[CommittedFrame, None] = {}
        for pop, presence in enumerate(self._presences):
            frames = self._arrivals.missing_at(pop)
            heard = min(now_ms, max(heard_ms[pop], now_ms - SILENCE_MS))

            def is_in_time(frame: CommittedFrame, presence: Presence = presence, heard_ms: float = heard) -> bool:
                return presence.exposure_ms(frame.t0_ms, heard_ms) <= self._bound_ms

            # A younger frame has waited less, so those in time follow those that aren't.
            for frame in frames[: bisect_left(frames, True, key=is_in_time)]:
                if frame.state is FrameState.SUPERSEDED or frame.t0_ms < since_ms:
                    continue
                found.violation_count += frame.entries
                if len(found.violations) < VIOLATIONS_LISTED_MAX:
                    lag_ms = presence.exposure_ms(frame.t0_ms, now_ms)
                    silent = heard > heard_ms[pop]
                    why = "not known to have arrived: the PoP is silent" if silent else "not arrived"
                    found.violations.append(self._violation(frame, pop, lag_ms, why))
                if frame.state is FrameState.OPEN:
                    waited_for[frame] = None
        found.waits = [(now_ms - frame.t0_ms, frame.entries) for frame in waited_for]
        return found

    def _close(self, frame: CommittedFrame, now_ms: float) -> None:
        tally = self._windows.of(frame.t0_ms)
        slowest_ms = -1.0
        is_known = True
        everybody_counts = self._all_since_ms <= frame.t0_ms
        for pop, lag_ms in enumerate(frame.lags):
            presence = self._presences[pop]
            if isinf(lag_ms):  # it has it, who knows since when
                is_known = is_known and not presence.lasted(frame.t0_ms, frame.t0_ms)
                continue
            arrived_ms = frame.t0_ms + lag_ms
            if not isnan(lag_ms) and (everybody_counts or presence.lasted(frame.t0_ms, arrived_ms)):
                tally.arrivals[pop].add(lag_ms, frame.entries)
                slowest_ms = max(slowest_ms, lag_ms)
                continue
            waited_ms = presence.exposure_ms(frame.t0_ms, now_ms if isnan(lag_ms) else arrived_ms)
            if waited_ms > self._bound_ms:
                slowest_ms = max(slowest_ms, waited_ms)
        if is_known and slowest_ms >= 0:
            tally.converge.add(slowest_ms, frame.entries)
        else:
            tally.unjudged += frame.entries
        self._arrivals.close(frame)

    def _blame(self, frame: CommittedFrame, pop: int, lag_ms: float, why: str) -> None:
        self._windows.of(frame.t0_ms).blame(self._violation(frame, pop, lag_ms, why))

    def _violation(self, frame: CommittedFrame, pop: int, lag_ms: float, why: str) -> Violation:
        return Violation(str(frame.version), frame.entries, self._pops[pop], round(lag_ms, 1), why)

    def _note_all(self) -> None:
        everyone = [presence.since_ms for presence in self._presences]
        self._all_since_ms = inf
        if None not in everyone:
            self._all_since_ms = max((since for since in everyone if since is not None), default=inf)
