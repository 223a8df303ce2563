"""How far a long piece of work is, on stderr: a bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Final, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeRemainingColumn

PLAIN_INTERVAL_S: Final = 10.0
BAR_WIDTH: Final = 28


class Bar:
    """Work whose size is about known; use it as a context, so that the bar is gone at the end."""

    def __init__(self, what: str, total: int, unit: str) -> None:
        """Tell `what`, and how much of `total` is done, in `unit`."""
        self._what = what
        self._total = max(1, total)
        self._unit = unit
        self._done = 0
        self._bars: Progress | None = None
        self._task: TaskID | None = None
        self._told_at = time.monotonic()

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            self._bars = Progress(
                TextColumn("{task.description}"),
                BarColumn(BAR_WIDTH),
                TaskProgressColumn(),
                TextColumn("{task.fields[told]}"),
                TimeRemainingColumn(compact=True),
                console=Console(stderr=True),
                transient=True,
            )
            self._task = self._bars.add_task(self._what, total=self._total, told="")
            self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bars is not None:
            self._bars.stop()

    def add(self, count: int) -> None:
        """So much more is done."""
        self._done += count
        if self._bars is not None and self._task is not None:
            done = min(self._done, self._total)
            self._bars.update(self._task, completed=done, told=f"{self._done:,} {self._unit}")
            return
        now = time.monotonic()
        if now - self._told_at >= PLAIN_INTERVAL_S:
            self._told_at = now
            percent = min(100, 100 * self._done // self._total)
            print(f"{self._what}: {percent} %, {self._done:,} {self._unit}", file=sys.stderr, flush=True)
