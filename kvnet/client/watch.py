"""The watch: connections kept warm to the first edges, and a look after those that are slow or away."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Final

from kvnet.client.directory import Edge
from kvnet.client.lines import Lines
from kvnet.client.pace import Pace
from kvnet.client.probe import PROBED_AT_ONCE_MAX, measure
from kvnet.client.route import Route

RETURN_CHECK_S: Final = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
"""Times between two questions whether a failed edge is back; the last one repeats."""
WARM_EDGES: Final = 2
"""Edges to which a connection is kept open: the first, and the one that is asked when it fails."""
WARM_INTERVAL_S: Final = 10.0
"""Time between two measurements of these. Less: a change is known sooner, and idle clients ask more."""
REMEASURE_ROUNDS: Final = 6
"""Measurements of the first two, to one of all that might be faster."""
FASTER_BY: Final = 0.8
"""Part of the preferred edge's round trip that another must keep below to take its place."""


class Watch:
    """Tasks beside the calls; what they find out is in the route and the pace."""

    def __init__(self, lines: Lines, route: Route, pace: Pace, *, by_measure: bool) -> None:
        """With `by_measure` the order follows the round trips; otherwise somebody has chosen it."""
        self._lines = lines
        self._route = route
        self._pace = pace
        self._by_measure = by_measure
        self._tasks: set[asyncio.Task[None]] = set()
        self._watched: set[Edge] = set()
        self._changed = asyncio.Event()

    def start(self) -> None:
        """Keep the first edges warm from now on."""
        self._spawn(self._keep_warm(), "keep warm")

    async def close(self) -> None:
        """Stop everything; the lines stay open."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def leave(self, edge: Edge) -> None:
        """Have `edge` asked last until it serves again."""
        if not self._route.is_away(edge):
            self._route.leave(edge)
            self._changed.set()
        self._look_after(edge, None)

    def doubt(self, edge: Edge, patience_ms: float) -> None:
        """Ask a slow edge whether it serves, and leave it if it doesn't say so within `patience_ms`."""
        self._look_after(edge, patience_ms)

    async def measure(self, edges: list[Edge]) -> dict[Edge, float]:
        """Return the round trips of those that serve; the others are left."""
        measured = await measure(self._lines, edges)
        for edge, ms in measured.items():
            if ms is None:
                self._route.leave(edge)  # without another round at once: it would go through all of the world
                self._look_after(edge, None)
            else:
                self._pace.record(edge, ms)
        return {edge: ms for edge, ms in measured.items() if ms is not None}

    def _look_after(self, edge: Edge, patience_ms: float | None) -> None:
        if edge not in self._watched:
            self._watched.add(edge)
            self._spawn(self._until_it_serves(edge, patience_ms), f"watch {edge.code}")

    async def _until_it_serves(self, edge: Edge, patience_ms: float | None) -> None:
        """End when `edge` serves and has its old place."""
        try:
            if patience_ms is None or not await self._answers(edge, patience_ms):
                check = 0
                while True:
                    await asyncio.sleep(RETURN_CHECK_S[min(check, len(RETURN_CHECK_S) - 1)])
                    if await self._lines.serves(edge):
                        break
                    check += 1
            if self._route.is_away(edge):
                self._route.rejoin(edge)
                self._changed.set()
        finally:
            self._watched.discard(edge)

    async def _answers(self, edge: Edge, patience_ms: float) -> bool:
        """Whether one question is answered; if not soon, the edge is left until it is."""
        async with asyncio.TaskGroup() as group:
            answer = group.create_task(self._lines.serves(edge))
            done, _ = await asyncio.wait({answer}, timeout=patience_ms / 1000)
            if not done:
                self._route.leave(edge)
                self._changed.set()
        return answer.result()

    async def _keep_warm(self) -> None:
        rounds = 0
        while True:
            self._changed.clear()
            first = [edge for edge in self._route.candidates()[:WARM_EDGES] if not self._route.is_away(edge)]
            await self.measure(first)
            rounds += 1
            if self._by_measure and rounds % REMEASURE_ROUNDS == 0:
                await self._reorder()
            try:
                async with asyncio.timeout(WARM_INTERVAL_S):
                    await self._changed.wait()
            except TimeoutError:
                pass

    async def _reorder(self) -> None:
        """Prefer what is clearly faster now."""
        preferred = self._route.preferred
        times = await self.measure(self._route.candidates()[:PROBED_AT_ONCE_MAX])
        if times and min(times.values()) < FASTER_BY * times.get(preferred, float("inf")):
            self._route.prefer(sorted(times, key=times.__getitem__))

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
