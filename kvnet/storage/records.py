"""A stored record's bytes, the same at every node: what a page carries is what lies on the disk.

    kind u8 | epoch u32 | seq u64 | hash 16 [| expires at u64] [| metadata length u32 | metadata] | value | crc u32

The kind is 0x80 and flags: which of the optional fields are there, and whether the value is a manifest. The
checksum is over key and record, so that flipped bits, also a key's, show at every read. It is stored little
endian behind what it covers: the CRC-32 of the whole is then a constant, and checking it takes no copy.
"""

from __future__ import annotations

import struct
from typing import Final
from zlib import crc32

from msgspec import Struct

from kvnet.core.entries import HASH_BYTES
from kvnet.core.manifest import Manifest
from kvnet.core.versions import Version
from kvnet.errors import ProtocolError, StorageDamaged

PLAIN: Final = 0x80
EXPIRES: Final = 1
METADATA: Final = 2
LARGE: Final = 4
KINDS: Final = frozenset(range(PLAIN, PLAIN + 8))

_HEADER = struct.Struct(f">BIQ{HASH_BYTES}s")
_EXPIRES = struct.Struct(">Q")
_METADATA = struct.Struct(">I")
HEADER_BYTES: Final = _HEADER.size
CHECKSUM_BYTES: Final = 4
OVERHEAD_BYTES: Final = HEADER_BYTES + CHECKSUM_BYTES
"""What a record without metadata and expiry has beside its value."""
RESIDUE: Final = 0x2144DF1C
"""The CRC-32 of anything that its own CRC-32 follows, little endian."""

_pack_header = _HEADER.pack
_read_header: Final = _HEADER.unpack_from
read_version: Final = struct.Struct(">xIQ").unpack_from
PLAIN_VALUE: Final = slice(HEADER_BYTES, -CHECKSUM_BYTES)
"""Where a record without metadata and expiry has its value."""


class StoredRecord(Struct, frozen=True, gc=False):
    """One record as it lies on the disk; whether it has expired is its reader's business.

    A struct, since every read makes one, and a NamedTuple takes three times as long. What few readers want is read
    from its bytes when they do.
    """

    value: bytes
    """A large value's manifest, packed."""
    metadata: bytes
    """Compact JSON, or b"" for none."""
    expires_at: int
    """Unix seconds, 0 for never."""
    stored: bytes
    """The whole of it."""

    @property
    def version(self) -> Version:
        return Version(*read_version(self.stored))

    @property
    def epoch(self) -> int:
        return self.version.epoch

    @property
    def seq(self) -> int:
        return self.version.seq

    @property
    def hash(self) -> bytes:
        return self.stored[HEADER_BYTES - HASH_BYTES : HEADER_BYTES]

    @property
    def large(self) -> bool:
        """Whether the value is a manifest."""
        return bool(self.stored[0] & LARGE)


def pack_record(
    key: bytes,
    value: bytes,
    metadata: bytes,
    expires_at: int,
    epoch: int,
    seq: int,
    record_hash: bytes,
    *,
    large: bool = False,
) -> bytes:
    """Return a record's bytes; TypeError, ValueError or struct.error if a field can't be one of a record."""
    kind = PLAIN
    between = b""
    if expires_at < 0:
        raise ValueError("an expiry before 1970")
    if expires_at:
        kind |= EXPIRES
        between = _EXPIRES.pack(expires_at)
    if metadata:
        kind |= METADATA
        between += _METADATA.pack(len(metadata))
    if large:
        kind |= LARGE
    body = _pack_header(kind, epoch, seq, record_hash) + between + metadata + value
    return body + crc32(body, crc32(key)).to_bytes(CHECKSUM_BYTES, "little")


def is_whole(key: bytes, stored: bytes | memoryview) -> bool:
    """Whether these are the bytes that were written for this key."""
    return crc32(stored, crc32(key)) == RESIDUE and len(stored) >= OVERHEAD_BYTES and stored[0] in KINDS


def read_record(key: bytes, stored: bytes) -> StoredRecord:
    """Read a record, from bytes: below 64 KiB that is faster than from a view into the map.

    Raises:
        StorageDamaged: it isn't what was written here.
    """
    if crc32(stored, crc32(key)) != RESIDUE:
        raise damaged(key)
    if stored[0] == PLAIN:
        return StoredRecord(stored[PLAIN_VALUE], b"", 0, stored)
    expires_at, metadata, value_at = read_optional(key, stored)
    return StoredRecord(stored[value_at:-CHECKSUM_BYTES], metadata, expires_at, stored)


def read_listed(key: bytes, stored: memoryview) -> tuple[int, bytes]:
    """Return (expires_at, metadata) without looking at the value.

    Raises:
        StorageDamaged: it isn't what was written here.
    """
    if crc32(stored, crc32(key)) != RESIDUE:
        raise damaged(key)
    if stored[0] == PLAIN:
        return 0, b""
    return read_optional(key, stored)[:2]


class Replaced(Struct, frozen=True, gc=False):
    """What whoever replaces or removes a record needs of it."""

    seq: int
    hash: int
    """As a number, to be subtracted from a digest."""
    size: int
    """Bytes of metadata and value, a large value's own size."""
    expires_at: int
    large: bytes
    """A large value's manifest, packed; b"" for any other."""


def read_replaced(key: bytes, stored: bytes) -> Replaced:
    """Read what is replaced, unchecked but for its shape: it is on its way out.

    Raises:
        StorageDamaged: it isn't a record.
    """
    try:
        kind, _, seq, record_hash = _read_header(stored)
    except struct.error:
        raise damaged(key) from None
    number = int.from_bytes(record_hash, "big")
    if kind == PLAIN:
        return Replaced(seq, number, len(stored) - OVERHEAD_BYTES, 0, b"")
    expires_at, metadata, value_at = read_optional(key, stored)
    if not kind & LARGE:
        return Replaced(seq, number, len(metadata) + len(stored) - CHECKSUM_BYTES - value_at, expires_at, b"")
    manifest = stored[value_at:-CHECKSUM_BYTES]
    try:
        size = Manifest.unpack(manifest).size
    except ProtocolError:
        raise damaged(key) from None
    return Replaced(seq, number, len(metadata) + size, expires_at, manifest)


def read_hash(stored: bytes | memoryview) -> int:
    """Return a record's hash as a number, to be added to a digest."""
    return int.from_bytes(stored[HEADER_BYTES - HASH_BYTES : HEADER_BYTES], "big")


def read_expiry(stored: bytes | memoryview) -> int:
    """Return when a record expires, 0 for never; also of what isn't a record, as whoever reads it will notice."""
    if len(stored) < OVERHEAD_BYTES + _EXPIRES.size or stored[0] not in KINDS or not stored[0] & EXPIRES:
        return 0
    expires_at: int = _EXPIRES.unpack_from(stored, HEADER_BYTES)[0]
    return expires_at


def damaged(key: bytes) -> StorageDamaged:
    return StorageDamaged(f"the record of {key[:64]!r} isn't what was written: this replica must be made anew")


def read_optional(key: bytes, stored: bytes | memoryview) -> tuple[int, bytes, int]:
    """Return (expires_at, metadata, where the value begins) of a record whose checksum was looked at.

    Raises:
        StorageDamaged: it isn't a record.
    """
    kind = stored[0]
    if kind not in KINDS:
        raise damaged(key)
    at, expires_at, metadata = HEADER_BYTES, 0, b""
    try:
        if kind & EXPIRES:
            (expires_at,) = _EXPIRES.unpack_from(stored, at)
            at += _EXPIRES.size
        if kind & METADATA:
            (size,) = _METADATA.unpack_from(stored, at)
            at += _METADATA.size
            metadata = bytes(stored[at : at + size])
            at += size
    except struct.error:
        raise damaged(key) from None
    if at > len(stored) - CHECKSUM_BYTES:
        raise damaged(key)
    return expires_at, metadata, at
