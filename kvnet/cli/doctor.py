"""`kvnet doctor`: whether this host can run the network, thing by thing."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich import box
from rich.table import Table

from kvnet.cli.health import store_findings
from kvnet.cli.options import DATA_DEFAULT, DataOption, JsonOption, TopologyOption, run_folder
from kvnet.cli.output import print_report
from kvnet.cli.polling import ask_statuses
from kvnet.errors import KvnetError
from kvnet.topology.load import load
from nodes.cluster import RunFolder
from nodes.control import ControlClient, NoLauncher
from nodes.preflight import (
    Finding,
    check_addresses,
    check_clock,
    check_disk,
    check_files,
    check_memory,
    check_ports,
    check_room,
)


def doctor(
    topology: TopologyOption = None,
    pops: Annotated[int | None, typer.Option("--pops", metavar="N", help="For this many PoPs.")] = None,
    data: DataOption = DATA_DEFAULT,
    json_: JsonOption = False,
) -> None:
    """Look whether this host can run the network."""
    folder = run_folder(data)
    nodes = _running_nodes(folder)
    if nodes is not None and topology is None and pops is None:
        network = folder.topology()
    else:
        network = load(topology)
        network = network if pops is None else network.with_pops(pops)
    findings = [
        check_files(network),
        check_memory(network),
        check_addresses(network),
        check_disk(network, folder.path),
    ]
    room = check_room(network, folder)
    findings += [check_clock()] if room is None else [room, check_clock()]
    findings += [check_ports(network)] if nodes is None else _look_at_network(folder, nodes)
    if json_:
        typer.echo(json.dumps([asdict(finding) for finding in findings]))
    else:
        table = Table(box=box.SIMPLE, show_header=False)
        for finding in findings:
            style = None if finding.ok else "red"
            table.add_row("ok" if finding.ok else "no", finding.subject, finding.detail, style=style)
        print_report(table)
    bad = [finding.subject for finding in findings if not finding.ok]
    if bad:
        what = "isn't well" if nodes is not None else "can't run here yet"
        raise KvnetError(f"the network of {len(network.pops)} PoPs {what}: {', '.join(bad)}")


def _running_nodes(folder: RunFolder) -> list[dict[str, Any]] | None:
    """Return what the launcher knows of each node; None when nothing runs."""
    try:
        with ControlClient(folder.control_socket) as launcher:
            nodes: list[dict[str, Any]] = launcher.ask("status")["nodes"]
            return nodes
    except NoLauncher:
        return None


def _look_at_network(folder: RunFolder, nodes: list[dict[str, Any]]) -> list[Finding]:
    sick = [node["name"] for node in nodes if node["phase"] != "ready"]
    told = f"{len(nodes) - len(sick)} of {len(nodes)} nodes are ready"
    cure = f"; {', '.join(sick[:5])}: see `kvnet ps`" if sick else ""
    network = Finding("network", ok=not sick, detail=told + cure)
    return [network, *store_findings(asyncio.run(ask_statuses(folder, folder.cluster())))]
