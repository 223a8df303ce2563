"""Places on the globe: distances, who is near, and what people call them."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Final, Generic, Protocol, TypeVar

from kvnet.errors import ConfigError

EARTH_RADIUS_KM: Final = 6371.0088
SAME_CITY_KM: Final = 100.0
"""PoPs whose cities share a name and lie closer than this are one place."""

LEAF_PLACES_MAX: Final = 16
"""Places that `NearestIndex` measures together. More: fewer steps to them, more measured in vain."""
CHORD_MARGIN: Final = 1e-12
"""In radii, 6 micrometres: a thousand times what rounding does to a chord or to a great circle."""

Place = tuple[float, float]
"""Degrees north and degrees east."""
Point = tuple[float, float, float]
"""A place on the sphere of radius 1. `math.dist` of two is the chord, which grows as the great circle does."""


class Located(Protocol):
    """Anything that stands in a PoP: the PoP in a topology, or its edge as a client knows it."""

    @property
    def code(self) -> str: ...
    @property
    def city(self) -> str: ...
    @property
    def country(self) -> str: ...
    @property
    def place(self) -> Place: ...


LocatedT = TypeVar("LocatedT", bound=Located)


def great_circle_km(a: Place, b: Place) -> float:
    """Return the shortest way over the surface of a sphere, in kilometres (off by less than 0.6 %)."""
    lat_a, lat_b = math.radians(a[0]), math.radians(b[0])
    h = (
        math.sin((lat_b - lat_a) / 2) ** 2
        + math.cos(lat_a) * math.cos(lat_b) * math.sin(math.radians(b[1] - a[1]) / 2) ** 2
    )
    return 2 * EARTH_RADIUS_KM * math.asin(min(1.0, math.sqrt(h)))  # rounding may lift antipodes above 1


def nearest(place: Place, pops: Sequence[LocatedT]) -> list[LocatedT]:
    """Return all `pops`, the nearest to `place` first; equals keep their order."""
    return sorted(pops, key=lambda pop: great_circle_km(place, pop.place))


def unit_point(place: Place) -> Point:
    """Return the place on the sphere of radius 1."""
    lat, lon = math.radians(place[0]), math.radians(place[1])
    return math.cos(lat) * math.cos(lon), math.cos(lat) * math.sin(lon), math.sin(lat)


def arc_km(a: Point, b: Point) -> float:
    """Return what `great_circle_km` does, but for rounding, in less than half of its time."""
    return 2 * EARTH_RADIUS_KM * math.asin(min(1.0, math.dist(a, b) / 2))


class NearestIndex(Generic[LocatedT]):
    """Who is nearest to a place, without measuring the way to everybody: exactly what `nearest` begins with.

    A k-d tree (Bentley, 1975) over the points on the sphere, where neither a pole nor the date line is special. It
    compares chords, and keeps all that could be among the nearest but for rounding; great circles decide.
    """

    def __init__(self, pops: Sequence[LocatedT]) -> None:
        self._pops = pops
        self._at: dict[Place, list[int]] = {}
        """PoPs in one place, by their order: however many there are, they are one leaf's business."""
        for order, pop in enumerate(pops):
            self._at.setdefault(pop.place, []).append(order)
        self._tree = _tree([(unit_point(place), place) for place in self._at])

    def nearest(self, place: Place, count: int) -> list[LocatedT]:
        """Return the first `count` of `nearest(place, pops)`."""
        if count < 1:
            return []
        found: list[tuple[float, Place]] = []
        self._tree.gather(unit_point(place), count, found)
        ranked = sorted(
            (great_circle_km(place, there), order) for _, there in found for order in self._at[there][:count]
        )
        return [self._pops[order] for _, order in ranked[:count]]


@dataclass(frozen=True, slots=True)
class _Leaf:
    """Places near each other."""

    places: list[tuple[Point, Place]]

    def gather(self, point: Point, count: int, found: list[tuple[float, Place]]) -> None:
        """Merge the places into `found`, the nearest first, and forget those beyond the `count` nearest."""
        found += [(math.dist(point, there), place) for there, place in self.places]
        found.sort()
        while len(found) > count and found[-1][0] > found[count - 1][0] + CHORD_MARGIN:
            found.pop()


@dataclass(frozen=True, slots=True)
class _Branch:
    """A cut through the sphere, across one axis; who lies in it may stand on either side."""

    axis: int
    cut: float
    below: _Leaf | _Branch
    above: _Leaf | _Branch

    def gather(self, point: Point, count: int, found: list[tuple[float, Place]]) -> None:
        """Gather on the side of `point`, and on the other if somebody there could be nearer."""
        beyond = point[self.axis] - self.cut
        near, far = (self.below, self.above) if beyond < 0 else (self.above, self.below)
        near.gather(point, count, found)
        if len(found) < count or abs(beyond) <= found[count - 1][0] + CHORD_MARGIN:
            far.gather(point, count, found)


def _tree(places: list[tuple[Point, Place]]) -> _Leaf | _Branch:
    """Halve along the axis on which the places lie farthest apart, until few are left."""
    if len(places) <= LEAF_PLACES_MAX:
        return _Leaf(places)
    spans = [max(values) - min(values) for values in zip(*(point for point, _ in places), strict=True)]
    axis = spans.index(max(spans))
    places = sorted(places, key=lambda item: item[0][axis])
    middle = len(places) // 2
    return _Branch(axis, places[middle][0][axis], _tree(places[:middle]), _tree(places[middle:]))


def find_place(text: str, pops: Sequence[Located]) -> Place:
    """Return the place that `text` names: a PoP's code, the city of a PoP, or `lat,lon`.

    Case, accents and punctuation don't matter; a code goes before a city.

    Raises:
        ConfigError: nothing is called so, or several cities are; the text names the closest.
    """
    if (place := _as_coordinates(text)) is not None:
        return place
    wanted = _plain(text)
    for pop in pops:
        if pop.code == text.strip().lower():
            return pop.place
    matches = [pop for pop in pops if _plain(pop.city) == wanted]
    if not matches:
        raise ConfigError(f"no PoP is in a place called {text!r}: {_suggestion(wanted, pops)}")
    if any(great_circle_km(matches[0].place, pop.place) > SAME_CITY_KM for pop in matches):
        codes = " or ".join(f"{pop.code} ({pop.country})" for pop in matches)
        raise ConfigError(f"there is more than one {text!r}: say {codes}")
    return matches[0].place


def _as_coordinates(text: str) -> Place | None:
    """Read `lat,lon`; None when it is not two numbers."""
    try:
        lat, lon = (float(part) for part in text.split(","))
    except ValueError:
        return None
    if not (-90 <= lat <= 90 and -180 <= lon <= 180):
        raise ConfigError(
            f"{text!r} is not on the globe: write degrees north from -90 to 90, a comma, "
            "degrees east from -180 to 180"
        )
    return lat, lon


def _plain(text: str) -> str:
    """Reduce to what people agree on: lower-case letters and digits without accents."""
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    return "".join(letter for letter in decomposed if letter.isalnum())


def _suggestion(wanted: str, pops: Sequence[Located]) -> str:
    cities = {_plain(pop.city): f"{pop.city!r}" for pop in pops}
    codes = {pop.code: f"{pop.code!r} ({pop.city})" for pop in pops}
    names = cities | codes
    close = get_close_matches(wanted, list(names), n=3, cutoff=0.6)
    if close:
        return f"did you mean {', '.join(names[name] for name in close)}? 'lat,lon' works for any place"
    return "name the city or the code of a PoP, or write 'lat,lon', which works for any place"
