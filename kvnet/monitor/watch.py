"""The monitor as one object: follows all feeds and ground truth, and answers what was found. Owns the clock.

Times are the host's wall clock, in milliseconds since 1970: on several hosts as good as their synchronisation.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Final

from aiohttp import web

from kvnet.errors import ConfigError, ProtocolError
from kvnet.monitor import server
from kvnet.monitor.arrivals import Arrivals, CommittedFrame
from kvnet.monitor.counters import Snapshot, growth
from kvnet.monitor.feed import CoordinatorFeed, EdgeFeed, FeedSource, NodeFeed
from kvnet.monitor.judge import Judge
from kvnet.monitor.report import Findings, PopState, build_report, join
from kvnet.monitor.tally import Windows
from kvnet.monitor.truth import TruthSource
from kvnet.topology.fields import COORDINATOR

TRUTH_POLL_S: Final = 0.25
SETTLE_EVERY_POLLS: Final = 4
COORDINATOR_FIRST_S: Final = 2.0
"""Edges are followed once the coordinator has spoken, or after this: stamps without their commits take memory."""

_log = logging.getLogger(__name__)


class Monitor:
    """Judges one network; `run` until it is cancelled, `handle` as the low-level handler of an aiohttp server."""

    def __init__(
        self,
        *,
        pops: Sequence[str],
        floor_ms: float,
        one_way_ms: Mapping[str, float],
        bound_ms: float,
        source: FeedSource,
        truth: TruthSource,
        authorize: Callable[[str], bool],
        coordinator: str = COORDINATOR,
        now_ms: Callable[[], float] = lambda: time.time() * 1000,
    ) -> None:
        """`one_way_ms` is each PoP's undisturbed delay from the coordinator, `floor_ms` the largest of them.

        `authorize` says whether a bearer token may read reports.
        """
        self._pops = pops
        self._floor_ms = floor_ms
        self._one_way_ms = one_way_ms
        self._bound_ms = bound_ms
        self._source = source
        self._truth = truth
        self._coordinator = coordinator
        self._now_ms = now_ms
        self._started_ms = now_ms()
        self._arrivals = Arrivals(len(pops), bound_ms)
        self._windows = Windows(len(pops), 0.0)  # what was committed before this process began belongs to it too
        self._judge = Judge(pops, bound_ms, self._arrivals, self._windows)
        self._coordinator_feed = CoordinatorFeed(self._arrivals, self._windows, self._judge)
        self._edge_feeds = {pop: EdgeFeed(i, self._arrivals) for i, pop in enumerate(pops)}
        self._coordinator_spoke = asyncio.Event()
        self._authorize = authorize

    async def run(self) -> None:
        """Follow the network until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._watch_truth(), name="truth")
            tasks.create_task(self._follow(self._coordinator, self._coordinator_feed), name=self._coordinator)
            try:
                await asyncio.wait_for(self._coordinator_spoke.wait(), COORDINATOR_FIRST_S)
            except TimeoutError:
                _log.warning("no word from the coordinator yet; following the edges without it")
            for pop, feed in self._edge_feeds.items():
                tasks.create_task(self._follow(pop, feed), name=pop)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one HTTP request; every failure is an answer too."""
        return await server.handle(self, self._authorize, request)

    def mark(self, name: str) -> dict[str, Any]:
        """Begin a window called `name`: frames committed from now on belong to it."""
        now_ms = self._now_ms()
        self._windows.mark(name, now_ms, self._counters())
        return {"name": name, "wall_ms": now_ms}

    def report(self, since: str | None) -> dict[str, Any] | None:
        """Return the report on everything, or since the newest mark called `since`; None when there is none."""
        now_ms = self._now_ms()
        tallies = self._windows.since(since or "start")
        if tallies is None:
            return None
        still_open = self._settle(now_ms)
        window = join(tallies)
        heard_ms = [feed.heard_ms or self._started_ms for feed in self._edge_feeds.values()]
        return build_report(
            Findings(
                now_ms=now_ms,
                floor_ms=self._floor_ms,
                bound_ms=self._bound_ms,
                window=window,
                pending=sum(frame.entries for frame in still_open if frame.t0_ms >= window.since_ms),
                overdue=self._judge.overdue(window.since_ms, heard_ms, self._judged_until_ms(now_ms)),
                growth=growth(window.counters, self._counters()),
                coordinator=self._coordinator,
                head=self._arrivals.head,
                coordinator_heard_ms=self._coordinator_feed.heard_ms,
                pops=[self._pop_state(i, pop, now_ms) for i, pop in enumerate(self._pops)],
            )
        )

    def status(self) -> dict[str, Any]:
        """Return what `/status` tells: whether the monitor hears everybody."""
        silent = [pop for pop, feed in self._edge_feeds.items() if not feed.is_open]
        return {
            "name": "monitor",
            "pops": len(self._pops),
            "feeds_open": len(self._pops) - len(silent),
            "silent": silent,
            "coordinator_open": self._coordinator_feed.is_open,
            "head": None if self._arrivals.head is None else str(self._arrivals.head),
        }

    def observe_truth(self) -> None:
        """Look for new ground truth; until there is any, every PoP counts as up since the monitor's start."""
        try:
            truth = self._truth.poll()
        except ConfigError as error:
            _log.warning("%s", error)
            return
        if truth is not None:
            self._coordinator_feed.restarts_are_known = truth.tells_coordinator
            self._judge.observe(truth.connected(), truth.written_ms)

    def take(self, feed: CoordinatorFeed | EdgeFeed, message: Sequence[Any]) -> None:
        """Take in what a node told; what isn't understood changes nothing.

        Raises:
            ProtocolError: it isn't a message of this feed.
        """
        if message and message[0] == "lost":
            feed.lost(self._now_ms())
        else:
            feed.take(message)
        if self._may_judge():
            self._judge.digest(self._now_ms())

    async def _follow(self, node: str, feed: CoordinatorFeed | EdgeFeed) -> None:
        complained = False
        async with aclosing(self._source.follow(node)) as messages:
            async for message in messages:
                try:
                    self.take(feed, message)
                except ProtocolError as error:
                    if not complained:
                        _log.warning("%s: %s; is it of another version?", node, error)
                    complained = True
                if feed is self._coordinator_feed:
                    self._coordinator_spoke.set()

    async def _watch_truth(self) -> None:
        self.observe_truth()
        if not self._judge.has_observed:
            self._judge.observe(dict.fromkeys(self._pops, self._started_ms), self._started_ms)
        polls = 0
        while True:
            await asyncio.sleep(TRUTH_POLL_S)
            self.observe_truth()
            polls += 1
            if polls % SETTLE_EVERY_POLLS == 0:
                self._settle(self._now_ms())

    def _may_judge(self) -> bool:
        """Whether it is known if the coordinator is up: while it is down nobody is connected.

        Where ground truth says nothing about it, only the coordinator itself can, after it is back.
        """
        return self._coordinator_feed.restarts_are_known or self._coordinator_feed.is_open

    def _judged_until_ms(self, now_ms: float) -> float:
        return now_ms if self._may_judge() else self._coordinator_feed.lost_ms or self._started_ms

    def _settle(self, now_ms: float) -> list[CommittedFrame]:
        """Return the frames that are still waited for."""
        if self._may_judge():
            return self._judge.settle(now_ms)
        return [frame for frame, _ in self._arrivals.open_frames()]

    def _counters(self) -> Snapshot:
        feeds: dict[str, NodeFeed] = {self._coordinator: self._coordinator_feed, **self._edge_feeds}
        return {node: feed.counters.totals() for node, feed in feeds.items()}

    def _pop_state(self, i: int, pop: str, now_ms: float) -> PopState:
        missing = self._arrivals.missing_at(i)
        feed = self._edge_feeds[pop]
        return PopState(
            code=pop,
            floor_ms=self._one_way_ms[pop],
            since_ms=self._judge.since_ms(i),
            position=self._arrivals.positions[i],
            lag_frames=len(missing),
            lag_ms=now_ms - missing[0].t0_ms if missing else 0.0,
            heard_ms=feed.heard_ms,
            parent=feed.counters.parent,
        )
