"""Entries: what the journal says, one change each; and the hash a stored record adds to the digest.

A frame's body is a msgpack array of entries, each an array that starts with its kind. Namespaces, tokens and
members are records of the *system namespace* (see catalog.py), so PUT and DELETE carry them too and the
digest covers them.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any, Final, NamedTuple

from kvnet.errors import ProtocolError

NAMESPACE_ID_BYTES: Final = 16
KEY_BYTES_MAX: Final = 2048
"""No key is longer, whatever the limits say (limits.KEY_BYTES_CEILING)."""
HASH_BYTES: Final = 16
DIGEST_MODULUS: Final = 1 << (8 * HASH_BYTES)
"""A digest is a sum of record hashes, modulo this."""
SYSTEM_NAMESPACE: Final = bytes(NAMESPACE_ID_BYTES)

PUT: Final = 0
DELETE: Final = 1
EPOCH: Final = 2
PUT_LARGE: Final = 3

INLINE_VALUE_BYTES_MAX: Final = 65_536
"""A longer value travels ahead of its entry, as chunks; the entry then carries its manifest (manifest.py)."""
CHUNK_HASH_BYTES: Final = 32


class Put(NamedTuple):
    """The whole pair is replaced at once: value, metadata and expiration."""

    namespace: bytes
    key: bytes
    value: bytes
    metadata: bytes
    """Compact JSON, or b"" for none."""
    expires_at: int
    """Unix seconds, 0 for never."""
    hash: bytes
    """`record_hash` of this entry, made by the coordinator, so that nobody downstream hashes it again."""


class PutLarge(NamedTuple):
    """As Put, of a value that travels in chunks: `manifest` is what the record keeps in its place."""

    namespace: bytes
    key: bytes
    manifest: bytes
    """manifest.Manifest, packed."""
    metadata: bytes
    expires_at: int
    hash: bytes


class Delete(NamedTuple):
    namespace: bytes
    key: bytes


class Epoch(NamedTuple):
    """A new history begins here; only ever the first entry of its epoch's first frame."""

    epoch: int
    nonce: bytes
    """16 random bytes: two coordinators from copies of one disk can't open the same epoch."""


Entry = Put | PutLarge | Delete | Epoch

_HASH_HEAD = struct.Struct(">QIQHI")


_LARGE: Final = 1 << 31


def record_hash(
    namespace: bytes,
    key: bytes,
    value: bytes,
    metadata: bytes,
    expires_at: int,
    epoch: int,
    seq: int,
    *,
    large: bool = False,
) -> bytes:
    """Return the 16 bytes a stored record adds to the digest; every field that a reader sees is in it.

    `large` tells that `value` is a manifest.
    """
    head = _HASH_HEAD.pack(seq, epoch, expires_at, len(key), len(metadata) | _LARGE if large else len(metadata))
    return blake2b(b"".join((head, namespace, key, metadata, value)), digest_size=HASH_BYTES).digest()


def to_wire(entry: Entry) -> list[Any]:
    match entry:
        case Put():
            return [PUT, *entry]
        case PutLarge():
            return [PUT_LARGE, *entry]
        case Delete():
            return [DELETE, *entry]
        case Epoch():
            return [EPOCH, *entry]


def from_wire(fields: Sequence[Any]) -> Entry:
    """Return the entry these fields spell.

    Raises:
        ProtocolError: an unknown kind, or fields of the wrong number or type.
    """
    match fields:
        case [
            0,
            bytes() as namespace,
            bytes() as key,
            bytes() as value,
            bytes() as metadata,
            int() as at,
            bytes() as digest,
        ]:
            if len(namespace) == NAMESPACE_ID_BYTES and len(digest) == HASH_BYTES and at >= 0:
                return Put(namespace, key, value, metadata, at, digest)
        case [
            3,
            bytes() as namespace,
            bytes() as key,
            bytes() as manifest,
            bytes() as metadata,
            int() as at,
            bytes() as digest,
        ]:
            if len(namespace) == NAMESPACE_ID_BYTES and len(digest) == HASH_BYTES and at >= 0:
                return PutLarge(namespace, key, manifest, metadata, at, digest)
        case [1, bytes() as namespace, bytes() as key]:
            if len(namespace) == NAMESPACE_ID_BYTES:
                return Delete(namespace, key)
        case [2, int() as epoch, bytes() as nonce]:
            return Epoch(epoch, nonce)
        case _:
            pass
    raise ProtocolError("an entry of an unknown kind or shape")
