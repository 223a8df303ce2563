"""What a failing disk is called: LMDB's and the system's errors as ours, one line each, with the cure."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import lmdb

from kvnet.errors import StorageDamaged, StorageError, StorageFull

REFILLED: Final = "bring back a snapshot, or remove the folder and let the network refill it"
_FREE_BYTES_LOW: Final = 64 << 20
_PROBE_BYTES: Final = 256 << 10
_FULL: Final = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG))
_DAMAGE: Final = (lmdb.InvalidError, lmdb.VersionMismatchError, lmdb.CorruptedError, lmdb.PageNotFoundError)


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
        return StorageDamaged(f"{folder} holds no environment that this LMDB can read ({error}): {REFILLED}")
    code = error.code if isinstance(error, lmdb.Error) else error.errno
    match code:
        case full if full in _FULL:
            return _no_space(folder)
        case errno.EIO if _free_bytes(folder) < _FREE_BYTES_LOW or not _takes_more(folder):
            # LMDB reports a write that was cut short as EIO: the first sign of a full disk, quota or file.
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
    free = disk.f_bavail * disk.f_frsize
    limit, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    if limit == resource.RLIM_INFINITY:
        return free
    largest = max((file.stat().st_size for file in folder.glob("data.mdb")), default=0)
    return min(free, limit - largest)


def _takes_more(folder: Path) -> bool:
    """Whether a file can still be written here: a quota doesn't show in the free space."""
    probe = folder / "probe"
    try:
        with probe.open("wb", buffering=0) as file:
            return file.write(bytes(_PROBE_BYTES)) == _PROBE_BYTES
    except OSError as error:
        return error.errno not in _FULL
    finally:
        with suppress(OSError):
            probe.unlink()
