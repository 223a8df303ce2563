"""kvnet: a replicated key-value store for a global network of points of presence."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from kvnet.client import Namespace, Network, SyncNamespace, SyncNetwork, connect, connect_sync
    from kvnet.errors import KvnetError, RequestError, StorageError
    from kvnet.reader import Replica, ReplicaNamespace, open_replica
    from kvnet.values import KeyPage, ListedKey, Value

__version__ = "0.1.0"
__all__ = [
    "KeyPage",
    "KvnetError",
    "ListedKey",
    "Namespace",
    "Network",
    "Replica",
    "ReplicaNamespace",
    "RequestError",
    "StorageError",
    "SyncNamespace",
    "SyncNetwork",
    "Value",
    "__version__",
    "connect",
    "connect_sync",
    "open_replica",
]

_ROOMS: Final = {
    "kvnet.client": ("Namespace", "Network", "SyncNamespace", "SyncNetwork", "connect", "connect_sync"),
    "kvnet.errors": ("KvnetError", "RequestError", "StorageError"),
    "kvnet.reader": ("Replica", "ReplicaNamespace", "open_replica"),
    "kvnet.values": ("KeyPage", "ListedKey", "Value"),
}


def __getattr__(name: str) -> Any:
    """Return what is loaded with its first use: a node needs no client, and shares its memory with none."""
    for room, names in _ROOMS.items():
        if name in names:
            return getattr(import_module(room), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
