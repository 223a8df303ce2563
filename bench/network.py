"""The question: what does a network cost that does nothing, in time to form, memory, processor and messages.

    python -m bench.network --pops 152 [--seconds 20] [--json FILE]

Starts a network, waits until nothing is on its way, then looks at it for a while. Memory is PSS: each shared page
divided among its sharers, so that the sum over the nodes is what they take together.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Sequence
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from bench._support.arguments import add_network_options, rate, up_options
from bench._support.load import new_session
from bench._support.monitor_client import MonitorClient
from bench._support.network import RunningNetwork, started
from bench._support.surroundings import surroundings
from kvnet.errors import ConfigError, KvnetError

OK, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130
SETTLE_S = 15.0
MIB = 2**20


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; return the exit code."""
    options = parse(arguments)
    try:
        with started(options.data, up_options(options)) as network:
            result = asyncio.run(measure(network, options.seconds))
    except (KvnetError, OSError) as error:
        print(f"bench.network: {error}", file=sys.stderr)
        return USAGE if isinstance(error, ConfigError) else FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
    print_result(result)
    if options.json is not None:
        options.json.write_text(json.dumps(surroundings() | result, indent=2) + "\n")
    return OK


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line; a wrong one exits with 2."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.network",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seconds", type=rate, default=20.0, metavar="S", help="how long to look (default: 20)")
    add_network_options(parser)
    return parser.parse_args(arguments)


async def measure(network: RunningNetwork, seconds: float) -> dict[str, Any]:
    """Look at a formed network for a while; return the result.

    Raises:
        KvnetError: the monitor doesn't answer.
    """
    async with new_session() as session:
        monitor = MonitorClient(session, network)
        await monitor.settled(None, SETTLE_S)
        memory = network.pss_bytes()
        await monitor.mark()
        begin_s, cpu_before = time.monotonic(), network.cpu_seconds()
        await asyncio.sleep(seconds)
        elapsed_s = time.monotonic() - begin_s
        cpu_cores = network.cpu_cores_since(cpu_before, elapsed_s)
        report = await monitor.report()
    edges = [memory[code] for code in network.cluster["pops"] if code in memory]
    counted_s = (report["now_ms"] - report["since"]["wall_ms"]) / 1000
    per_node_second = counted_s * (report["pops"] + 1)  # the monitor has no peers
    counters = report["counters"]
    return {
        "pops": report["pops"],
        "formed_ms": network.formed_ms,
        "pss_mib_mean": round(sum(memory.values()) / len(memory) / MIB, 2) if memory else None,
        "pss_mib_edge_median": round(median(edges) / MIB, 2) if edges else None,
        "pss_mib_edge_max": round(max(edges) / MIB, 2) if edges else None,
        "pss_mib_coordinator": _mib(memory.get("coordinator")),
        "pss_mib_monitor": _mib(memory.get("monitor")),
        "pss_mib_total": round(sum(memory.values()) / MIB, 1),
        "idle_cpu_cores": cpu_cores,
        "idle_seconds": round(elapsed_s, 1),
        "control_messages_per_node_second": round(counters.get("control_messages_sent", 0) / per_node_second, 2),
        "messages_per_node_second": round(counters.get("messages_sent", 0) / per_node_second, 2),
    }


def print_result(result: dict[str, Any]) -> None:
    """Print the table."""
    table = Table(title=f"{result['pops']} PoPs, idle for {result['idle_seconds']:g} s")
    table.add_column("")
    table.add_column("measured", justify="right")
    table.add_row("formed", f"{result['formed_ms'] / 1000:.1f} s")
    table.add_row("memory per node, mean", _shown(result["pss_mib_mean"]))
    table.add_row("memory of an edge, median / max", " / ".join(
        (_shown(result["pss_mib_edge_median"]), _shown(result["pss_mib_edge_max"]))))  # fmt: skip
    table.add_row("memory of the coordinator", _shown(result["pss_mib_coordinator"]))
    table.add_row("memory of the monitor", _shown(result["pss_mib_monitor"]))
    table.add_row("memory of all nodes", _shown(result["pss_mib_total"]))
    cores = result["idle_cpu_cores"]
    table.add_row("processor, of one core", f"{cores['all']:.1%}")
    table.add_row("  of it coordinator / monitor", f"{cores['coordinator']:.1%} / {cores['monitor']:.1%}")
    table.add_row("control messages a node and second", f"{result['control_messages_per_node_second']:.2f}")
    table.add_row("all messages a node and second", f"{result['messages_per_node_second']:.2f}")
    Console(highlight=False).print(table)


def _mib(size: int | None) -> float | None:
    return None if size is None else round(size / MIB, 2)


def _shown(mib: float | None) -> str:
    return "-" if mib is None else f"{mib:.1f} MiB"


if __name__ == "__main__":
    sys.exit(main())
