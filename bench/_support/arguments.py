"""Argument types and options that several programs share. A wrong one ends with exit code 2."""

from __future__ import annotations

import argparse
from pathlib import Path

from kvnet.errors import ConfigError
from kvnet.topology.wan_state import parse_loss


def count(text: str) -> int:
    """Read a whole number above zero."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return value


def rate(text: str) -> float:
    """Read a number above zero."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


def loss(text: str) -> float:
    """Read a fraction, `0.2` or `20%`."""
    try:
        value = parse_loss(text)
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not at least 0 and below 1: 0.2 or 20% loses every fifth packet"
        )
    return value


def new_file(text: str) -> Path:
    """Read the path of a file whose folder exists, so that no result is lost at the end."""
    path = Path(text)
    if not path.absolute().parent.is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {path.parent}: create it first")
    return path


def add_network_options(parser: argparse.ArgumentParser) -> None:
    """Add --pops, --topology and --data."""
    parser.add_argument("--pops", type=count, metavar="N", help="only the N best-spread PoPs of the topology")
    parser.add_argument("--topology", metavar="FILE", help="topology file, or world-2018 or world-2026")
    parser.add_argument("--data", type=Path, metavar="DIR", help="run folder; default: a temporary one")
    parser.add_argument("--json", type=new_file, metavar="FILE", help="write the result here")


def up_options(arguments: argparse.Namespace) -> list[str]:
    """Return what `kvnet up` is told of these."""
    options = []
    if arguments.pops is not None:
        options += ["--pops", str(arguments.pops)]
    if arguments.topology is not None:
        options += ["--topology", arguments.topology]
    return options
