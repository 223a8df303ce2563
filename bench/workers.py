"""The question: how many requests does a Worker answer that reads from its PoP's edge, beside miniflare's own KV.

    python -m bench.workers [--npm DIR] [--node FILE] [--rounds 5] [--seconds 5] [--connections 32] [--json FILE]

One Worker, `await env.KV.get("hot")` of 100 bytes, runs twice: on workerd bound to an edge (`kvnet workers dev`),
and on miniflare with the namespace it keeps on this disk, which is what `wrangler dev` gives people. Beside them,
for what the parts cost: a Worker that reads nothing, and the edge asked without a Worker. In each round all are
asked in turn by wrk; the medians of the rounds count. DIR is a folder in which `npm install wrangler` was run.
Exit code 1 when something failed, 2 for wrong options.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any, Final

import aiohttp
from rich.console import Console
from rich.progress import track
from rich.table import Table

from bench._support.arguments import count, new_file
from bench._support.load import create_namespace, new_session
from bench._support.network import KVNET, RunningNetwork, started
from bench._support.surroundings import surroundings
from bench._support.wrk import Load, find_wrk, load
from kvnet.errors import ConfigError, KvnetError
from kvnet.workers.running import find_running

OK, FAILED, MISUSED, INTERRUPTED = 0, 1, 2, 130
VALUE: Final = "v" * 100
SCRIPTS: Final = Path(__file__).parent / "_support" / "workers"
START_S: Final = 60.0
OURS, LOCAL, CONSTANT, EDGE = (
    "worker on its edge",
    "worker on miniflare's KV",
    "worker that reads nothing",
    "edge alone",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.workers", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--npm", type=Path, default=Path(), metavar="DIR", help="has node_modules with wrangler")
    parser.add_argument("--node", default="node", metavar="FILE", help="Node of at least 22.12 (default: on PATH)")
    parser.add_argument("--rounds", type=count, default=5, metavar="N", help="the median counts (default: 5)")
    parser.add_argument("--seconds", type=count, default=5, metavar="S", help="of load in each round (default: 5)")
    parser.add_argument("--connections", type=count, default=32, metavar="N", help="kept alive (default: 32)")
    parser.add_argument("--json", type=new_file, metavar="FILE", help="write the result here")
    options = parser.parse_args(arguments)
    try:
        find_wrk()
        packages = _packages(options.npm)
        with started(None, ["--pops", "2"]) as network, tempfile.TemporaryDirectory() as scratch:
            result = _measure(network, options, packages, Path(scratch))
    except ConfigError as error:
        print(f"bench.workers: {error}", file=sys.stderr)
        return MISUSED
    except (KvnetError, OSError) as error:
        print(f"bench.workers: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
    _print_result(result)
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")
    return OK


def _packages(npm: Path) -> Path:
    packages = npm.absolute() / "node_modules"
    for name in ("workerd", "miniflare"):
        if not (packages / name).is_dir():
            raise ConfigError(
                f"{packages} has no {name}: run `npm install wrangler` in a folder, name it with --npm"
            )
    return packages


def _measure(
    network: RunningNetwork, options: argparse.Namespace, packages: Path, scratch: Path
) -> dict[str, Any]:
    pop, edge = next(iter(network.cluster["pops"].items()))
    namespace = asyncio.run(_prepare(network))
    path = f"{network.namespaces_path}/{namespace}/values/hot"
    with ExitStack() as stack:
        urls = {
            OURS: stack.enter_context(_worker(network, packages, "read.js", pop, namespace)),
            LOCAL: stack.enter_context(_miniflare(options.node, packages, scratch)),
            CONSTANT: stack.enter_context(_worker(network, packages, "constant.js", pop, namespace)),
            EDGE: f"{edge['url']}{path}",
        }
        asyncio.run(_check(urls.values(), network))
        runs: dict[str, list[Load]] = {name: [] for name in urls}
        for _ in track(range(options.rounds), description="rounds", console=Console(stderr=True)):
            for name, url in urls.items():
                headers = network.authorization if name == EDGE else {}
                runs[name].append(
                    load(url, seconds=options.seconds, connections=options.connections, headers=headers)
                )
    figures = {
        name: {field: round(median(asdict(run)[field] for run in each), 2) for field in asdict(each[0])}
        for name, each in runs.items()
    }
    ours, local = figures[OURS], figures[LOCAL]
    return {
        "connections": options.connections,
        "rounds": options.rounds,
        "seconds": options.seconds,
        "figures": figures,
        "requests_ratio": round(ours["requests_per_s"] / local["requests_per_s"], 2),
        "p99_ratio": round(local["p99_ms"] / ours["p99_ms"], 2),
        "packages": {name: _release(packages, name) for name in ("workerd", "miniflare")},
        **surroundings(),
    }


@contextmanager
def _worker(network: RunningNetwork, packages: Path, script: str, pop: str, namespace: str) -> Iterator[str]:
    """Run a Worker at one PoP and give its address."""
    name = Path(script).stem
    command = [
        *KVNET, "workers", "dev", str(SCRIPTS / script), "--at", pop, "--bind", f"KV={namespace}", "--name", name,
        "--workerd", str(packages / ".bin" / "workerd"), "--data", str(network.data),
    ]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        yield _address(network, process, name, pop)
    finally:
        process.terminate()
        process.wait()


def _address(network: RunningNetwork, process: subprocess.Popen[bytes], name: str, pop: str) -> str:
    """Wait for a Worker and return its address."""
    deadline = time.monotonic() + START_S
    while process.poll() is None and time.monotonic() < deadline:
        with suppress(KvnetError):
            return find_running(network.data, name).pops[pop]
        time.sleep(0.05)
    raise KvnetError(f"the Worker {name} didn't start")


@contextmanager
def _miniflare(node: str, packages: Path, scratch: Path) -> Iterator[str]:
    command: list[str | Path] = [node, SCRIPTS / "local.mjs", packages, SCRIPTS / "read.js", scratch / "kv", VALUE]
    variables = {**os.environ, "MINIFLARE_WORKERD_PATH": str(packages / ".bin" / "workerd")}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=variables
    ) as process:
        assert process.stdin
        assert process.stdout
        url = process.stdout.readline().strip()
        if not url:
            raise KvnetError("miniflare didn't start")
        try:
            yield url
        finally:
            process.stdin.close()


async def _prepare(network: RunningNetwork) -> str:
    """Return the id of a namespace that has the value."""
    async with new_session() as session:
        namespace = await create_namespace(session, network, "workers")
        url = f"{network.coordinator_url}{network.namespaces_path}/{namespace}/values/hot"
        async with session.put(url, data=VALUE.encode(), headers=network.authorization) as answer:
            answer.raise_for_status()
    return namespace


async def _check(urls: Iterable[str], network: RunningNetwork) -> None:
    """Return once each of them answers with the value: errors would be quick.

    Raises:
        KvnetError: one doesn't.
    """
    async with new_session() as session:
        for url in urls:
            deadline = time.monotonic() + START_S
            while True:
                with suppress(aiohttp.ClientError):
                    async with session.get(url, headers=network.authorization) as answer:
                        if await answer.read() == VALUE.encode():
                            break
                if time.monotonic() > deadline:
                    raise KvnetError(f"{url} doesn't answer with the value")
                await asyncio.sleep(0.05)


def _release(packages: Path, name: str) -> str:
    return str(json.loads((packages / name / "package.json").read_text())["version"])


def _print_result(result: dict[str, Any]) -> None:
    title = f"GET of 100 bytes, {result['connections']} connections, medians of {result['rounds']} rounds"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for name in ("", "requests/s", "p50", "p99"):
        table.add_column(name, justify="left" if not name else "right")
    for name, figures in result["figures"].items():
        table.add_row(
            name, f"{figures['requests_per_s']:,.0f}", f"{figures['p50_ms']:.2f} ms", f"{figures['p99_ms']:.2f} ms"
        )
    console = Console()
    console.print(table)
    console.print(f"\nminiflare's KV: requests x {result['requests_ratio']:.2f}, p99 / {result['p99_ratio']:.1f}")


if __name__ == "__main__":
    sys.exit(main())
