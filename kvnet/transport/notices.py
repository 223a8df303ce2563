"""Log lines that peers or clients can provoke: one per kind and peer and minute, the rest counted."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

INTERVAL_S: Final = 60.0
KEYS_MAX: Final = 1024
"""Kinds × peers remembered; beyond it all are forgotten, which costs a few more lines, not memory."""


class Notices:
    """A logger that nobody can flood."""

    def __init__(self, logger: logging.Logger, clock: Callable[[], float] = time.monotonic) -> None:
        self._logger = logger
        self._clock = clock
        self._said: dict[tuple[str, str], tuple[float, int]] = {}  # when last, and how many unsaid since

    def say(self, kind: str, about: str, line: str, *, level: int = logging.WARNING) -> bool:
        """Log `kind: line` unless this kind was logged about the same one within the minute; return whether."""
        now = self._clock()
        said_at, unsaid = self._said.get((kind, about), (float("-inf"), 0))
        if now - said_at < INTERVAL_S:
            self._said[kind, about] = (said_at, unsaid + 1)
            return False
        if len(self._said) >= KEYS_MAX:
            self._said.clear()
        self._said[kind, about] = (now, 0)
        self._logger.log(level, "%s: %s%s", kind, line, f" ({unsaid} more)" if unsaid else "")
        return True
