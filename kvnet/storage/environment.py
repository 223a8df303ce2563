"""One node's data folder: its lock, its mark, and the LMDB environment in it.

    lock         flocked while a process has the folder open; holds its process id
    mark.json    whose data this is, and whether it can be trusted after a machine restart; fsynced
    replica/     the LMDB environment

LMDB without sync may be corrupt, not merely old, once the machine (not only the process) has gone down without
a clean stop. So the mark says which boot wrote the environment and whether it was closed cleanly, and such an
environment is deleted unopened. The mark is written before a first byte of the environment, so an environment
without one is refused rather than guessed about.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Final

import lmdb

from kvnet.errors import ForeignEnvironment, StorageError, StorageFull

FORMAT: Final = 1
"""Raised with every change of what lies in the environment that an older kvnet would misread."""
MAP_SIZE_BYTES: Final = 256 << 30
"""Address space only: the file grows as it is used, and a map is never resized while it is open."""
READERS_MAX: Final = 32
BOOT_ID_PATH: Final = Path("/proc/sys/kernel/random/boot_id")

_DATABASES: Final = (b"meta", b"records", b"journal", b"requests", b"request_times", b"erasing")
_IDENTITY_KEY: Final = b"identity"
_OTHER_FOLDER: Final = "choose another data folder, or remove this one with --wipe"
_REFILLED: Final = "bring back a copy, or remove the folder and let the network refill it"


class Durability(StrEnum):
    COMMIT = "commit"
    """A commit is on the disk when it returns."""
    NONE = "none"
    """A commit survives the process, not the machine; the network refills the replica."""


_FREE_BYTES_LOW: Final = 64 << 20
_DAMAGE: Final = (lmdb.InvalidError, lmdb.VersionMismatchError, lmdb.CorruptedError, lmdb.PageNotFoundError)


@dataclass(frozen=True, slots=True)
class _Mark:
    """What mark.json says."""

    format: int
    cluster_id: str
    node: str
    durability: str
    boot_id: str
    clean: bool


class Environment:
    """An open LMDB environment in a folder that this process alone holds.

    Open it after the last fork: neither LMDB nor the folder's lock survives one.
    """

    def __init__(
        self, folder: Path, *, node: str, cluster_id: bytes, durability: Durability, map_size_bytes: int
    ) -> None:
        """Open the folder, making it when it doesn't exist.

        Raises:
            ForeignEnvironment: it holds another cluster's, another node's or a newer format's data.
            StorageError: another process holds it, or it can't be read or written.
        """
        self.folder = folder
        self.discarded = False
        """Whether what was here had to be deleted unopened; the replica starts empty."""
        with translated_errors(folder):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = _take_lock(folder)
            try:
                self._open(_Mark(FORMAT, cluster_id.hex(), node, durability, "", clean=False), map_size_bytes)
            except BaseException:
                os.close(lock)
                raise
        self._lock: int | None = lock

    def _open(self, mark: _Mark, map_size_bytes: int) -> None:
        replica = self.folder / "replica"
        before = _read_mark(self.folder)
        if before is not None:
            _refuse_foreign(self.folder, before.cluster_id, before.node, mark)
        elif replica.exists():
            raise StorageError(f"{self.folder} has lost its mark.json: {_REFILLED}")
        boot_id = BOOT_ID_PATH.read_text().strip()
        self._mark = replace(mark, boot_id=boot_id)
        unsynced = before is not None and before.durability == Durability.NONE
        if before is not None and unsynced and not before.clean and before.boot_id != boot_id:
            if replica.exists():
                shutil.rmtree(replica)
                self.discarded = True
            unsynced = False
        synced = mark.durability == Durability.COMMIT
        # An environment that becomes `commit` keeps the weaker mark until it has been synced.
        if self._mark != before and not (synced and unsynced):
            _write_mark(self.folder, self._mark)
        self.lmdb = lmdb.Environment(
            str(replica),
            map_size=map_size_bytes,
            mode=0o700,
            sync=synced,
            metasync=synced,
            readahead=False,
            max_readers=READERS_MAX,
            max_dbs=12,
            max_spare_txns=1,
        )
        try:
            if synced and unsynced:
                self.lmdb.sync(True)
                _write_mark(self.folder, self._mark)
            self.lmdb.reader_check()
            with self.lmdb.begin(write=True) as txn:
                self._databases = {name: self.lmdb.open_db(name, txn=txn) for name in _DATABASES}
                self._check_identity(txn)
            if synced:
                # LMDB syncs its file, not the folders that lead to it.
                for folder in (replica, self.folder, self.folder.parent):
                    _sync_folder(folder)
        except BaseException:
            self.lmdb.close()
            raise

    def _check_identity(self, txn: lmdb.Transaction[bytes]) -> None:
        """The environment says itself whose it is: a mark may have been copied beside another one."""
        meta = self.database("meta")
        stored = txn.get(_IDENTITY_KEY, db=meta)
        if stored is None:
            identity = {field: getattr(self._mark, field) for field in ("format", "cluster_id", "node")}
            txn.put(_IDENTITY_KEY, json.dumps(identity).encode(), db=meta)
            return
        found = json.loads(stored)
        _refuse_newer(self.folder, found["format"])
        _refuse_foreign(self.folder, found["cluster_id"], found["node"], self._mark)

    @contextmanager
    def write(self) -> Iterator[lmdb.Transaction[bytes]]:
        """A write transaction over `records`: committed at the end, dropped on any error."""
        with translated_errors(self.folder), self.lmdb.begin(self.database("records"), write=True) as txn:
            yield txn

    @contextmanager
    def view(self) -> Iterator[lmdb.Transaction[memoryview]]:
        """A read transaction over `records`; the views it gives are valid until it ends."""
        with translated_errors(self.folder), self.lmdb.begin(self.database("records"), buffers=True) as txn:
            yield txn

    def database(self, name: str) -> lmdb._Database:
        return self._databases[name.encode()]

    def close(self, *, clean: bool) -> None:
        """Give the folder back; a clean close of an unsynced environment syncs it and says so in the mark."""
        if self._lock is None:
            return
        lock, self._lock = self._lock, None
        marked = clean and self._mark.durability == Durability.NONE
        with translated_errors(self.folder):
            try:
                if marked:
                    self.lmdb.sync(True)
                    _write_mark(self.folder, replace(self._mark, clean=True))
            finally:
                self.lmdb.close()
                os.close(lock)


@contextmanager
def translated_errors(folder: Path) -> Iterator[None]:
    """Inside, what LMDB and the system raise becomes a StorageError of one line that names the cure."""
    try:
        yield
    except (lmdb.Error, OSError) as error:
        raise translated(error, folder) from error


def translated(error: lmdb.Error | OSError, folder: Path) -> StorageError:
    """Return the one-line error that `error` becomes."""
    if isinstance(error, lmdb.MapFullError):
        return StorageFull(f"the map of {folder} is full: delete data or open it with a larger map; reads go on")
    if isinstance(error, _DAMAGE):
        return StorageError(f"{folder} holds no environment that this LMDB can read ({error}): {_REFILLED}")
    code = error.code if isinstance(error, lmdb.Error) else error.errno
    match code:
        case errno.ENOSPC | errno.EDQUOT | errno.EFBIG:
            return _no_space(folder)
        case errno.EIO if _free_bytes(folder) < _FREE_BYTES_LOW:
            # LMDB reports a write that was cut short as EIO: the first sign of a full disk.
            return _no_space(folder)
        case errno.EACCES | errno.EPERM | errno.EROFS:
            return StorageError(
                f"{folder} can't be written: give this user the right to, or choose another folder"
            )
        case errno.ENOTDIR | errno.EEXIST:
            return StorageError(f"{folder} is not a folder: choose another one")
        case _:
            return StorageError(f"{folder} can't be used: {error}")


def _no_space(folder: Path) -> StorageFull:
    return StorageFull(f"no space left for {folder}: free some or raise its quota; reads go on")


def _free_bytes(folder: Path) -> int:
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize


def _take_lock(folder: Path) -> int:
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(lock, 0)
        os.pwrite(lock, b"%d\n" % os.getpid(), 0)
    except BlockingIOError:
        # The holder writes its id right after it has the lock, so for a moment it may not be there yet.
        holder = os.pread(lock, 20, 0).decode().strip() or "(starting)"
        os.close(lock)
        raise StorageError(
            f"{folder} is in use by process {holder}: stop it or choose another data folder"
        ) from None
    except BaseException:
        os.close(lock)
        raise
    return lock


def _refuse_newer(folder: Path, found: int) -> None:
    if found > FORMAT:
        raise ForeignEnvironment(
            f"{folder} has format {found}, this kvnet reads {FORMAT}: upgrade kvnet or {_OTHER_FOLDER}"
        )


def _refuse_foreign(folder: Path, cluster_id: str, node: str, ours: _Mark) -> None:
    if cluster_id != ours.cluster_id:
        raise ForeignEnvironment(f"{folder} belongs to another cluster: bring its secret, {_OTHER_FOLDER}")
    if node != ours.node:
        raise ForeignEnvironment(f"{folder} belongs to node {node}, not to {ours.node}: {_OTHER_FOLDER}")


def _read_mark(folder: Path) -> _Mark | None:
    """Return the mark, or None if there is none.

    Raises:
        ForeignEnvironment: a newer kvnet wrote it.
        StorageError: it isn't a mark.
    """
    path = folder / "mark.json"
    try:
        found = json.loads(path.read_bytes())
        _refuse_newer(folder, found["format"])
        return _Mark(**found)
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError):
        raise StorageError(f"{path} can't be read: {_REFILLED}") from None


def _write_mark(folder: Path, mark: _Mark) -> None:
    """The mark is on the disk afterwards, whole: the old one or the new one, whatever happens meanwhile."""
    scratch = folder / "mark.json.new"
    with suppress(FileNotFoundError):
        scratch.unlink()
    with scratch.open("xb") as file:
        file.write(json.dumps(asdict(mark)).encode())
        file.flush()
        os.fsync(file.fileno())
    scratch.replace(folder / "mark.json")
    _sync_folder(folder)


def _sync_folder(folder: Path) -> None:
    """What was created, renamed or removed in `folder` stays so after a power cut."""
    directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
