"""Options of the calls that a Worker knows, under their Python names and under those a Worker writes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypedDict

from kvnet.client.session import Freshness
from kvnet.core.versions import Version
from kvnet.values import check_cache_ttl


class FreshOptions(TypedDict, total=False):
    """Of every read."""

    at_least: Version | None
    """Have the edge wait, within its limits, until it has that write."""
    max_staleness_ms: int | None
    """Take no answer of an edge that may be further behind."""
    wait_timeout_ms: int | None
    """How long the edge may take to become so; a second without it."""


class GetOptions(FreshOptions, total=False):
    """Of `get` and `get_with_metadata`."""

    cache_ttl: int | None
    """Seconds, at least 30, for which a Worker would take an older answer; no edge gives one that is older than it
    has to be, so it changes nothing."""
    cacheTtl: int | None


class PutOptions(TypedDict, total=False):
    """Of `put`."""

    expiration: int | None
    """Unix seconds; neither this nor a TTL means for ever."""
    expiration_ttl: int | None
    """Seconds; wins over `expiration`."""
    expirationTtl: int | None
    metadata: Any
    """Any JSON value, or `msgspec.Raw` of one that is to be spelled so; None for none."""


class ListOptions(FreshOptions, total=False):
    """Of `list`."""

    prefix: str | None
    limit: int | None
    """At most so many keys, 1,000 without it."""
    cursor: str | None
    """Where the page before said that this one begins."""


_PYTHON_NAMES: Final = {"cacheTtl": "cache_ttl", "expirationTtl": "expiration_ttl"}
_FRESH: Final = {"at_least", "max_staleness_ms", "wait_timeout_ms"}


def read_get(wanted: str | Mapping[str, Any], options: GetOptions) -> tuple[str, Freshness]:
    """Return the type of value, and how new it has to be.

    Raises:
        TypeError: there is no such option.
        ValueError: `cache_ttl` is too low.
    """
    given = {**wanted, **options} if isinstance(wanted, Mapping) else {"type": wanted, **options}
    read = named(given, {"type", "cache_ttl"} | _FRESH)
    check_cache_ttl(read.get("cache_ttl"))
    return str(read.get("type") or "text"), _fresh(read)


def read_list(options: Mapping[str, Any]) -> tuple[dict[str, Any], Freshness]:
    """Return what page is asked for, and how new it has to be.

    Raises:
        TypeError: there is no such option.
    """
    read = named(options, {"prefix", "limit", "cursor"} | _FRESH)
    return read, _fresh(read)


def _fresh(read: Mapping[str, Any]) -> Freshness:
    return Freshness(**{name: read.get(name) for name in _FRESH})


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
