"""The question: how long until an empty edge serves a large data set, and what do its donor's readers feel of it.

    python -m bench.bootstrap [--keys 1000000] [--value-bytes 100] [--rounds 3] [--json FILE]

Starts a coordinator and two edges, fills their replicas with the same keys, and starts them again: no journal
reaches back to the first of those keys, so whoever is empty needs pages. Then one edge is emptied and started,
round by round, while the other one, its only donor but for the coordinator, answers reads on a fixed schedule.
Their times while it streams stand beside those of the minute before. Exit code 1 when something failed, 2 for
wrong options.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median, quantiles
from typing import Any, Final

import aiohttp
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from bench._support.arguments import count, new_file, rate
from bench._support.key_space import NAMESPACE, KeySpace, key_of_number
from bench._support.load import new_session
from bench._support.network import KVNET, RunningNetwork, running, started
from bench._support.surroundings import surroundings
from kvnet.core.catalog import CatalogItem
from kvnet.core.entries import DIGEST_MODULUS, HASH_BYTES
from kvnet.errors import ConfigError, KvnetError
from kvnet.storage.store import Durability, Store
from nodes.cluster import RunFolder
from nodes.stores import cluster_id_of

OK, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130
QUIET_S: Final = 10.0
"""How long the donor's readers are alone, each round."""
DEADLINE_S: Final = 180.0
POLL_S: Final = 0.05
REPLAY_BUDGET: Final = 1000


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; return the exit code."""
    options = parse(arguments)
    try:
        with tempfile.TemporaryDirectory(prefix="kvnet-bench-", ignore_cleanup_errors=True) as folder:
            result = run(Path(folder) / "run", options)
    except (KvnetError, OSError) as error:
        print(f"bench.bootstrap: {error}", file=sys.stderr)
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
        prog="python -m bench.bootstrap",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--keys", type=count, default=1_000_000, metavar="N", help="default: a million")
    parser.add_argument("--value-bytes", type=count, default=100, metavar="B", help="of each value (default: 100)")
    parser.add_argument("--rate", type=rate, default=200.0, metavar="R", help="reads a second at the donor")
    parser.add_argument("--rounds", type=count, default=3, metavar="N", help="the median counts (default: 3)")
    parser.add_argument("--json", type=new_file, metavar="FILE", help="write the result here")
    return parser.parse_args(arguments)


def run(data: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Make the network and its data, and empty an edge of it, round by round.

    Raises:
        KvnetError: a command failed, or the edge doesn't serve in time.
    """
    with started(data, ["--pops", "2"]):
        kvnet(data, "down")
        fill(data, options.keys, options.value_bytes)
        kvnet(data, "up", "--detach", "--topology", str(RunFolder(data).topology_file))
        donor, blank = sorted(running(data).cluster["pops"])
        rounds = [measure_round(data, donor, blank, options) for _ in range(options.rounds)]
    result = {name: median(row[name] for row in rounds) for name in rounds[0]}
    return {
        "keys": options.keys,
        "value_bytes": options.value_bytes,
        "rate": options.rate,
        "donor": donor,
        "blank": blank,
        **{name: round(value, 3) for name, value in result.items()},
        "rounds": rounds,
    }


def kvnet(data: Path, *words: str) -> None:
    """Run a command on the network in `data`.

    Raises:
        KvnetError: it failed.
    """
    command = [*KVNET, *words, "--data", str(data)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise KvnetError(f"`kvnet {words[0]}` failed: {done.stderr.strip()}")


def fill(data: Path, keys: int, value_bytes: int) -> None:
    """Give every node of the stopped network the same records, as a snapshot would have brought them."""
    folder = RunFolder(data)
    topology = folder.topology()
    cluster_id = cluster_id_of(topology, folder.secret())
    names = ["coordinator", *(pop.code for pop in topology.pops)]
    with Progress(console=Console(stderr=True), transient=True) as progress:
        for name in names:
            store = Store.open(
                folder.node_folder(name) / "store",
                node=name,
                cluster_id=cluster_id,
                durability=Durability.COMMIT if name == "coordinator" else Durability.NONE,
                refillable=name != "coordinator",
            )
            catalogue: list[CatalogItem] = [*store.catalogue.items.values(), NAMESPACE]
            space = KeySpace(keys, value_bytes, catalogue)
            task = progress.add_task(f"filling {name}", total=space.page_count)
            total = 0
            store.begin_successor(space.position)
            for page, added in space.pages():
                store.store_page(page)
                total += added
                progress.advance(task)
            digest = (total % DIGEST_MODULUS).to_bytes(HASH_BYTES, "big")
            while store.replay_some(space.position, digest, REPLAY_BUDGET) is None:
                pass
            store.close()


def measure_round(data: Path, donor: str, blank: str, options: argparse.Namespace) -> dict[str, float]:
    """Empty an edge and start it; return the times.

    Raises:
        KvnetError: it doesn't serve in time.
    """
    kvnet(data, "stop", blank)
    shutil.rmtree(RunFolder(data).node_folder(blank) / "store")
    return asyncio.run(_measure_round(running(data), data, donor, blank, options))


async def _measure_round(
    network: RunningNetwork, data: Path, donor: str, blank: str, options: argparse.Namespace
) -> dict[str, float]:
    async with new_session() as session:
        quiet = await read(session, network, donor, options, asyncio.create_task(asyncio.sleep(QUIET_S)))
        begun_s = time.monotonic()
        await asyncio.to_thread(kvnet, data, "start", blank)
        started_s = time.monotonic() - begun_s
        serves = asyncio.create_task(_serves(session, network, blank, options.keys))
        streaming = await read(session, network, donor, options, serves)
        served_s = await serves - begun_s
    return {
        "process_s": started_s,
        "serves_s": served_s,
        "quiet_p50_ms": quiet[49],
        "quiet_p99_ms": quiet[98],
        "streaming_p50_ms": streaming[49],
        "streaming_p99_ms": streaming[98],
        "p99_ratio": streaming[98] / quiet[98],
    }


async def _serves(session: aiohttp.ClientSession, network: RunningNetwork, blank: str, keys: int) -> float:
    """Return when this edge has answered a read of its last key."""
    url = value_url(network, blank, keys - 1)
    deadline_s = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline_s:
        try:
            async with session.get(url, headers=network.authorization) as answer:
                await answer.read()
                if answer.status == 200:
                    return time.monotonic()
        except aiohttp.ClientError:
            pass
        await asyncio.sleep(POLL_S)
    raise KvnetError(f"{blank} doesn't serve after {DEADLINE_S:g} s; `kvnet logs {blank}` may say why")


async def read(
    session: aiohttp.ClientSession,
    network: RunningNetwork,
    donor: str,
    options: argparse.Namespace,
    until: asyncio.Task[Any],
) -> list[float]:
    """Read at the donor on a fixed schedule until the task ends; return the percentiles of the times, ms.

    A read's time counts from when it was due.
    """
    now = asyncio.get_running_loop().time
    draw = random.Random(1)
    begun_s = now()
    times_ms: list[float] = []
    under_way: set[asyncio.Task[None]] = set()

    async def read_one(due_s: float) -> None:
        url = value_url(network, donor, draw.randrange(options.keys))
        async with session.get(url, headers=network.authorization) as answer:
            await answer.read()
            if answer.status != 200:
                raise KvnetError(f"{donor} answered a read with {answer.status}")
        times_ms.append((now() - due_s) * 1000)

    number = 0
    while not until.done():
        due_s = begun_s + number / options.rate
        await asyncio.sleep(due_s - now())
        task = asyncio.create_task(read_one(due_s))
        under_way.add(task)
        task.add_done_callback(under_way.discard)
        number += 1
    await asyncio.gather(*under_way)
    return quantiles(times_ms, n=100)


def value_url(network: RunningNetwork, pop: str, number: int) -> str:
    path = f"{network.namespaces_path}/{NAMESPACE.id.hex()}/values/{key_of_number(number).decode()}"
    return f"{network.cluster['pops'][pop]['url']}{path}"


def print_result(result: dict[str, Any]) -> None:
    """Print the table."""
    table = Table(title=f"An empty edge beside {result['keys']:,} keys; medians of {len(result['rounds'])}")
    table.add_column("")
    table.add_column("measured", justify="right")
    table.add_row("the process listens after", f"{result['process_s']:.2f} s")
    table.add_row("it serves all keys after", f"{result['serves_s']:.2f} s")
    for name, what in (("quiet", "alone"), ("streaming", "while it gives pages")):
        p50, p99 = result[f"{name}_p50_ms"], result[f"{name}_p99_ms"]
        table.add_row(f"the donor's reads {what}, p50 / p99", f"{p50:.2f} / {p99:.2f} ms")
    table.add_row("p99, ratio", f"{result['p99_ratio']:.2f}")
    Console(highlight=False).print(table)


if __name__ == "__main__":
    sys.exit(main())
