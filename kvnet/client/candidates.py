"""Candidates: which edges a client may ask, how far they are, and how they are doing."""

from __future__ import annotations

from dataclasses import dataclass

from kvnet.client.directory import Edge, PlacedEdge
from kvnet.client.distance import Distance
from kvnet.client.route import Route
from kvnet.topology.geography import Place, great_circle_km


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One edge as a client sees it; None for what it can't know."""

    code: str
    city: str | None
    distance_km: float | None
    """From the client's place."""
    expected_ms: float | None
    """Round trip by the model of the WAN, for a client that is told where it stands."""
    measured_ms: float | None
    """Round trip as it was just now, the simulated distance included; None if the edge didn't serve."""
    away: bool
    """Whether it failed or refused, and is asked last until it serves again."""


def candidate(
    edge: Edge, measured_ms: float | None, route: Route, place: Place | None, distance: Distance | None
) -> Candidate:
    """Return what is known of an edge to a client in this place."""
    placed = edge if isinstance(edge, PlacedEdge) else None
    return Candidate(
        code=edge.code,
        city=None if placed is None else placed.city,
        distance_km=None if placed is None or place is None else great_circle_km(place, placed.place),
        expected_ms=None if distance is None else distance.expected_ms(edge),
        measured_ms=measured_ms,
        away=route.is_away(edge),
    )
