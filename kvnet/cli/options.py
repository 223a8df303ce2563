"""Options that several commands share, and the run folder they lead to. Light: every command waits for it."""

from __future__ import annotations

import json
import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from nodes.cluster import RunFolder

DATA_DEFAULT = Path(".kvnet")
DATA_VARIABLE = "KVNET_DATA"
SECRET_FILE_VARIABLE = "KVNET_SECRET_FILE"  # noqa: S105 - the name of a variable


class LogLevel(StrEnum):
    """How much nodes log; each level includes those below it."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


def complete_node(context: typer.Context, incomplete: str) -> list[str]:
    """Return the nodes that begin so, of the folder that the command line names so far."""
    data = context.params.get("data") or DATA_DEFAULT
    try:
        cluster = json.loads((Path(data) / "cluster.json").read_bytes())
    except (OSError, ValueError):
        return []
    return [name for name in ("coordinator", "monitor", *cluster["pops"]) if name.startswith(incomplete.lower())]


DataOption = Annotated[Path, typer.Option("--data", envvar=DATA_VARIABLE, help="The network's run folder.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
TopologyOption = Annotated[
    str | None,
    typer.Option("--topology", metavar="FILE", help="Topology file, or world-2018 or world-2026."),
]
PortBaseOption = Annotated[
    int | None, typer.Option("--port-base", metavar="PORT", help="First port of the block the nodes listen on.")
]
LogLevelOption = Annotated[LogLevel, typer.Option("--log-level", help="What nodes log.")]
NodeArgument = Annotated[
    str,
    typer.Argument(
        metavar="NODE",
        help="coordinator, monitor, or a PoP's code.",
        autocompletion=complete_node,
        show_default=False,
    ),
]
AcceptLossOption = Annotated[
    bool,
    typer.Option(
        "--accept-loss", help="Let a coordinator that is behind the network go on without what it lacks."
    ),
]
RecoverOption = Annotated[
    bool, typer.Option("--recover", help="Let a coordinator with an empty disk take over what the network holds.")
]


def run_folder(data: Path) -> RunFolder:
    """Return the folder that --data or KVNET_DATA names, its secret where KVNET_SECRET_FILE says."""
    secret_file = os.environ.get(SECRET_FILE_VARIABLE)
    return RunFolder(data, Path(secret_file) if secret_file else None)
