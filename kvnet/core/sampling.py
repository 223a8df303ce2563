"""Drawing some of many names, without looking at all of them."""

from __future__ import annotations

import random
from collections.abc import Container, Sequence
from typing import Final

TRIES_SPARE: Final = 16


def sample(rng: random.Random, names: Sequence[str], count: int, *excluded: Container[str]) -> list[str]:
    """Return `count` of the `names` in none of `excluded`, any as likely as another; all, if they are fewer.

    Names are drawn until enough are free, which takes O(`count`) while most are: a node of ten thousand draws its
    links without reading ten thousand names. Where few are free, and in small networks, they are listed first.
    """
    drawn: dict[str, None] = {}
    tries = 4 * count + TRIES_SPARE
    if len(names) > tries:
        for _ in range(tries):
            if len(drawn) == count:
                return list(drawn)
            name = names[rng.randrange(len(names))]
            if name not in drawn and not any(name in group for group in excluded):
                drawn[name] = None
    free = [name for name in names if name not in drawn and not any(name in group for group in excluded)]
    return [*drawn, *rng.sample(free, min(count - len(drawn), len(free)))]
