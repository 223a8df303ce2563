"""`kvnet ps`: the processes of a network and what they use."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import typer
from rich import box
from rich.table import Table

from kvnet.cli.options import DATA_DEFAULT, DataOption, JsonOption, run_folder
from kvnet.cli.output import print_report
from nodes import procfs
from nodes.control import ControlClient

CPU_SAMPLE_S = 0.5
MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Usage:
    """One node's process, and its readers with it."""

    name: str
    city: str
    phase: str
    pid: int | None
    up_since_ms: float | None
    restarts: int
    problem: str | None
    readers: list[int]
    """Their pids."""
    pss_bytes: int | None = None
    """Memory, each shared page divided by its sharers."""
    cpu_percent: float | None = None
    """Of one core, over the last half second."""


def ps(data: DataOption = DATA_DEFAULT, json_: JsonOption = False) -> None:
    """Show the processes and what they use."""
    folder = run_folder(data)
    with ControlClient(folder.control_socket) as launcher:
        state = launcher.ask("status")
    topology = folder.topology()
    usages = _measure(
        state["nodes"], {node["name"]: topology.pop_of(node["name"]).city for node in state["nodes"]}
    )
    if json_:
        told = {
            "launcher_pid": state["pid"],
            "formed_ms": state["formed_ms"],
            "nodes": [asdict(u) for u in usages],
        }
        typer.echo(json.dumps(told, ensure_ascii=False))
        return
    memory = sum(usage.pss_bytes or 0 for usage in usages)
    cpu = sum(usage.cpu_percent or 0.0 for usage in usages)
    running = sum(usage.pid is not None for usage in usages)
    summary = f"{running} of {len(usages)} nodes run: {memory / MIB:.0f} MiB, {cpu:.0f} % of one core"
    print_report(_table(usages), f"{summary}; launcher pid {state['pid']}")


def _measure(nodes: list[dict[str, Any]], cities: dict[str, str]) -> list[Usage]:
    pids = [pid for node in nodes for pid in _pids(node)]
    began_s = time.monotonic()
    before = {pid: procfs.cpu_seconds(pid) for pid in pids}
    memory = {pid: procfs.pss_bytes(pid) for pid in pids}
    time.sleep(max(CPU_SAMPLE_S - (time.monotonic() - began_s), 0.0))
    after = {pid: procfs.cpu_seconds(pid) for pid in pids}
    spent_s = time.monotonic() - began_s
    usages = []
    for node in nodes:
        own = _pids(node)
        spent = [
            last - first for pid in own if (first := before[pid]) is not None and (last := after[pid]) is not None
        ]
        taken = [size for pid in own if (size := memory[pid]) is not None]
        usages.append(
            Usage(
                city=cities[node["name"]],
                pss_bytes=sum(taken) if taken else None,
                cpu_percent=100 * sum(spent) / spent_s if spent else None,
                **node,
            )
        )
    return usages


def _pids(node: dict[str, Any]) -> list[int]:
    return [pid for pid in (node["pid"], *node["readers"]) if pid]


def _table(usages: list[Usage]) -> Table:
    table = Table(box=box.SIMPLE)
    for heading in ("node", "city", "state"):
        table.add_column(heading)
    for heading in ("pid", "readers", "up since", "memory MiB", "cpu %", "restarts"):
        table.add_column(heading, justify="right")
    for usage in usages:
        state = usage.phase if usage.problem is None else f"{usage.phase}: {usage.problem}"
        table.add_row(
            usage.name,
            usage.city,
            state,
            str(usage.pid or ""),
            str(len(usage.readers) or ""),
            "" if usage.up_since_ms is None else _clock(usage.up_since_ms),
            "" if usage.pss_bytes is None else f"{usage.pss_bytes / MIB:.1f}",
            "" if usage.cpu_percent is None else f"{usage.cpu_percent:.0f}",
            str(usage.restarts),
            style=None if usage.phase == "ready" else "yellow",
        )
    return table


def _clock(unix_ms: float) -> str:
    moment = datetime.fromtimestamp(unix_ms / 1000).astimezone()
    today = moment.date() == datetime.now().astimezone().date()
    return moment.strftime("%H:%M:%S" if today else "%Y-%m-%d %H:%M")
