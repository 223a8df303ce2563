"""The question: how long until a write is at all PoPs, and was that ever longer than promised.

    python -m bench.convergence --pops 152 --writes 1000 --rate 20 [--loss 5%] [--json FILE] [--plot FILE]

Starts a network, writes to its coordinator in an open loop, and has the monitor say when every PoP had what.
Beside the measured times stands the floor, the largest one-way delay from the coordinator, and their ratio.
Exit code 3 when the bound was broken, 1 when the run failed or a write wasn't taken, 2 for wrong options.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import sys
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from statistics import quantiles
from typing import Any, Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from bench._support.arguments import add_network_options, count, loss, new_file, rate, up_options
from bench._support.load import WriteLoad, Written, create_namespace, new_session, write
from bench._support.monitor_client import MonitorClient
from bench._support.network import RunningNetwork, running, started
from bench._support.plot import plot_arrivals, require_matplotlib
from bench._support.replicas import count_equal
from bench._support.surroundings import surroundings
from kvnet.errors import ConfigError, KvnetError
from kvnet.monitor.report import slowest_pops

OK, FAILED, USAGE, BOUND_BROKEN, INTERRUPTED = 0, 1, 2, 3, 130
SETTLE_MARGIN_S = 15.0
KEYS_SECONDS: Final = 30
"""Beyond the bound: the monitor believes in a silent PoP's guilt after 5 s."""
SLOWEST_SHOWN = 8
REPORTED = (
    "pops",
    "writes",
    "frames",
    "floor_ms",
    "converge_p50_ms",
    "converge_p99_ms",
    "converge_max_ms",
    "stretch_p50",
    "stretch_p99",
    "redundancy",
    "coordinator_copies",
    "pending",
    "unjudged",
    "bound_ms",
)
"""What the result takes over from the monitor's report."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; return the exit code."""
    options = parse(arguments)
    try:
        if options.plot is not None:
            require_matplotlib()
        with _network(options) as network:
            result, report = asyncio.run(measure(network, load_of(options)))
    except (KvnetError, OSError) as error:
        print(f"bench.convergence: {error}", file=sys.stderr)
        return USAGE if isinstance(error, ConfigError) else FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
    print_result(result, report)
    if options.json is not None:
        options.json.write_text(json.dumps(surroundings() | result, indent=2) + "\n")
    if options.plot is not None:
        title = f"{result['pops']} PoPs, {result['rate']:g} writes/s, loss {result['loss']:.0%}"
        plot_arrivals(report, title, options.plot)
    return exit_code(result)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line; a wrong one exits with 2."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.convergence",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--writes", type=count, default=1000, metavar="N", help="how many (default: 1000)")
    parser.add_argument("--rate", type=rate, default=20.0, metavar="R", help="writes a second (default: 20)")
    parser.add_argument("--loss", type=loss, metavar="P", help="packet loss between replicas: 0.2 or 20%%")
    parser.add_argument("--value-bytes", type=count, default=100, metavar="B", help="of each value (default: 100)")
    parser.add_argument(
        "--keys", type=count, metavar="K", help="keys that take turns (default: 30 s worth of writes)"
    )
    parser.add_argument("--attach", action="store_true", help="measure the network that runs in --data already")
    parser.add_argument("--plot", type=new_file, metavar="FILE", help="draw the spread here (.svg or .png)")
    add_network_options(parser)
    options = parser.parse_args(arguments)
    keys_min = math.ceil(2 * options.rate)  # a key may be written once a second; twice as many leave room
    if options.keys is None:  # writes that had to wait come in a bunch, and their keys must differ then too
        options.keys = KEYS_SECONDS * math.ceil(options.rate)
    elif options.keys < min(keys_min, options.writes):
        parser.error(f"--keys {options.keys} is too few for --rate {options.rate:g}: at least {keys_min}, "
                     "because a key can be written once a second")  # fmt: skip
    if options.attach:
        if options.data is None:
            parser.error("--attach needs --data DIR: the folder of the network to measure")
        if options.pops is not None or options.topology is not None or options.loss is not None:
            parser.error("--attach measures a network as it is: leave out --pops, --topology and --loss")
    return options


def load_of(options: argparse.Namespace) -> WriteLoad:
    return WriteLoad(writes=options.writes, rate=options.rate, keys=options.keys, value_bytes=options.value_bytes)


async def measure(network: RunningNetwork, load: WriteLoad) -> tuple[dict[str, Any], dict[str, Any]]:
    """Write to a formed network; return the result and the monitor's report that it rests on.

    Raises:
        KvnetError: the coordinator or the monitor doesn't answer.
    """
    async with new_session() as session:
        monitor = MonitorClient(session, network)
        namespace = await create_namespace(session, network, f"bench {load.rate:g}/s, {time.time_ns()}")
        before = await monitor.settled(None, SETTLE_MARGIN_S)
        await monitor.mark()
        cpu_before, begin_s = network.cpu_seconds(), time.monotonic()
        with _progress() as progress:
            task = progress.add_task("written", total=load.writes)
            written = await write(session, network, namespace, load, lambda: progress.advance(task))
            progress.update(task, description="waiting for the last PoP")
            report = await monitor.settled(written.newest, before["bound_ms"] / 1000 + SETTLE_MARGIN_S)
        cpu_cores = network.cpu_cores_since(cpu_before, time.monotonic() - begin_s)
        equal = await count_equal(session, network)
    result = result_of(network, load, written, report)
    return result | {"cpu_cores": cpu_cores, "replicas_equal": equal}, report


def result_of(
    network: RunningNetwork, load: WriteLoad, written: Written, report: dict[str, Any]
) -> dict[str, Any]:
    """Return the fields of the result."""
    answers = quantiles(written.answer_ms, n=100) if len(written.answer_ms) > 1 else [math.nan] * 99
    return {name: report[name] for name in REPORTED} | {
        "loss": network.loss,
        "rate": load.rate,
        "keys": load.keys,
        "value_bytes": load.value_bytes,
        "violations": report["violation_count"],
        "formed_ms": network.formed_ms,
        "acknowledged": len(written.answer_ms),
        "failures": dict(written.failures),
        "answer_p50_ms": _rounded(answers[49]),
        "answer_p99_ms": _rounded(answers[98]),
        "slowest": [[code, pop["p99_ms"]] for code, pop in slowest_pops(report["per_pop"], SLOWEST_SHOWN)],
    }


def exit_code(result: dict[str, Any]) -> int:
    """Return 3 when the bound was broken, else 1 when a write failed or a replica isn't whole, else 0."""
    if result["violations"]:
        return BOUND_BROKEN
    seen = not result["pending"] and result["writes"] >= result["acknowledged"]
    whole = not result["failures"] and result["replicas_equal"] == result["pops"]
    return OK if seen and whole else FAILED


def print_result(result: dict[str, Any], report: dict[str, Any]) -> None:
    """Print the table, and in words what went wrong."""
    console = Console(highlight=False)
    table = Table(title=f"{result['pops']} PoPs, {result['rate']:g} writes/s, loss {result['loss']:.1%}")
    table.add_column("")
    table.add_column("measured", justify="right")
    table.add_column("× floor", justify="right")
    table.add_row("floor: largest one-way delay", _ms(result["floor_ms"]), "1")
    table.add_row("at all PoPs, p50", _ms(result["converge_p50_ms"]), _number(result["stretch_p50"]))
    table.add_row("at all PoPs, p99", _ms(result["converge_p99_ms"]), _number(result["stretch_p99"]))
    table.add_row("at all PoPs, max", _ms(result["converge_max_ms"]), "")
    table.add_row("answered, p50 / p99", f"{_ms(result['answer_p50_ms'])} / {_ms(result['answer_p99_ms'])}", "")
    table.add_row("writes", f"{result['writes']}", "")
    table.add_row("redundancy: bytes received ÷ needed", _number(result["redundancy"]), "")
    table.add_row("copies sent by the coordinator", _number(result["coordinator_copies"]), "")
    table.add_row("replicas equal to the coordinator's", f"{result['replicas_equal']} of {result['pops']}", "")
    table.add_row("cores of processor", _number(result["cpu_cores"]["all"]), "")
    table.add_row("formed", _ms(result["formed_ms"]), "")
    table.add_row(f"violations of {result['bound_ms'] / 1000:g} s", str(result["violations"]), "")
    console.print(table)
    console.print("slowest PoPs, p99: " + ", ".join(f"{code} {_ms(p99)}" for code, p99 in result["slowest"]))
    for reason, times in result["failures"].items():
        console.print(f"{times} writes failed: {reason}", markup=False)
    if result["pending"]:
        console.print(f"{result['pending']} writes were not at all PoPs when the wait ended")
    for violation in report["violations"][:SLOWEST_SHOWN]:
        console.print(
            f"{violation['write']} at {violation['pop']}: {violation['lag_ms']:g} ms, {violation['why']}"
        )


def _network(options: argparse.Namespace) -> AbstractContextManager[RunningNetwork]:
    if options.attach:
        return nullcontext(running(options.data))
    extra = [] if options.loss is None else ["--loss", str(options.loss)]
    return started(options.data, [*up_options(options), *extra])


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True), transient=True)


def _rounded(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 2)


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f} ms"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


if __name__ == "__main__":
    sys.exit(main())
