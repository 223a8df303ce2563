"""How `kvnet up` tells its progress on stderr: a moving bar on a terminal, a few plain lines elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from nodes.roster import Progress as Reached

PLAIN_STEPS = 4
"""Lines of plain progress per count."""


class PlainReporter:
    """One line at each quarter of the way."""

    def __init__(self, on_formed: Callable[[float], None]) -> None:
        self._on_formed = on_formed
        self._said = ""

    def progress(self, progress: Reached) -> None:
        up, formed = (count * PLAIN_STEPS // progress.pops for count in (progress.up, progress.formed))
        step = f"{up} {formed}"
        if step != self._said:
            self._said = step
            print(
                f"{progress.up} of {progress.pops} PoPs up, {progress.formed} formed", file=sys.stderr, flush=True
            )

    def formed(self, formed_ms: float) -> None:
        self._on_formed(formed_ms)

    def notice(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Leave the terminal as it was."""


class BarReporter:
    """Two bars that grow: PoPs up, PoPs formed."""

    def __init__(self, on_formed: Callable[[float], None]) -> None:
        self._on_formed = on_formed
        self._bars: Progress | None = None
        self._console = Console(stderr=True)

    def progress(self, progress: Reached) -> None:
        if self._bars is None:  # not sooner: it brings a thread, and there may be a fork before the first report
            self._bars = Progress(
                TextColumn("{task.description:<6}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                console=self._console,
                transient=True,
            )
            self._up = self._bars.add_task("up", total=progress.pops)
            self._formed = self._bars.add_task("formed", total=progress.pops)
            self._bars.start()
        self._bars.update(self._up, completed=progress.up)
        self._bars.update(self._formed, completed=progress.formed)

    def formed(self, formed_ms: float) -> None:
        self.close()
        self._on_formed(formed_ms)

    def notice(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False)

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self._bars is not None:
            self._bars.stop()


def reporter(on_formed: Callable[[float], None]) -> PlainReporter | BarReporter:
    """Return the reporter that suits stderr; `on_formed` is given the milliseconds it took."""
    return BarReporter(on_formed) if sys.stderr.isatty() else PlainReporter(on_formed)
