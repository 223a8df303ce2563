"""How long commands tell on stderr how far they are: one moving line on a terminal, a few plain ones elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Final, Self

TERMINAL_INTERVAL_S: Final = 0.2
PLAIN_INTERVAL_S: Final = 10.0
CLEAR_LINE: Final = "\r\x1b[K"


class Counter:
    """Counts things that are done; use it as a context, so that the moving line is gone at the end."""

    def __init__(self, verb: str, noun: str) -> None:
        """Tell `exported 1,200 pairs` for the verb `exported` and the noun `pairs`."""
        self._verb = verb
        self._noun = noun
        self._moves = sys.stderr.isatty()
        self._interval_s = TERMINAL_INTERVAL_S if self._moves else PLAIN_INTERVAL_S
        self._told_at = time.monotonic()
        self.count = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._moves:
            sys.stderr.write(CLEAR_LINE)
            sys.stderr.flush()

    def add(self, count: int = 1) -> None:
        """So many more are done."""
        self.count += count
        now = time.monotonic()
        if now - self._told_at < self._interval_s:
            return
        self._told_at = now
        text = f"{self._verb} {self.count:,} {self._noun} …"
        sys.stderr.write(f"{CLEAR_LINE}{text}" if self._moves else f"{text}\n")
        sys.stderr.flush()


def plural(count: int, noun: str) -> str:
    """Return `1 pair`, `2 pairs`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
