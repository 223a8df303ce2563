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

    def candidates(self) -> list[Edge]:
        """Return all edges, those that are away behind the others, because they may be back unnoticed."""
        return sorted(self._order, key=self._away.__contains__)

    def leave(self, edge: Edge) -> bool:
        """Put `edge` behind the others; False when it was there already."""
        if edge in self._away:
            return False
        self._away.add(edge)
        return True

    def rejoin(self, edge: Edge) -> None:
        """Put `edge` back to its place."""
        self._away.discard(edge)


def nearest_first(directory: Directory, near: str | Place) -> list[PlacedEdge]:
    """Return the edges by their distance from a city, a PoP's code, `lat,lon`, or a pair of degrees.

    Raises:
        ConfigError: nothing is called so, or the edges' places aren't known.
    """
    placed = directory.placed
    if not placed:
        raise ConfigError("where these edges stand isn't known: leave near= out, or give data= instead of urls=")
    return nearest(_place_of(near, placed) if isinstance(near, str) else near, placed)


def _place_of(name: str, placed: Sequence[PlacedEdge]) -> Place:
    """Return where a place is, also one that only larger networks have a PoP in.

    Raises:
        ConfigError: nothing is called so.
    """
    try:
        return find_place(name, placed)
    except ConfigError:
        for world in SHIPPED[:-1]:
            with suppress(ConfigError):
                return find_place(name, load(world).pops)
        return find_place(name, load(SHIPPED[-1]).pops)
