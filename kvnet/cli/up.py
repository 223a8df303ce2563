"""`kvnet up`: a network from one file, in the foreground or left running."""

from __future__ import annotations

import json
import os
import shlex
import time
from pathlib import Path
from typing import Annotated

import typer

from kvnet.cli.options import (
    DATA_DEFAULT,
    DATA_VARIABLE,
    AcceptLossOption,
    DataOption,
    JsonOption,
    LogLevel,
    LogLevelOption,
    PortBaseOption,
    RecoverOption,
    TopologyOption,
    run_folder,
)
from kvnet.cli.progress import reporter
from kvnet.errors import ConfigError
from kvnet.topology.load import load
from kvnet.topology.schema import Topology
from kvnet.topology.selection import best_spread
from kvnet.topology.wan_state import parse_loss
from nodes.background import run_in_background
from nodes.cluster import RunFolder
from nodes.launcher import Launch, run
from nodes.zygote import ACCEPT_LOSS, RECOVER

POPS_SHOWN = 4


def up(
    topology: TopologyOption = None,
    pops: Annotated[
        int | None, typer.Option("--pops", metavar="N", help="Only the N best-spread PoPs of the file.")
    ] = None,
    limits: Annotated[
        str | None, typer.Option("--limits", metavar="PROFILE", help="workers-kv-2018 or workers-kv.")
    ] = None,
    limit: Annotated[
        list[str] | None, typer.Option("--limit", metavar="NAME=VALUE", help="One limit; may be repeated.")
    ] = None,
    loss: Annotated[
        str | None, typer.Option("--loss", metavar="P", help="Packet loss between replicas: 0.2 or 20%.")
    ] = None,
    port_base: PortBaseOption = None,
    data: DataOption = DATA_DEFAULT,
    detach: Annotated[bool, typer.Option("--detach", help="Return when the network is formed.")] = False,
    wipe: Annotated[bool, typer.Option("--wipe", help="Delete what the run folder holds first.")] = False,
    accept_loss: AcceptLossOption = False,
    recover: RecoverOption = False,
    log_level: LogLevelOption = LogLevel.INFO,
    json_: JsonOption = False,
) -> None:
    """Start a network on this host.

    It is formed when every PoP is up, has a parent and holds the coordinator's head. Ctrl-C stops it.
    """
    started_s = time.monotonic()
    network = load(topology)
    if pops is not None:
        network = network.with_pops(pops)
    if limits is not None or limit:
        network = network.with_limits(limits, _overrides(limit or []))
    if loss is not None:
        network = network.with_loss(parse_loss(loss))
    launch = Launch(
        topology=network,
        folder=run_folder(data),
        port_base=port_base,
        wipe=wipe,
        flags=[flag for flag, given in ((ACCEPT_LOSS, accept_loss), (RECOVER, recover)) if given],
        log_level=log_level,
        started_s=started_s,
    )

    def on_formed(formed_ms: float) -> None:
        if json_:
            typer.echo(
                json.dumps(launch.folder.cluster() | {"formed_ms": round(formed_ms, 1)}, ensure_ascii=False)
            )
        else:
            typer.echo(_summary(launch.folder, formed_ms, data, stays=detach))

    teller = reporter(on_formed)
    try:
        (run_in_background if detach else run)(launch, teller)
    finally:
        teller.close()


def _overrides(settings: list[str]) -> dict[str, int]:
    overrides = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals or not value.strip().isdecimal():
            raise ConfigError(f"--limit {setting!r} won't do: write NAME=VALUE, such as value_bytes_max=1000000")
        overrides[name.strip()] = int(value)
    return overrides


def _summary(folder: RunFolder, formed_ms: float, data: Path, *, stays: bool) -> str:
    """Say what stands where, and what to type next."""
    topology = folder.topology()
    found_anyway = Path(os.environ.get(DATA_VARIABLE) or DATA_DEFAULT)
    where = "" if data == found_anyway else f" --data {shlex.quote(str(data))}"
    lines = [f"{_heading(topology)}, formed in {formed_ms / 1000:.1f} s", ""]
    rows = [
        ("coordinator", topology.url_of("coordinator"), topology.pop_of("coordinator").city),
        ("monitor", topology.url_of("monitor") + "/report.txt", ""),
    ]
    shown = best_spread(topology.pops, min(POPS_SHOWN, len(topology.pops)), topology.coordinator.place)
    rows += [(pop.code, topology.url_of(pop.code), pop.city) for pop in shown]
    lines += [f"  {name:<12} {url:<36} {city}".rstrip() for name, url, city in rows]
    if len(topology.pops) > len(shown):
        lines.append(f"  … and {len(topology.pops) - len(shown)} more in {folder.cluster_file}")
    place = shown[-1].city
    city = f'"{place}"' if " " in place else place
    lines += [
        "",
        f"  kvnet namespace create demo{where}",
        f"  kvnet put demo greeting hello{where}",
        f"  kvnet get demo greeting --near {city}{where}",
        f"  kvnet status --watch{where}",
        f"  kvnet down{where}" if stays else f"  Ctrl-C stops it, and so does: kvnet down{where}",
    ]
    return "\n".join(lines)


def _heading(topology: Topology) -> str:
    loss = f", {topology.wan.loss:.3g} of all packets lost" if topology.wan.loss else ""
    return f"{topology.name}: {len(topology.pops)} PoPs{loss}"
