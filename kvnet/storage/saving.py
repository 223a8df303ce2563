"""A replica as the bytes of a snapshot (snapshot.py), read while it goes on.

Between two pages come the frames that were applied since, so that neither the journal's tail nor the hour in which
a chunk that nobody names any more can still be read may end before they are asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, Protocol

from kvnet.core.entries import PutLarge
from kvnet.core.frames import Frame
from kvnet.core.manifest import Manifest
from kvnet.core.messages import Page
from kvnet.core.versions import Position
from kvnet.errors import BeyondHorizon, StorageError
from kvnet.storage.pages import PAGE_BYTES, unpack
from kvnet.storage.records import LARGE, read_replaced
from kvnet.storage.snapshot import Encoder, Header
from kvnet.storage.state import Tally

FRAMES_BYTES: Final = 256 * 1024
CHUNKS_REMEMBERED_MAX: Final = 100_000
"""Names of chunks that are saved already; beyond it they are forgotten, and chunks may be saved twice."""


class SavedStore(Protocol):
    """`store.Store`, as far as it is known here."""

    @property
    def verified(self) -> bool: ...
    @property
    def tallies(self) -> Mapping[bytes, Tally]: ...
    def read_page(self, after: bytes, bytes_max: int = ...) -> Page: ...
    def frames_after(self, seq: int, bytes_max: int) -> list[Frame]: ...
    def chunk(self, name: bytes, *, checked: bool = ...) -> bytes | None: ...


def save(store: SavedStore, *, cluster_id: bytes, node: str, created_ms: int) -> Iterator[bytes]:
    """Yield a snapshot's bytes in order; in any thread, and at any pace below that at which the journal is cut.

    Raises:
        StorageDamaged: a record isn't what was written.
        StorageError: there is nothing to save, or the replica was replaced or has moved on too far meanwhile.
    """
    return _Saving(store, cluster_id, node, created_ms).run()


class _Saving:
    def __init__(self, store: SavedStore, cluster_id: bytes, node: str, created_ms: int) -> None:
        self._store = store
        self._cluster_id = cluster_id
        self._node = node
        self._created_ms = created_ms
        self._encoder = Encoder()
        self._saved_chunks: set[bytes] = set()

    def run(self) -> Iterator[bytes]:
        store, encoder = self._store, self._encoder
        page = store.read_page(b"", PAGE_BYTES)
        if not store.verified or not page.position.seq:
            raise StorageError(f"{self._node} has nothing whole to save: save from another node")
        known = sum(tally.keys for tally in store.tallies.values())
        yield encoder.begin(Header(self._cluster_id, self._node, page.position, self._created_ms, known))
        end = page.position
        while True:
            groups = unpack(page.body)
            yield encoder.page(page, sum(len(keys) for _, keys, _ in groups))
            for frame in self._frames(end, page.position):
                yield encoder.frame(frame)
                yield from self._chunks(_manifests_of(frame))
            end = page.position
            for _, keys, stored in groups:
                for key, record in zip(keys, stored, strict=True):
                    if record[0] & LARGE:
                        yield from self._chunks([read_replaced(key, record).large])
            if not page.until:
                break
            page = store.read_page(page.until, PAGE_BYTES)
        yield encoder.end()

    def _frames(self, end: Position, until: Position) -> Iterator[Frame]:
        """Yield the frames that lead from one position to the other."""
        if until.seq < end.seq:
            raise self._replaced()
        while end.seq < until.seq:
            try:
                frames = self._store.frames_after(end.seq, FRAMES_BYTES)
            except BeyondHorizon:
                raise self._replaced() from None
            if not frames:
                raise self._replaced()
            for frame in frames:
                if frame.chain_before != end.chain:
                    raise self._replaced()
                if frame.last_seq > until.seq:
                    break
                yield frame
                end = frame.position
        if end != until:
            raise self._replaced()

    def _chunks(self, manifests: list[bytes]) -> Iterator[bytes]:
        """Yield the chunks that these name, but for those saved already and those that are gone.

        What a frame names may have been replaced and forgotten meanwhile; then no record needs it.
        """
        for manifest in manifests:
            for name in Manifest.unpack(manifest).chunks:
                if name in self._saved_chunks:
                    continue
                data = self._store.chunk(name)
                if data is None:
                    continue
                if len(self._saved_chunks) >= CHUNKS_REMEMBERED_MAX:
                    self._saved_chunks.clear()
                self._saved_chunks.add(name)
                yield self._encoder.chunk(data)

    def _replaced(self) -> StorageError:
        return StorageError(
            f"{self._node}'s replica was replaced, or its journal cut, while it was saved: save again, "
            "or save from the coordinator"
        )


def _manifests_of(frame: Frame) -> list[bytes]:
    return [entry.manifest for entry in frame.entries() if isinstance(entry, PutLarge)]
