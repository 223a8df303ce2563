"""`kvnet down`: everything that `kvnet up` started, stopped in order."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from kvnet.cli.options import DATA_DEFAULT, DataOption, run_folder
from nodes.launcher import stop


def down(
    data: DataOption = DATA_DEFAULT,
    wipe: Annotated[bool, typer.Option("--wipe", help="Delete its data, tokens and secret too.")] = False,
) -> None:
    """Stop the network.

    Edges first, then the coordinator, then the monitor. Nothing is lost: `kvnet up` goes on where it ended.
    """
    stopped = stop(run_folder(data), wipe=wipe)
    told = f"{data} is stopped" if stopped else f"no network runs in {data}"
    print(told + (", its data is deleted" if wipe else ""), file=sys.stderr)
