"""Stores for tests, in a folder of their own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from kvnet.core.frames import Frame
from kvnet.core.messages import Page
from kvnet.core.versions import GENESIS, Position
from kvnet.storage.pages import PAGE_BYTES
from kvnet.storage.store import Durability, Store, StoredRecord
from tests.support.frames import FrameMaker

CLUSTER_ID = b"c" * 16


def open_store(
    folder: Path,
    *,
    node: str = "fra",
    durability: Durability = Durability.NONE,
    map_size_bytes: int = 1 << 30,
    journal_bytes_max: int | None = None,
    **more: Any,
) -> Store:
    return Store.open(
        folder,
        node=node,
        cluster_id=CLUSTER_ID,
        durability=durability,
        map_size_bytes=map_size_bytes,
        journal_bytes_max=journal_bytes_max,
        **more,
    )


def pages_of(store: Store, bytes_max: int = PAGE_BYTES, after: bytes = b"") -> Iterator[Page]:
    """Every page behind a place, as the donor reads them one by one."""
    while True:
        page = store.read_page(after, bytes_max)
        yield page
        if not page.until:
            return
        after = page.until


def bootstrap(store: Store, pages: Iterable[Page], frames: Sequence[Frame], budget: int = 1000) -> Position:
    """Make the store anew of these pages and those of the frames that come behind; return where it stands then."""
    for page in pages:
        if store.bootstrap is None:
            store.begin_successor(page.position)
        store.store_page(page)
    return prove(store, frames, budget)


def prove(store: Store, frames: Sequence[Frame], budget: int = 1000) -> Position:
    """Give a successor that has all pages the frames it lacks, and finish it."""
    tail = [frame for frame in frames if frame.first_seq > store.journal.position.seq]
    if tail:
        store.apply(tail)
    progress = store.bootstrap
    assert progress is not None
    assert progress.whole
    while True:
        position = store.replay_some(progress.highest, progress.digest, budget)
        if position is not None:
            return position


def assert_holds(store: Store, maker: FrameMaker) -> None:
    """The store proves from its own bytes that it stands at one of the maker's positions, whole."""
    digests = {frame.position: frame.digest_after for frame in maker.frames} | {GENESIS: bytes(16)}
    assert store.digest.to_bytes(16, "big") == digests[store.position]
    assert store.recompute().good


def assert_is_fold(store: Store, maker: FrameMaker) -> None:
    """The store holds exactly what the maker's frames lead to, and proves it from its own bytes."""
    assert store.position == maker.position
    assert store.digest == maker.digest
    verification = store.recompute()
    assert verification.good, verification
    assert keys_of(store) == {namespace: len(records) for namespace, records in maker.records.items()}
    for namespace, records in maker.records.items():
        listed, more = store.list_keys(namespace, b"", None, len(records) + 1, now_s=0)
        assert [each.key for each in listed] == sorted(records)
        assert not more
        for key, (put, version) in records.items():
            stored = store.get(namespace, key)
            assert fields_of(stored) == (put.value, put.metadata, put.expires_at, *version, put.hash, False)


def fields_of(record: StoredRecord | None) -> tuple[Any, ...] | None:
    """(value, metadata, expires_at, epoch, seq, hash, large) of a record."""
    if record is None:
        return None
    told = (record.value, record.metadata, record.expires_at, record.epoch, record.seq, record.hash, record.large)
    assert record.version == told[3:5]
    return told


def keys_of(store: Store) -> Mapping[bytes, int]:
    return {bytes.fromhex(namespace): keys for namespace, keys in store.stats()["keys"].items()}
