"""`kvnet rtt`: the round trips that the topology asks for, and whether the links have them."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.table import Table

from kvnet.cli.options import DATA_DEFAULT, DataOption, JsonOption, TopologyOption, run_folder
from kvnet.cli.output import print_report
from kvnet.cli.polling import Answer, ask_all, require_some, urls_of
from kvnet.errors import ConfigError, KvnetError
from kvnet.topology.load import load
from kvnet.topology.schema import Topology
from kvnet.topology.wan import Wan

TOLERANCE_MS = 2.0
TOLERANCE_FRACTION = 0.15
SHOWN = 10

PlaceArgument = Annotated[
    str | None, typer.Argument(metavar="NODE", help="coordinator, or a PoP's code.", show_default=False)
]


@dataclass(frozen=True, slots=True)
class Measured:
    """One link, measured by the node at its first end."""

    node: str
    peer: str
    configured_ms: float
    measured_ms: float

    @property
    def off_ms(self) -> float:
        """How much longer it takes than it should."""
        return self.measured_ms - self.configured_ms

    @property
    def is_off(self) -> bool:
        return abs(self.off_ms) > max(TOLERANCE_MS, TOLERANCE_FRACTION * self.configured_ms)


def rtt(
    a: PlaceArgument = None,
    b: PlaceArgument = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Compare with what the running network's links measure.")
    ] = False,
    topology: TopologyOption = None,
    data: DataOption = DATA_DEFAULT,
    json_: JsonOption = False,
) -> None:
    """Show the round trips between nodes.

    Of two nodes, of one with all PoPs, or of the coordinator with all. --verify fails when a link is off by more
    than 2 ms and 15 %.
    """
    folder = run_folder(data)
    network = folder.topology() if topology is None and folder.topology_file.exists() else load(topology)
    if verify:
        if a is not None:
            raise ConfigError("--verify compares all links: leave the nodes out")
        _verify(data, network, json_=json_)
        return
    wan = Wan(network)
    first = (a or "coordinator").lower()
    others = [b.lower()] if b is not None else [pop.code for pop in network.pops if pop.code != first]
    rows = sorted(
        ((other, wan.one_way_ms(first, other), wan.one_way_ms(other, first)) for other in others),
        key=lambda row: row[1] + row[2],
    )
    if json_:
        told = [
            {"a": first, "b": other, "there_ms": round(there, 3), "back_ms": round(back, 3)}
            for other, there, back in rows
        ]
        typer.echo(json.dumps(told))
        return
    table = Table(box=box.SIMPLE)
    for heading in ("from", "to", "city"):
        table.add_column(heading)
    for heading in ("there ms", "back ms", "round trip ms"):
        table.add_column(heading, justify="right")
    for other, there, back in rows:
        city = network.pop_of(other).city
        table.add_row(first, other, city, f"{there:.1f}", f"{back:.1f}", f"{there + back:.1f}")
    print_report(table)


def compare(network: Topology, answers: dict[str, Answer]) -> list[Measured]:
    """Return every measured link beside its configured round trip, the farthest off first."""
    wan = Wan(network)
    known = set(network.node_names())
    links = [
        Measured(node, peer, wan.rtt_ms(node, peer), float(measured))
        for node, answer in answers.items()
        if not isinstance(answer, str)
        for peer, measured in (answer.get("rtt_ms") or {}).items()
        if peer in known and measured is not None
    ]
    return sorted(links, key=lambda link: -abs(link.off_ms))


def _verify(data: Path, network: Topology, *, json_: bool) -> None:
    cluster = run_folder(data).cluster()
    answers = asyncio.run(ask_all(urls_of(cluster), "/status", cluster["tokens"]["read"]))
    require_some(answers, data)
    links = compare(network, answers)
    if not links:
        raise KvnetError("no link has been measured yet: try again when the network is formed")
    off = [link for link in links if link.is_off]
    if json_:
        told = {"links": len(links), "off": [asdict(link) for link in off], "worst": asdict(links[0])}
        typer.echo(json.dumps(told))
    else:
        table = Table(box=box.SIMPLE)
        for heading in ("node", "peer"):
            table.add_column(heading)
        for heading in ("configured ms", "measured ms", "off ms"):
            table.add_column(heading, justify="right")
        for link in links[:SHOWN]:
            figures = (f"{link.configured_ms:.1f}", f"{link.measured_ms:.1f}", f"{link.off_ms:+.1f}")
            table.add_row(link.node, link.peer, *figures, style="red" if link.is_off else None)
        print_report(table, f"{len(links)} links measured, {len(off)} off")
    if off:
        worst = off[0]
        raise KvnetError(
            f"{len(off)} of {len(links)} links are off, {worst.node}-{worst.peer} by {worst.off_ms:+.1f} ms: "
            "is this machine busy? `kvnet ps` shows it"
        )
