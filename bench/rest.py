"""The question: how fast are the API's requests for many pairs, and what do they cost a node in memory.

    python -m bench.rest [--keys 1000000] [--rounds 5] [--json FILE]

Starts a coordinator and two edges. Bulk puts of 10,000 pairs of 100 bytes go to the coordinator and to the far
edge, beside what a client of plain LMDB does with the same body: read the JSON, put, commit durably. A namespace
is then filled by bulk puts and listed from end to end, 1,000 keys a page, beside the same pages read from plain
LMDB and written as JSON. At last one bulk put of 100 MB goes to each, while the anonymous memory of both is looked
at. Exit code 1 when something failed, 2 for wrong options.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from itertools import islice
from pathlib import Path
from statistics import median, quantiles
from typing import Any, Final, Self

import aiohttp
import lmdb
import msgspec
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from bench._support.arguments import count, new_file
from bench._support.load import create_namespace, new_session
from bench._support.network import RunningNetwork, started
from bench._support.surroundings import surroundings
from kvnet.errors import KvnetError

OK, FAILED, INTERRUPTED = 0, 1, 130
PAIRS: Final = 10_000
VALUE: Final = "v" * 100
PAGE_KEYS: Final = 1000
HUGE_BYTES: Final = 100_000_000
HUGE_PAIRS: Final = 9_000
LOOK_S: Final = 0.01
MAP_BYTES: Final = 1 << 34


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.rest", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--keys", type=count, default=1_000_000, metavar="N", help="default: a million")
    parser.add_argument("--rounds", type=count, default=5, metavar="N", help="the median counts (default: 5)")
    parser.add_argument("--json", type=new_file, metavar="FILE", help="write the result here")
    options = parser.parse_args(arguments)
    try:
        # Without the limit on writes of one key: it is not what is asked for here.
        with started(None, ["--pops", "2", "--limit", "write_interval_ms=0"]) as network:
            result = asyncio.run(measure(network, options))
    except (KvnetError, OSError, aiohttp.ClientError) as error:
        print(f"bench.rest: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
    print_result(result)
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")
    return OK


async def measure(network: RunningNetwork, options: argparse.Namespace) -> dict[str, Any]:
    """Return everything, times in ms, memory in MB."""
    edge = list(network.cluster["pops"])[-1]
    urls = {"coordinator": network.coordinator_url, "edge": network.cluster["pops"][edge]["url"]}
    result: dict[str, Any] = {"keys": options.keys, "rounds": options.rounds, "edge": edge}
    async with new_session() as session:
        api = _Api(session, network, await create_namespace(session, network, "rest"), urls)
        with tempfile.TemporaryDirectory() as folder, _Plain(folder) as plain:
            result["bulk_put"] = await measure_bulk(api, plain, options.rounds)
            await fill(api, plain, options.keys)
            result["list"] = await measure_lists(api, plain)
        result["memory"] = {name: await measure_memory(api, network, edge, name) for name in urls}
    return {**result, **surroundings()}


class _Api:
    """One namespace at two nodes."""

    def __init__(
        self, session: aiohttp.ClientSession, network: RunningNetwork, namespace: str, urls: dict[str, str]
    ) -> None:
        self._session = session
        self._headers = network.authorization
        self._path = f"{network.namespaces_path}/{namespace}"
        self._urls = urls

    async def ask(self, at: str, method: str, path: str, body: bytes | None = None) -> dict[str, Any]:
        """Return a success.

        Raises:
            KvnetError: it isn't one.
        """
        timeout = aiohttp.ClientTimeout(total=300)
        data = None if body is None else aiohttp.BytesPayload(body)
        url = self._urls[at] + self._path + path
        async with self._session.request(method, url, data=data, headers=self._headers, timeout=timeout) as answer:
            told: dict[str, Any] = msgspec.json.decode(await answer.read())
        if not told["success"]:
            raise KvnetError(f"{method} {path} at {at}: {told['errors']}")
        return told


class _Plain:
    """LMDB without us, for as long as the context lasts."""

    def __init__(self, folder: str) -> None:
        self._environment = lmdb.open(str(Path(folder) / "plain"), map_size=MAP_BYTES, writemap=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._environment.close()

    def put(self, body: bytes) -> None:
        pairs = [(pair["key"].encode(), pair["value"].encode()) for pair in msgspec.json.decode(body)]
        with self._environment.begin(write=True) as txn, txn.cursor() as cursor:
            cursor.putmulti(pairs)

    def page(self, after: bytes) -> bytes:
        """Read a page behind a key and write it as JSON; return its last key, b"" at the end."""
        with self._environment.begin() as txn, txn.cursor() as cursor:
            found = cursor.set_range(after + b"\0")
            keys = list(islice(cursor.iternext(values=False), PAGE_KEYS)) if found else []
        msgspec.json.encode([{"name": key.decode()} for key in keys])
        return keys[-1] if len(keys) == PAGE_KEYS else b""


def body_of(first: int, pairs: int = PAIRS, value: str = VALUE) -> bytes:
    return msgspec.json.encode([{"key": f"key-{first + n:012}", "value": value} for n in range(pairs)])


def timed(do: Callable[[], object]) -> float:
    began = time.perf_counter()
    do()
    return (time.perf_counter() - began) * 1000


async def measure_bulk(api: _Api, plain: _Plain, rounds: int) -> dict[str, float]:
    """Put 10,000 new pairs at each in turns; return the medians."""
    times: dict[str, list[float]] = {"coordinator": [], "edge": [], "plain": []}
    for number in range(rounds):
        for offset, at in enumerate(("coordinator", "edge")):
            body = body_of((2 * number + offset) * PAIRS)
            began = time.perf_counter()
            await api.ask(at, "PUT", "/bulk", body)
            times[at].append((time.perf_counter() - began) * 1000)
            times["plain"].append(timed(lambda body=body: plain.put(body)))  # type: ignore[misc]
    return {name: median(taken) for name, taken in times.items()}


async def fill(api: _Api, plain: _Plain, keys: int) -> None:
    with Progress(console=Console(stderr=True)) as progress:
        for first in progress.track(range(0, keys, PAIRS), description="filling"):
            body = body_of(first, min(PAIRS, keys - first))
            await api.ask("coordinator", "PUT", "/bulk", body)
            plain.put(body)


async def measure_lists(api: _Api, plain: _Plain) -> dict[str, dict[str, float]]:
    """List everything once at each; return the percentiles of a page's time."""
    found: dict[str, dict[str, float]] = {}
    for at in ("coordinator", "edge"):
        times: list[float] = []
        cursor, more = "", True
        while more:
            began = time.perf_counter()
            page = await api.ask(at, "GET", f"/keys?limit={PAGE_KEYS}&cursor={cursor}")
            times.append((time.perf_counter() - began) * 1000)
            cursor = page["result_info"]["cursor"]
            more = bool(cursor)
        found[at] = _percentiles(times)
    times, after, more = [], b"", True
    while more:
        began = time.perf_counter()
        after = plain.page(after)
        times.append((time.perf_counter() - began) * 1000)
        more = bool(after)
    found["plain"] = _percentiles(times)
    return found


def _percentiles(times: list[float]) -> dict[str, float]:
    cuts = quantiles(times, n=100) if len(times) > 1 else times * 99
    return {"p50": median(times), "p99": cuts[98], "pages": len(times)}


async def measure_memory(api: _Api, network: RunningNetwork, edge: str, at: str) -> dict[str, float]:
    """Put 100 MB; return how long it took and how far each node's anonymous memory grew."""
    value = os.urandom((HUGE_BYTES // HUGE_PAIRS - 60) // 2).hex()
    body = body_of(10**9, HUGE_PAIRS, value)
    pids = {"coordinator": network.pids()["coordinator"], "edge": network.pids()[edge]}
    async with _highest(pids) as highest:
        before = {name: anonymous_mb(pid) for name, pid in pids.items()}
        began = time.perf_counter()
        await api.ask(at, "PUT", "/bulk", body)
        elapsed_s = time.perf_counter() - began
    return {
        "body_mb": len(body) / 1e6,
        "seconds": elapsed_s,
        **{f"{name}_grown_mb": highest[name] - before[name] for name in pids},
    }


@asynccontextmanager
async def _highest(pids: dict[str, int]) -> AsyncIterator[dict[str, float]]:
    highest = {name: anonymous_mb(pid) for name, pid in pids.items()}

    async def look() -> None:
        while True:
            for name, pid in pids.items():
                highest[name] = max(highest[name], anonymous_mb(pid))
            await asyncio.sleep(LOOK_S)

    looking = asyncio.create_task(look())
    try:
        yield highest
    finally:
        looking.cancel()
        with suppress(asyncio.CancelledError):
            await looking


def anonymous_mb(pid: int) -> float:
    """Return a process's own memory: without the files it has mapped, which the kernel may take back."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) / 1000
    raise KvnetError(f"process {pid} has no RssAnon: is this Linux?")


def print_result(result: dict[str, Any]) -> None:
    """Print the tables."""
    console = Console(highlight=False)
    table = Table(title=f"Milliseconds; medians of {result['rounds']}; {result['keys']:,} keys listed")
    table.add_column("")
    for heading in ("coordinator", f"edge {result['edge']}", "plain LMDB"):
        table.add_column(heading, justify="right")
    names = ("coordinator", "edge", "plain")
    bulk, lists = result["bulk_put"], result["list"]
    table.add_row(f"bulk put of {PAIRS:,} pairs of 100 bytes", *(f"{bulk[name]:.0f}" for name in names))
    for percentile in ("p50", "p99"):
        cells = (f"{lists[name][percentile]:.2f}" for name in names)
        table.add_row(f"list of {PAGE_KEYS:,} keys, {percentile}", *cells)
    console.print(table)
    table = Table(title="One bulk put of 100 MB")
    for heading in ("put at", "seconds", "coordinator grew by", "edge grew by"):
        table.add_column(heading, justify="right")
    for name, memory in result["memory"].items():
        grown = (f"{memory[f'{node}_grown_mb']:.1f} MB" for node in ("coordinator", "edge"))
        table.add_row(name, f"{memory['seconds']:.1f}", *grown)
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
