"""A value that comes bit by bit, cut into chunks while it comes: a large one is never in memory in one piece."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

from kvnet.core.entries import INLINE_VALUE_BYTES_MAX
from kvnet.core.manifest import CHUNK_BYTES, Manifest, hash_chunk
from kvnet.errors import RequestError

UNDER_WAY_MAX: Final = 8
"""Large values that a node takes at once, each in its memory until the coordinator's disk has it."""
BUSY: Final = 20012
"""API code: this node has too many writes under way."""


class LargeValue(NamedTuple):
    """A value that is too long for its entry, and what the entry carries in its place."""

    manifest: Manifest
    chunks: list[bytes]
    """Their data, in order."""


class LargeRoom:
    """How many large values may still come in."""

    def __init__(self, count_max: int = UNDER_WAY_MAX) -> None:
        self._count_max = count_max
        self._count = 0

    @property
    def count(self) -> int:
        """How many are under way."""
        return self._count

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Inside, one more is under way.

        Raises:
            RequestError: too many are.
        """
        if self._count >= self._count_max:
            text = f"this node has {self._count_max} large writes under way; try again in a second"
            raise RequestError(503, BUSY, text, headers={"Retry-After": "1"})
        self._count += 1
        try:
            yield
        finally:
            self._count -= 1


class Pieces:
    """What has come of a value so far."""

    def __init__(self) -> None:
        self.size = 0
        self._rest = bytearray()
        self._chunks: list[bytes] = []
        self._hashes: list[bytes] = []

    def add(self, data: bytes | memoryview) -> None:
        self.size += len(data)
        self._rest += data
        start = 0
        with memoryview(self._rest) as view:
            while len(view) - start >= CHUNK_BYTES:
                self._cut(bytes(view[start : start + CHUNK_BYTES]))
                start += CHUNK_BYTES
        if start:
            del self._rest[:start]

    def _cut(self, chunk: bytes) -> None:
        self._chunks.append(chunk)
        self._hashes.append(hash_chunk(chunk))

    def end(self) -> bytes | LargeValue:
        """Return the whole: as it is when its entry can carry it."""
        if self.size <= INLINE_VALUE_BYTES_MAX:
            return bytes(self._rest)
        if self._rest:
            self._cut(bytes(self._rest))
            self._rest.clear()
        return LargeValue(Manifest(self.size, tuple(self._hashes)), self._chunks)


def take_apart(body: bytearray, start: int, end: int) -> bytes | LargeValue:
    """Return the value in `body[start:end]`, which is used up: a large one is cut from its end.

    So that it isn't in memory twice, and in one piece.
    """
    size = end - start
    if size <= INLINE_VALUE_BYTES_MAX:
        return bytes(body[start:end])
    chunks: list[bytes] = []
    for at in reversed(range(start, end, CHUNK_BYTES)):
        with memoryview(body) as view:
            chunks.append(bytes(view[at : min(at + CHUNK_BYTES, end)]))
        del body[at:]
    chunks.reverse()
    return LargeValue(Manifest(size, tuple(map(hash_chunk, chunks))), chunks)
