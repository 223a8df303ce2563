"""The question: how fast does one edge on one core answer reads, beside servers that do nothing else.

    python -m bench.reads [--keys 1000000] [--rounds 5] [--seconds 3] [--only PART] [--json FILE] [--plot FILE]

An edge of a network of two PoPs has one core for itself, wrk the other. In each round the edge and the others are
asked in turn; the medians of the rounds count. Parts: `hot` (one key of 100 bytes, 32 connections: the edge, nginx
with a static file, nginx with a constant, Redis GET, etcd, aiohttp alone), `connections` (1 to 256), `sizes` (to
64 KiB), `random` (a million keys, uniform and Zipf, and keys that aren't there), `bulk` (bulk get of 100 keys) and
`writes` (one hot key while 1,000 writes a second are applied). Exit code 1 when something failed, 2 for wrong
options.
"""

from __future__ import annotations

import argparse
import asyncio
import bisect
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from itertools import accumulate
from multiprocessing import Process
from pathlib import Path
from statistics import median
from typing import Any, Final

import aiohttp
import msgspec
from rich.console import Console
from rich.progress import track
from rich.table import Table

from bench._support.arguments import count, new_file
from bench._support.load import create_namespace, new_session
from bench._support.network import RunningNetwork, started
from bench._support.plot import plot_reads, require_matplotlib
from bench._support.reads import servers
from bench._support.reads.servers import SIZES, Server, pin
from bench._support.surroundings import surroundings
from bench._support.wrk import Load, find_wrk, load, redis_load
from kvnet.errors import ConfigError, KvnetError

OK, FAILED, MISUSED, INTERRUPTED = 0, 1, 2, 130
PARTS: Final = ("hot", "connections", "sizes", "random", "bulk", "writes")
CONNECTIONS: Final = (1, 8, 32, 64, 128, 256)
AT_ONCE: Final = 32
REDIS_REQUESTS: Final = 300_000
SAMPLES: Final = 200_000
"""Keys in a file that wrk goes through."""
ZIPF: Final = 0.99
"""As YCSB draws them."""
LOADED_AT_ONCE: Final = 5_000
WRITES_PER_S: Final = 1_000
WRITES_AT_ONCE: Final = 100
SCRIPTS: Final = Path(__file__).parent / "_support" / "reads"
SERVER_CORE, CLIENT_CORE = 0, 1


@dataclass(frozen=True, slots=True)
class Case:
    """One load."""

    part: str
    name: str
    run: Callable[[], Load]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.reads", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--keys", type=count, default=1_000_000, metavar="N", help="default: a million")
    parser.add_argument("--rounds", type=count, default=5, metavar="N", help="the median counts (default: 5)")
    parser.add_argument("--seconds", type=count, default=3, metavar="S", help="of load in each round (default: 3)")
    parser.add_argument("--only", choices=PARTS, action="append", metavar="PART", help="these parts alone")
    parser.add_argument("--json", type=new_file, metavar="FILE", help="write the result here")
    parser.add_argument("--plot", type=new_file, metavar="FILE", help="draw it here")
    options = parser.parse_args(arguments)
    options.parts = options.only or list(PARTS)
    try:
        find_wrk()
        if options.plot:
            require_matplotlib()
        if len(os.sched_getaffinity(0)) < 2:
            raise ConfigError("one core for the server and one for the load: this host has only one")  # noqa: TRY301
        # Without the limit on writes of one key: it is not what is asked for here.
        with started(None, ["--pops", "2", "--limit", "write_interval_ms=0"]) as network:
            result = _measure(network, options)
    except ConfigError as error:
        print(f"bench.reads: {error}", file=sys.stderr)
        return MISUSED
    except (KvnetError, OSError, aiohttp.ClientError) as error:
        print(f"bench.reads: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
    _print_result(result)
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")
    if options.plot:
        plot_reads(result, options.plot)
    return OK


def _measure(network: RunningNetwork, options: argparse.Namespace) -> dict[str, Any]:
    edge = _Edge(network)
    keys = options.keys if {"random", "bulk"} & set(options.parts) else 0
    for pid in network.pids().values():
        pin(pid, SERVER_CORE if pid == edge.server.pid else CLIENT_CORE)
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kvnet-bench-")))
        asyncio.run(edge.fill(keys))
        cases = list(_cases(edge, keys, scratch, stack, options))
        runs: dict[tuple[str, str], list[Load]] = {(case.part, case.name): [] for case in cases}
        for _ in track(range(options.rounds), description="rounds", console=Console(stderr=True)):
            for case in cases:
                runs[case.part, case.name].append(case.run())
    figures: dict[str, dict[str, dict[str, float]]] = {part: {} for part in options.parts}
    for (part, name), each in runs.items():
        figures[part][name] = {
            field: round(median(getattr(run, field) for run in each), 3) for field in asdict(each[0])
        }
    return {
        "keys": keys,
        "rounds": options.rounds,
        "seconds": options.seconds,
        "figures": figures,
        "ratios": _ratios(figures),
        **surroundings(),
    }


class _Edge:
    """The edge that is measured, and its namespace."""

    def __init__(self, network: RunningNetwork) -> None:
        self.network = network
        _, pop = list(network.cluster["pops"].items())[-1]
        self.url = str(pop["url"])
        self.server = Server(int(self.url.rpartition(":")[2]), pop["pid"])
        self.token = str(network.cluster["tokens"]["read"])

    async def fill(self, keys: int) -> None:
        """Write `hot`, a value of each size, and as many keys; return when the edge has them."""
        async with new_session() as session:
            namespace = await create_namespace(session, self.network, "reads")
            self._path = f"{self.network.namespaces_path}/{namespace}"
            version = await self._put(session, [{"key": "hot", "value": "v" * 100}])
            for size in SIZES:
                version = await self._put(session, [{"key": f"size-{size}", "value": "v" * size}])
            stretches = range(0, keys, LOADED_AT_ONCE)
            for start in track(stretches, description="loading", console=Console(stderr=True), disable=not keys):
                numbers = range(start, min(start + LOADED_AT_ONCE, keys))
                pairs = [{"key": f"key-{number:08}", "value": "v" * 100} for number in numbers]
                version = await self._put(session, pairs)
            await self._reach(session, version)

    async def _put(self, session: aiohttp.ClientSession, pairs: list[dict[str, str]]) -> str:
        async with session.put(
            f"{self.network.coordinator_url}{self._path}/bulk",
            data=msgspec.json.encode(pairs),
            headers=self.network.authorization,
        ) as answer:
            if answer.status != 200:
                raise KvnetError(f"the values can't be written: {await answer.text()}")
            return answer.headers["KV-Version"]

    async def _reach(self, session: aiohttp.ClientSession, version: str) -> None:
        headers = self.network.authorization | {"KV-At-Least": version, "KV-Wait-Timeout-Ms": "30000"}
        async with session.get(f"{self.url}{self._path}/values/hot", headers=headers) as answer:
            if answer.status != 200:
                raise KvnetError(f"the edge doesn't get so far: {await answer.text()}")

    def value_path(self, key: str = "") -> str:
        return f"{self._path}/values/{key}"

    def load(self, key: str, *, connections: int = AT_ONCE, seconds: int, missing: bool = False) -> Load:
        return load(
            self.url + self.value_path(key),
            seconds=seconds,
            connections=connections,
            headers={"Authorization": f"Bearer {self.token}"},
            pid=self.server.pid,
            core=CLIENT_CORE,
            missing=missing,
        )

    def script(self, name: str, path: str, numbers: Path, *, seconds: int, missing: bool = False) -> Load:
        """Ask for the keys of a file."""
        return load(
            self.url,
            seconds=seconds,
            connections=AT_ONCE,
            script=(SCRIPTS / name, [str(numbers), path, self.token]),
            pid=self.server.pid,
            core=CLIENT_CORE,
            missing=missing,
        )

    def bulk(self, numbers: Path, *, seconds: int) -> Load:
        return self.script("bulk.lua", f"{self._path}/bulk/get", numbers, seconds=seconds)

    def load_while_written(self, *, seconds: int) -> Load:
        with self._writing():
            return self.load("hot", seconds=seconds)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        writer = Process(target=self._write_for_ever)
        writer.start()
        try:
            time.sleep(0.5)  # until it writes; the load that follows takes seconds
            yield
            if writer.exitcode is not None:
                raise KvnetError("the writes failed")
        finally:
            writer.kill()
            writer.join()

    def _write_for_ever(self) -> None:
        os.sched_setaffinity(0, {CLIENT_CORE})
        asyncio.run(self._write())

    async def _write(self) -> None:
        """Write WRITES_PER_S values of 100 bytes, a few at once: what the edge applies is what is measured."""
        async with new_session() as session:
            turn = 0
            began = time.monotonic()
            while True:
                value = f"{turn:0100}"
                await self._put(
                    session, [{"key": f"new-{each}", "value": value} for each in range(WRITES_AT_ONCE)]
                )
                turn += 1
                await asyncio.sleep(max(0.0, began + turn * WRITES_AT_ONCE / WRITES_PER_S - time.monotonic()))


def _cases(edge: _Edge, keys: int, scratch: Path, stack: ExitStack, options: argparse.Namespace) -> Iterator[Case]:
    parts, seconds = set(options.parts), options.seconds
    nginx = stack.enter_context(servers.nginx(scratch, SERVER_CORE))

    def plain(server: Server, path: str, *, connections: int = AT_ONCE) -> Callable[[], Load]:
        url = server.url + path
        return partial(load, url, seconds=seconds, connections=connections, pid=server.pid, core=CLIENT_CORE)

    redis = None
    if parts & {"hot", "random"}:
        redis = stack.enter_context(servers.redis(scratch, SERVER_CORE))
        servers.fill_redis(redis, keys)

    def redis_get(of: int | None) -> Callable[[], Load]:
        assert redis is not None
        requests = REDIS_REQUESTS * seconds // 3
        return partial(
            redis_load,
            redis.port,
            requests=requests,
            connections=AT_ONCE,
            keys=of,
            pid=redis.pid,
            core=CLIENT_CORE,
        )

    if "hot" in parts:
        etcd = stack.enter_context(servers.etcd(scratch, SERVER_CORE))
        alone = stack.enter_context(servers.aiohttp_alone(SERVER_CORE))
        yield Case("hot", "edge", partial(edge.load, "hot", seconds=seconds))
        yield Case("hot", "nginx, static file", plain(nginx, "/100"))
        yield Case("hot", "nginx, constant", plain(nginx, "/constant"))
        yield Case("hot", "Redis GET", redis_get(None))
        yield Case("hot", "aiohttp alone", plain(alone, "/"))
        script = (SCRIPTS / "etcd.lua", ["aG90"])
        yield Case(
            "hot",
            "etcd",
            partial(
                load,
                f"{etcd.url}/v3/kv/range",
                seconds=seconds,
                connections=AT_ONCE,
                script=script,
                pid=etcd.pid,
                core=CLIENT_CORE,
            ),
        )
    if "connections" in parts:
        for connections in CONNECTIONS:
            yield Case(
                "connections",
                f"edge, {connections}",
                partial(edge.load, "hot", connections=connections, seconds=seconds),
            )
            yield Case("connections", f"nginx, {connections}", plain(nginx, "/100", connections=connections))
    if "sizes" in parts:
        for size in SIZES:
            yield Case("sizes", f"edge, {size}", partial(edge.load, f"size-{size}", seconds=seconds))
            yield Case("sizes", f"nginx, {size}", plain(nginx, f"/{size}"))
    if "random" in parts:
        uniform, zipf, absent = (scratch / name for name in ("uniform", "zipf", "absent"))
        draw = random.Random(1)
        _write_numbers(uniform, (draw.randrange(keys) for _ in range(SAMPLES)))
        _write_numbers(zipf, _zipf(draw, keys))
        _write_numbers(absent, (draw.randrange(keys, 10 * keys) for _ in range(SAMPLES)))
        path = edge.value_path()
        yield Case("random", "edge, uniform", partial(edge.script, "keys.lua", path, uniform, seconds=seconds))
        yield Case("random", "edge, Zipf", partial(edge.script, "keys.lua", path, zipf, seconds=seconds))
        yield Case(
            "random",
            "edge, not there",
            partial(edge.script, "keys.lua", path, absent, seconds=seconds, missing=True),
        )
        yield Case("random", "Redis GET, uniform", redis_get(keys))
        yield Case("random", "nginx, static file", plain(nginx, "/100"))
    if "bulk" in parts:
        numbers = scratch / "bulk"
        draw = random.Random(2)
        _write_numbers(numbers, (draw.randrange(keys) for _ in range(SAMPLES)))
        yield Case("bulk", "edge, 100 keys", partial(edge.bulk, numbers, seconds=seconds))
    if "writes" in parts:
        yield Case("writes", "edge, idle", partial(edge.load, "hot", seconds=seconds))
        yield Case("writes", "edge, 1,000 writes/s", partial(edge.load_while_written, seconds=seconds))


def _write_numbers(path: Path, numbers: Iterator[int]) -> None:
    path.write_text("".join(f"{number}\n" for number in numbers))


def _zipf(draw: random.Random, keys: int) -> Iterator[int]:
    """Yield key numbers of which the n-th most frequent comes 1/n**ZIPF as often as the first."""
    totals = list(accumulate(1 / rank**ZIPF for rank in range(1, keys + 1)))
    names = list(range(keys))
    draw.shuffle(names)
    for _ in range(SAMPLES):
        yield names[min(bisect.bisect(totals, draw.random() * totals[-1]), keys - 1)]


def _ratios(figures: dict[str, dict[str, dict[str, float]]]) -> dict[str, float]:
    """Return what the bars speak of."""

    def ratio(part: str, name: str, of_part: str, of: str, field: str = "requests_per_s") -> float | None:
        try:
            return round(figures[part][name][field] / figures[of_part][of][field], 3)
        except (KeyError, ZeroDivisionError):
            return None

    bulk = figures.get("bulk", {}).get("edge, 100 keys")
    found = {
        "hot / nginx static": ratio("hot", "edge", "hot", "nginx, static file"),
        "hot / nginx constant": ratio("hot", "edge", "hot", "nginx, constant"),
        "hot / Redis GET": ratio("hot", "edge", "hot", "Redis GET"),
        "hot / aiohttp alone": ratio("hot", "edge", "hot", "aiohttp alone"),
        "p99 hot / nginx static": ratio("hot", "edge", "hot", "nginx, static file", "p99_ms"),
        "uniform / nginx static": ratio("random", "edge, uniform", "random", "nginx, static file"),
        "uniform / Redis GET": ratio("random", "edge, uniform", "random", "Redis GET, uniform"),
        "64 KiB / nginx static, bytes": ratio("sizes", "edge, 65536", "sizes", "nginx, 65536", "bytes_per_s"),
        "written / idle, per CPU second": ratio(
            "writes", "edge, 1,000 writes/s", "writes", "edge, idle", "requests_per_cpu_s"
        ),
        "keys/s by bulk get": None if bulk is None else 100 * bulk["requests_per_s"],
    }
    return {name: value for name, value in found.items() if value is not None}


def _print_result(result: dict[str, Any]) -> None:
    console = Console()
    for part, cases in result["figures"].items():
        table = Table(title=f"\n{part}", title_justify="left", box=None, pad_edge=False)
        for name in ("", "requests/s", "p50", "p99", "MB/s", "requests/CPU second"):
            table.add_column(name, justify="left" if not name else "right")
        for name, figures in cases.items():
            table.add_row(
                name,
                f"{figures['requests_per_s']:,.0f}",
                f"{figures['p50_ms']:.3f} ms",
                f"{figures['p99_ms']:.3f} ms",
                f"{figures['bytes_per_s'] / 1e6:,.1f}",
                f"{figures['requests_per_cpu_s']:,.0f}",
            )
        console.print(table)
    console.print()
    for name, value in result["ratios"].items():
        console.print(f"{name}: {value:,.2f}")


if __name__ == "__main__":
    sys.exit(main())
