"""Probes: which edge is nearest, by the round trip as this client measures it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from kvnet.client.directory import Directory, Edge, PlacedEdge
from kvnet.client.lines import Lines
from kvnet.topology.geography import nearest
from kvnet.topology.selection import best_spread

PROBED_AT_ONCE_MAX: Final = 8
"""Edges measured in parallel. More: a better choice, and a burst at the start of every client."""
SLOWER_BY: Final = 4.0
SLOWER_S: Final = 0.1
"""An edge that takes this much longer than the first to answer, and this long more, isn't the nearest."""


async def fastest_first(lines: Lines, directory: Directory) -> list[Edge]:
    """Return all edges: the measured ones by round trip, then the others.

    Where places are known, a few edges spread over the world are measured, then the neighbours of the fastest;
    the unmeasured follow by their distance from the best. Otherwise the first few are measured, and the others
    keep their order. An edge that doesn't answer comes last, not never: it may be back when it is needed.
    """
    placed = directory.placed
    if placed:
        count = min(PROBED_AT_ONCE_MAX, len(placed))
        measured = await _measure_quickest(lines, best_spread(placed, count, placed[0].code))
        if answering := [edge for edge in placed if measured.get(edge) is not None]:
            centre = min(answering, key=lambda edge: measured[edge] or 0.0)
            neighbours = nearest(centre.place, placed)[:PROBED_AT_ONCE_MAX]
            measured |= await _measure_quickest(lines, [edge for edge in neighbours if edge not in measured])
    else:
        measured = await _measure_quickest(lines, directory.edges[:PROBED_AT_ONCE_MAX])
    times = {edge: ms for edge, ms in measured.items() if ms is not None}
    order = sorted(times, key=times.__getitem__)
    unmeasured: list[Edge] = [edge for edge in directory.edges if edge not in measured]
    if order and isinstance(order[0], PlacedEdge):
        unmeasured = list(nearest(order[0].place, [edge for edge in placed if edge not in measured]))
    return [*order, *unmeasured, *(edge for edge, ms in measured.items() if ms is None)]


async def measure(lines: Lines, edges: Sequence[Edge]) -> dict[Edge, float | None]:
    """Return each edge's round trip in milliseconds, None for one that doesn't serve."""
    return dict(zip(edges, await asyncio.gather(*(lines.round_trip_ms(edge) for edge in edges)), strict=True))


async def _measure_quickest(lines: Lines, edges: Sequence[Edge]) -> dict[Edge, float | None]:
    """Return as `measure` does, without waiting for those that are far behind the quickest: they have None."""
    clock = asyncio.get_running_loop().time
    began = clock()
    tasks = {asyncio.create_task(lines.round_trip_ms(edge)): edge for edge in edges}
    waiting = set(tasks)
    give_up_at: float | None = None
    try:
        while waiting:
            patience_s = None if give_up_at is None else max(0.0, give_up_at - clock())
            done, waiting = await asyncio.wait(waiting, timeout=patience_s, return_when=asyncio.FIRST_COMPLETED)
            if not done:
                break
            if give_up_at is None and any(task.result() is not None for task in done):
                give_up_at = clock() + max(SLOWER_S, (SLOWER_BY - 1) * (clock() - began))
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
    return {edge: None if task.cancelled() else task.result() for task, edge in tasks.items()}
