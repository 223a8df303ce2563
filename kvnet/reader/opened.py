"""A replica's environment, open for reading beside the node that writes it; once per process, as LMDB wants it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from weakref import WeakValueDictionary

import lmdb

from kvnet.core.catalog import Cluster, Namespace, read_item
from kvnet.core.entries import SYSTEM_NAMESPACE
from kvnet.errors import ProtocolError, StorageDamaged
from kvnet.storage.chunks import ChunkDatabases
from kvnet.storage.environment import READERS_MAX, Owner, check_length, refuse_if_foreign
from kvnet.storage.keys import walk
from kvnet.storage.records import read_record
from kvnet.storage.state import State, read_state, read_tallies
from kvnet.storage.successor import VERIFIED_KEY

_DATABASES: Final = (b"meta", b"records", b"chunks", b"chunk_refs", b"chunk_times")
SPARE_TXNS: Final = 4
"""Transactions that are kept for the next read, each with a reader's place; more threads than that read slower."""

opening: Final = threading.Lock()
_open: Final[WeakValueDictionary[tuple[int, int], lmdb.Environment]] = WeakValueDictionary()
"""What this process has open, be it only for a read under way; by the file, since another one may be put in its
place while somebody still reads it."""


class Opened:
    """An open environment. LMDB closes it when the last who has it, or reads it, is done."""

    def __init__(self, path: Path, environment: lmdb.Environment) -> None:
        self.path = path
        self.environment = environment
        databases = [environment.open_db(name, create=False) for name in _DATABASES]
        self.begin = environment.begin
        self.meta, self.records, *chunks = databases
        self.chunk_databases = ChunkDatabases(*chunks)

    @contextmanager
    def view(self) -> Iterator[lmdb.Transaction[memoryview]]:
        """A read transaction over `records`; the views it gives are valid until it ends."""
        with self.begin(self.records, buffers=True) as txn:
            yield txn

    def state(self) -> State:
        with self.view() as txn:
            return read_state(txn, self.meta)

    def contents(self) -> Contents:
        """Read what is remembered of it, as of one commit.

        Raises:
            StorageDamaged: it can't be read.
        """
        with self.view() as txn, txn.cursor() as cursor:
            verified = txn.get(VERIFIED_KEY, db=self.meta) is not None
            tallies = read_tallies(txn, self.meta)
            try:
                items = [
                    read_item(key, read_record(key, bytes(stored)).value)
                    for key, stored in walk(cursor, tallies[SYSTEM_NAMESPACE].prefix)
                ]
            except (ProtocolError, ValueError) as error:
                raise StorageDamaged(f"{self.path} can't be read: {error}") from error
        namespaces = [item for item in items if isinstance(item, Namespace) and item.id in tallies]
        cluster = next((item for item in items if isinstance(item, Cluster)), None)
        prefixes = {item.id.hex(): tallies[item.id].prefix for item in namespaces}
        prefixes |= {item.title: tallies[item.id].prefix for item in namespaces}  # a title goes before an id
        return Contents(prefixes, namespaces, cluster, verified=verified)


class Contents:
    """What a reader remembers of an environment until its node says that something of it is another."""

    def __init__(
        self,
        prefixes: Mapping[str, bytes],
        namespaces: list[Namespace],
        cluster: Cluster | None,
        *,
        verified: bool,
    ) -> None:
        self.prefixes: dict[str, bytes] = dict(prefixes)
        """Where a namespace's keys lie, by its title and by its id."""
        self.namespaces = namespaces
        self.cluster = cluster
        self.verified = verified


def open_environment(path: Path, owner: Owner) -> Opened:
    """Open it, or what is open of it already; nothing in it is written but a reader's place.

    Raises:
        ForeignEnvironment: it isn't this owner's.
        StorageDamaged: it isn't what was written there.
        lmdb.Error, OSError: it can't be read, or is on its way out.
    """
    with opening:
        found = (path / "data.mdb").stat()
        file = found.st_dev, found.st_ino
        environment = _open.get(file)
        if environment is None:
            check_length(path)
            refuse_if_foreign(path, owner)
            environment = _open[file] = lmdb.Environment(
                str(path),
                map_size=0,  # as large as the node has it
                readonly=True,
                create=False,
                readahead=False,
                max_readers=READERS_MAX,
                max_dbs=len(_DATABASES),
                max_spare_txns=SPARE_TXNS,
            )
        return Opened(path, environment)


def forget_after_fork() -> None:
    """What a thread of the parent was reading isn't this process's to read: opening it is refused."""
    _open.clear()


def account_of(cluster_file: Path) -> str | None:
    """Return the account of the network whose run folder this file describes; None if it doesn't tell."""
    try:
        told: Any = json.loads(cluster_file.read_bytes())
        account = told["account_id"]
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return account if isinstance(account, str) else None
