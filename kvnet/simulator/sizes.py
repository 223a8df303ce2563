"""How large the values of a planned network are: one size, a range, or a mixture, as people write them."""

from __future__ import annotations

import random
from bisect import bisect
from itertools import accumulate
from math import isfinite
from typing import Final, NoReturn

from msgspec import Struct

from kvnet.errors import ConfigError

SIZE_MIN: Final = 8
"""A simulated value carries its number, so that no two are equal."""


class Part(Struct, frozen=True):
    """Values from `least` to `most` bytes, each as likely as another, and how often one is drawn from here."""

    least: int
    most: int
    weight: float = 1.0


class Sizes:
    """A distribution of value sizes, in bytes."""

    def __init__(self, parts: tuple[Part, ...]) -> None:
        self.parts = parts
        self._bounds = list(accumulate(part.weight for part in parts))

    @property
    def mean(self) -> float:
        """Bytes of a value in the mean."""
        return sum(part.weight * (part.least + part.most) / 2 for part in self.parts) / self._bounds[-1]

    def draw(self, rng: random.Random) -> int:
        """Return the size of one value."""
        part = self.parts[0]
        if len(self.parts) > 1:
            at = bisect(self._bounds, rng.random() * self._bounds[-1])
            part = self.parts[min(at, len(self.parts) - 1)]
        if part.least == part.most:
            return part.least
        return part.least + int(rng.random() * (part.most - part.least + 1))


def parse_sizes(text: str, most: int) -> Sizes:
    """Return the sizes that `100`, `100-5000` or `100:0.9,50000:0.1` mean; weights needn't sum to one.

    Raises:
        ConfigError: it can't be read, or a value would be smaller than SIZE_MIN or larger than `most` bytes.
    """
    return Sizes(tuple(_part(text, piece.strip(), most) for piece in text.split(",")))


def _part(text: str, piece: str, most: int) -> Part:
    span, colon, share = piece.partition(":")
    low, dash, high = span.partition("-")
    try:
        least = int(low)
        largest = int(high) if dash else least
        weight = float(share) if colon else 1.0
    except ValueError:
        _refuse(text, f"{piece!r} can't be read")
    if ("," in text and not colon) or not (isfinite(weight) and weight > 0):
        _refuse(text, f"{piece!r} has no share above 0")
    if largest < least:
        _refuse(text, f"{piece} ends before it begins")
    if least < SIZE_MIN:
        raise ConfigError(
            f"value sizes {text!r}: {piece} is below {SIZE_MIN} bytes, the least that is simulated; write "
            "larger ones"
        )
    if largest > most:
        raise ConfigError(
            f"value sizes {text!r}: {piece} is above {most:,} bytes; write smaller ones, or raise "
            "limits.value_bytes_max in the topology"
        )
    return Part(least, largest, weight)


def _refuse(text: str, why: str) -> NoReturn:
    raise ConfigError(f"value sizes {text!r}: {why}; write 100, or 100-5000, or 100:0.9,50000:0.1")
