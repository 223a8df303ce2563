"""A stored record's bytes: a fixed header, then metadata, then value.

epoch u32 | seq u64 | expires at u64 (Unix seconds, 0 for never) | metadata length u32 | hash 16 | metadata | value
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from kvnet.core.entries import HASH_BYTES
from kvnet.core.versions import Version

_HEADER = struct.Struct(f">IQQI{HASH_BYTES}s")
HEADER_BYTES: Final = _HEADER.size

pack_header: Final = _HEADER.pack
"""(epoch, seq, expires_at, metadata length, hash) -> the header's bytes; for the loop that applies entries."""
read_header: Final = _HEADER.unpack_from
unpack_replaced: Final = struct.Struct(f">4xQ12x{HASH_BYTES}s").unpack_from
"""(seq, hash) of a stored record: all that whoever replaces it needs."""
_new: Final = tuple.__new__


class StoredRecord(NamedTuple):
    """One record as it lies on the disk; whether it has expired is its reader's business."""

    value: bytes
    metadata: bytes
    """Compact JSON, or b"" for none."""
    expires_at: int
    """Unix seconds, 0 for never."""
    version: Version
    hash: bytes


def read_record(stored: bytes) -> StoredRecord:
    epoch, seq, expires_at, metadata_bytes, record_hash = read_header(stored)
    value_at = HEADER_BYTES + metadata_bytes
    metadata = stored[HEADER_BYTES:value_at] if metadata_bytes else b""
    # Every read makes these two; past NamedTuple's own __new__ they cost a third of it.
    version = _new(Version, (epoch, seq))
    return _new(StoredRecord, (stored[value_at:], metadata, expires_at, version, record_hash))
