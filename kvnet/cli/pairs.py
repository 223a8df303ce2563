"""Pairs as lines of JSON, with the fields of the API's bulk put: what `export` writes and `import` reads.

    {"key": "theme", "value": "dark"}
    {"key": "logo", "value": "iVBORw==", "base64": true, "metadata": {"by": "ana"}, "expiration": 1893456000}

Metadata travels as it is spelled: a number that Python would round stays what it was.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator
from itertools import chain
from typing import Any, BinaryIO, Final

import msgspec

from kvnet.client import Value
from kvnet.client.wire import spelled
from kvnet.errors import ConfigError
from kvnet.limits import Limits

TIME_S_MAX: Final = 99_999_999_999
"""The latest expiration that the API takes; a time in milliseconds is beyond it."""
SHOWN_CHARACTERS: Final = 60
_ENCODER: Final = msgspec.json.Encoder()


class Pair(msgspec.Struct, frozen=True, kw_only=True):
    """One pair, checked."""

    where: str
    """`line 7` of what was read."""
    key: str
    value: bytes
    metadata: msgspec.Raw | None
    """JSON; None for none."""
    expiration: int | None
    """Unix seconds; None for never."""
    ttl: int | None
    """Seconds from the moment it is stored; wins over `expiration`."""

    def ends_before(self, time_s: float) -> bool:
        """Whether it is expired by then."""
        return self.ttl is None and self.expiration is not None and self.expiration <= time_s


class _Line(msgspec.Struct, forbid_unknown_fields=True):
    key: str
    value: str
    base64: bool = False
    metadata: msgspec.Raw = msgspec.Raw(b"null")
    expiration: int | None = None
    expiration_ttl: int | None = None


_DECODER: Final = msgspec.json.Decoder(_Line)


def write_pair(key: str, found: Value[str] | Value[bytes]) -> bytes:
    """Return the line of a pair, with its end."""
    value = found.value
    assert value is not None, "a pair that isn't there"
    line: dict[str, Any] = {"key": key, **spelled(value.encode() if isinstance(value, str) else value)}
    if found.metadata_json != b"null":
        line["metadata"] = msgspec.Raw(found.metadata_json)
    if found.expires_at is not None:
        line["expiration"] = found.expires_at
    return _ENCODER.encode(line) + b"\n"


def read_pairs(source: BinaryIO, limits: Limits) -> Iterator[Pair]:
    """Yield the pairs of JSON lines, one at a time, or of a JSON array, which is read whole.

    Raises:
        ConfigError: one can't be stored; says where it stands and what to do about it.
    """
    lines = iter(source)
    number = 0
    for line in lines:
        number += 1
        if not line.strip():
            continue
        if line.lstrip().startswith(b"["):
            rest = b"".join(chain([line], lines))
            for index, each in enumerate(_entries(rest), start=1):
                yield read_pair(each, f"entry {index}", limits)
            return
        yield read_pair(line, f"line {number}", limits)
        break
    for line in lines:
        number += 1
        if line.strip():
            yield read_pair(line, f"line {number}", limits)


def _entries(document: bytes) -> list[msgspec.Raw]:
    try:
        return msgspec.json.decode(document, type=list[msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"the JSON array can't be read ({error}): write one object a line, or a whole array"
        ) from None


def read_pair(line: bytes | msgspec.Raw, where: str, limits: Limits) -> Pair:
    """Return the pair that an object tells.

    Raises:
        ConfigError: it can't be stored; says where it stands and what to do about it.
    """
    try:
        told = _DECODER.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(
            f'{where}: {_in_words(error)}; write {{"key": "…", "value": "…"}}, and if there is any, '
            '"base64", "metadata", "expiration" or "expiration_ttl"'
        ) from None
    _check_key(told.key, where, limits)
    _check_time(told, where, limits)
    return Pair(
        where=f"{where}, key {_short(told.key)}",
        key=told.key,
        value=_value(told, where, limits),
        metadata=_metadata(told.metadata, where, limits),
        expiration=told.expiration,
        ttl=told.expiration_ttl,
    )


def _in_words(error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return "it is not UTF-8"
    if isinstance(error, RecursionError):
        return "it is nested too deep"
    return str(error).replace(" - at `$.", " in `").replace("JSON is malformed: ", "not JSON: ")


def _check_key(key: str, where: str, limits: Limits) -> None:
    size = len(key.encode())
    if not 1 <= size <= limits.key_bytes_max:
        raise ConfigError(f"{where}: the key has {size} bytes: this network takes 1 to {limits.key_bytes_max}")
    if key in {".", ".."}:
        raise ConfigError(f"{where}: the key {key!r} is not allowed: give it another name")


def _check_time(told: _Line, where: str, limits: Limits) -> None:
    ttl, expiration = told.expiration_ttl, told.expiration
    if ttl is not None and not limits.ttl_seconds_min <= ttl <= TIME_S_MAX:
        least = limits.ttl_seconds_min
        raise ConfigError(f"{where}: expiration_ttl is {ttl}: write seconds, at least {least}")
    if expiration is not None and not 0 < expiration <= TIME_S_MAX:
        raise ConfigError(f"{where}: expiration is {expiration}: write Unix seconds, not milliseconds")


def _value(told: _Line, where: str, limits: Limits) -> bytes:
    if told.base64:
        try:
            value = base64.b64decode(told.value, validate=True)
        except (binascii.Error, ValueError) as error:
            raise ConfigError(
                f'{where}: the value is not base64 ({error}): encode it, or leave "base64" out'
            ) from None
    else:
        value = told.value.encode()
    if len(value) > limits.value_bytes_max:
        raise ConfigError(
            f"{where}: the value has {len(value)} bytes, this network takes {limits.value_bytes_max}: "
            "leave it out, or start the network with other --limits"
        )
    return value


def _metadata(raw: msgspec.Raw, where: str, limits: Limits) -> msgspec.Raw | None:
    try:
        compact = msgspec.json.format(bytes(raw), indent=-1)
        msgspec.json.decode(compact)  # formatting looks at the punctuation only
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{where}: the metadata can't be read ({error}): write any JSON value") from None
    if len(compact) > limits.metadata_bytes_max:
        raise ConfigError(
            f"{where}: the metadata has {len(compact)} bytes, this network takes {limits.metadata_bytes_max}: "
            "keep it in the value"
        )
    return None if compact == b"null" else msgspec.Raw(compact)


def _short(key: str) -> str:
    """Return a key as an error may repeat it."""
    return json.dumps(key if len(key) <= SHOWN_CHARACTERS else key[:SHOWN_CHARACTERS] + "…", ensure_ascii=False)
