"""What a failing disk is called: LMDB's and the system's errors as ours, one line each, with the cure."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import lmdb

from kvnet.errors import StorageDamaged, StorageError, StorageFull

REFILLED: Final = "bring back a snapshot, or remove the folder and let the network refill it"
_FREE_BYTES_LOW: Final = 64 << 20
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
