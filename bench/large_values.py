"""The question: how long until a large value can be read at every PoP, and what do small writes feel of it.

    python -m bench.large_values --pops 48 [--mib 25] [--rate 20] [--json FILE]

Starts a network with the limits profile workers-kv, writes small values on a fixed schedule, and in the middle
of them puts one large one through the coordinator. Asks every PoP for its metadata until all have it, then
reads it whole at each and compares. Beside the time stands what this machine needs to copy that many bytes: the
value written to as many files. Exit code 3 when the bound was broken for a small write, 1 when something
failed, 2 for wrong options.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import secrets
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import quantiles
from typing import Any, Final

import aiohttp
from rich.console import Console
from rich.table import Table

from bench._support.arguments import add_network_options, count, rate, up_options
from bench._support.load import WriteLoad, create_namespace, new_session, write
from bench._support.monitor_client import MonitorClient
from bench._support.network import RunningNetwork, started
from bench._support.replicas import count_equal
from bench._support.surroundings import surroundings
from kvnet.errors import ConfigError, KvnetError
from nodes.procfs import anonymous_bytes

OK, FAILED, USAGE, BOUND_BROKEN, INTERRUPTED = 0, 1, 2, 3, 130
MIB: Final = 1 << 20
SMALL_S: Final = 40.0
"""How long small values are written."""
BEFORE_S: Final = 5.0
"""How long they are alone before the large one begins."""
DEADLINE_S: Final = 120.0
POLL_S: Final = 0.1
MEMORY_POLL_S: Final = 0.2
SETTLE_S: Final = 25.0
KEY: Final = "large"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; return the exit code."""
    options = parse(arguments)
    try:
        with started(options.data, ["--limits", "workers-kv", *up_options(options)]) as network:
            result = asyncio.run(measure(network, options.mib * MIB, options.rate))
            result |= {"plain_copy_s": round(plain_copies_s(options.mib * MIB, result["pops"]), 3)}
    except (KvnetError, OSError) as error:
        print(f"bench.large_values: {error}", file=sys.stderr)
        return USAGE if isinstance(error, ConfigError) else FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
    print_result(result)
    if options.json is not None:
        options.json.write_text(json.dumps(surroundings() | result, indent=2) + "\n")
    if result["violations"]:
        return BOUND_BROKEN
    return OK if result["whole_at"] == result["replicas_equal"] == result["pops"] else FAILED


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line; a wrong one exits with 2."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.large_values",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--mib", type=count, default=25, metavar="N", help="size of the value (default: 25)")
    parser.add_argument("--rate", type=rate, default=20.0, metavar="R", help="small writes a second (default: 20)")
    add_network_options(parser)
    return parser.parse_args(arguments)


async def measure(network: RunningNetwork, value_bytes: int, small_rate: float) -> dict[str, Any]:
    """Put one large value into a network that takes small ones; return the result.

    Raises:
        KvnetError: a node doesn't answer, or refuses the value.
    """
    value = os.urandom(value_bytes)
    load = WriteLoad(
        writes=int(SMALL_S * small_rate), rate=small_rate, keys=int(SMALL_S * small_rate), value_bytes=100
    )
    async with new_session() as session:
        monitor = MonitorClient(session, network)
        namespace = await create_namespace(session, network, f"bench large {secrets.token_hex(4)}")
        await monitor.settled(None, SETTLE_S)
        await monitor.mark()
        memory = asyncio.create_task(_watch_memory(network))
        small = asyncio.create_task(write(session, network, namespace, load, lambda: None))
        await asyncio.sleep(BEFORE_S)
        cpu_before, begun_s = network.cpu_seconds(), time.monotonic()
        answered_s = await _put(session, network, namespace, value)
        seen_s = await _seen_everywhere(session, network, namespace, begun_s)
        cores = network.cpu_cores_since(cpu_before, time.monotonic() - begun_s)
        written = await small
        memory.cancel()
        grown = await memory
        report = await monitor.settled(written.newest, SETTLE_S)
        whole_at = await _whole_at(session, network, namespace, value)
        equal = await count_equal(session, network)
    fullest = max(grown, key=lambda name: grown[name])
    return {
        "pops": report["pops"],
        "value_bytes": value_bytes,
        "answered_s": round(answered_s, 3),
        "readable_p50_s": round(sorted(seen_s.values())[len(seen_s) // 2], 3),
        "readable_everywhere_s": round(max(seen_s.values()), 3),
        "whole_at": whole_at,
        "small_writes": len(written.answer_ms),
        "small_failures": dict(written.failures),
        "small_answer_p99_ms": round(quantiles(written.answer_ms, n=100)[98], 1),
        "small_converge_p50_ms": report["converge_p50_ms"],
        "small_converge_p99_ms": report["converge_p99_ms"],
        "small_converge_max_ms": report["converge_max_ms"],
        "violations": report["violation_count"],
        "replicas_equal": equal,
        "cpu_cores": cores,
        "grown_mib_max": round(grown[fullest] / MIB, 1),
        "grown_mib_coordinator": round(grown["coordinator"] / MIB, 1),
        "grown_most": fullest,
    }


async def _put(session: aiohttp.ClientSession, network: RunningNetwork, namespace: str, value: bytes) -> float:
    """Put the large value at the coordinator; return after how many seconds it was answered."""
    url = f"{network.coordinator_url}{network.namespaces_path}/{namespace}/values/{KEY}"
    timeout = aiohttp.ClientTimeout(total=DEADLINE_S)
    begun_s = time.monotonic()
    async with session.put(url, data=value, headers=network.authorization, timeout=timeout) as answer:
        body = await answer.read()
        if answer.status != 200:
            raise KvnetError(f"the large value was refused: {answer.status} {body[:200].decode(errors='replace')}")
    return time.monotonic() - begun_s


async def _seen_everywhere(
    session: aiohttp.ClientSession, network: RunningNetwork, namespace: str, begun_s: float
) -> dict[str, float]:
    """Return by PoP after how many seconds it had the large value; its metadata come with the value or not at all.

    Raises:
        KvnetError: a PoP doesn't have it in time.
    """
    path = f"{network.namespaces_path}/{namespace}/metadata/{KEY}"
    missing = {code: pop["url"] for code, pop in network.cluster["pops"].items()}
    seen: dict[str, float] = {}
    while missing:
        for code, url in list(missing.items()):
            async with session.get(url + path, headers=network.authorization) as answer:
                await answer.read()
                if answer.status == 200:
                    seen[code] = time.monotonic() - begun_s
                    del missing[code]
        if missing and time.monotonic() - begun_s > DEADLINE_S:
            raise KvnetError(
                f"{len(missing)} PoPs don't have the value after {DEADLINE_S:g} s: {', '.join(missing)}"
            )
        await asyncio.sleep(POLL_S)
    return seen


async def _whole_at(session: aiohttp.ClientSession, network: RunningNetwork, namespace: str, value: bytes) -> int:
    """Return at how many PoPs a read gives exactly the value."""
    path = f"{network.namespaces_path}/{namespace}/values/{KEY}"
    whole = 0
    for pop in network.cluster["pops"].values():
        async with session.get(pop["url"] + path, headers=network.authorization) as answer:
            whole += await answer.read() == value
    return whole


async def _watch_memory(network: RunningNetwork) -> dict[str, int]:
    """Until it is cancelled, look how much memory of its own each node has; return how much that grew at most.

    Pages of the replica's file aren't counted: they are the kernel's cache, which gives them back.
    """
    first: dict[str, int] = {}
    most: dict[str, int] = {}
    try:
        while True:
            for name, pid in network.pids().items():
                memory = anonymous_bytes(pid) or 0
                first.setdefault(name, memory)
                most[name] = max(most.get(name, 0), memory)
            await asyncio.sleep(MEMORY_POLL_S)
    except asyncio.CancelledError:
        return {name: most[name] - first[name] for name in first}


def plain_copies_s(value_bytes: int, copies: int) -> float:
    """Return the seconds that it takes this machine to write as many files as there are PoPs."""
    value = os.urandom(value_bytes)
    with tempfile.TemporaryDirectory(prefix="kvnet-bench-") as folder:
        begun_s = time.monotonic()
        for number in range(copies):
            (Path(folder) / str(number)).write_bytes(value)
        return time.monotonic() - begun_s


def print_result(result: dict[str, Any]) -> None:
    """Print the table."""
    table = Table(title=f"{result['value_bytes'] / MIB:g} MiB to {result['pops']} PoPs, among small writes")
    table.add_column("")
    table.add_column("measured", justify="right")
    table.add_row("answered", f"{result['answered_s']:.2f} s")
    table.add_row("readable at half of the PoPs", f"{result['readable_p50_s']:.2f} s")
    table.add_row("readable at all PoPs", f"{result['readable_everywhere_s']:.2f} s")
    table.add_row("read whole and right at", f"{result['whole_at']} of {result['pops']}")
    table.add_row("plain copies of it into as many files", f"{result['plain_copy_s']:.2f} s")
    for name in ("p50", "p99", "max"):
        table.add_row(f"small writes at all PoPs, {name}", f"{result[f'small_converge_{name}_ms']:,.0f} ms")
    table.add_row("small writes answered, p99", f"{result['small_answer_p99_ms']:,.0f} ms")
    table.add_row(f"most memory grown (at {result['grown_most']})", f"{result['grown_mib_max']} MiB")
    table.add_row("the coordinator's", f"{result['grown_mib_coordinator']} MiB")
    table.add_row("cores of processor meanwhile", f"{result['cpu_cores']['all']:.2f}")
    table.add_row("replicas equal to the coordinator's", f"{result['replicas_equal']} of {result['pops']}")
    table.add_row("violations", str(result["violations"]))
    console = Console(highlight=False)
    console.print(table)
    for reason, times in result["small_failures"].items():
        console.print(f"{times} small writes failed: {reason}", markup=False)


if __name__ == "__main__":
    sys.exit(main())
