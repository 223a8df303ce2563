"""Pages: stretches of a replica's records in key order, as they travel and as snapshots keep them.

    zstd of msgpack [[namespace 16, [key, stored record, key, stored record, …]], …]

A place is a namespace's id and a key behind it; places are in byte order, so the system namespace, which names
all others, comes first. Records travel as they lie on the disk, checksum and all; whoever gives a page and
whoever takes it both check every one of them, so that what went bad on one disk doesn't get to another. The
compressed page has a checksum as well: a snapshot's pages lie on disks of their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import lmdb
import msgpack
import zstandard

from kvnet.core.entries import NAMESPACE_ID_BYTES
from kvnet.errors import PageDamaged
from kvnet.storage.keys import walk
from kvnet.storage.records import damaged, is_whole
from kvnet.storage.state import Tally

PAGE_BYTES: Final = 32 * 1024
"""Of records, before they are compressed; a page ends behind the record that reaches it."""
PAGE_RECORDS_MAX: Final = 2000
UNPACKED_BYTES_MAX: Final = 4 * 1024 * 1024
"""Larger than any page can be: a record has a value of at most 64 KiB, or a manifest."""
LEVEL: Final = 1

Records = list[tuple[bytes, bytes]]
"""(key, stored record), in key order."""


class Stretch(NamedTuple):
    """What a page holds, and where it ends."""

    groups: list[tuple[bytes, Records]]
    """By namespace."""
    until: bytes
    """The last place; b"" for the end of everything."""


def read_stretch(
    cursor: lmdb.Cursor[memoryview], tallies: Mapping[bytes, Tally], after: bytes, bytes_max: int
) -> Stretch:
    """Return the records behind a place, whatever they are: expired ones are records like any other.

    Raises:
        StorageDamaged: one isn't what was written.
    """
    groups: list[tuple[bytes, Records]] = []
    size = count = 0
    first, start = after[:NAMESPACE_ID_BYTES], after[NAMESPACE_ID_BYTES:] + b"\0"
    for namespace in sorted(tallies):
        if namespace < first:
            continue
        records: Records = []
        for key, view in walk(cursor, tallies[namespace].prefix, start if namespace == first and after else b""):
            stored = bytes(view)
            if not is_whole(key, stored):
                raise damaged(key)
            records.append((key, stored))
            size += len(key) + len(stored)
            count += 1
            if size >= bytes_max or count >= PAGE_RECORDS_MAX:
                return Stretch([*groups, (namespace, records)], namespace + key)
        if records:
            groups.append((namespace, records))
    return Stretch(groups, b"")


def pack(groups: Sequence[tuple[bytes, Records]]) -> bytes:
    """Return a page's body."""
    packed = msgpack.packb(
        [[namespace, [field for pair in pairs for field in pair]] for namespace, pairs in groups]
    )
    return zstandard.ZstdCompressor(level=LEVEL, write_checksum=True).compress(packed)


def unpack(body: bytes) -> list[tuple[bytes, list[bytes], list[bytes]]]:
    """Return (namespace, keys, stored records) for each namespace of a page.

    Raises:
        PageDamaged: it was cut or altered.
    """
    try:
        # What a header promises is allocated, whatever the limit given to `decompress`: it is looked at before.
        if not 0 <= zstandard.frame_content_size(body) <= UNPACKED_BYTES_MAX:
            raise PageDamaged("a page that is larger than pages are")
        packed = zstandard.ZstdDecompressor().decompress(body, allow_extra_data=False)
        return [_read_group(*group) for group in msgpack.unpackb(packed, use_list=True)]
    except (zstandard.ZstdError, ValueError, TypeError, LookupError, msgpack.UnpackException) as error:
        raise PageDamaged(f"a page that can't be read: {error}") from None


def _read_group(namespace: bytes, fields: list[bytes]) -> tuple[bytes, list[bytes], list[bytes]]:
    keys, stored = fields[::2], fields[1::2]
    if not all(isinstance(field, bytes) for field in (namespace, *fields)):
        raise ValueError("a namespace, a key or a record that isn't bytes")
    if len(namespace) != NAMESPACE_ID_BYTES or len(keys) != len(stored):
        raise ValueError("a group that isn't one")
    return namespace, keys, stored
