"""Tables on stdout: as wide as the terminal, and whole where there is none."""

from __future__ import annotations

import sys

from rich.console import Console, RenderableType

PIPE_WIDTH = 200
"""Columns where nobody looks; a program that cuts by columns wants whole words."""


def print_report(*parts: RenderableType, to_stderr: bool = False) -> None:
    """Print tables and lines below each other."""
    stream = sys.stderr if to_stderr else sys.stdout
    if stream.isatty():
        Console(stderr=to_stderr).print(*parts, sep="\n", highlight=False)
        return
    console = Console(width=PIPE_WIDTH, stderr=to_stderr)
    with console.capture() as captured:
        console.print(*parts, sep="\n", highlight=False)
    for line in captured.get().splitlines():
        print(line.rstrip(), file=stream)
