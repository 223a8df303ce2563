"""One node's life under a launcher: what it was told to be, what it is, and when it is started again. Pure."""

from __future__ import annotations

import contextlib
import os
import signal
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from kvnet.core.versions import Version

RESTART_DELAY_MIN_S: Final = 0.2
RESTART_DELAY_MAX_S: Final = 5.0
SETTLED_S: Final = 3.0
"""A node that lived this long after it was ready starts with the shortest delay again."""
STARTS_MAX: Final = 5
"""Starts in a row that never got ready before a node is given up."""


class Phase(StrEnum):
    """What a node is now."""

    STOPPED = "stopped"
    """Not running, and not meant to."""
    STARTING = "starting"
    READY = "ready"
    """It listens."""
    STOPPING = "stopping"
    WAITING = "waiting"
    """It ended by itself and will be started again."""
    GIVEN_UP = "given up"
    """It never got ready, too often; only an order starts it again."""


@dataclass(slots=True)
class NodeLife:
    """The state of one node; the supervisor reports what happens and obeys what comes back."""

    name: str
    phase: Phase = Phase.STOPPED
    pid: int | None = None
    up_since_ms: float | None = None
    """Unix milliseconds since when it listens."""
    formed: Version | None = None
    """What it said when it began to take part, in this life."""
    restarts: int = 0
    """How often it was started again after it had ended by itself."""
    problem: str | None = None
    """Why it ended last, until it is ready again."""
    readers: list[int] = field(default_factory=list)
    """Pids of the processes that answer reads beside it."""
    _ready_at_s: float | None = field(default=None, repr=False)
    _short_lives: int = field(default=0, repr=False)
    _failed_starts: int = field(default=0, repr=False)

    @property
    def runs(self) -> bool:
        """Whether there is, or will be in a moment, a process."""
        return self.phase in {Phase.STARTING, Phase.READY, Phase.STOPPING}

    def ordered(self) -> None:
        """Start it by order: what was is forgiven."""
        self._short_lives = self._failed_starts = 0
        self._begin()

    def restarted(self) -> None:
        """Start it again after its delay."""
        self.restarts += 1
        self._begin()

    def forked(self, pid: int) -> None:
        self.pid = pid

    def said(self, line: str, *, now_s: float, now_ms: float) -> None:
        """Take in a line from the node; one that isn't known says nothing."""
        match line.split(" ", 1):
            case ["ready"] if self.phase is Phase.STARTING:
                self.phase = Phase.READY
                self.up_since_ms = now_ms
                self.problem = None
                self._ready_at_s = now_s
                self._failed_starts = 0
            case ["formed", version]:
                with contextlib.suppress(ValueError):
                    self.formed = Version.parse(version)
            case ["failed", message]:
                self.problem = message
            case _:
                pass

    def stopping(self) -> None:
        """Let it end by order."""
        self.phase = Phase.STOPPING if self.runs else Phase.STOPPED

    def exited(self, status: int, *, now_s: float) -> float | None:
        """Take in its end; return after how many seconds it is started again, None for not at all."""
        by_order = self.phase is Phase.STOPPING
        ready_at_s, self._ready_at_s = self._ready_at_s, None
        self.pid = self.up_since_ms = self.formed = None
        if by_order:
            self.phase, self.problem = Phase.STOPPED, None
            return None
        self.problem = (ready_at_s is None and self.problem) or describe_status(status)
        if ready_at_s is None:
            self._failed_starts += 1
        if self._failed_starts >= STARTS_MAX:
            self.phase = Phase.GIVEN_UP
            return None
        settled = ready_at_s is not None and now_s - ready_at_s >= SETTLED_S
        delay_s = RESTART_DELAY_MIN_S * 2.0 ** (0 if settled else self._short_lives)
        self._short_lives = 0 if settled else self._short_lives + 1
        self.phase = Phase.WAITING
        return min(delay_s, RESTART_DELAY_MAX_S)

    def as_dict(self) -> dict[str, Any]:
        """Return what `ps` shows."""
        return {
            "name": self.name,
            "phase": str(self.phase),
            "pid": self.pid,
            "up_since_ms": self.up_since_ms,
            "restarts": self.restarts,
            "problem": self.problem,
            "readers": self.readers,
        }

    def _begin(self) -> None:
        self.phase = Phase.STARTING
        self.pid = self.up_since_ms = self.formed = self._ready_at_s = None


def describe_status(status: int) -> str:
    """Say in words how a process ended, from waitpid's status."""
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"ended with exit code {code}"
    return f"killed by {signal.Signals(-code).name if -code < signal.SIGRTMIN else f'signal {-code}'}"
