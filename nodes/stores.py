"""A node's store, opened as its role needs it, by the node itself or while it is stopped."""

from __future__ import annotations

from hashlib import blake2b
from pathlib import Path
from typing import Final

from kvnet.storage.retention import Retention
from kvnet.storage.store import Durability, Store
from kvnet.topology.schema import COORDINATOR, Topology
from nodes.files import store_folder

GIB: Final = 1 << 30
MIB: Final = 1 << 20
HOUR_MS: Final = 3_600_000


def cluster_id_of(topology: Topology, secret: bytes) -> bytes:
    """Return the 16 bytes that every environment and snapshot of this cluster carries."""
    return blake2b(topology.digest().encode(), key=secret[:64], digest_size=16).digest()


def open_store(
    topology: Topology, name: str, node_folder: Path, cluster_id: bytes, *, refillable: bool | None = None
) -> Store:
    """Open a node's store, making it when there is none.

    A `refillable` one that is damaged is thrown away and begins empty; None is as the role has it: edges are.

    Raises:
        ForeignEnvironment: the folder holds another cluster's, another node's or another format's data.
        StorageDamaged: what is here isn't what was written, and isn't refillable.
        StorageError: another process holds it, or it can't be read or written.
    """
    storage = topology.storage
    edge = name != COORDINATOR
    if edge:
        retention = Retention(bytes_max=storage.edge_journal_mib * MIB)
    else:
        retention = Retention(storage.coordinator_journal_mib * MIB, storage.coordinator_journal_hours * HOUR_MS)
    return Store.open(
        store_folder(node_folder),
        node=name,
        cluster_id=cluster_id,
        durability=Durability(storage.edge_durability) if edge else Durability.COMMIT,
        map_size_bytes=int(storage.map_size_gib * GIB),
        retention=retention,
        refillable=edge if refillable is None else refillable,
        tracks_expiries=not edge,
        shared=edge,
    )
