"""What is used of a cluster: operations and stored bytes, by month and namespace, counted at one node.

A read is one key asked for, found or not; a write or deletion one pair; a list one page. They are counted where
the client asked, so that the sum over all nodes is what all clients asked for. Bytes are what a pair's key,
metadata and value have together.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from msgspec import Struct

from kvnet.core.entries import NAMESPACE_ID_BYTES

MONTHS_MAX: Final = 13
"""Of which usage is kept; older months are forgotten."""

INCLUDED_DOLLARS: Final = 5.0
"""A month's price, with INCLUDED_READS and INCLUDED_GB in it; all prices are those of the announcement of 2018."""
INCLUDED_READS: Final = 10_000_000
INCLUDED_GB: Final = 1.0
DOLLARS_PER_MILLION_READS: Final = 0.50
DOLLARS_PER_GB_MONTH: Final = 0.50
GB: Final = 1_000_000_000

_ID = re.compile(rf"[0-9a-f]{{{2 * NAMESPACE_ID_BYTES}}}")
_MONTH = re.compile(r"[0-9]{4}-[0-9]{2}")


class Usage(Struct):
    """Of one namespace in one month; a struct, since thousands of them are written as JSON every few seconds."""

    reads: int = 0
    writes: int = 0
    deletes: int = 0
    lists: int = 0
    byte_seconds: float = 0.0
    """Stored bytes, times how long they were; told by the coordinator alone."""

    def add(self, other: Usage) -> None:
        self.reads += other.reads
        self.writes += other.writes
        self.deletes += other.deletes
        self.lists += other.lists
        self.byte_seconds += other.byte_seconds


class UsageMeter:
    """Counts at one node."""

    def __init__(self, told: Any = None) -> None:
        """Go on from what `to_dict` told, as far as that can be read."""
        self.months: dict[str, dict[bytes, Usage]] = {}
        for month, namespaces in _mapping(told).items():
            for name, fields in _mapping(namespaces).items():
                usage = _read_usage(fields)
                if usage is not None and _ID.fullmatch(name):
                    self.months.setdefault(month, {})[bytes.fromhex(name)] = usage
        self._current: dict[bytes, Usage] = {}

    def turn(self, now_s: float) -> None:
        """Count for the month of this time from now on; to be called every few seconds, and first of all."""
        self._current = self.months.setdefault(month_of(now_s), {})
        for month in sorted(self.months)[:-MONTHS_MAX]:
            del self.months[month]

    def of(self, namespace: bytes) -> Usage:
        """Return what is counted of this namespace now, to be added to."""
        usage = self._current.get(namespace)
        if usage is None:
            usage = self._current[namespace] = Usage()
        return usage

    def to_dict(self) -> dict[str, dict[str, Usage]]:
        """Return everything, by month and namespace, as msgspec writes it."""
        return {
            month: {namespace.hex(): usage for namespace, usage in namespaces.items()}
            for month, namespaces in self.months.items()
        }


def month_of(now_s: float) -> str:
    """Return the month in UTC, as YYYY-MM."""
    return datetime.fromtimestamp(now_s, UTC).strftime("%Y-%m")


def month_seconds(month: str) -> float:
    """Return how long a month is.

    Raises:
        ValueError: it isn't one.
    """
    if not _MONTH.fullmatch(month):
        raise ValueError("a month is spelled YYYY-MM")
    begin = datetime.strptime(month, "%Y-%m").replace(tzinfo=UTC)
    end = begin.replace(year=begin.year + begin.month // 12, month=begin.month % 12 + 1)
    return (end - begin).total_seconds()


def gb_months(byte_seconds: float, month: str) -> float:
    return byte_seconds / GB / month_seconds(month)


def price_dollars(reads: int, stored_gb_months: float) -> float:
    """Return what a month costs."""
    more_reads = max(0.0, reads - INCLUDED_READS) / 1_000_000
    more_gb = max(0.0, stored_gb_months - INCLUDED_GB)
    return INCLUDED_DOLLARS + more_reads * DOLLARS_PER_MILLION_READS + more_gb * DOLLARS_PER_GB_MONTH


def read_months(told: Any) -> dict[str, dict[bytes, Usage]]:
    """Return what another node's `to_dict` told, as far as it can be read."""
    return UsageMeter(told).months


def _mapping(told: Any) -> Mapping[str, Any]:
    return told if isinstance(told, dict) else {}


def _read_usage(fields: Any) -> Usage | None:
    match fields:
        case {
            "reads": int() as reads,
            "writes": int() as writes,
            "deletes": int() as deletes,
            "lists": int() as lists,
            "byte_seconds": float() | int() as byte_seconds,
        }:
            return Usage(reads, writes, deletes, lists, byte_seconds)
        case _:
            return None
