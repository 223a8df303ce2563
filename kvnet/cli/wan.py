"""`kvnet wan show|loss|cut|isolate|heal|delay`: the simulated network, looked at and changed while it runs."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from kvnet.cli.options import DATA_DEFAULT, DataOption, JsonOption, run_folder
from kvnet.topology.schema import Topology
from kvnet.topology.wan import Wan
from kvnet.topology.wan_state import Nodes, WanState, parse_loss
from nodes.control import ControlClient

NAMES_SHOWN = 6

app = typer.Typer(no_args_is_help=True, help="Look at the simulated network between the nodes, and disturb it.")

GroupArgument = Annotated[
    list[str],
    typer.Argument(metavar="GROUP", help="PoP codes, coordinator, or regions.", show_default=False),
]


@app.command()
def show(data: DataOption = DATA_DEFAULT, json_: JsonOption = False) -> None:
    """Show what disturbs the network now."""
    told = _order(data)
    if json_:
        typer.echo(json.dumps(told["state"] | {"behind": told["behind"]}))
        return
    for line in describe(WanState.from_dict(told["state"]), run_folder(data).topology()):
        typer.echo(line)


@app.command()
def loss(
    packets: Annotated[str, typer.Argument(metavar="P", help="0.2 or 20%; 0 ends it.", show_default=False)],
    data: DataOption = DATA_DEFAULT,
) -> None:
    """Lose this share of the packets on every link between replicas."""
    _change(data, loss=parse_loss(packets))


@app.command()
def cut(
    senders: Annotated[
        str, typer.Argument(metavar="FROM", help="Codes or regions, by commas.", show_default=False)
    ],
    receivers: Annotated[
        str, typer.Argument(metavar="TO", help="Codes or regions, by commas.", show_default=False)
    ],
    both: Annotated[bool, typer.Option("--both", help="Cut the way back too.")] = False,
    data: DataOption = DATA_DEFAULT,
) -> None:
    """Let nothing through from one group to another."""
    _change(data, cut=senders.split(","), to=receivers.split(","), both=both)


@app.command()
def isolate(group: GroupArgument, data: DataOption = DATA_DEFAULT) -> None:
    """Cut a group off from all other nodes, both ways.

    A region takes the coordinator with it, where it stands there.
    """
    _change(data, isolate=group)


@app.command()
def heal(
    group: Annotated[
        list[str] | None,
        typer.Argument(metavar="[GROUP]", help="PoP codes, coordinator, or regions.", show_default="all"),
    ] = None,
    data: DataOption = DATA_DEFAULT,
) -> None:
    """Open what is cut, from and to a group or everywhere; loss and delays stay."""
    _change(data, heal=group or [])


@app.command()
def delay(
    a: Annotated[str, typer.Argument(metavar="A", show_default=False)],
    b: Annotated[str, typer.Argument(metavar="B", show_default=False)],
    extra_ms: Annotated[
        float, typer.Argument(metavar="MS", help="Milliseconds added each way; 0 ends it.", show_default=False)
    ],
    data: DataOption = DATA_DEFAULT,
) -> None:
    """Make the way between two nodes longer."""
    _change(data, delay=[a, b], extra_ms=extra_ms)


def describe(state: WanState, topology: Topology) -> list[str]:
    """Return one line for each thing that disturbs the network."""
    lost = f"{state.loss:.3g} of all packets" if state.loss else "no packets"
    bandwidth = "" if state.bandwidth_mbps is None else f", {state.bandwidth_mbps:g} Mbit/s for each connection"
    lines = [f"{lost} lost, jitter {state.jitter_sigma:.2g} of the delay{bandwidth}"]
    wan = Wan(topology)
    regions = {wan.members(pop.region): str(pop.region) for pop in topology.pops}
    for cut in state.cuts:
        senders, receivers = _name(cut.senders, regions), _name(cut.receivers, regions)
        if len(cut.senders) + len(cut.receivers) == len(topology.node_names()):  # an isolated group has a far side
            if len(cut.senders) < len(cut.receivers):
                receivers = "all others"
            else:
                senders = "all others"
        lines.append(f"cut: {senders} → {receivers}")
    lines += [f"slower: {pair.sender} → {pair.receiver} by {pair.extra_ms:g} ms" for pair in state.pairs]
    return lines


def _name(group: Nodes, regions: dict[Nodes, str]) -> str:
    if len(group) > 1 and group in regions:
        return regions[group]
    shown = ", ".join(group[:NAMES_SHOWN])
    return f"{shown} and {len(group) - NAMES_SHOWN} more" if len(group) > NAMES_SHOWN else shown


def _change(data: Path, **change: Any) -> None:
    told = _order(data, **change)
    for line in describe(WanState.from_dict(told["state"]), run_folder(data).topology()):
        print(line, file=sys.stderr)
    if behind := told["behind"]:
        print(f"{len(behind)} nodes haven't answered yet: {', '.join(behind[:NAMES_SHOWN])}", file=sys.stderr)


def _order(data: Path, **change: Any) -> dict[str, Any]:
    with ControlClient(run_folder(data).control_socket) as launcher:
        return launcher.ask("wan", **change)
