"""Frames of small puts, cut as a coordinator cuts them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Final

from kvnet.core.catalog import CatalogItem, Namespace, key_of, value_of
from kvnet.core.entries import DIGEST_MODULUS, HASH_BYTES, SYSTEM_NAMESPACE, Entry, Epoch, Put, record_hash
from kvnet.core.frames import Frame, cut_frame
from kvnet.core.versions import GENESIS

NAMESPACE: Final = Namespace(b"n" * 16, "bench", 0)


class History:
    """One epoch of one namespace; it keeps the hash of each record, as the digest needs it."""

    def __init__(self, value_bytes: int, *, text: bool = False) -> None:
        """Values are of so many random bytes, or of as many characters."""
        self._value_bytes = value_bytes
        self._text = text
        self._random = random.Random(1)
        self._position = GENESIS
        self._digest = 0
        self._hashes: dict[bytes, int] = {}

    def begin(self, *more: CatalogItem) -> Frame:
        """Return the first frame: the epoch's, the namespace's, and what else is to be in the catalogue."""
        items = (NAMESPACE, *more)
        puts = [self._put(SYSTEM_NAMESPACE, key_of(item), value_of(item), 2 + at) for at, item in enumerate(items)]
        return self._cut([Epoch(1, bytes(16)), *puts])

    def puts(self, keys: Sequence[bytes], *, expires_at: int = 0) -> Frame:
        """Return a frame that puts these keys."""
        seq = self._position.seq + 1
        value = self._random.randbytes(self._value_bytes)
        if self._text:
            value = value.hex()[: self._value_bytes].encode()
        return self._cut(
            [self._put(NAMESPACE.id, key, value, seq + at, expires_at) for at, key in enumerate(keys)]
        )

    def _put(self, namespace: bytes, key: bytes, value: bytes, seq: int, expires_at: int = 0) -> Put:
        added = record_hash(namespace, key, value, b"", expires_at, 1, seq)
        number = int.from_bytes(added, "big")
        self._digest = (self._digest + number - self._hashes.get(key, 0)) % DIGEST_MODULUS
        self._hashes[key] = number
        return Put(namespace, key, value, b"", expires_at, added)

    def _cut(self, entries: list[Entry]) -> Frame:
        frame = cut_frame(
            epoch=1,
            first_seq=self._position.seq + 1,
            stamp=1,
            chain_before=self._position.chain,
            digest_after=self._digest.to_bytes(HASH_BYTES, "big"),
            entries=entries,
        )
        self._position = frame.position
        return frame
