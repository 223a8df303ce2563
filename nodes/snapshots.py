"""A node's snapshot over HTTP, and beside nodes that are stopped: saved from a folder, restored into one.

    GET /peer/v1/snapshot    the bytes of a snapshot file, read while the replica goes on

An answer that is cut off has no end record, so nobody takes it for a whole one.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from aiohttp import web

from kvnet.core.versions import Position
from kvnet.errors import ConfigError, RequestError, StorageDamaged, StorageError
from kvnet.storage.restoring import restore
from kvnet.storage.saving import save
from kvnet.storage.snapshot import Item
from kvnet.storage.store import Store
from nodes.cluster import RunFolder
from nodes.files import store_folder
from nodes.stores import cluster_id_of, open_store

SNAPSHOT_PATH: Final = "/peer/v1/snapshot"
SENT_AT_ONCE: Final = 64 * 1024
"""What is read before any of it is sent."""

_log = logging.getLogger(__name__)


class Snapshots:
    """One node's answers; one snapshot at a time."""

    def __init__(
        self,
        store: Store,
        *,
        cluster_id: bytes,
        node: str,
        ready: Callable[[], bool],
        damaged: Callable[[StorageDamaged], None],
    ) -> None:
        """`damaged` hears of damage that was found on the way."""
        self._store = store
        self._cluster_id = cluster_id
        self._node = node
        self._ready = ready
        self._damaged = damaged
        self._under_way = False

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Send a snapshot to somebody who may have it.

        Raises:
            RequestError: not now.
        """
        if not self._ready():
            raise RequestError(503, 10001, "snapshot: this node isn't ready; take another one")
        if self._under_way:
            raise RequestError(429, 10001, "snapshot: one is under way here; take another node")
        self._under_way = True
        try:
            return await self._send(request)
        finally:
            self._under_way = False

    async def _send(self, request: web.BaseRequest) -> web.StreamResponse:
        pieces = save(
            self._store, cluster_id=self._cluster_id, node=self._node, created_ms=time.time_ns() // 1_000_000
        )
        loop = asyncio.get_running_loop()
        response = web.StreamResponse(headers={"Content-Type": "application/octet-stream"})
        try:
            while True:
                begun = loop.time()
                data = await loop.run_in_executor(None, _some, pieces)
                rest_s = loop.time() - begun
                if not response.prepared:
                    await response.prepare(request)
                if not data:
                    break
                await response.write(data)
                await asyncio.sleep(rest_s)  # readers have as much of this process as a snapshot
        except StorageDamaged as damage:
            self._damaged(damage)
            return self._give_up(response, damage)
        except StorageError as error:
            return self._give_up(response, error)
        await response.write_eof()
        return response

    def _give_up(self, response: web.StreamResponse, error: StorageError) -> web.StreamResponse:
        """Let it be seen that the snapshot isn't whole.

        Raises:
            RequestError: nothing of it was sent yet.
            ConnectionResetError: something was; the connection ends in the middle of it.
        """
        if not response.prepared:
            raise RequestError(503, 10001, f"snapshot: {error}") from None
        _log.error("a snapshot was given up: %s", error)
        raise ConnectionResetError("a snapshot that can't be finished")


def _some(pieces: Iterator[bytes]) -> bytes:
    """Return the next pieces together; b"" at the end."""
    data = bytearray()
    for piece in pieces:
        data += piece
        if len(data) >= SENT_AT_ONCE:
            break
    return bytes(data)


def save_stopped(folder: RunFolder, name: str) -> Iterator[bytes]:
    """Yield the snapshot of a node that doesn't run.

    Raises:
        ConfigError: there is no such node, or it has no data here.
        StorageError: it runs, or its data can't be read.
    """
    topology = folder.topology()
    topology.pop_of(name)
    node_folder = folder.node_folder(name)
    if not store_folder(node_folder).exists():
        raise ConfigError(
            f"{name} has no data in {folder.path}: name a node that has, or another folder with --data"
        )
    cluster_id = cluster_id_of(topology, folder.secret())
    store = open_store(topology, name, node_folder, cluster_id, refillable=False)
    try:
        yield from save(store, cluster_id=cluster_id, node=name, created_ms=time.time_ns() // 1_000_000)
    finally:
        store.close()


def cluster_id_in(folder: RunFolder) -> bytes:
    """Return the id of the network in a run folder.

    Raises:
        ConfigError: there is none.
    """
    return cluster_id_of(folder.topology(), folder.secret())


def restore_stopped(
    folder: RunFolder,
    name: str,
    items: Iterable[Item],
    *,
    force: bool,
    on_records: Callable[[int], None] | None = None,
) -> Position:
    """Make a snapshot, which was checked and is this cluster's, the replica of a node that doesn't run.

    `force` replaces data that is there, and throws away what is damaged.

    Raises:
        ConfigError: there is no such node, or it has data and isn't to be forced.
        StorageError: it runs, the disk refuses, or the snapshot isn't what it says; its data are as they were.
    """
    topology = folder.topology()
    topology.pop_of(name)
    node_folder = folder.node_folder(name)
    node_folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    cluster_id = cluster_id_of(topology, folder.secret())
    try:
        store = open_store(topology, name, node_folder, cluster_id, refillable=force)
    except StorageDamaged as damage:
        raise StorageError(f"{damage}; --force puts the snapshot in its place") from None
    try:
        if store.position.seq and not force:
            raise ConfigError(
                f"{name} has data, up to {store.position.version}: --force puts the snapshot in their place"
            )
        return restore(store, items, on_records)
    finally:
        store.close()


def has_data(folder: RunFolder, name: str) -> bool:
    return store_folder(folder.node_folder(name)).exists()
