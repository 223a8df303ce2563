"""What `script/demo` shows of a running network: one write on its way around the world, then many, then a verdict.

Run as `python -m kvnet.cli.demo --data DIR`. The numbers are the monitor's.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import aiohttp
import typer

import kvnet
from kvnet.cli.connection import NamespaceArgument
from kvnet.cli.options import DATA_DEFAULT, DataOption
from kvnet.cli.spread import spread_lines
from kvnet.cli.window import Window, told
from kvnet.client import Namespace
from kvnet.client.directory import CLUSTER_FILE, read_cluster_file
from kvnet.errors import KvnetError

BOUND_BROKEN = 3
VALUE_BYTES = 100
BEST_WIDTH = 100


def demo(
    namespace: NamespaceArgument = "demo",
    writes: Annotated[int, typer.Option("--writes", min=1, help="Writes of the benchmark.")] = 100,
    rate: Annotated[float, typer.Option("--rate", min=0.1, help="Writes per second.")] = 20.0,
    data: DataOption = DATA_DEFAULT,
) -> None:
    """Write, and show when every PoP had it. Exit code 3: later than the bound allows."""
    sys.exit(asyncio.run(_run(data, namespace, writes, rate)))


async def _run(data: Path, title: str, writes: int, rate: float) -> int:
    cluster = read_cluster_file(data / CLUSTER_FILE)
    coordinator = cluster["coordinator"]["url"]
    token, account_id = cluster["tokens"]["write"], cluster["account_id"]
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as session,
        kvnet.connect(urls=[coordinator], token=token, account_id=account_id) as net,
    ):
        namespace = net.namespace(title)
        one = Window(session, cluster, "demo-one-write")
        await one.begin()
        version = await namespace.put("spread", b"around the world")
        report = await one.settled(1)
        _say(f"Write {version}, PoP by PoP: milliseconds after it was durable at the coordinator\n")
        for line in spread_lines(report["per_pop"], min(shutil.get_terminal_size().columns, BEST_WIDTH)):
            _say(line)

        many = Window(session, cluster, "demo-many-writes")
        await many.begin()
        _say(f"\n{writes} writes of {VALUE_BYTES} bytes, {rate:g} a second\n")
        await _write_many(namespace, writes, rate)
        report = await many.settled(writes)
    for line in figures(report):
        _say(line)
    code, verdict = judge(report, writes)
    _say(f"\n{verdict}")
    return code


async def _write_many(namespace: Namespace, writes: int, rate: float) -> None:
    """Write keys of their own at even times, whether or not the ones before have been answered."""
    now = asyncio.get_running_loop().time
    began = now()
    async with asyncio.TaskGroup() as group:
        for i in range(writes):
            await asyncio.sleep(began + i / rate - now())
            group.create_task(namespace.put(f"write/{i:06}", f"{i:>{VALUE_BYTES}}"))


def figures(report: Mapping[str, Any]) -> list[str]:
    """Return the benchmark's figures, a line each."""
    times = {name: report[f"converge_{name}_ms"] for name in ("p50", "p99", "max")}
    rows = [
        (f"all {report['connected']} connected PoPs had it after", ", ".join(
            f"{name} {_number(time, ' ms')}" for name, time in times.items()
        )),
        ("the network's floor", f"{_number(report['floor_ms'], ' ms')}, the longest way from the coordinator"),
        ("p99 ÷ floor", _number(report["stretch_p99"], "", 2)),
        ("bytes received ÷ bytes needed", _number(report["redundancy"], "", 2)),
        ("copies sent by the coordinator", _number(report["coordinator_copies"], "", 2)),
        ("violations of the bound", str(report["violation_count"])),
    ]  # fmt: skip
    return [f"  {name:<36} {value}" for name, value in rows]


def judge(report: Mapping[str, Any], writes: int) -> tuple[int, str]:
    """Return exit code and verdict: 0 all in time, 3 the bound was broken, 1 it can't be told."""
    bound = f"{report['bound_ms'] / 1000:g} s"
    if report["violation_count"]:
        first = report["violations"][0]
        return BOUND_BROKEN, (
            f"BROKEN: {report['violation_count']} times a PoP had a write later than {bound}, "
            f"the first at {first['pop']}: {first['why']}"
        )
    if told(report) < writes or report["unjudged"] or report["pending"]:
        return 1, (
            f"NOT PROVEN: the monitor has judged {report['writes']} of {writes} writes; "
            "`kvnet logs monitor` may say why"
        )
    return 0, f"KEPT: each of {writes} writes was in all {report['connected']} connected PoPs within {bound}"


def _number(value: float | None, unit: str, digits: int = 0) -> str:
    return "–" if value is None else f"{value:.{digits}f}{unit}"


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(demo)
    try:
        app()
    except* KvnetError as group:
        print("kvnet:", group.exceptions[0], file=sys.stderr)
        sys.exit(1)
