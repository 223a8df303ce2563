"""One LMDB environment: its databases, its identity, and when it may be closed.

One large map, of address space only: the file grows as it is used. Read transactions are short, so that the
pages of older commits are used again; readers that died are cleared when it is opened and by `tidy`.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import lmdb

from kvnet.errors import ForeignEnvironment, StorageDamaged
from kvnet.storage.chunks import ChunkDatabases
from kvnet.storage.disk import Disk
from kvnet.storage.faults import REFILLED, translated_errors

FORMAT: Final = 3
"""Raised with every change of what lies in the environment that another kvnet would misread."""
MAP_SIZE_BYTES: Final = 256 << 30
READERS_MAX: Final = 510
"""Readers at a time, those of other processes included. More: 64 bytes each, and a longer look for the oldest."""
OTHER_FOLDER: Final = "choose another data folder, or remove this one with --wipe"

_DATABASES: Final = (
    b"meta",
    b"records",
    b"journal",
    b"requests",
    b"request_times",
    b"erasing",
    b"expiries",
    b"chunks",
    b"chunk_refs",
    b"chunk_times",
)
_IDENTITY_KEY: Final = b"identity"


class Owner(NamedTuple):
    """Whose data an environment holds."""

    cluster_id: str
    node: str


class Environment:
    """An open LMDB environment. Open it after the last fork: LMDB doesn't survive one."""

    def __init__(self, path: Path, owner: Owner, *, synced: bool, map_size_bytes: int, disk: Disk) -> None:
        """Open it, making it when it doesn't exist; `synced` has every commit on the disk when it returns.

        Raises:
            ForeignEnvironment: it holds another cluster's, another node's or another format's data.
            StorageDamaged: it isn't what was written there.
            StorageError: it can't be read or written.
        """
        self.path = path
        self._owner = owner
        self._map_size_bytes = map_size_bytes
        self._disk = disk
        self._users = 0
        self._users_changed = threading.Condition()
        self._retired = self._reopening = False
        check_length(path)
        self._open(synced=synced)

    def _open(self, *, synced: bool) -> None:
        self._synced = synced
        with translated_errors(self.path):
            self.lmdb = lmdb.Environment(
                str(self.path),
                map_size=self._map_size_bytes,
                mode=0o700,
                sync=synced,
                metasync=synced,
                readahead=False,
                max_readers=READERS_MAX,
                max_dbs=len(_DATABASES) + 2,
                max_spare_txns=1,
            )
            try:
                self.lmdb.reader_check()
                with self.lmdb.begin(write=True) as txn:
                    self._databases = {name: self.lmdb.open_db(name, txn=txn) for name in _DATABASES}
                    self._check_identity(txn, self._owner)
                if synced:
                    # LMDB syncs its file, not the folders that lead to it.
                    self._disk.on_synced(self.path)
                    self._disk.sync_folder(self.path)
                    self._disk.sync_folder(self.path.parent)
            except BaseException:
                self.lmdb.close()
                raise
        self.chunk_databases = ChunkDatabases(
            self.database("chunks"), self.database("chunk_refs"), self.database("chunk_times")
        )

    def _check_identity(self, txn: lmdb.Transaction[bytes], owner: Owner) -> None:
        """The environment says itself whose it is: a mark may have been copied beside another one."""
        meta = self.database("meta")
        stored = txn.get(_IDENTITY_KEY, db=meta)
        if stored is None:
            txn.put(_IDENTITY_KEY, json.dumps({"format": FORMAT, **owner._asdict()}).encode(), db=meta)
            return
        _refuse_another(self.path, stored, owner)

    @contextmanager
    def write(self) -> Iterator[lmdb.Transaction[bytes]]:
        """A write transaction over `records`: committed at the end, dropped on any error."""
        with translated_errors(self.path), self._used():
            with self.lmdb.begin(self.database("records"), write=True) as txn:
                yield txn
            if self._synced:
                self._disk.on_synced(self.path)

    @contextmanager
    def view(self) -> Iterator[lmdb.Transaction[memoryview]]:
        """A read transaction over `records`; the views it gives are valid until it ends."""
        with (
            translated_errors(self.path),
            self._used(),
            self.lmdb.begin(self.database("records"), buffers=True) as txn,
        ):
            yield txn

    def database(self, name: str) -> lmdb._Database:
        return self._databases[name.encode()]

    def sync(self) -> None:
        """All that was committed is on the disk."""
        with translated_errors(self.path), self._used():
            self.lmdb.sync(True)
            self._disk.on_synced(self.path)
            self._disk.sync_folder(self.path)

    def become_synced(self) -> None:
        """All that was committed is on the disk, and every commit from now on is when it returns.

        LMDB is told so only when it opens a file, and a process may have it open once: who reads waits a moment.
        """
        self.sync()
        with self._users_changed:
            self._reopening = True
            self._users_changed.wait_for(lambda: not self._users)
        try:
            self.lmdb.close()
            self._open(synced=True)
        finally:
            with self._users_changed:
                self._reopening = False
                self._users_changed.notify_all()

    def copy_to(self, path: Path) -> None:
        """Write all that is committed into an empty folder, without the pages that are free."""
        with translated_errors(self.path), self._used():
            self.lmdb.copy(str(path), compact=True)

    def stats(self) -> dict[str, Any]:
        """Sizes in bytes: what the file has taken of the disk, and how much of that is free for reuse."""
        with self.view() as txn:
            info = self.lmdb.info()
            page_bytes = self.lmdb.stat()["psize"]
            used = sum(_pages(txn, db) for db in self._databases.values())
        pages = info["last_pgno"] + 1
        return {
            "map_bytes": pages * page_bytes,
            "free_bytes": max(0, pages - used) * page_bytes,
            "map_size_bytes": info["map_size"],
            "readers": info["num_readers"],
        }

    def tidy(self) -> int:
        """Clear the slots of readers that died; return how many there were."""
        with translated_errors(self.path), self._used():
            return self.lmdb.reader_check()

    @contextmanager
    def _used(self) -> Iterator[None]:
        with self._users_changed:
            while self._reopening:
                self._users_changed.wait()
            self._users += 1
        try:
            yield
        finally:
            with self._users_changed:
                self._users -= 1
                last = not self._users
                if last:
                    self._users_changed.notify_all()
            if last and self._retired:
                self.lmdb.close()

    def retire(self) -> None:
        """Close it as soon as nobody uses it: at once, or when the last transaction of another thread ends.

        One that was replaced isn't retired, but forgotten: LMDB closes it when the last who reads it is done.
        """
        with self._users_changed:
            self._retired = True
            unused = not self._users
        if unused:
            self.lmdb.close()


def _pages(txn: lmdb.Transaction[memoryview], db: lmdb._Database) -> int:
    stat = txn.stat(db)
    return int(stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"])


def check_length(path: Path) -> None:
    """Return if the file is as long as its last page says; LMDB itself would die when it reads beyond its end.

    Raises:
        StorageDamaged: it is shorter.
    """
    file = path / "data.mdb"
    if not file.exists() or not file.stat().st_size:
        return
    with translated_errors(path), _probe(path) as probe:
        needed = (probe.info()["last_pgno"] + 1) * probe.stat()["psize"]
    found = file.stat().st_size
    if found < needed:
        raise StorageDamaged(f"{file} was cut: {found} of {needed} bytes are left; {REFILLED}")


def refuse_if_foreign(path: Path, owner: Owner) -> None:
    """Look into an environment that is about to be thrown away.

    Raises:
        ForeignEnvironment: it can be read, and is somebody else's.
        StorageDamaged: it can't be read.
    """
    check_length(path)
    if not (path / "data.mdb").exists():
        return
    with translated_errors(path), _probe(path) as probe:
        try:
            meta = probe.open_db(b"meta", create=False)
        except lmdb.NotFoundError:
            return
        with probe.begin(meta) as txn:
            stored = txn.get(_IDENTITY_KEY)
    if stored is not None:
        _refuse_another(path, stored, owner)


@contextmanager
def _probe(path: Path) -> Iterator[lmdb.Environment]:
    """Open without a lock file and read-only: nothing is changed, and only the meta pages are read."""
    probe = lmdb.Environment(str(path), readonly=True, lock=False, max_dbs=1, create=False)
    try:
        yield probe
    finally:
        probe.close()


def _refuse_another(path: Path, stored: bytes, owner: Owner) -> None:
    try:
        found = json.loads(stored)
        theirs = Owner(found["cluster_id"], found["node"])
        refuse_other_format(path, found["format"])
    except (ValueError, KeyError, TypeError):
        raise StorageDamaged(f"{path} doesn't say whose it is: {REFILLED}") from None
    refuse_foreign(path, theirs, owner)


def refuse_other_format(path: Path, found: int) -> None:
    """Raises ForeignEnvironment: this kvnet doesn't read that format."""
    if found != FORMAT:
        cure = "upgrade kvnet" if found > FORMAT else "export it with the kvnet that wrote it and import it here"
        raise ForeignEnvironment(
            f"{path} has format {found}, this kvnet reads {FORMAT}: {cure}, or {OTHER_FOLDER}"
        )


def refuse_foreign(path: Path, theirs: Owner, ours: Owner) -> None:
    """Raises ForeignEnvironment: it is somebody else's."""
    if theirs.cluster_id != ours.cluster_id:
        raise ForeignEnvironment(f"{path} belongs to another cluster: bring its secret, {OTHER_FOLDER}")
    if theirs.node != ours.node:
        raise ForeignEnvironment(f"{path} belongs to node {theirs.node}, not to {ours.node}: {OTHER_FOLDER}")
