"""Stores for tests, in a folder of their own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kvnet.storage.store import Durability, Store
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
            assert stored == (put.value, put.metadata, put.expires_at, *version, put.hash, False)


def keys_of(store: Store) -> Mapping[bytes, int]:
    return {bytes.fromhex(namespace): keys for namespace, keys in store.stats()["keys"].items()}
