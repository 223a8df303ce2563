"""What frames add up to, in memory: records, digests, and what is counted beside them; and the body of a page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple, assert_never
from zlib import crc32

import msgpack

from kvnet.core.catalog import NAMESPACE_PREFIX, Namespace, read_item
from kvnet.core.entries import (
    DIGEST_MODULUS,
    NAMESPACE_ID_BYTES,
    SYSTEM_NAMESPACE,
    Delete,
    Entry,
    Epoch,
    Put,
    PutLarge,
    record_hash,
)
from kvnet.core.manifest import Manifest
from kvnet.core.versions import Version
from kvnet.errors import Divergence, PageDamaged

Place = tuple[bytes, bytes]
"""Namespace and key."""


class Record(NamedTuple):
    """A stored record, as the writer and the checkers read it."""

    value: bytes
    metadata: bytes
    expires_at: int
    version: Version
    hash: bytes
    large: bool = False
    """Whether the value is a manifest."""


class Records:
    """What frames add up to: records by namespace, the catalogue's namespaces, the digests."""

    def __init__(self) -> None:
        self.by_namespace: dict[bytes, dict[bytes, Record]] = {SYSTEM_NAMESPACE: {}}
        self.namespaces: dict[bytes, Namespace] = {}
        self.digest = 0
        self.digests: dict[bytes, int] = {SYSTEM_NAMESPACE: 0}
        self.expiring: dict[Place, int] = {}
        """By place, when a record isn't there any more, in Unix seconds; of those that say so."""
        self.named: Counter[bytes] = Counter()
        """Chunks, by how many records name them."""

    def copied(self) -> Records:
        other = Records()
        other.by_namespace = {namespace: held.copy() for namespace, held in self.by_namespace.items()}
        other.namespaces = self.namespaces.copy()
        other.digest = self.digest
        other.digests = self.digests.copy()
        other.expiring = self.expiring.copy()
        other.named = self.named.copy()
        return other

    def take(self, entry: Entry, version: Version, *, lenient: bool = False) -> None:
        """Fold an entry in; `lenient` onto records that came with pages (storage/successor.py)."""
        match entry:
            case Put(namespace, key, value, metadata, expires_at, digest):
                self._put(namespace, key, Record(value, metadata, expires_at, version, digest), lenient=lenient)
            case PutLarge(namespace, key, manifest, metadata, expires_at, digest):
                record = Record(manifest, metadata, expires_at, version, digest, large=True)
                self._put(namespace, key, record, lenient=lenient)
            case Delete(namespace, key):
                removed = self.by_namespace.get(namespace, {}).pop(key, None)
                if removed is not None:
                    assert lenient or removed.version.seq < version.seq, "an entry removes a newer one"
                    self._forget(namespace, key, removed)
                    self._add(namespace, -number_of(removed.hash))
                is_item = namespace == SYSTEM_NAMESPACE and key.startswith(NAMESPACE_PREFIX)
                if is_item and (removed is not None or lenient):
                    self._drop(bytes.fromhex(key.removeprefix(NAMESPACE_PREFIX).decode()))
            case Epoch():
                pass
            case _:
                assert_never(entry)

    def _put(self, namespace: bytes, key: bytes, record: Record, *, lenient: bool) -> None:
        held = self.by_namespace.get(namespace)
        if held is None:
            if lenient:
                return
            raise Divergence(f"namespace {namespace.hex()} doesn't exist here")
        replaced = held.get(key)
        assert lenient or replaced is None or replaced.version.seq < record.version.seq, "a newer one is replaced"
        held[key] = record
        if replaced is not None:
            self._forget(namespace, key, replaced)
        if record.expires_at:
            self.expiring[namespace, key] = record.expires_at
        if record.large:
            self.named.update(Manifest.unpack(record.value).chunks)
        self._add(namespace, number_of(record.hash) - (number_of(replaced.hash) if replaced else 0))
        if namespace == SYSTEM_NAMESPACE:
            item = read_item(key, record.value)
            if isinstance(item, Namespace):
                self.namespaces[item.id] = item
                self.open(item.id)

    def open(self, namespace: bytes) -> dict[bytes, Record]:
        """Return a namespace's records; it exists afterwards."""
        self.digests.setdefault(namespace, 0)
        return self.by_namespace.setdefault(namespace, {})

    def _forget(self, namespace: bytes, key: bytes, record: Record) -> None:
        """A record is gone, with its time and the references that it held."""
        if record.expires_at:
            del self.expiring[namespace, key]
        if record.large:
            for name in Manifest.unpack(record.value).chunks:
                self.named[name] -= 1
                assert self.named[name] >= 0, "a chunk that fewer records name than none"
                if not self.named[name]:
                    del self.named[name]

    def _drop(self, namespace: bytes) -> None:
        held = self.by_namespace.pop(namespace, None)
        if held is not None:
            for key, record in held.items():
                self._forget(namespace, key, record)
            self.namespaces.pop(namespace, None)
            self.digest = (self.digest - self.digests.pop(namespace)) % DIGEST_MODULUS

    def add_record(self, namespace: bytes, key: bytes, record: Record) -> None:
        """Add one that came with a page, where there is none."""
        self.open(namespace)
        self._put(namespace, key, record, lenient=True)

    def _add(self, namespace: bytes, change: int) -> None:
        self.digests[namespace] = (self.digests[namespace] + change) % DIGEST_MODULUS
        self.digest = (self.digest + change) % DIGEST_MODULUS

    def places(self) -> Iterator[tuple[bytes, Record]]:
        """Yield (namespace ‖ key, record) in the order of places."""
        for namespace in sorted(self.by_namespace):
            for key in sorted(self.by_namespace[namespace]):
                yield namespace + key, self.by_namespace[namespace][key]


def pack_page(found: Sequence[tuple[bytes, Record]]) -> bytes:
    """Return a page's body: (namespace ‖ key, record) each, and a checksum before them."""
    packed: bytes = msgpack.packb([[place, *record[:3], *record.version, *record[4:]] for place, record in found])
    return crc32(packed).to_bytes(4, "big") + packed


def unpack_page(body: bytes) -> list[tuple[bytes, Record]]:
    """Read a page's body.

    Raises:
        PageDamaged: it was altered on its way, or a record in it isn't what its hash says.
    """
    packed = body[4:]
    if crc32(packed) != int.from_bytes(body[:4], "big"):
        raise PageDamaged("a page that was altered on its way")
    found = [
        (place, Record(value, metadata, expires_at, Version(epoch, seq), hash_, large))
        for place, value, metadata, expires_at, epoch, seq, hash_, large in msgpack.unpackb(packed)
    ]
    for place, record in found:
        namespace, key = place[:NAMESPACE_ID_BYTES], place[NAMESPACE_ID_BYTES:]
        of = record.value, record.metadata, record.expires_at, *record.version
        if record_hash(namespace, key, *of, large=record.large) != record.hash:
            raise PageDamaged(f"the record of {key!r} isn't what its hash says")
    return found


def number_of(digest: bytes) -> int:
    return int.from_bytes(digest, "big")
