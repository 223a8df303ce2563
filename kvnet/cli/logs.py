"""`kvnet logs`: the ends of the nodes' logs, and what is added to them."""

from __future__ import annotations

import sys
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from kvnet.cli.options import DATA_DEFAULT, DataOption, complete_node, run_folder
from kvnet.errors import ConfigError

LAUNCHER = "launcher"
LINES_OF_ONE = 50
LINES_OF_EACH = 5
FOLLOW_INTERVAL_S = 0.2


@dataclass(slots=True)
class Tail:
    """How far one log has been printed."""

    prefix: str
    path: Path
    offset: int = 0
    unfinished: str = ""
    """The beginning of a line that its node is still writing."""

    def last(self, count: int) -> list[str]:
        """Return the last lines, and be at the log's end."""
        return list(deque(self.more(), maxlen=count))

    def more(self) -> list[str]:
        """Return the lines added since; a log that was turned over starts anew."""
        try:
            with self.path.open("rb") as file:
                size = file.seek(0, 2)
                if size < self.offset:
                    self.offset, self.unfinished = 0, ""
                file.seek(self.offset)
                text = self.unfinished + file.read().decode(errors="replace")
                self.offset = file.tell()
        except FileNotFoundError:
            return []
        *lines, self.unfinished = text.split("\n")
        return [self.prefix + line for line in lines]


def logs(
    node: Annotated[
        str | None,
        typer.Argument(
            metavar="[NODE]",
            help="A node, or `launcher`; without it all nodes.",
            autocompletion=complete_node,
            show_default=False,
        ),
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as they grow; Ctrl-C ends it.")] = False,
    lines: Annotated[
        int | None,
        typer.Option("--lines", "-n", min=0, help="How many of each.", show_default="50 of one, 5 of all"),
    ] = None,
    data: DataOption = DATA_DEFAULT,
) -> None:
    """Show what nodes have logged."""
    folder = run_folder(data)
    topology = folder.topology()
    if node is None:
        width = max(map(len, topology.node_names()))
        names = topology.node_names()
        tails = [Tail(f"{name:<{width}} | ", folder.log_of(name)) for name in names]
        tails.append(Tail(f"{LAUNCHER:<{width}} | ", folder.launcher_log))
    elif node.lower() == LAUNCHER:
        tails = [Tail("", folder.launcher_log)]
    else:
        topology.pop_of(node.lower())  # complains about a name that isn't there
        tails = [Tail("", folder.log_of(node.lower()))]
        if not tails[0].path.exists() and not follow:
            raise ConfigError(f"{node.lower()} has no log in {data}: it has not been started by `kvnet up`")
    count = lines if lines is not None else LINES_OF_ONE if len(tails) == 1 else LINES_OF_EACH
    for tail in tails:
        _print(tail.last(count))
    while follow:
        time.sleep(FOLLOW_INTERVAL_S)
        for tail in tails:
            _print(tail.more())


def _print(lines: list[str]) -> None:
    for line in lines:
        typer.echo(line)
    sys.stdout.flush()
