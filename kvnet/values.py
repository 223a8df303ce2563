"""What a read of Workers KV gives, wherever it is read: at an edge, or straight from its replica."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, Generic, Literal, TypeVar

import msgspec

from kvnet.core.versions import Version

ValueType = Literal["text", "json", "bytes", "arrayBuffer", "stream"]
ValueT = TypeVar("ValueT")
Keys = list[str] | tuple[str, ...]

TYPES: Final = ("text", "json", "bytes", "arrayBuffer")
BULK_TYPES: Final = ("text", "json")
CACHE_TTL_S_MIN: Final = 30
NAMESPACE_NOT_FOUND: Final = 10013
"""The API's code."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Value(Generic[ValueT]):
    """A pair as one PoP had it; without a value if it had none."""

    value: ValueT | None
    metadata: Any
    """Any JSON value; None for none."""
    metadata_json: bytes = field(default=b"null", compare=False, repr=False)
    """The same as the network spells it; Python's numbers may be rounded."""
    expires_at: int | None = None
    """Unix seconds; None for never."""
    version: Version | None = None
    """Of the write that stored it, which any PoP can wait for; an edge doesn't tell it of several keys at once."""
    pop: str
    """Code of the PoP that had it."""
    staleness_ms: int | None
    """Upper bound on the age of that PoP's view; None when it has none yet."""
    cache_status: None = None
    """A PoP has a replica, not a cache: nothing is ever a hit or a miss."""

    @property
    def cacheStatus(self) -> None:  # noqa: N802 - as a Worker spells it
        return self.cache_status


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedKey:
    """One key of a listing."""

    name: str
    expiration: int | None = None
    """Unix seconds; None for never."""
    metadata: Any = None
    """Any JSON value; None for none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyPage:
    """Some keys of a listing, by their UTF-8 bytes."""

    keys: list[ListedKey]
    list_complete: bool
    """Whether these are the last ones; an empty page need not be the last."""
    cursor: str | None
    """Where the next page begins; None behind the last one."""
    cache_status: None = None

    @property
    def cacheStatus(self) -> None:  # noqa: N802 - as a Worker spells it
        return self.cache_status


def check_key(key: object) -> None:
    """Return if this can be a key, as far as a Workers runtime says so itself.

    Raises:
        TypeError: it isn't text.
        ValueError: it is empty, `.` or `..`, or has half a character.
    """
    if not isinstance(key, str):
        raise TypeError(f"a key is a str, not {type(key).__name__}")
    if not key:
        raise ValueError("Key name cannot be empty.")
    if key in {".", ".."}:
        raise ValueError(f'"{key}" is not allowed as a key name.')
    key.encode()


def check_keys(keys: object, wanted: str, most: int | None = None) -> None:
    """Return if these can be asked for at once.

    Raises:
        TypeError: they are no list of texts, or can't be given as this type.
        ValueError: one can't be a key, or they are too many.
    """
    if not isinstance(keys, (list, tuple)):
        raise TypeError(f"a key is a str, or several in a list, not {type(keys).__name__}")
    if wanted not in BULK_TYPES:
        raise TypeError(f'"{wanted}" is not a valid type for several keys. Use "json" or "text".')
    if most is not None and not 0 < len(keys) <= most:
        raise ValueError(f"{len(keys)} keys at once: ask for 1 to {most}")
    for key in keys:
        check_key(key)


def check_type(wanted: str, *, streams: bool = False) -> None:
    """Return if a value can be given as this.

    Raises:
        TypeError: there is no such type.
    """
    if wanted not in TYPES and not (streams and wanted == "stream"):
        more = ', "stream"' if streams else ""
        types = ", ".join(f'"{each}"' for each in TYPES)
        raise TypeError(f"Unknown response type {wanted!r}. Possible types are {types}{more}.")


def check_cache_ttl(cache_ttl: int | None) -> None:
    """Return if a Worker may ask for this; it changes nothing, since no answer is older than it has to be.

    Raises:
        ValueError: it is less than 30 seconds.
    """
    if cache_ttl is not None and not cache_ttl >= CACHE_TTL_S_MIN:
        raise ValueError(f"Invalid cache_ttl of {cache_ttl}. Cache TTL must be at least {CACHE_TTL_S_MIN}.")


def convert(data: bytes, wanted: str) -> Any:
    """Return a stored value as text, JSON or bytes. Bytes that are no UTF-8 become U+FFFD in a text.

    Raises:
        TypeError: there is no such type.
        ValueError: it isn't JSON.
    """
    if wanted == "text":
        return data.decode("utf-8", "replace")
    if wanted == "json":
        try:
            return msgspec.json.decode(data)
        except msgspec.DecodeError as error:
            raise ValueError(f"the value is not JSON: {error}") from None
    check_type(wanted)
    return data
