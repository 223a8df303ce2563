"""The question: does a node stay whole, and its answers true, whatever bytes come to its port.

    python -m bench.fuzz_http --requests 50000 --seed 1 [--first N] [--findings DIR]

Starts a small network and sends requests to its coordinator and to an edge that are valid but for what was done to
them: escapes, encodings, header and query fields, framing, JSON, forms, stray bytes, and clients that are slow,
close half of the connection, or go away. Each is a function of seed and number: `--first N --requests 1` sends one
again. Reported are server errors that aren't true, answers that are no HTTP or no envelope, tracebacks in a node's
log, nodes that ended or hang, and memory that grows. Exit code 1 when there are any; each one's bytes are saved.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import secrets
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from rich.console import Console

from bench._support.arguments import count
from bench._support.load import create_namespace, new_session
from bench._support.network import RunningNetwork, running, started
from bench._support.raw_exchange import exchange
from bench._support.raw_judgement import judge
from bench._support.raw_requests import Account, Attempt, Requests
from bench._support.request_changes import CHANGES
from kvnet.errors import ConfigError, KvnetError
from nodes.cluster import RunFolder
from nodes.procfs import anonymous_bytes

OK, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130
MIB: Final = 1024 * 1024
NAMESPACES: Final = 4
CLIENTS: Final = 24
"""Connections at a time."""
WARM_UP: Final = 0.1
"""Share of the requests after which memory is measured first: caches are filled then."""
FINDINGS_MAX: Final = 100
"""So many are enough to look at; the run ends there."""
HEALTH_EVERY_S: Final = 1.0
HEALTH_S: Final = 10.0
"""A node that doesn't say in this time that it is there hangs."""
TROUBLE: Final = (b"Traceback (most recent call last)", b" ERROR ", b" CRITICAL ")
"""What a node's log has only when something is wrong."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that must not be, and what was being sent."""

    node: str
    what: str
    attempts: tuple[Attempt, ...]
    """One, or all that were under way."""


@dataclass(slots=True)
class Target:
    """One node under test."""

    name: str
    host: str
    port: int
    pid: int
    log: Path
    log_seen: int = 0
    anonymous_before: int = 0
    under_way: dict[int, Attempt] = field(default_factory=dict)
    over: deque[Attempt] = field(default_factory=lambda: deque(maxlen=CLIENTS))
    """The last ones: of a client that left, the node may still be busy with what it sent."""

    def trouble(self) -> str | None:
        """Return what is new and bad in the node's log."""
        try:
            size = self.log.stat().st_size
        except FileNotFoundError:
            return None
        if size <= self.log_seen:
            return None
        with self.log.open("rb") as log:
            log.seek(self.log_seen)
            new = log.read()
        self.log_seen += len(new)
        for mark in TROUBLE:
            if mark in new:
                return f"in its log: {new[max(0, new.index(mark) - 200) :][:2000].decode('utf-8', 'replace')}"
        return None


class Fuzz:
    """One run; `findings` grows while it goes on."""

    def __init__(self, requests: Requests, targets: Sequence[Target]) -> None:
        self._requests = requests
        self._targets = targets
        self.findings: list[Finding] = []
        self.statuses: Counter[int] = Counter()
        self.sent = 0

    async def run(self, first: int, total: int, progress: Progress) -> None:
        """Send the attempts from `first` on, and look after the nodes meanwhile."""
        numbers = iter(range(first, first + total))
        warm_up = int(total * WARM_UP)
        progress.total = total
        guard = asyncio.create_task(self._guard())
        try:
            clients = [self._client(numbers, warm_up, progress) for _ in range(min(CLIENTS, total))]
            await asyncio.gather(*clients)
            for target in self._targets:
                await self._check_health(target)
        finally:
            guard.cancel()
        for target in self._targets:
            self._look_at_log(target)

    async def _client(self, numbers: Iterator[int], warm_up: int, progress: Progress) -> None:
        for number in numbers:
            if len(self.findings) >= FINDINGS_MAX:
                return
            target = self._targets[number % len(self._targets)]
            attempt = self._requests.attempt(number)
            target.under_way[number] = attempt
            try:
                answers = await exchange(target.host, target.port, attempt)
            except ValueError as error:
                self._found(target, str(error), attempt)
            except (OSError, TimeoutError) as error:
                self._found(target, f"it doesn't accept connections: {error!r}", attempt)
            else:
                self.statuses.update(answer.status for answer in answers)
                for fault in judge(attempt, answers):
                    self._found(target, fault, attempt)
            self._look_at_log(target)
            del target.under_way[number]
            target.over.append(attempt)
            self.sent += 1
            progress.show(self.sent, len(self.findings))
            if self.sent == warm_up:
                for each in self._targets:
                    each.anonymous_before = anonymous_bytes(each.pid) or 0

    def memory_grown(self) -> dict[str, int]:
        """Return by how many bytes each node's own memory has grown since the warm-up."""
        return {
            target.name: (anonymous_bytes(target.pid) or 0) - target.anonymous_before for target in self._targets
        }

    def _found(self, target: Target, what: str, *attempts: Attempt) -> None:
        self.findings.append(Finding(target.name, what, attempts))
        numbers = ", ".join(str(attempt.number) for attempt in attempts)
        sys.stderr.write(f"{target.name}, {numbers}: {what[:200]}\n")

    def _look_at_log(self, target: Target) -> None:
        if trouble := target.trouble():
            self._found(target, trouble, *target.over, *target.under_way.values())

    async def _guard(self) -> None:
        while True:
            await asyncio.sleep(HEALTH_EVERY_S)
            for target in self._targets:
                await self._check_health(target)

    async def _check_health(self, target: Target) -> None:
        under_way = tuple(target.under_way.values())
        if anonymous_bytes(target.pid) is None:
            self._found(target, "its process has ended", *under_way)
            return
        try:
            async with asyncio.timeout(HEALTH_S):
                reader, writer = await asyncio.open_connection(target.host, target.port)
                writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                answer = await reader.read()
                writer.close()
        except (OSError, TimeoutError) as error:
            self._found(target, f"it hangs: {error!r}", *under_way)
            return
        if not answer.startswith(b"HTTP/1.1 200 ") or b'"ready":true' not in answer:
            self._found(target, f"it isn't healthy: {answer[:300]!r}", *under_way)


class Progress:
    """One line on stderr, now and then."""

    EVERY_S: Final = 5.0

    def __init__(self) -> None:
        self.total = 0
        self._next = time.monotonic() + self.EVERY_S
        self._console = Console(stderr=True, highlight=False)

    def show(self, sent: int, findings: int) -> None:
        if time.monotonic() >= self._next:
            self._next += self.EVERY_S
            self._console.print(f"{sent:,} of {self.total:,} sent, {findings} findings")


def targets_of(network: RunningNetwork, folder: RunFolder) -> list[Target]:
    """Return the coordinator and the first edge."""
    edge = next(iter(network.cluster["pops"]))
    nodes = {"coordinator": network.cluster["coordinator"], edge: network.cluster["pops"][edge]}
    targets: list[Target] = []
    for name, node in nodes.items():
        url = urlsplit(str(node["url"]))
        assert url.hostname is not None
        assert url.port is not None
        log = folder.log_of(name)
        seen = log.stat().st_size if log.exists() else 0
        targets.append(Target(name, url.hostname, url.port, int(node["pid"]), log, seen))
    return targets


async def account_of(network: RunningNetwork) -> Account:
    """Return what requests need to know; namespaces are made for them, beside those of earlier runs."""
    async with new_session() as session:
        titles = [f"fuzz target {secrets.token_hex(6)}" for _ in range(NAMESPACES)]
        made = [await create_namespace(session, network, title) for title in titles]
    cluster = network.cluster
    return Account(str(cluster["account_id"]), tuple(made), str(cluster["tokens"]["admin"]))


async def fuzz(network: RunningNetwork, folder: RunFolder, *, seed: int, first: int, total: int) -> Fuzz:
    """Send `total` attempts to a network that runs, and return what was found."""
    requests = Requests(seed, await account_of(network), CHANGES)
    run = Fuzz(requests, targets_of(network, folder))
    await run.run(first, total, Progress())
    return run


def save(findings: Sequence[Finding], seed: int, folder: Path) -> list[dict[str, Any]]:
    """Write each finding's bytes into `folder` and return the findings for a report."""
    told: list[dict[str, Any]] = []
    for finding in findings:
        files: list[str] = []
        for attempt in finding.attempts:
            folder.mkdir(parents=True, exist_ok=True)
            file = folder / f"{seed}-{attempt.number}.raw"
            file.write_bytes(attempt.raw)
            files.append(str(file))
        told.append(
            {
                "node": finding.node,
                "what": finding.what,
                "numbers": [attempt.number for attempt in finding.attempts],
                "manner": [attempt.manner for attempt in finding.attempts],
                "changes": [attempt.changes for attempt in finding.attempts],
                "files": files,
            }
        )
    return told


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="bench.fuzz_http", description=__doc__.splitlines()[0] if __doc__ else ""
    )
    parser.add_argument(
        "--requests", type=count, default=50_000, metavar="N", help="connections, each with one or more"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, metavar="N", help="the number of the first")
    parser.add_argument("--memory-mib", type=count, default=64, help="how much a node's memory may grow (64)")
    parser.add_argument("--data", type=Path, help="fuzz the network that runs there, instead of starting one")
    parser.add_argument("--findings", type=Path, default=Path("runs/fuzz"), help="where the bytes go (runs/fuzz)")
    options = parser.parse_args(arguments)
    try:
        with tempfile.TemporaryDirectory(prefix="kvnet-fuzz-", ignore_cleanup_errors=True) as place:
            if options.data is not None:
                return _report(options, asyncio.run(_run(options, running(options.data), options.data)))
            data = Path(place) / "run"
            with started(data, ["--pops", "2"]) as network:
                return _report(options, asyncio.run(_run(options, network, data)))
    except KeyboardInterrupt:
        return INTERRUPTED
    except KvnetError as error:
        sys.stderr.write(f"{error}\n")
        return USAGE if isinstance(error, ConfigError) else FAILED


async def _run(options: argparse.Namespace, network: RunningNetwork, data: Path) -> Fuzz:
    return await fuzz(network, RunFolder(data), seed=options.seed, first=options.first, total=options.requests)


def _report(options: argparse.Namespace, run: Fuzz) -> int:
    grown = run.memory_grown()
    for name, size in grown.items():
        if run.sent >= 1000 and size > options.memory_mib * MIB:
            run.findings.append(Finding(name, f"its memory has grown by {size / MIB:.0f} MiB", ()))
    report = {
        "seed": options.seed,
        "first": options.first,
        "sent": run.sent,
        "statuses": {str(status): number for status, number in sorted(run.statuses.items())},
        "memory_grown_mib": {name: round(size / MIB, 1) for name, size in grown.items()},
        "findings": save(run.findings, options.seed, options.findings),
    }
    print(json.dumps(report, indent=2, ensure_ascii=False))
    return FAILED if run.findings else OK


if __name__ == "__main__":
    raise SystemExit(main())
