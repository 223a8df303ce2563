"""Options of the calls that a Worker knows, under their Python names and under those a Worker writes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypedDict

from kvnet.core.versions import Version
from kvnet.values import check_cache_ttl


class GetOptions(TypedDict, total=False):
    """Of `get` and `get_with_metadata`."""

    cache_ttl: int | None
    """Seconds, at least 30, for which a Worker would take an older answer; no edge gives one that is older than it
    has to be, so it changes nothing."""
    cacheTtl: int | None
    at_least: Version | None
    """Have the edge wait, within its limits, until it has that write."""


class PutOptions(TypedDict, total=False):
    """Of `put`."""

    expiration: int | None
    """Unix seconds; neither this nor a TTL means for ever."""
    expiration_ttl: int | None
    """Seconds; wins over `expiration`."""
    expirationTtl: int | None
    metadata: Any
    """Any JSON value, or `msgspec.Raw` of one that is to be spelled so; None for none."""


class ListOptions(TypedDict, total=False):
    """Of `list`."""

    prefix: str | None
    limit: int | None
    """At most so many keys, 1,000 without it."""
    cursor: str | None
    """Where the page before said that this one begins."""


_PYTHON_NAMES: Final = {"cacheTtl": "cache_ttl", "expirationTtl": "expiration_ttl"}


def read_get(wanted: str | Mapping[str, Any], options: GetOptions) -> tuple[str, Version | None]:
    """Return the type of value, and the version to wait for.

    Raises:
        TypeError: there is no such option.
        ValueError: `cache_ttl` is too low.
    """
    given = {**wanted, **options} if isinstance(wanted, Mapping) else {"type": wanted, **options}
    read = named(given, {"type", "cache_ttl", "at_least"})
    check_cache_ttl(read.get("cache_ttl"))
    return str(read.get("type") or "text"), read.get("at_least")


def named(given: Mapping[str, Any], known: set[str]) -> dict[str, Any]:
    """Return options by their Python names.

    Raises:
        TypeError: one isn't known.
    """
    read = {_PYTHON_NAMES.get(name, name): value for name, value in given.items()}
    unknown = read.keys() - known
    if unknown:
        raise TypeError(f"there is no option {min(unknown)!r}: it may be {', '.join(sorted(known))}")
    return read
