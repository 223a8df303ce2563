"""A large value as an answer's body: read from the store chunk by chunk, as fast as the client takes it."""

from __future__ import annotations

import asyncio

from aiohttp.abc import AbstractStreamWriter
from aiohttp.payload import Payload

from kvnet.api.backend import Backend
from kvnet.core.manifest import CHUNK_BYTES, Manifest
from kvnet.errors import StorageDamaged, StorageError


class ChunkedValue(Payload):
    """The value that a manifest tells of. Its chunks stay here for an hour, whatever is written meanwhile."""

    def __init__(self, backend: Backend, packed: bytes, first: int, end: int) -> None:
        """Begin before anything is sent: a value that isn't whole here is an error, not a short answer.

        What is sent is its bytes from `first` up to `end`.

        Raises:
            StorageDamaged: a chunk isn't here.
        """
        manifest = Manifest.unpack(packed)
        chunks = manifest.chunks[first // CHUNK_BYTES : -(-end // CHUNK_BYTES)]
        missing = backend.store.lacking_chunks(chunks)
        if missing:
            raise _gone(missing[0])
        super().__init__(manifest)
        self._backend = backend
        self._size = end - first
        self._chunks = chunks
        self._skipped = first % CHUNK_BYTES

    async def write(self, writer: AbstractStreamWriter) -> None:
        """Send it all.

        Raises:
            ConnectionAbortedError: a chunk can't be read any more; the client sees its answer end early.
        """
        skipped, left = self._skipped, self._size or 0
        for name in self._chunks:
            try:
                data = self._backend.store.chunk(name)
                if data is None:
                    raise _gone(name)
            except StorageDamaged as damage:
                self._backend.damaged(damage)
                raise ConnectionAbortedError(str(damage)) from damage
            except StorageError as error:
                raise ConnectionAbortedError(str(error)) from error
            data = data[skipped : skipped + left]
            skipped, left = 0, left - len(data)
            await writer.write(data)
            await asyncio.sleep(0)  # a client that takes everything at once must not keep the others waiting

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:  # noqa: ARG002 - aiohttp's own
        raise TypeError("a large value is sent, never held")


def read_whole(backend: Backend, packed: bytes) -> bytes:
    """Return the value that a manifest tells of, in one piece: for answers that are bounded by their own limit.

    Raises:
        StorageDamaged: a chunk isn't here.
    """
    chunks: list[bytes] = []
    for name in Manifest.unpack(packed).chunks:
        data = backend.store.chunk(name)
        if data is None:
            raise _gone(name)
        chunks.append(data)
    return b"".join(chunks)


def _gone(name: bytes) -> StorageDamaged:
    text = f"the chunk {name[:8].hex()} of a large value is gone: this replica must be made anew"
    return StorageDamaged(text)
