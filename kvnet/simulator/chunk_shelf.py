"""Chunks on a simulated disk: one that no record names is kept for a while, as storage/chunks.py keeps it."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final

from kvnet.core.manifest import hash_chunk

CHUNK_LIFE_MS: Final = 3_600_000.0


class ChunkShelf:
    """Chunks by name, and since when no record has named each that none does."""

    def __init__(self, life_ms: float = CHUNK_LIFE_MS) -> None:
        self.life_ms = life_ms
        self.data: dict[bytes, bytes] = {}
        self.idle_since: dict[bytes, float] = {}

    def __contains__(self, name: bytes) -> bool:
        return name in self.data

    def put(self, name: bytes, data: bytes, now_ms: float, named: Collection[bytes]) -> bool:
        """Keep a chunk, its time beginning anew if no record names it; return whether it is what its name says."""
        if hash_chunk(data) != name:
            return False
        self.data[name] = data
        if name not in named:
            self.idle_since[name] = now_ms
        return True

    def touch(self, names: Iterable[bytes]) -> None:
        """A record names these: their time begins when none does any more."""
        for name in names:
            self.idle_since.pop(name, None)

    def lacking(self, hashes: Iterable[bytes]) -> list[bytes]:
        return [name for name in dict.fromkeys(hashes) if name not in self.data]

    def collect(self, now_ms: float, *named: Collection[bytes]) -> None:
        """Forget those that none of these has named for too long."""
        for name in list(self.data):
            if any(name in names for names in named):
                self.idle_since.pop(name, None)
            elif self.idle_since.setdefault(name, now_ms) + self.life_ms <= now_ms:
                del self.data[name], self.idle_since[name]

    def copied(self) -> ChunkShelf:
        other = ChunkShelf(self.life_ms)
        other.data, other.idle_since = self.data.copy(), self.idle_since.copy()
        return other
