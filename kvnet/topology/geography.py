"""Places on the globe: distances, and what people call them."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Final, Protocol, TypeVar

from kvnet.errors import ConfigError

EARTH_RADIUS_KM: Final = 6371.0088
SAME_CITY_KM: Final = 100.0
"""PoPs whose cities share a name and lie closer than this are one place."""

Place = tuple[float, float]
"""Degrees north and degrees east."""


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
