"""Readers as children of a process without a loop: forked, started again when they die, ended with their node.

A reader that ends with 0 was told to by its node, and isn't started again before the node is.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import Final, NoReturn

DELAY_MIN_S: Final = 0.1
DELAY_MAX_S: Final = 5.0
SETTLED_S: Final = 3.0
"""A reader that lived this long starts with the shortest delay again."""

Become = Callable[[str, int], NoReturn]
"""Makes the process that calls it the reader of this node with this number."""


@dataclass(slots=True)
class _Place:
    """One reader, or where there is to be one."""

    name: str
    number: int
    pid: int | None = None
    began: float = 0.0
    due: float | None = 0.0
    """When it is forked again; None while it lives, or isn't to."""
    delay_s: float = DELAY_MIN_S
    ending: bool = False
    """Its node ends by order."""


class Brood:
    """The readers of one node or of many."""

    def __init__(self, become: Become, on_change: Callable[[str, list[int]], None]) -> None:
        """`on_change` is told the pids of a node's readers whenever these are others."""
        self._become = become
        self._on_change = on_change
        self._places: dict[str, list[_Place]] = {}

    def ensure(self, name: str, count: int) -> None:
        """The node starts: it has so many readers, those that live among them."""
        places = self._places.setdefault(name, [])
        places += [_Place(name, number) for number in range(len(places) + 1, count + 1)]
        for place in places:
            if place.pid is None:
                place.due, place.delay_s, place.ending = 0.0, DELAY_MIN_S, False
        self.fork_due()

    def fork_due(self) -> None:
        """Fork those whose time has come."""
        now = monotonic()
        for place in [place for places in self._places.values() for place in places]:
            if place.due is None or place.due > now:
                continue
            place.due = None
            place.began = now
            try:
                pid = os.fork()
            except OSError:  # no room for another process: later, perhaps
                place.due = now + DELAY_MAX_S
                continue
            if pid == 0:
                self._become(place.name, place.number)
            place.pid = pid
            self._tell(place.name)

    def wait_s(self) -> float | None:
        """Return in how many seconds `fork_due` has something to do; None for never."""
        dues = [place.due for places in self._places.values() for place in places if place.due is not None]
        return max(0.0, min(dues) - monotonic()) if dues else None

    def reaped(self, pid: int, status: int) -> bool:
        """Whether the process that has ended was a reader; `status` is waitpid's."""
        for places in self._places.values():
            for place in places:
                if place.pid == pid:
                    self._ended(place, status)
                    return True
        return False

    def keep_ended(self, name: str) -> None:
        """The node ends by order: whichever of its readers ends isn't started again."""
        for place in self._places.get(name, []):
            place.ending, place.due = True, None

    def end(self, name: str) -> None:
        """None of the node's readers lives any more."""
        pids = [place.pid for place in self._places.pop(name, []) if place.pid is not None]
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        for pid in pids:
            os.waitpid(pid, 0)
        if pids:
            self._tell(name)

    @property
    def pids(self) -> list[int]:
        """Of all that live."""
        return [place.pid for places in self._places.values() for place in places if place.pid is not None]

    def forget(self) -> None:
        """This process is another one from here on: these are not its children."""
        self._places.clear()

    def _ended(self, place: _Place, status: int) -> None:
        place.pid = None
        now = monotonic()
        if not place.ending and os.waitstatus_to_exitcode(status) != 0:
            settled = now - place.began >= SETTLED_S
            place.due = now + (DELAY_MIN_S if settled else place.delay_s)
            place.delay_s = min(DELAY_MAX_S, 2 * (DELAY_MIN_S if settled else place.delay_s))
        self._tell(place.name)

    def _tell(self, name: str) -> None:
        self._on_change(name, [place.pid for place in self._places.get(name, []) if place.pid is not None])
