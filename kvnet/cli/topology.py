"""`kvnet topology check|show|gen|schema`: the files that networks are made from."""

from __future__ import annotations

import json
import sys
from collections import Counter
from typing import Annotated

import typer
from rich import box
from rich.table import Table

from kvnet.cli.options import JsonOption, TopologyOption
from kvnet.cli.output import print_report
from kvnet.topology.json_schema import json_schema
from kvnet.topology.load import dump_yaml, generate, load
from kvnet.topology.schema import Topology
from kvnet.topology.wan import Wan

app = typer.Typer(no_args_is_help=True, help="Check, show and make topology files.")

SourceArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="[FILE]", help="A file, world-2018 or world-2026.", show_default="./topology.yaml, else world-2018"
    ),
]


@app.command()
def check(source: SourceArgument = None) -> None:
    """Say whether a file can work; the first problem with file, line, field and cure."""
    topology = load(source)
    print(f"{_heading(topology)}: can work", file=sys.stderr)


@app.command()
def show(source: SourceArgument = None, json_: JsonOption = False) -> None:
    """Show a network: its PoPs, where they answer, how far they are from the coordinator."""
    topology = load(source)
    wan = Wan(topology)
    if json_:
        pops = [
            {
                "code": pop.code,
                "city": pop.city,
                "country": pop.country,
                "lat": pop.lat,
                "lon": pop.lon,
                "region": pop.region,
                "url": topology.url_of(pop.code),
                "one_way_ms": round(wan.one_way_ms("coordinator", pop.code), 2),
            }
            for pop in topology.pops
        ]
        told = {
            "name": topology.name,
            "coordinator": {"place": topology.coordinator.place, "url": topology.url_of("coordinator")},
            "monitor": {"url": topology.url_of("monitor")},
            "wan": topology.wan.profile,
            "floor_ms": round(wan.floor_ms(), 2),
            "limits": topology.limits.resolve().as_dict(),
            "pops": pops,
        }
        typer.echo(json.dumps(told, ensure_ascii=False))
        return
    table = Table(box=box.SIMPLE)
    for heading in ("PoP", "city", "country", "region", "url"):
        table.add_column(heading)
    table.add_column("one way ms", justify="right")
    for pop in topology.pops:
        one_way = f"{wan.one_way_ms('coordinator', pop.code):.1f}"
        table.add_row(pop.code, pop.city, pop.country, pop.region, topology.url_of(pop.code), one_way)
    regions = Counter(pop.region for pop in topology.pops)
    print_report(
        table,
        f"{_heading(topology)}, coordinator in {topology.pop_of('coordinator').city}",
        ", ".join(f"{region} {count}" for region, count in regions.most_common()),
        f"wan {topology.wan.profile}: no write can be everywhere in less than {wan.floor_ms():.0f} ms",
    )


@app.command()
def gen(
    pops: Annotated[int, typer.Option("--pops", metavar="N", help="How many PoPs, up to 10,000.")],
    topology: TopologyOption = None,
) -> None:
    """Print a topology of the N best-spread PoPs of another, or all of them and more around their cities."""
    typer.echo(dump_yaml(generate(load(topology), pops)), nl=False)


@app.command()
def schema() -> None:
    """Print the JSON schema that lets editors complete and check topology files."""
    typer.echo(json.dumps(json_schema(), indent=2, ensure_ascii=False))


def _heading(topology: Topology) -> str:
    countries = len({pop.country for pop in topology.pops})
    return f"{topology.name}: {len(topology.pops)} PoPs in {countries} countries"
