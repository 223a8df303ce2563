"""Large values: what their entry carries instead of them.

    size u64 | hash 32 of each chunk, in order

All chunks but the last have CHUNK_BYTES. A chunk is named by what it holds (SHA-256), so equal chunks are one, a
chunk can be taken from anybody, and whoever has all that a manifest names has the value.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from typing import Final, NamedTuple

from kvnet.core.entries import CHUNK_HASH_BYTES
from kvnet.errors import ProtocolError

CHUNK_BYTES: Final = 256 * 1024
_SIZE_BYTES: Final = 8


class Manifest(NamedTuple):
    """A large value, as its entry tells of it."""

    size: int
    """Bytes of the value."""
    chunks: tuple[bytes, ...]
    """Their hashes, in order."""

    def pack(self) -> bytes:
        return self.size.to_bytes(_SIZE_BYTES, "big") + b"".join(self.chunks)

    @classmethod
    def unpack(cls, packed: bytes) -> Manifest:
        """Read a manifest.

        Raises:
            ProtocolError: it isn't one, or doesn't name as many chunks as its size needs.
        """
        size = int.from_bytes(packed[:_SIZE_BYTES], "big")
        count, rest = divmod(len(packed) - _SIZE_BYTES, CHUNK_HASH_BYTES)
        if count < 1 or rest or count != -(-size // CHUNK_BYTES):
            raise ProtocolError("a manifest that can't be")
        starts = range(_SIZE_BYTES, len(packed), CHUNK_HASH_BYTES)
        return cls(size, tuple(packed[start : start + CHUNK_HASH_BYTES] for start in starts))


def hash_chunk(data: bytes | memoryview) -> bytes:
    return sha256(data).digest()


def split(value: bytes | memoryview) -> Iterator[memoryview]:
    """Yield the value's chunks, as views into it."""
    view = memoryview(value)
    for start in range(0, len(view), CHUNK_BYTES):
        yield view[start : start + CHUNK_BYTES]
