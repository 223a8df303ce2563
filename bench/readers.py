"""The question: how many reads a second one edge's port answers with 0, 1 and 2 readers beside the edge.

    python -m bench.readers [--readers 0 1 2] [--seconds 3] [--rounds 3] [--connections 64] [--json FILE]

Each number of readers is a network of two PoPs of its own. wrk takes a core while it asks, so readers show what
they are good for from three cores on; on two this tells what they cost. Asked for is one hot key of 100 bytes, by
connections that the kernel spreads, and then the same while 200 writes a second are applied. The medians of the
rounds count. Exit code 1 when something failed, 2 for wrong options.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any, Final

import aiohttp
from msgspec.structs import replace
from rich.console import Console
from rich.table import Table

from bench._support.arguments import count, new_file
from bench._support.load import create_namespace, new_session
from bench._support.network import RunningNetwork, started
from bench._support.surroundings import surroundings
from bench._support.wrk import find_wrk, load
from kvnet.errors import ConfigError, KvnetError
from kvnet.topology.fields import READERS_MAX
from kvnet.topology.load import dump_yaml
from kvnet.topology.load import load as load_topology

OK, FAILED, MISUSED, INTERRUPTED = 0, 1, 2, 130
WRITES_PER_S: Final = 200


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.readers", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--readers", type=int, nargs="+", default=[0, 1, 2], metavar="N", help="default: 0 1 2")
    parser.add_argument("--seconds", type=count, default=3, metavar="S", help="of load in each round (default: 3)")
    parser.add_argument("--rounds", type=count, default=3, metavar="N", help="the median counts (default: 3)")
    parser.add_argument("--connections", type=count, default=64, metavar="N", help="at once (default: 64)")
    parser.add_argument("--json", type=new_file, metavar="FILE", help="write the result here")
    options = parser.parse_args(arguments)
    if any(not 0 <= readers <= READERS_MAX for readers in options.readers):
        parser.error(f"--readers: 0 to {READERS_MAX} each")
    try:
        find_wrk()
        rows = [_measure(readers, options) for readers in options.readers]
    except ConfigError as error:
        print(f"bench.readers: {error}", file=sys.stderr)
        return MISUSED
    except (KvnetError, OSError, aiohttp.ClientError) as error:
        print(f"bench.readers: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
    _print_result(rows)
    if options.json:
        result = {**surroundings(), "connections": options.connections, "rows": rows}
        options.json.write_text(json.dumps(result, indent=2) + "\n")
    return OK


def _measure(readers: int, options: argparse.Namespace) -> dict[str, Any]:
    topology = replace(load_topology("world-2018").with_pops(2), readers=readers)
    with tempfile.TemporaryDirectory(prefix="kvnet-bench-") as scratch:
        file = Path(scratch) / "topology.yaml"
        file.write_text(dump_yaml(topology))
        with started(None, ["--topology", str(file), "--limit", "write_interval_ms=0"]) as network:
            url, path = asyncio.run(_fill(network))
            row: dict[str, Any] = {"readers": readers}
            for name, writes in (("quiet", False), ("written", True)):
                loads = []
                for _ in range(options.rounds):
                    with _writing(network, path) if writes else _nothing():
                        loads.append(
                            load(
                                f"{url}{path}/values/hot",
                                seconds=options.seconds,
                                connections=options.connections,
                                headers=network.authorization,
                            )
                        )
                row[name] = {
                    "requests_per_s": round(median(each.requests_per_s for each in loads)),
                    "p50_ms": round(median(each.p50_ms for each in loads), 3),
                    "p99_ms": round(median(each.p99_ms for each in loads), 3),
                }
    return row


async def _fill(network: RunningNetwork) -> tuple[str, str]:
    """Write the key that is asked for; return the edge's url and the namespace's path, once the edge has it."""
    url = str(list(network.cluster["pops"].values())[-1]["url"])
    async with new_session() as session:
        path = f"{network.namespaces_path}/{await create_namespace(session, network, 'readers')}"
        target = f"{network.coordinator_url}{path}/values/hot"
        async with session.put(target, data=b"v" * 100, headers=network.authorization) as answer:
            version = answer.headers["KV-Version"]
        headers = network.authorization | {"KV-At-Least": version, "KV-Wait-Timeout-Ms": "30000"}
        async with session.get(f"{url}{path}/values/hot", headers=headers) as answer:
            if answer.status != 200:
                raise KvnetError(f"the edge doesn't have what was written: {await answer.text()}")
    return url, path


@contextmanager
def _writing(network: RunningNetwork, path: str) -> Iterator[None]:
    """Write other keys all the time, from a thread; the load comes from a process of its own."""
    stop = threading.Event()

    async def write() -> None:
        loop = asyncio.get_running_loop()
        async with new_session() as session:
            began, number = loop.time(), 0
            while not stop.is_set():
                url = f"{network.coordinator_url}{path}/values/other{number % 1000}"
                async with session.put(url, data=b"v" * 100, headers=network.authorization) as answer:
                    await answer.read()
                number += 1
                await asyncio.sleep(max(0.0, began + number / WRITES_PER_S - loop.time()))

    thread = threading.Thread(target=lambda: asyncio.run(write()))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@contextmanager
def _nothing() -> Iterator[None]:
    yield


def _print_result(rows: Sequence[dict[str, Any]]) -> None:
    table = Table(title="reads a second of one edge's port")
    for heading in ("readers", "quiet", "p50 ms", "p99 ms", f"{WRITES_PER_S} writes/s", "p50 ms", "p99 ms"):
        table.add_column(heading, justify="right")
    for row in rows:
        cells = [str(row["readers"])]
        for name in ("quiet", "written"):
            found = row[name]
            cells += [f"{found['requests_per_s']:,}", str(found["p50_ms"]), str(found["p99_ms"])]
        table.add_row(*cells)
    Console().print(table)


if __name__ == "__main__":
    raise SystemExit(main())
