"""The question: how much longer does a write take that is answered only when all PoPs have it.

    python -m bench.receipts [--pops N] [--writes 60] [--rate 2] [--loss P] [--json FILE]

On a network of real processes writes go to the coordinator one after the other, in turn without `KV-Wait`, with
50 %, 99 % and all; beside them others come at a steady rate and wait for nothing. The floor is the time to the
farthest PoP and back as the configured distances have it: no receipt of all can come sooner. How soon the PoPs had
the same writes is the monitor's. What the acks cost shows in the network's processor time with and without them.
Exit code 1 when something failed or a wait wasn't complete, 2 for wrong options.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Sequence
from statistics import median, quantiles
from typing import Any, Final

import aiohttp
from rich.console import Console
from rich.progress import track
from rich.table import Table

from bench._support.arguments import count, new_file, rate
from bench._support.load import WriteLoad, create_namespace, new_session, write
from bench._support.network import RunningNetwork, started
from bench._support.surroundings import surroundings
from kvnet.errors import ConfigError, KvnetError
from kvnet.topology.schema import COORDINATOR
from kvnet.topology.wan import Wan
from nodes.cluster import RunFolder

OK, FAILED, MISUSED, INTERRUPTED = 0, 1, 2, 130
WAITS: Final = ("", "50%", "99%", "all")
"""What the writes wait for, in turn; "" is none."""
NAMES: Final = {"": "without", "50%": "50 %", "99%": "99 %", "all": "all"}
REST_S: Final = 11.0
"""Longer than receipts go on after the last wait."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.receipts", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pops", type=count, metavar="N", help="the best-spread ones (default: all 152)")
    parser.add_argument("--writes", type=count, default=60, metavar="N", help="of each kind (default: 60)")
    parser.add_argument("--rate", type=rate, default=2.0, metavar="N", help="other writes a second (default: 2)")
    parser.add_argument("--loss", metavar="P", help="packet loss on every link: 0.05 or 5%%")
    parser.add_argument("--json", type=new_file, metavar="FILE", help="write the result here")
    options = parser.parse_args(arguments)
    chosen = [] if options.pops is None else ["--pops", str(options.pops)]
    if options.loss is not None:
        chosen += ["--loss", options.loss]
    try:
        with started(None, chosen) as network:
            result = asyncio.run(_measure(network, options))
    except ConfigError as error:
        print(f"bench.receipts: {error}", file=sys.stderr)
        return MISUSED
    except (KvnetError, OSError, aiohttp.ClientError) as error:
        print(f"bench.receipts: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
    _print_result(result)
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")
    return OK if not result["incomplete"] else FAILED


async def _measure(network: RunningNetwork, options: argparse.Namespace) -> dict[str, Any]:
    async with new_session() as session:
        namespace = await create_namespace(session, network, "receipts")
        cores = await _cores(session, network, namespace, options)
        others = asyncio.create_task(
            write(session, network, namespace, _others(options.rate, 3600, 102), lambda: None)
        )
        took: dict[str, list[float]] = {wait: [] for wait in WAITS}
        incomplete = 0
        for number in track(range(options.writes), description="writes", console=Console(stderr=True)):
            for wait in WAITS:
                answer_ms, complete = await _put(session, network, namespace, f"{number}-{wait or 'none'}", wait)
                took[wait].append(answer_ms)
                incomplete += not complete
        others.cancel()
        await asyncio.gather(others, return_exceptions=True)
        async with session.get(network.monitor_url + "/report", headers=network.authorization) as answer:
            report = await answer.json()
    topology = RunFolder(network.data).topology()
    wan = Wan(topology)
    there_and_back = max(
        wan.one_way_ms(COORDINATOR, pop.code) + wan.one_way_ms(pop.code, COORDINATOR) for pop in topology.pops
    )
    return {
        **surroundings(),
        "pops": len(topology.pops),
        "loss": network.loss,
        "writes": options.writes,
        "rate": options.rate,
        "floor_ms": round(there_and_back, 1),
        "spread_ms": {"p50": report["converge_p50_ms"], "p99": report["converge_p99_ms"]},
        "answer_ms": {NAMES[wait]: _summary(each) for wait, each in took.items()},
        "incomplete": incomplete,
        "cores": cores,
    }


def _others(per_s: float, seconds: float, value_bytes: int) -> WriteLoad:
    """Return a load of values of this size: what equals what is stored isn't replicated."""
    return WriteLoad(writes=max(1, int(per_s * seconds)), rate=per_s, keys=1000, value_bytes=value_bytes)


async def _cores(
    session: aiohttp.ClientSession, network: RunningNetwork, namespace: str, options: argparse.Namespace
) -> dict[str, float]:
    """Return how many cores the network uses under the other writes, with receipts wanted and without."""
    found: dict[str, float] = {}
    for name, size in (("without", 100), ("with", 101)):
        await asyncio.sleep(REST_S)
        if name == "with":
            await _put(session, network, namespace, "first", "all")
        before, began = network.cpu_seconds(), time.monotonic()
        await write(session, network, namespace, _others(options.rate, 8, size), lambda: None)
        found[name] = network.cpu_cores_since(before, time.monotonic() - began)["all"]
    return found


async def _put(
    session: aiohttp.ClientSession, network: RunningNetwork, namespace: str, key: str, wait: str
) -> tuple[float, bool]:
    """Return how long a write took, and whether all that it waited for had it."""
    url = f"{network.coordinator_url}{network.namespaces_path}/{namespace}/values/{key}"
    headers = network.authorization | ({"KV-Wait": wait} if wait else {})
    began = time.perf_counter()
    async with session.put(url, data=b"v" * 100, headers=headers) as answer:
        document = await answer.json()
    took_ms = (time.perf_counter() - began) * 1000
    if not document["success"]:
        raise KvnetError(f"a write was refused: {document['errors'][0]['message']}")
    return took_ms, not wait or document["result"]["complete"]


def _summary(times: list[float]) -> dict[str, float]:
    return {
        "p50": round(median(times), 1),
        "p95": round(quantiles(times, n=20, method="inclusive")[-1], 1) if len(times) > 1 else round(times[0], 1),
        "max": round(max(times), 1),
    }


def _print_result(result: dict[str, Any]) -> None:
    table = Table("answered when", "p50 ms", "p95 ms", "max ms", "p50 × floor", box=None)
    for name, times in result["answer_ms"].items():
        stretch = times["p50"] / result["floor_ms"]
        table.add_row(
            name if name == "without" else f"{name} of {result['pops']} PoPs have it",
            *(f"{times[share]:.1f}" for share in ("p50", "p95", "max")),
            f"{stretch:.2f}",
        )
    console = Console()
    console.print(table)
    spread, cores = result["spread_ms"], result["cores"]
    console.print(
        f"floor, to the farthest PoP and back: {result['floor_ms']} ms; "
        f"the last PoP had the writes after {spread['p50']:.0f} ms at the median, p99 {spread['p99']:.0f} ms"
    )
    console.print(
        f"cores of the whole network at {result['rate']:g} writes/s: {cores['without']} without receipts, "
        f"{cores['with']} with"
    )
    if result["incomplete"]:
        console.print(f"[bold red]{result['incomplete']} waits were not complete in 10 s[/]")


if __name__ == "__main__":
    sys.exit(main())
