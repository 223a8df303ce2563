"""The route: in which order edges are asked, and which of them are away for the moment."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from kvnet.client.directory import Directory, Edge, PlacedEdge
from kvnet.errors import ConfigError
from kvnet.topology.geography import Place, find_place, nearest
from kvnet.topology.load import SHIPPED, load


class Route:
    """Edges in order of preference. An edge that failed is asked last until somebody says that it is back."""

    def __init__(self, edges: Sequence[Edge]) -> None:
        assert edges, "a directory has at least one edge"
        self._order = list(edges)
        self._away: set[Edge] = set()

    @property
    def preferred(self) -> Edge:
        """The edge that is asked first now."""
        return self.candidates()[0]

    @property
    def order(self) -> list[Edge]:
        """All edges as they are preferred, also those that are away."""
        return list(self._order)

    def candidates(self) -> list[Edge]:
        """Return all edges, those that are away behind the others, because they may be back unnoticed."""
        return sorted(self._order, key=self._away.__contains__) if self._away else list(self._order)

    def is_away(self, edge: Edge) -> bool:
        """Whether `edge` is asked after the others."""
        return edge in self._away

    def leave(self, edge: Edge) -> None:
        """Put `edge` behind the others."""
        self._away.add(edge)

    def rejoin(self, edge: Edge) -> None:
        """Put `edge` back to its place."""
        self._away.discard(edge)

    def prefer(self, edges: Sequence[Edge]) -> None:
        """Put these first, in this order; the others keep theirs."""
        self._order = [*edges, *(edge for edge in self._order if edge not in edges)]


def nearest_first(directory: Directory, near: str | Place) -> list[PlacedEdge]:
    """Return the edges by their distance from a city, a PoP's code, `lat,lon`, or a pair of degrees.

    Raises:
        ConfigError: nothing is called so, or the edges' places aren't known.
    """
    placed = directory.placed
    if not placed:
        raise ConfigError("where these edges stand isn't known: leave near= out, or give data= instead of urls=")
    return nearest(place_of(near, placed), placed)


def place_of(near: str | Place, placed: Sequence[PlacedEdge]) -> Place:
    """Return where a place is, also one that only larger networks have a PoP in.

    Raises:
        ConfigError: nothing is called so.
    """
    return _named(near, placed) if isinstance(near, str) else near


def _named(name: str, placed: Sequence[PlacedEdge]) -> Place:
    try:
        return find_place(name, placed)
    except ConfigError:
        for world in SHIPPED[:-1]:
            with suppress(ConfigError):
                return find_place(name, load(world).pops)
        return find_place(name, load(SHIPPED[-1]).pops)
