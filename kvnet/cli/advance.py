"""How long work tells on stderr how far it is: a bar on a terminal, now and then a plain line elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
from rich.text import Text

PLAIN_FIRST_S = 3.0
PLAIN_MOST_S = 60.0
"""Plain lines come after this long, then after twice as long each time, up to once a minute."""


class PlainAdvance:
    """A line now and then: quick work says nothing."""

    def __init__(self) -> None:
        self._every_s = PLAIN_FIRST_S
        self._next_s = time.monotonic() + PLAIN_FIRST_S

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *ended: object) -> None:
        del ended

    def tell(self, done: float, note: str) -> None:
        """Take note that this fraction is done."""
        now = time.monotonic()
        if now >= self._next_s:
            self._every_s = min(PLAIN_MOST_S, 2 * self._every_s)
            self._next_s = now + self._every_s
            self.say(f"{done:4.0%}  {note}")

    def say(self, line: str) -> None:
        """Say something beside it."""
        print(line, file=sys.stderr, flush=True)


class BarAdvance:
    """A bar that grows, gone when the work is done."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._bar = Progress(
            BarColumn(bar_width=30),
            TaskProgressColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            console=self._console,
            transient=True,
            refresh_per_second=8,
        )
        self._task = self._bar.add_task("", total=1.0, note="")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def tell(self, done: float, note: str) -> None:
        """Take note that this fraction is done."""
        self._bar.update(self._task, completed=done, note=note)

    def say(self, line: str) -> None:
        """Say something beside it."""
        self._console.print(Text(line))


class SilentAdvance:
    """Nothing, where something else fills the screen."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *ended: object) -> None:
        del ended

    def tell(self, done: float, note: str) -> None:
        """Take note that this fraction is done."""

    def say(self, line: str) -> None:
        """Say something beside it."""


Advance = PlainAdvance | BarAdvance | SilentAdvance


def advance(*, silent: bool = False) -> Advance:
    """Return what suits stderr."""
    if silent:
        return SilentAdvance()
    return BarAdvance() if sys.stderr.isatty() else PlainAdvance()


def span(seconds: float) -> str:
    """Return a length of time as people say it."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
