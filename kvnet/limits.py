"""The limits profiles: what a key, a value and a writer may be. Sizes in bytes, times in the named unit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace

from kvnet.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """One profile, each field settable alone."""

    key_bytes_max: int = 2048
    """UTF-8 bytes of a key; the storage's own ceiling is 2,048."""
    value_bytes_max: int = 65_536
    """Bytes of a value."""
    metadata_bytes_max: int = 1024
    """Bytes of a pair's metadata as compact JSON."""
    ttl_seconds_min: int = 60
    """The shortest time to live, and the nearest expiration, in seconds."""
    write_interval_ms: int = 1000
    """Least time between two accepted writes of one key; 0 turns the limit off."""

    def as_dict(self) -> dict[str, int]:
        return asdict(self)


PROFILES: dict[str, Limits] = {
    "workers-kv-2018": Limits(),
    "workers-kv": Limits(key_bytes_max=512, value_bytes_max=26_214_400),
}

KEY_BYTES_CEILING = 2048


def profile(name: str) -> Limits:
    """Return the named profile.

    Raises:
        ConfigError: no profile has this name.
    """
    try:
        return PROFILES[name]
    except KeyError:
        known = ", ".join(sorted(PROFILES))
        raise ConfigError(f"unknown limits profile {name!r}: choose one of {known}") from None


def with_overrides(limits: Limits, overrides: Mapping[str, object]) -> Limits:
    """Return `limits` with single fields replaced.

    Raises:
        ConfigError: an unknown field, or a value out of its range.
    """
    known = {field.name for field in fields(Limits)}
    checked: dict[str, int] = {}
    for name, value in overrides.items():
        if name not in known:
            raise ConfigError(f"unknown limit {name!r}: choose one of {', '.join(sorted(known))}")
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise ConfigError(f"limit {name} must be a whole number of at least 0, not {value!r}")
        checked[name] = value
    result = replace(limits, **checked)
    if not 1 <= result.key_bytes_max <= KEY_BYTES_CEILING:
        raise ConfigError(f"limit key_bytes_max must be between 1 and {KEY_BYTES_CEILING}")
    return result
