"""Probes: which edge is nearest, by the round trip as this client measures it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

import aiohttp

from kvnet.client.directory import Directory, Edge, PlacedEdge
from kvnet.topology.geography import nearest
from kvnet.topology.selection import best_spread

PROBED_AT_ONCE_MAX: Final = 8
"""Edges measured in parallel. More: a better choice, and a burst at the start of every client."""
PROBE_TIMEOUT_S: Final = 2.0
"""An edge that needs longer is no candidate."""


async def healthy(session: aiohttp.ClientSession, edge: Edge) -> bool:
    """Whether the edge says that it serves."""
    try:
        async with asyncio.timeout(PROBE_TIMEOUT_S), session.get(f"{edge.url}/healthz") as response:
            return response.status == 200
    except (aiohttp.ClientError, TimeoutError):
        return False


async def fastest_first(session: aiohttp.ClientSession, directory: Directory) -> list[Edge]:
    """Return all edges: the measured ones by round trip, then the others.

    Where places are known, a few edges spread over the world are measured, then the neighbours of the fastest;
    the unmeasured follow by their distance from the best. Otherwise the first few are measured, and the others
    keep their order. An edge that doesn't answer comes last, not never: it may be back when it is needed.
    """
    placed = directory.placed
    if placed:
        count = min(PROBED_AT_ONCE_MAX, len(placed))
        measured = await _measure(session, best_spread(placed, count, placed[0].code))
        if answering := [edge for edge in placed if measured.get(edge) is not None]:
            centre = min(answering, key=lambda edge: measured[edge] or 0.0)
            neighbours = nearest(centre.place, placed)[:PROBED_AT_ONCE_MAX]
            measured |= await _measure(session, [edge for edge in neighbours if edge not in measured])
    else:
        measured = await _measure(session, directory.edges[:PROBED_AT_ONCE_MAX])
    times = {edge: seconds for edge, seconds in measured.items() if seconds is not None}
    order = sorted(times, key=times.__getitem__)
    unmeasured: list[Edge] = [edge for edge in directory.edges if edge not in measured]
    if order and isinstance(order[0], PlacedEdge):
        unmeasured = list(nearest(order[0].place, [edge for edge in placed if edge not in measured]))
    return [*order, *unmeasured, *(edge for edge, seconds in measured.items() if seconds is None)]


async def _measure(session: aiohttp.ClientSession, edges: Sequence[Edge]) -> dict[Edge, float | None]:
    """Return each edge's round trip in seconds, None for one that doesn't serve."""
    return dict(zip(edges, await asyncio.gather(*(_round_trip(session, edge) for edge in edges)), strict=True))


async def _round_trip(session: aiohttp.ClientSession, edge: Edge) -> float | None:
    """Return the time of a second request, which finds its connection open."""
    if not await healthy(session, edge):
        return None
    clock = asyncio.get_running_loop().time
    began = clock()
    return clock() - began if await healthy(session, edge) else None
