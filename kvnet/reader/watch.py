"""A thread that looks once a second whether what is open is still what lies on the disk.

What a node does to its replica its readers see by themselves, with each read. That somebody has deleted the folder
no node tells; and a read that asked the clock whether it is time to look would take a tenth longer. So one thread
looks for all open replicas of a process, as long as there are any, and is away while the process forks.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import Final, Protocol
from weakref import WeakSet

LOOK_INTERVAL_S: Final = 1.0
"""More: a deleted replica is read longer."""


class Watched(Protocol):
    """A replica, as far as it is known here."""

    def check(self) -> None:
        """Look whether what is open still is the replica, and let go of what isn't."""


class Watch:
    """The thread, if anybody needs it."""

    def __init__(self) -> None:
        self._watched: WeakSet[Watched] = WeakSet()
        self._lock = threading.Lock()
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None

    def over(self, watched: Watched) -> None:
        """It is looked after from here on, until nobody has it any more."""
        with self._lock:
            self._watched.add(watched)
            if self._thread is not None and self._thread.is_alive():
                return
            self._ending = threading.Event()
            thread = threading.Thread(
                target=self._run, args=(self._ending,), name="kvnet replica watch", daemon=True
            )
            with suppress(RuntimeError):  # while the interpreter ends there are no new threads
                thread.start()
                self._thread = thread

    def pause(self) -> None:
        """There is no such thread, until the next call of `over`."""
        with self._lock:
            thread, self._thread = self._thread, None
            self._ending.set()
        if thread is not None:
            thread.join()

    def after_fork_in_child(self) -> None:
        self._lock = threading.Lock()
        self._thread = None

    def _run(self, ending: threading.Event) -> None:
        while not ending.wait(LOOK_INTERVAL_S):
            with self._lock:
                watched = list(self._watched)
            for each in watched:
                each.check()
