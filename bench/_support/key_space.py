"""A large key space, made instead of written: records in key order, as the pages of a snapshot.

Key number n of the one namespace is n in 16 hex digits, so that any of them can be asked for; its value is taken
from a pool of random bytes.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from kvnet.core.catalog import CatalogItem, Namespace, key_of, value_of
from kvnet.core.entries import DIGEST_MODULUS, HASH_BYTES, SYSTEM_NAMESPACE, record_hash
from kvnet.core.messages import Page
from kvnet.core.versions import CHAIN_BYTES, Position
from kvnet.storage.pages import pack
from kvnet.storage.records import pack_record

PAGE_RECORDS: Final = 1500
_POOL_BYTES: Final = 65_536

NAMESPACE: Final = Namespace(b"n" * 16, "scale", 0)


def key_of_number(number: int) -> bytes:
    return b"%016x" % number


@dataclass(frozen=True, slots=True)
class KeySpace:
    """`count` keys of one namespace, at one position that an epoch's first frame could lead to."""

    count: int
    value_bytes: int = 32
    catalogue: Sequence[CatalogItem] = (NAMESPACE,)
    """What the system namespace holds besides nothing; the namespace itself must be in it."""

    @property
    def position(self) -> Position:
        return Position(1, self.count + len(self.catalogue) + 1, b"s" * CHAIN_BYTES)

    @property
    def page_count(self) -> int:
        return 1 + -(-self.count // PAGE_RECORDS)

    def pages(self) -> Iterator[tuple[Page, int]]:
        """Yield each page with the sum of the hashes of its records; the sum over all is the digest."""
        system = sorted((key_of(item), value_of(item)) for item in self.catalogue)
        after = b""
        records, total = [], 0
        for seq, (key, value) in enumerate(system, 2):
            stored, number = _stored(SYSTEM_NAMESPACE, key, value, seq)
            records.append((key, stored))
            total += number
        until = SYSTEM_NAMESPACE + system[-1][0]
        yield self._page(after, until, SYSTEM_NAMESPACE, records), total
        pool = random.Random(1).randbytes(_POOL_BYTES + self.value_bytes)
        first_seq = 2 + len(system)
        for start in range(0, self.count, PAGE_RECORDS):
            after = until
            records, total = [], 0
            for number in range(start, min(start + PAGE_RECORDS, self.count)):
                key, at = key_of_number(number), number * 7919 % _POOL_BYTES
                stored, added = _stored(NAMESPACE.id, key, pool[at : at + self.value_bytes], first_seq + number)
                records.append((key, stored))
                total += added
            last = start + PAGE_RECORDS >= self.count
            until = b"" if last else NAMESPACE.id + records[-1][0]
            yield self._page(after, until, NAMESPACE.id, records), total

    def _page(self, after: bytes, until: bytes, namespace: bytes, records: list[tuple[bytes, bytes]]) -> Page:
        # No page but the last is read for its digest, and that is told when all are there.
        return Page(self.position, bytes(HASH_BYTES), after, until, pack([(namespace, records)]))


def _stored(namespace: bytes, key: bytes, value: bytes, seq: int) -> tuple[bytes, int]:
    added = record_hash(namespace, key, value, b"", 0, 1, seq)
    return pack_record(key, value, b"", 0, 1, seq, added), int.from_bytes(added, "big") % DIGEST_MODULUS
