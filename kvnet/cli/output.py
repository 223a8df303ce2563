"""Tables on stdout: as wide as the terminal, and whole where there is none."""

from __future__ import annotations

import sys

from rich.console import Console, RenderableType

PIPE_WIDTH = 200
"""Columns where nobody looks; a program that cuts by columns wants whole words."""


def print_report(*parts: RenderableType) -> None:
    """Print tables and lines below each other."""
    width = None if sys.stdout.isatty() else PIPE_WIDTH
    Console(width=width).print(*parts, sep="\n", highlight=False)
