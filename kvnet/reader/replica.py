"""A replica, open in a process that isn't its node's.

A read looks at one number on the serving page and begins a transaction, no more, as long as that number says
that what is remembered still holds; a thread looks whether the page is still the folder's (watch.py). What is
remembered is swapped whole, so that threads need no lock to read.
"""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import Final, NamedTuple, Self
from weakref import WeakSet

import lmdb

from kvnet.core.clock import stamp_ms
from kvnet.core.freshness import staleness_ms
from kvnet.core.versions import Version
from kvnet.errors import StorageError
from kvnet.reader.folder import ReplicaFolder
from kvnet.reader.namespace import NO_WORD, ReplicaNamespace
from kvnet.reader.opened import Contents, Opened, forget_after_fork, opening
from kvnet.reader.watch import Watch
from kvnet.storage.serving import WORD, SeenPage

SETTLE_S: Final = 5.0
"""How long a look is repeated while the node puts another environment in the place of the one looked at."""
PAUSE_S: Final = 0.002


class Seen(NamedTuple):
    """What was found at the last look."""

    word: int
    """The page's; as long as it has it, this holds. NO_WORD: for one read only."""
    page: SeenPage
    is_told: bool
    """Whether the page is of this boot: of an earlier one only its word is true."""
    opened: Opened
    contents: Contents
    floor_ms: float
    """Replica time where no page tells it."""


class Replica:
    """An edge's replica, read in place; safe in threads.

    Around a fork it closes itself, and it opens again with the next read, on both sides; no other thread may be
    reading when a process forks.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        """As given."""
        self._folder = ReplicaFolder(path)
        self._seen: Seen | None = None
        self._namespaces: WeakSet[ReplicaNamespace] = WeakSet()
        self._lock = threading.Lock()
        self._closed = False
        self.look()
        _replicas.add(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Read no more; LMDB's part is closed when the last read of another thread is done."""
        with self._lock:
            self._closed = True
            self._forget()

    def namespace(self, name: str) -> ReplicaNamespace:
        """Return the namespace with this title or id; whether there is one is seen by the first read."""
        namespace = ReplicaNamespace(self, name)
        with self._lock:
            self._namespaces.add(namespace)
        return namespace

    def namespaces(self) -> dict[str, str]:
        """Return all namespaces: their ids by title.

        Raises:
            StorageError: the replica can't be read now; the text says why and names the cure.
        """
        return {each.title: each.id.hex() for each in self.look().contents.namespaces}

    @property
    def pop(self) -> str:
        """Code of the PoP whose replica it is."""
        return self._folder.node

    @property
    def position(self) -> Version:
        """The version of the last write that is in the replica.

        Raises:
            StorageError: as for `namespaces`.
        """
        return self.look().opened.state().position.version

    @property
    def running(self) -> bool:
        """Whether the replica's node runs. Without it the replica stays what it was, and grows stale.

        Raises:
            StorageError: as for `namespaces`.
        """
        return self.look().page.running

    def staleness_ms(self) -> float:
        """Return an upper bound on the age of the replica's view, as its node reckons it.

        Raises:
            StorageError: as for `namespaces`.
        """
        seen = self.look()
        view = seen.page.view() if seen.is_told else None
        return staleness_ms(
            now_ms=monotonic() * 1000,
            wall_ms=time.time() * 1000,
            beacon=None if view is None else view.beacon,
            applied_stamp=seen.opened.state().stamp if view is None else view.stamp,
        )

    def now_s(self) -> float:
        """Return replica time, which decides expiry: never behind what the node has acted upon.

        It goes on while the node is down. After a restart of the machine it stands where it was until the node is
        back, as it does for a node that nobody tells the time.

        Raises:
            StorageError: as for `namespaces`.
        """
        seen = self._seen or self.look()
        return (seen.page.now_ms(monotonic() * 1000) if seen.is_told else seen.floor_ms) / 1000

    def look(self) -> Seen:
        """Return what is the replica now.

        Raises:
            StorageError: it can't be read now; the text says why and names the cure.
        """
        seen = self._seen
        if seen is not None and seen.page.numbers[WORD] == seen.word:
            return seen
        with self._lock:
            if self._closed:
                raise StorageError(f"the replica in {self.path} was closed: open it again")
            give_up_at = monotonic() + SETTLE_S
            while True:
                trace = self._folder.trace()
                try:
                    seen = self._look()
                except (lmdb.Error, OSError, StorageError) as error:
                    if self._folder.trace() != trace and monotonic() < give_up_at:
                        time.sleep(PAUSE_S)
                        continue
                    self._forget()
                    raise self._folder.told(error) from error
                break
        _watch.over(self)
        return seen

    def holds(self, seen: Seen) -> bool:
        """Whether this is still what reads go by."""
        return self._seen is seen

    def check(self) -> None:
        """Let go of what isn't the replica any more, whether anybody reads or not; the next read looks."""
        seen = self._seen
        if seen is None:
            return
        if seen.page.numbers[WORD] != seen.word or not self._folder.has_page(seen.page):
            self.forget()

    def _look(self) -> Seen:
        page, word = self._folder.page()
        seen = self._seen
        if seen is not None and seen.page is page and seen.word == word:
            return seen
        seen = self._look_inside(page)
        # While it is odd, a change is under way, or was when the node ended: then each read looks for itself. So
        # does the next one when it has changed meanwhile.
        if not word & 1 and page.numbers[WORD] == word:
            seen = seen._replace(word=word)
        self._forget()  # one that was replaced takes room on the disk as long as a namespace remembers it
        self._seen = seen
        return seen

    def _look_inside(self, page: SeenPage) -> Seen:
        mark = self._folder.mark()
        is_told = self._folder.check(mark, page)
        opened = self._folder.open(mark)
        contents = opened.contents()
        self._folder.check_contents(contents, page)
        floor_ms = 0.0
        if not is_told:
            floor_ms = max(stamp_ms(opened.state().stamp), self._folder.reached_ms())
        return Seen(NO_WORD, page, is_told, opened, contents, floor_ms)

    def _forget(self) -> None:
        self._seen = None
        for namespace in self._namespaces:
            namespace.forget()

    def forget(self) -> None:
        """Open the environment anew with the next read."""
        with self._lock:
            self._forget()

    def told(self, error: lmdb.Error) -> StorageError:
        """Return the one-line error that this is for whoever reads."""
        return self._folder.told(error)

    # -- around a fork ---------------------------------------------------------------------------------------

    def before_fork(self) -> None:
        self._lock.acquire()
        self._forget()

    def after_fork(self, *, in_child: bool) -> None:
        if in_child:
            self._lock = threading.Lock()
        else:
            self._lock.release()


def open_replica(path: str | os.PathLike[str]) -> Replica:
    """Return the replica in an edge's folder, `.kvnet/fra` for example, to be read by this process.

    The edge may run or not, and be restarted meanwhile; who may read its files may read the replica.

    Raises:
        StorageError: there is none that may be read; the text says why and names the cure.
    """
    return Replica(Path(path))


_watch: Final = Watch()
_replicas: Final[WeakSet[Replica]] = WeakSet()
_forking: Final[list[Replica]] = []
_fork = threading.Lock()
"""Held around a fork: another thread that forks meanwhile waits, since what is above is one fork's."""


def _before_fork() -> None:
    """LMDB doesn't survive a fork: nothing of it is open during one, and no thread of ours runs."""
    _fork.acquire()
    _watch.pause()
    _forking[:] = _replicas
    for replica in _forking:
        replica.before_fork()
    opening.acquire()


def _after_fork(*, in_child: bool) -> None:
    global _fork  # noqa: PLW0603 - in the child the lock is made anew
    opening.release()
    if in_child:
        forget_after_fork()
        _watch.after_fork_in_child()
    for replica in _forking:
        replica.after_fork(in_child=in_child)
    _forking.clear()
    if in_child:
        _fork = threading.Lock()
    else:
        _fork.release()


os.register_at_fork(
    before=_before_fork,
    after_in_parent=lambda: _after_fork(in_child=False),
    after_in_child=lambda: _after_fork(in_child=True),
)
