"""`kvnet node NAME`: one node, alone in its process, anywhere."""

from __future__ import annotations

from typing import Annotated

import typer

from kvnet.cli.options import (
    DATA_DEFAULT,
    AcceptLossOption,
    DataOption,
    LogLevel,
    LogLevelOption,
    NodeArgument,
    PortBaseOption,
    RecoverOption,
    TopologyOption,
    run_folder,
)
from kvnet.topology.load import load
from nodes.alone import run_alone
from nodes.zygote import ACCEPT_LOSS, RECOVER


def node(
    name: NodeArgument,
    topology: TopologyOption = None,
    port_base: PortBaseOption = None,
    data: DataOption = DATA_DEFAULT,
    accept_loss: AcceptLossOption = False,
    recover: RecoverOption = False,
    readers: Annotated[
        int | None,
        typer.Option("--readers", metavar="N", help="Processes that answer reads beside this edge, on its port."),
    ] = None,
    log_level: LogLevelOption = LogLevel.INFO,
) -> None:
    """Run one node in the foreground, on any host.

    Without --topology the run folder's is taken, if it has one. Every node needs the same topology and the same
    secret: the coordinator makes <data>/secret, KVNET_SECRET_FILE names another file.
    """
    folder = run_folder(data)
    network = folder.topology() if topology is None and folder.topology_file.exists() else load(topology)
    if port_base is not None:
        network = network.with_port_base(port_base)
    if readers is not None:
        network = network.with_readers(name.lower(), readers)
    flags = [flag for flag, given in ((ACCEPT_LOSS, accept_loss), (RECOVER, recover)) if given]
    raise typer.Exit(run_alone(name.lower(), network, folder, flags=flags, log_level=log_level))
