"""`kvnet stop|start|restart NODE`: orders to the launcher about one node."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from kvnet.cli.options import (
    DATA_DEFAULT,
    AcceptLossOption,
    DataOption,
    NodeArgument,
    RecoverOption,
    run_folder,
)
from nodes.control import ControlClient
from nodes.zygote import ACCEPT_LOSS, RECOVER


def stop(node: NodeArgument, data: DataOption = DATA_DEFAULT) -> None:
    """Stop one node; it stays stopped.

    Its data is kept, and `kvnet start` brings it back.
    """
    _order(data, "stop", node)


def start(
    node: NodeArgument,
    data: DataOption = DATA_DEFAULT,
    accept_loss: AcceptLossOption = False,
    recover: RecoverOption = False,
) -> None:
    """Start a stopped node."""
    _order(data, "start", node, accept_loss=accept_loss, recover=recover)


def restart(
    node: NodeArgument,
    data: DataOption = DATA_DEFAULT,
    accept_loss: AcceptLossOption = False,
    recover: RecoverOption = False,
) -> None:
    """Stop one node and start it again."""
    _order(data, "restart", node, accept_loss=accept_loss, recover=recover)


def _order(data: Path, command: str, node: str, *, accept_loss: bool = False, recover: bool = False) -> None:
    flags = [flag for flag, given in ((ACCEPT_LOSS, accept_loss), (RECOVER, recover)) if given]
    with ControlClient(run_folder(data).control_socket) as launcher:
        life: dict[str, Any] = launcher.ask(command, node=node, flags=flags)
    process = f", pid {life['pid']}" if life["pid"] else ""
    print(f"{life['name']} is {life['phase']}{process}", file=sys.stderr)
