"""Networks larger than their source: further PoPs, scattered around the source's cities.

Pure and repeatable: the same topology and count give the same PoPs on every run and every Python.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from itertools import count, islice
from typing import Final

from msgspec.structs import replace

from kvnet.errors import ConfigError
from kvnet.topology.fields import CITY_LENGTH_MAX, CODE_LENGTH_MAX
from kvnet.topology.geography import EARTH_RADIUS_KM, Place
from kvnet.topology.schema import Topology
from kvnet.topology.sections import Pop

POPS_MAX: Final = 10_000
"""The largest network that is generated; its ports fit above any port base up to 22,758."""
AWAY_KM_MIN: Final = 3.0
AWAY_KM_MAX: Final = 400.0
PLACE_DECIMALS: Final = 4
"""About ten metres: coarser than what two mathematical libraries disagree about."""


def generated(topology: Topology, pops: int) -> Topology:
    """Return the network with `pops` PoPs: the best-spread ones, or all and further ones around their cities.

    The name stays. A smaller one of the larger networks is the beginning of the next, so that a network can grow.

    Raises:
        ConfigError: `pops` is not between 1 and the larger of POPS_MAX and what there is, the ports don't suffice,
            or the round trips of further PoPs would have to be measured.
    """
    have = len(topology.pops)
    most = max(POPS_MAX, have)
    if not 1 <= pops <= most:
        raise ConfigError(f"a network of {pops} PoPs can't be generated: ask for 1 to {most}")
    if pops <= have:
        return topology.with_pops(pops)
    if topology.wan.profile == "matrix":
        raise ConfigError(
            f"{pops - have} further PoPs have no measured round trips, and the profile is `matrix`: "
            f"ask for 1 to {have}, or take the profile `internet`"
        )
    return topology.with_further_pops(tuple(islice(_around_the_cities(topology), pops - have)))


def _around_the_cities(topology: Topology) -> Iterator[Pop]:
    """Yield PoPs without end: `iad2`, Ashburn 2, then perhaps `fra2`; each city is as likely as another.

    The number keeps the city a name of one place, as `find_place` wants it, however far the PoP lies outside.
    """
    rng = random.Random(
        topology.name
    )  # from text: the same seed in every process; only random() is promised to stay
    taken = {pop.code for pop in topology.pops}
    numbers = {pop.code: count(2) for pop in topology.pops}
    while True:
        near = topology.pops[int(rng.random() * len(topology.pops))]
        code, number = next(
            (code, number)
            for number in numbers[near.code]
            if (code := _ending(near.code, str(number), CODE_LENGTH_MAX)) not in taken
        )
        taken.add(code)
        # As many between 3 and 30 km as between 30 and 300: suburbs, and towns of their own.
        away_km = AWAY_KM_MIN * (AWAY_KM_MAX / AWAY_KM_MIN) ** rng.random()
        lat, lon = _moved(near.place, away_km, 2 * math.pi * rng.random())
        city = _ending(near.city, f" {number}", CITY_LENGTH_MAX)
        yield replace(near, code=code, city=city, lat=lat, lon=lon, url=None, assumed=True)


def _ending(text: str, end: str, length_max: int) -> str:
    return text[: length_max - len(end)] + end


def _moved(place: Place, km: float, bearing: float) -> Place:
    """Return where one arrives who leaves `place` at `bearing`, in radians from north, and goes straight on."""
    lat, lon, angle = math.radians(place[0]), math.radians(place[1]), km / EARTH_RADIUS_KM
    up = math.sin(lat) * math.cos(angle) + math.cos(lat) * math.sin(angle) * math.cos(bearing)
    east = math.atan2(
        math.sin(bearing) * math.sin(angle) * math.cos(lat),
        math.cos(angle) - math.sin(lat) * up,
    )
    there = math.degrees(math.asin(max(-1.0, min(1.0, up)))), math.degrees(lon + east)
    return round(there[0], PLACE_DECIMALS), round((there[1] + 540) % 360 - 180, PLACE_DECIMALS)
