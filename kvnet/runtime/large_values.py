"""Large values at the coordinator: their chunks are durable and offered to all before their entry is sequenced.

Chunks are stored a few at a time by the committing thread, between two commits, so that small writes wait for one
such bite at most. Nobody sees anything of a value before its entry; chunks whose entry never comes are forgotten
after an hour.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, Protocol

from kvnet.core.events import ChunksReady
from kvnet.core.manifest import CHUNK_BYTES, Manifest
from kvnet.core.messages import OFFER_ID_BYTES
from kvnet.core.operations import PutLargeValue
from kvnet.core.versions import Version
from kvnet.errors import ProtocolError, RequestError, StorageFull
from kvnet.runtime.group_commit import DISK_FULL, NOT_OPEN, GroupCommit

BITE_CHUNKS: Final = 4
"""Chunks of one transaction, 1 MiB. More: fewer fsyncs for a value, longer waits for the small writes between."""


class ChunkStore(Protocol):
    """`storage.store.Store`, as far as it is known here."""

    def put_chunks(self, stored: Sequence[tuple[bytes, bytes]]) -> None: ...
    def lacking_chunks(self, names: Sequence[bytes]) -> list[bytes]: ...


class LargeValues:
    """Takes large values, and answers each when its entry is durable."""

    def __init__(self, commit: GroupCommit, store: ChunkStore, *, feed: Callable[[ChunksReady], None]) -> None:
        """`feed` tells the protocol what to offer; it says by `settle` when all who answer hold it."""
        self._commit = commit
        self._store = store
        self._feed = feed
        self._offered: dict[bytes, asyncio.Future[None]] = {}
        self._closed = False

    async def write(self, operation: PutLargeValue, request_id: bytes | None) -> Version:
        """Store the value's chunks, have them offered, and return the version once its entry is durable.

        Raises:
            RequestError: refused, or the disk is full (nothing of it will be seen).
        """
        ticket = self._commit.check(operation, request_id)
        if ticket is not None:
            await self._commit.durable(ticket.durable_at)
            return ticket.version
        manifest = Manifest.unpack(operation.manifest)
        await self._keep(manifest, operation.chunks)
        await self._offer(manifest)
        if self._store.lacking_chunks(manifest.chunks):  # their hour is over, by a wall that was set forward
            text = "The coordinator's clock was set forward while the value came; nothing was written, try again"
            raise RequestError(503, NOT_OPEN, text, headers={"Retry-After": "1"})
        return await self._commit.write([operation], request_id)

    async def _keep(self, manifest: Manifest, chunks: list[bytes]) -> None:
        """Store these chunks, and take them out as soon as they are: they needn't be in memory any more."""
        sizes = [CHUNK_BYTES] * (len(manifest.chunks) - 1)
        if [len(chunk) for chunk in chunks] != [*sizes, manifest.size - sum(sizes)]:
            raise RequestError(400, 10012, "invalid request body: a large value's chunks aren't those it names")
        try:
            for start in range(0, len(manifest.chunks), BITE_CHUNKS):
                bite = list(zip(manifest.chunks[start : start + BITE_CHUNKS], chunks, strict=False))
                del chunks[:BITE_CHUNKS]
                await self._commit.run(partial(self._store.put_chunks, bite))
        except StorageFull:
            text = "The coordinator's disk is full; nothing was written, reads go on"
            raise RequestError(507, DISK_FULL, text) from None
        except ProtocolError as error:
            raise RequestError(400, 10012, f"invalid request body: {error}") from None

    async def _offer(self, manifest: Manifest) -> None:
        """Return when all members that answer hold these chunks, or their time is over."""
        if self._closed:
            raise RequestError(
                503, NOT_OPEN, "The coordinator is stopping; try again", headers={"Retry-After": "1"}
            )
        id_ = os.urandom(OFFER_ID_BYTES)
        future = self._offered[id_] = asyncio.get_running_loop().create_future()
        try:
            self._feed(ChunksReady(id_, tuple(dict.fromkeys(manifest.chunks))))
            await future
        finally:
            del self._offered[id_]

    def settle(self, id_: bytes) -> None:
        """The members that answer hold what was offered, or aren't waited for any more."""
        future = self._offered.get(id_)
        if future is not None and not future.done():
            future.set_result(None)

    def close(self) -> None:
        """Wait for nobody any more: what is stored already is written if the group commit still takes it."""
        self._closed = True
        for id_ in list(self._offered):
            self.settle(id_)
