"""A snapshot's items (snapshot.py) as a store's replica: the way of a bootstrap, from a file."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from kvnet.core.frames import Frame
from kvnet.core.manifest import hash_chunk
from kvnet.core.versions import Position
from kvnet.errors import ChunksMissing, Divergence, PageDamaged, ProtocolError, StorageError
from kvnet.storage.snapshot import Chunk, End, Header, Item, SavedPage
from kvnet.storage.store import Store

PENDING_BYTES_MAX: Final = 4 * 1024 * 1024
"""Of frames, or of chunks, that go to the disk in one transaction."""


def restore(store: Store, items: Iterable[Item], on_records: Callable[[int], None] | None = None) -> Position:
    """The store's replica is the snapshot's, proven and verified; return where it stands.

    Until then it is what it was. `on_records` hears of the records of each page.

    Raises:
        PageDamaged: the snapshot was cut or altered, or its records don't add up to its digest.
        StorageFull: no room.
        StorageError: what else the disk or the file refuses.
    """
    try:
        return _Restoring(store, on_records).run(items)
    except BaseException:
        store.abandon_successor()
        raise


class _Restoring:
    def __init__(self, store: Store, on_records: Callable[[int], None] | None) -> None:
        self._store = store
        self._on_records = on_records
        self._frames: list[Frame] = []
        self._chunks: list[tuple[bytes, bytes]] = []
        self._pending_bytes = 0

    def run(self, items: Iterable[Item]) -> Position:
        end: End | None = None
        for item in items:
            match item:
                case Header():
                    self._store.begin_successor(item.start)
                case SavedPage():
                    self._write_pending()
                    self._store.store_page(item.page)
                    if self._on_records is not None:
                        self._on_records(item.records)
                case Frame():
                    self._frames.append(item)
                    self._count(len(item.data))
                case Chunk():
                    self._chunks.append((hash_chunk(item.data), item.data))
                    self._count(len(item.data))
                case End():
                    end = item
        self._write_pending()
        if end is None:
            raise PageDamaged("a snapshot without an end")
        return self._prove(end)

    def _count(self, size: int) -> None:
        self._pending_bytes += size
        if self._pending_bytes >= PENDING_BYTES_MAX:
            self._write_pending()

    def _write_pending(self) -> None:
        if self._chunks:
            self._store.put_chunks(self._chunks)
        if self._frames:
            self._store.apply(self._frames)
        self._chunks, self._frames, self._pending_bytes = [], [], 0

    def _prove(self, end: End) -> Position:
        """Apply the frames to the pages, and compare.

        Raises:
            PageDamaged: it isn't what the coordinator's replica was.
        """
        cure = "take another snapshot; nothing was changed"
        try:
            while (position := self._store.replay_some(end.position, end.digest)) is None:
                pass
        except ChunksMissing as missing:
            raise PageDamaged(
                f"the snapshot lacks {len(missing.hashes)} chunks of its large values: {cure}"
            ) from None
        except (Divergence, ProtocolError) as error:
            raise PageDamaged(f"the snapshot's records don't add up to its digest ({error}): {cure}") from None
        if position != end.position:
            raise StorageError(f"the snapshot led to {position} and not to {end.position}: {cure}")
        return position
