"""An edge's folder as a reader finds it: which environment is the replica, and why it may not be read."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any, Final

import lmdb

from kvnet.errors import ForeignEnvironment, StorageError
from kvnet.reader.opened import Contents, Opened, account_of, open_environment
from kvnet.storage import serving
from kvnet.storage.clock_file import read_reached_ms
from kvnet.storage.disk import HOST
from kvnet.storage.environment import Owner
from kvnet.storage.faults import translated
from kvnet.storage.folder import MARK, Durability, Mark, read_mark
from kvnet.storage.serving import WORD, SeenPage, boot_mark

COORDINATOR: Final = "coordinator"
STORE: Final = "store"
"""A node's replica in its folder."""
CLUSTER_FILE: Final = "cluster.json"
_FORBIDDEN: Final = frozenset({errno.EACCES, errno.EPERM})


class ReplicaFolder:
    """What lies in an edge's folder, looked at anew each time."""

    def __init__(self, path: Path) -> None:
        """`path` is a node's folder, or the `store` in it."""
        self.path = path
        self.node = ""
        """Whose replica it is, once the mark was read."""
        self._page: SeenPage | None = None

    @property
    def _store(self) -> Path:
        """The folder with the mark, or where it should be."""
        return self.path if os.path.exists(self.path / MARK) else self.path / STORE  # noqa: PTH110 - Path's raises

    def trace(self) -> tuple[Any, ...]:
        """Return what is another one whenever the node has put something else in the replica's place."""
        try:
            found = (self._store / MARK).stat()
        except OSError:  # whoever looks into it is told
            return ()
        word = None if self._page is None else self._page.numbers[WORD]
        return found.st_ino, found.st_mtime_ns, word

    def page(self) -> tuple[SeenPage, int]:
        """Return the serving page, the same one as long as it is the folder's, and its word.

        Raises:
            StorageError: there is none.
            OSError: it can't be read.
        """
        path = self._store / serving.NAME
        page = self._page
        try:
            found = path.stat()
            if page is None or page.file != (found.st_dev, found.st_ino):
                page = self._page = SeenPage(path)
        except (FileNotFoundError, ValueError):
            self._page = None
            self.mark()  # more to the point, if there is none
            raise StorageError(
                f"{self.path} has nothing to tell readers by: start its node once with this kvnet"
            ) from None
        return page, page.numbers[WORD]

    def has_page(self, page: SeenPage) -> bool:
        """Whether this page is still the one that lies here."""
        try:
            found = (self._store / serving.NAME).stat()
        except OSError:
            return False
        return page.file == (found.st_dev, found.st_ino)

    def mark(self) -> Mark:
        """Return the folder's mark, an edge's.

        Raises:
            ForeignEnvironment: it is of another format.
            StorageError: it can't be read, or isn't an edge's.
            OSError: it isn't there, or may not be read.
        """
        try:
            mark = read_mark(self._store)
        except (ValueError, TypeError, KeyError):
            raise StorageError(f"{self._store / MARK} can't be read: start its node, which mends it") from None
        if mark.node == COORDINATOR:
            raise StorageError(
                f"{self.path} is the coordinator's: open the folder of an edge, beside it; `kvnet ps` names them"
            )
        self.node = mark.node
        return mark

    def check(self, mark: Mark, page: SeenPage) -> bool:
        """Return whether the page is of this boot.

        Raises:
            StorageError: the replica may not be read.
        """
        boot_id = HOST.boot_id()
        if mark.durability == Durability.NONE and not mark.clean and mark.boot_id != boot_id:
            raise StorageError(
                f"the machine went down and the replica in {self.path} wasn't synced: start its node, "
                "which makes it anew"
            )
        is_told = page.boot == boot_mark(boot_id)
        if is_told and page.refused:
            raise StorageError(
                f"the replica in {self.path} is damaged or diverged: {self._cure(page, 'makes it anew')}"
            )
        return is_told

    def open(self, mark: Mark) -> Opened:
        """Return the environment that the mark names.

        Raises:
            StorageError, lmdb.Error, OSError: it can't be read.
        """
        if not mark.made:
            raise StorageError(f"the replica in {self.path} isn't there yet: start its node, which makes it")
        return open_environment(self._store / mark.replica, Owner(mark.cluster_id, mark.node))

    def check_contents(self, contents: Contents, page: SeenPage) -> None:
        """Return if this may be read.

        Raises:
            ForeignEnvironment: it is another network's than the run folder around it.
            StorageError: the replica has never stood where its network stood.
        """
        if not contents.verified or contents.cluster is None:
            raise StorageError(f"the replica in {self.path} isn't whole yet: {self._cure(page, 'fills it')}")
        account = account_of(self._store.absolute().parent.parent / CLUSTER_FILE)
        if account not in {None, contents.cluster.account_id}:
            raise ForeignEnvironment(
                f"{self.path} belongs to another network than the run folder it lies in: put it back, "
                "or remove it and let the network refill it"
            )

    def reached_ms(self) -> int:
        """Return by what time the node has last found something expired."""
        return read_reached_ms(self._store / "clock")

    def told(self, error: lmdb.Error | OSError | StorageError) -> StorageError:
        """Return the one-line error that this is for whoever reads."""
        match error:
            case StorageError():
                return error
            case FileNotFoundError() | NotADirectoryError():
                if (self.path / CLUSTER_FILE).exists():
                    what = (
                        f"{self.path} is a run folder: open the folder of an edge in it, {self.path / 'fra'} say"
                    )
                else:
                    what = f"there is no replica in {self.path}: name the folder of an edge, .kvnet/fra say"
                return StorageError(f"{what}; `kvnet ps` names them")
            case PermissionError() | lmdb.ReadonlyError():
                return self._forbidden()
            case lmdb.ReadersFullError():
                return StorageError(f"{self.path} has no place for another reader: let fewer processes read it")
            case lmdb.Error() if error.code in _FORBIDDEN:
                return self._forbidden()
            case _:
                return translated(error, self.path)

    def _forbidden(self) -> StorageError:
        return StorageError(f"{self.path} can't be read: run this as the user who runs the node")

    def _cure(self, page: SeenPage, does: str) -> str:
        """What to do about a replica that its node is to mend."""
        if page.running:
            return f"its node {does}, try again when `kvnet status` shows it ready"
        return f"start its node, which {does}"
