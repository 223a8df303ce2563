"""One node's data folder: its lock, its mark, and the environments in it.

    lock          flocked while a process has the folder open; holds its process id
    mark.json     whose data this is, which environment is the replica, which one is to become it, and whether they
                  can be trusted after a machine restart; fsynced
    replica-N/    LMDB environments
    clock         the highest time by which anything was found expired (clock_file.py)
    crash         what a process wrote that died of a fatal signal
    opening       how many processes in a row ended while they opened it
    serving       what other processes that read the replica must know (serving.py)

LMDB without sync may be corrupt, not merely old, once the machine (not only the process) has gone down without
a clean stop. So the mark says which boot wrote the environments and whether they were closed cleanly, and what
can't be trusted is deleted unopened. The mark is written before a first byte of an environment, so that one
without it is refused rather than guessed about. A successor takes the replica's place by one rename of the
mark.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Final

from kvnet.errors import ForeignEnvironment, StorageDamaged, StorageError
from kvnet.storage import serving
from kvnet.storage.disk import HOST, Disk
from kvnet.storage.environment import (
    FORMAT,
    Environment,
    Owner,
    refuse_foreign,
    refuse_if_foreign,
    refuse_other_format,
)
from kvnet.storage.faults import REFILLED, translated_errors
from kvnet.storage.serving import ServingPage

MARK: Final = "mark.json"
OPENINGS_MAX: Final = 2
"""Processes that may end in a row while they open a refillable replica, before it is thrown away."""


class Durability(StrEnum):
    COMMIT = "commit"
    """A commit is on the disk when it returns."""
    NONE = "none"
    """A commit survives the process, not the machine; the network refills the replica."""


@dataclass(frozen=True, slots=True)
class Mark:
    """What mark.json says."""

    format: int
    cluster_id: str
    node: str
    durability: str
    boot_id: str
    clean: bool
    replica: str
    """The environment's folder."""
    made: bool
    """The environment was there once, so it must be."""
    successor: str | None
    """Its folder, while there is one."""


def _no_step(name: str) -> None:
    """Where a test may end the process."""


class DataFolder:
    """A data folder that this process alone holds, and the environments that are open in it."""

    def __init__(
        self,
        path: Path,
        owner: Owner,
        *,
        durability: Durability,
        map_size_bytes: int,
        refillable: bool,
        shared: bool = False,
        disk: Disk = HOST,
        step: Callable[[str], None] = _no_step,
    ) -> None:
        """Open the folder, making it when it doesn't exist.

        A `refillable` replica that is damaged is thrown away, since the network gives it back; another one is
        refused. A `shared` one may be read by other processes. `step`
        is called with the name of each step that a crash could come before.

        Raises:
            ForeignEnvironment: it holds another cluster's, another node's or another format's data.
            StorageDamaged: what is here can't be read, and isn't refillable.
            StorageError: another process holds it, or it can't be read or written.
        """
        self.path = path
        self.discarded = ""
        """Why what was here had to be deleted; the replica starts empty then. "" if it hadn't."""
        self.step = step
        self.disk = disk
        self.durability = durability
        self._owner = owner
        self._map_size_bytes = map_size_bytes
        self._refillable = refillable
        self.serving: ServingPage | None = None
        """What other processes are told, a change of it under way until the replica is bound; None if nothing."""
        with translated_errors(path):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = _take_lock(path)
            try:
                if shared:
                    self.serving = ServingPage.open(self.serving_file, disk.boot_id())
                self._open()
                if durability is Durability.COMMIT:
                    disk.sync_folder(path.parent)
            except BaseException:
                os.close(lock)
                raise
        self._lock: int | None = lock

    # -- opening ---------------------------------------------------------------------------------------------

    def _open(self) -> None:
        before = self._read_mark()
        boot_id = self.disk.boot_id()
        rebooted = before is not None and not before.clean and before.boot_id != boot_id
        unsynced = before is not None and before.durability == Durability.NONE
        mark = Mark(
            format=FORMAT,
            cluster_id=self._owner.cluster_id,
            node=self._owner.node,
            # A replica that becomes `commit` keeps the weaker mark until it has been synced.
            durability=Durability.NONE if unsynced else self.durability,
            boot_id=boot_id,
            clean=False,
            replica=before.replica if before else "replica-1",
            made=before is not None and before.made,
            # Nothing of a successor is synced before it takes the replica's place.
            successor=before.successor if before and not rebooted else None,
        )
        if unsynced and rebooted:
            mark = self._discard(mark, "the machine went down without a clean stop, and it wasn't synced")
        elif self._refillable and self.crash_file.exists() and self.crash_file.stat().st_size:
            mark = self._discard(mark, "the last process that had it open died of a fatal signal")
        elif self._refillable and self._openings() >= OPENINGS_MAX:
            mark = self._discard(mark, "the last processes that opened it ended before it was open")
        self._mark = mark
        if mark != before:  # a full disk doesn't keep a node from starting
            self._write_mark(mark)
        self._remove_leftovers()
        self.step("open: marked")
        if self._refillable:
            self._count_opening()
        try:
            self.replica = self._open_replica()
        except StorageDamaged as damage:
            if not self._refillable:
                raise
            self.discard_replica(str(damage))
        self.successor = self._open_successor()
        if self._mark.durability != self.durability:
            self.replica.sync()
            self._write_mark(replace(self._mark, durability=self.durability))
        self.step("open: open")

    def _read_mark(self) -> Mark | None:
        """Return the mark of data that is ours, or None if there is no data.

        Raises:
            ForeignEnvironment: the data isn't ours.
            StorageDamaged: there is data and no mark that can be read; a refillable replica begins anew instead.
        """
        path = self.path / MARK
        try:
            mark = read_mark(self.path)
        except FileNotFoundError:
            if not any(self.path.glob("replica*")):
                return None
            why = f"{self.path} has lost its mark.json"
        except (ValueError, TypeError, KeyError):
            why = f"{path} can't be read"
        else:
            refuse_foreign(self.path, Owner(mark.cluster_id, mark.node), self._owner)
            return mark
        if not self._refillable:
            raise StorageDamaged(f"{why}: {REFILLED}")
        for folder in sorted(self.path.glob("replica*")):
            with suppress(StorageDamaged):
                refuse_if_foreign(folder, self._owner)
        self.discarded = why
        for folder in self.path.glob("replica*"):
            self.disk.remove_tree(folder)
        return None

    def _discard(self, mark: Mark, why: str) -> Mark:
        """Return the mark of an empty replica in place of this one's."""
        if (self.path / mark.replica).exists():
            self.discarded = why
        for file in (self.crash_file, self._openings_file):
            with suppress(FileNotFoundError):
                file.unlink()
        return replace(mark, replica=_next_name(mark.replica, mark.successor), made=False, successor=None)

    def _open_environment(self, name: str, *, synced: bool) -> Environment:
        return Environment(
            self.path / name,
            self._owner,
            synced=synced,
            map_size_bytes=self._map_size_bytes,
            disk=self.disk,
        )

    def _open_replica(self) -> Environment:
        file = self.path / self._mark.replica / "data.mdb"
        if self._mark.made and not (file.exists() and file.stat().st_size):
            raise StorageDamaged(f"{file} is gone: {REFILLED}")
        environment = self._open_environment(self._mark.replica, synced=self.durability is Durability.COMMIT)
        if not self._mark.made:
            self._write_mark(replace(self._mark, made=True))
        return environment

    def _open_successor(self) -> Environment | None:
        name = self._mark.successor
        if name is None:
            return None
        try:
            return self._open_environment(name, synced=False)
        except (StorageDamaged, ForeignEnvironment):
            self._write_mark(replace(self._mark, successor=None))
            self.disk.remove_tree(self.path / name)
            return None

    # A flipped bit in LMDB's own pages can kill whoever opens it, before anybody could write a crash file.

    @property
    def _openings_file(self) -> Path:
        return self.path / "opening"

    def _openings(self) -> int:
        try:
            return int(self._openings_file.read_bytes())
        except (FileNotFoundError, ValueError):
            return 0

    def _count_opening(self) -> None:
        with suppress(OSError):  # a full disk doesn't keep a node from starting
            self._openings_file.write_bytes(b"%d" % (self._openings() + 1))

    def opened(self) -> None:
        """All that an opening reads has been read."""
        with suppress(FileNotFoundError):
            self._openings_file.unlink()

    def _remove_leftovers(self) -> None:
        named = {self._mark.replica, self._mark.successor}
        for folder in self.path.glob("replica*"):
            if folder.name not in named:
                self.disk.remove_tree(folder)

    # -- replica and successor -------------------------------------------------------------------------------

    @property
    def crash_file(self) -> Path:
        return self.path / "crash"

    @property
    def serving_file(self) -> Path:
        return self.path / serving.NAME

    @property
    def clock_file(self) -> Path:
        return self.path / "clock"

    def discard_replica(self, why: str) -> None:
        """Begin with an empty replica in place of one that is damaged and refillable, and not open."""
        self.discarded = why
        name = _next_name(self._mark.replica, self._mark.successor)
        self._write_mark(replace(self._mark, replica=name, made=False))
        self._remove_leftovers()
        self.replica = self._open_replica()

    def begin_successor(self) -> Environment:
        """Return an empty environment, in place of a successor that was begun before.

        It isn't synced before it is adopted: until then it can be had again.
        """
        self.abandon_successor()
        path = self.empty_place()
        with translated_errors(self.path):
            self._write_mark(replace(self._mark, successor=path.name))
        self.step("successor: marked")
        self.successor = self._open_environment(path.name, synced=False)
        return self.successor

    def abandon_successor(self) -> None:
        """There is no successor any more."""
        name = self._mark.successor
        if name is None:
            return
        self.successor = None
        with translated_errors(self.path):
            self._write_mark(replace(self._mark, successor=None))
            self.step("successor: abandoned")
            self.disk.remove_tree(self.path / name)

    def empty_place(self) -> Path:
        """Return where an environment may be put that the mark doesn't name yet, and a start would remove."""
        path = self.path / _next_name(self._mark.replica, self._mark.successor)
        with translated_errors(self.path):
            self.disk.remove_tree(path)
        return path

    def open_unnamed(self, path: Path) -> Environment:
        """Open what `empty_place` gave; not synced before it is adopted."""
        return self._open_environment(path.name, synced=False)

    def adopt(self, environment: Environment) -> None:
        """This environment is the replica, durably, and there is no successor.

        Readers of the old one may finish. Killed on the way, it leaves the old one or the new one, whole; after an
        error the old one.
        """
        with translated_errors(self.path):
            if self.durability is Durability.COMMIT:
                environment.become_synced()
                self.step("adopt: synced")
            known = (self._mark.replica, self._mark.successor)
            others = [name for name in known if name not in (None, environment.path.name)]
            self._write_mark(replace(self._mark, replica=environment.path.name, successor=None))
        # From here on it is so, whatever happens.
        self.replica, self.successor = environment, None
        self.step("adopt: marked")
        with suppress(OSError):  # the next start removes it
            for name in others:
                self.disk.remove_tree(self.path / str(name))
        self.step("adopt: removed")

    def close(self, *, clean: bool) -> None:
        """Give the folder back; a clean close of an unsynced environment syncs it and says so in the mark."""
        if self._lock is None:
            return
        lock, self._lock = self._lock, None
        with translated_errors(self.path):
            try:
                self.step("close: begin")
                if clean and self.durability is Durability.NONE:
                    for environment in (self.replica, self.successor):
                        if environment is not None:
                            environment.sync()
                    self._write_mark(replace(self._mark, clean=True))
                    self.step("close: marked")
            finally:
                if self.serving is not None and clean:
                    self.serving.stop()
                self.replica.retire()
                if self.successor is not None:
                    self.successor.retire()
                os.close(lock)
        self.step("close: closed")

    def _write_mark(self, mark: Mark) -> None:
        self.disk.write_durably(self.path / MARK, json.dumps(asdict(mark)).encode())
        self._mark = mark


def read_mark(folder: Path) -> Mark:
    """Return what the folder's mark says.

    Raises:
        ForeignEnvironment: it is of another format.
        OSError, ValueError, TypeError, KeyError: there is none, or it can't be read.
    """
    found = json.loads((folder / MARK).read_bytes())
    refuse_other_format(folder, found["format"])
    return Mark(**found)


def _next_name(replica: str, successor: str | None) -> str:
    numbers = [int(name.rpartition("-")[2]) for name in (replica, successor) if name is not None]
    return f"replica-{max(numbers) + 1}"


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
