"""How far a write has spread: what is waited for, and what came of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from kvnet.errors import ProtocolError

LOCAL: Final = "local"
ALL: Final = "all"
_WHOLE: Final = 100_000
_PERCENT: Final = re.compile(r"([0-9]{1,3})(?:\.([0-9]{1,3}))?%")


class Share(NamedTuple):
    """A share of the members, in thousandths of a percent: exact, so that 99 % of 100 are 99."""

    thousandths: int

    @classmethod
    def parse(cls, spelled: str) -> Share:
        """Return what `all` or `99%` or `99.9%` says.

        Raises:
            ValueError: it's none of these, or not more than 0 % and at most 100 %.
        """
        if spelled == ALL:
            return cls(_WHOLE)
        match = _PERCENT.fullmatch(spelled)
        if match is None:
            raise ValueError(f"{spelled!r} is no share")
        return cls.of(int(match[1]) * 1000 + int((match[2] or "").ljust(3, "0")))

    @classmethod
    def of(cls, thousandths: int) -> Share:
        """Return this share.

        Raises:
            ValueError: it isn't more than 0 % and at most 100 %.
        """
        if not 0 < thousandths <= _WHOLE:
            raise ValueError(f"{thousandths / 1000:g} % is no share of anything")
        return cls(thousandths)

    def count_of(self, members: int) -> int:
        """Return how many of so many members this share is, rounded up."""
        return -(-members * self.thousandths // _WHOLE)


class Spread(NamedTuple):
    """Which members have a write."""

    complete: bool
    """Whether all that were waited for have it."""
    applied: int
    of: int
    missing: tuple[str, ...]
    """Members of which nobody has told that they have it."""
    took_ms: Mapping[str, float]
    """By member: from when the write was durable until the coordinator had heard that its readers see it.

    Without those that have it and of which nobody knows since when.
    """

    def to_wire(self) -> dict[str, Any]:
        """Return it as programs are shown it."""
        took_ms = {member: round(took_ms, 1) for member, took_ms in self.took_ms.items()}
        return self._asdict() | {"missing": list(self.missing), "took_ms": took_ms}

    @classmethod
    def from_wire(cls, told: Any) -> Spread:
        """Return what `to_wire` made this of.

        Raises:
            ProtocolError: it didn't.
        """
        match told:
            case {
                "complete": bool() as complete,
                "applied": int() as applied,
                "of": int() as of,
                "missing": list() as missing,
                "took_ms": dict() as took_ms,
            } if all(isinstance(each, str) for each in (*missing, *took_ms)) and all(
                isinstance(each, (int, float)) for each in took_ms.values()
            ):
                return cls(complete, applied, of, tuple(missing), took_ms)
            case _:
                raise ProtocolError("not what a write's spread is told as")
