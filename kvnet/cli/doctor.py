"""`kvnet doctor`: whether this host can run the network, thing by thing."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer
from rich import box
from rich.table import Table

from kvnet.cli.options import DATA_DEFAULT, DataOption, JsonOption, TopologyOption, run_folder
from kvnet.cli.output import print_report
from kvnet.errors import ConfigError, KvnetError
from kvnet.topology.load import load
from nodes.control import ControlClient, NoLauncher
from nodes.preflight import Finding, check_clock, check_disk, check_files, check_memory, check_ports


def doctor(
    topology: TopologyOption = None,
    pops: Annotated[int | None, typer.Option("--pops", metavar="N", help="For this many PoPs.")] = None,
    data: DataOption = DATA_DEFAULT,
    json_: JsonOption = False,
) -> None:
    """Look whether this host can run the network."""
    folder = run_folder(data)
    network = load(topology)
    if pops is not None:
        network = network.with_pops(pops)
    findings = [check_files(network), check_memory(network), check_disk(network, folder.path), check_clock()]
    try:
        with ControlClient(folder.control_socket) as launcher:
            state = launcher.ask("status")
        sick = [node["name"] for node in state["nodes"] if node["phase"] != "ready"]
        told = f"{len(state['nodes']) - len(sick)} of {len(state['nodes'])} nodes are ready"
        cure = f"; {', '.join(sick[:5])}: see `kvnet ps`" if sick else ""
        findings.append(Finding("network", ok=not sick, detail=told + cure))
    except NoLauncher:
        findings.append(check_ports(network))
    except ConfigError as error:
        findings.append(Finding("network", ok=False, detail=str(error)))
    if json_:
        typer.echo(json.dumps([asdict(finding) for finding in findings]))
    else:
        table = Table(box=box.SIMPLE, show_header=False)
        for finding in findings:
            table.add_row(
                "ok" if finding.ok else "no", finding.subject, finding.detail, style=None if finding.ok else "red"
            )
        print_report(table)
    bad = [finding.subject for finding in findings if not finding.ok]
    if bad:
        raise KvnetError(f"{len(network.pops)} PoPs can't run here yet: {', '.join(bad)}")
