"""A node's compaction: asked for over HTTP, done beside all else.

POST /peer/v1/compact    {"before", "after"} in bytes of the disk, once it is done
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from aiohttp import web

from kvnet.errors import KvnetError, RequestError, StorageError, StorageFull
from kvnet.storage.store import Compacted, Store

COMPACT_PATH: Final = "/peer/v1/compact"
ROOM: Final = 1.1
"""What the disk must have free, in sizes of the copy."""

T = TypeVar("T")
Write = Callable[[Callable[[], None]], Awaitable[None]]
"""Has this done where the store is written."""


class Compacting:
    """One node's compactions, one at a time."""

    def __init__(self, store: Store, *, write: Write) -> None:
        self._store = store
        self._write = write
        self._under_way = False

    async def answer(self) -> web.Response:
        """Compact, and tell what it came to.

        Raises:
            RequestError: not now, or there is no room.
        """
        if self._under_way:
            raise RequestError(429, 10001, "compact: this node is compacting already")
        if self._store.successor is not None:
            raise RequestError(409, 10001, "compact: this node is being made anew, and will have no free pages")
        self._check_room()
        self._under_way = True
        try:
            done = await self._compact()
        except StorageFull as error:
            raise RequestError(507, 10001, f"compact: {error}") from None
        except RequestError:
            raise
        except KvnetError as error:
            raise RequestError(500, 10001, f"compact: {error}") from None
        finally:
            self._under_way = False
            if self._store.is_compacting:
                await self._in_writer(self._store.abandon_successor)
        return web.json_response(done._asdict())

    def _check_room(self) -> None:
        stats = self._store.stats()
        needed = int((stats["map_bytes"] - stats["free_bytes"]) * ROOM)
        free = shutil.disk_usage(self._store.environment.path.parent).free
        if free < needed:
            raise RequestError(
                507, 10001, f"compact: the copy needs {needed:,} bytes, the disk has {free:,}: free some"
            )

    async def _compact(self) -> Compacted:
        store = self._store
        await self._in_writer(store.begin_compaction)
        await asyncio.get_running_loop().run_in_executor(None, store.copy_compacted)
        while store.is_compacting:
            done = await self._in_writer(store.finish_compaction)
            if done is not None:
                return done
            await asyncio.sleep(0)  # others have their turn between two bites
        raise StorageError("the replica was replaced meanwhile: there is nothing to compact any more")

    async def _in_writer(self, work: Callable[[], T]) -> T:
        """Return what this comes to where the store is written; what the disk refuses is no failure of writing."""
        found: list[T] = []
        refused: list[StorageError] = []

        def task() -> None:
            try:
                found.append(work())
            except StorageError as error:
                refused.append(error)

        await self._write(task)
        if refused:
            raise refused[0]
        return found[0]
