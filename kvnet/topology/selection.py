"""Which PoPs to keep when a smaller network shall still span the world."""

from __future__ import annotations

from collections.abc import Sequence

from kvnet.errors import ConfigError
from kvnet.topology.geography import LocatedT, great_circle_km


def best_spread(pops: Sequence[LocatedT], count: int, start: str) -> list[LocatedT]:
    """Return `count` PoPs, `start` first, then always the one farthest from all before it.

    Gonzalez's farthest-point greedy (1985): no choice of `count` PoPs has less than half its covering radius.
    A shorter answer is a prefix of a longer one; equals go by their order in `pops`.

    Raises:
        ConfigError: `count` is not between 1 and the number of PoPs.
    """
    if not 1 <= count <= len(pops):
        raise ConfigError(f"{count} PoPs of {len(pops)} can't be chosen: ask for 1 to {len(pops)}")
    chosen = [next(pop for pop in pops if pop.code == start)]
    gaps = {pop.code: great_circle_km(chosen[0].place, pop.place) for pop in pops if pop.code != start}
    by_code = {pop.code: pop for pop in pops}
    while len(chosen) < count:
        farthest = by_code[max(gaps, key=gaps.__getitem__)]
        del gaps[farthest.code]
        chosen.append(farthest)
        for code, gap in gaps.items():
            gaps[code] = min(gap, great_circle_km(farthest.place, by_code[code].place))
    return chosen
