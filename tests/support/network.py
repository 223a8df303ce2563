"""A network of real processes that the command line started, and a client that asks single nodes of it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Final, Self

import aiohttp

from kvnet.core.versions import Version
from kvnet.topology.load import load
from nodes.cluster import RunFolder
from nodes.control import ControlClient
from nodes.launcher import stop
from nodes.preflight import PortBlock

ROOT: Final = Path(__file__).parents[2]
DEADLINE_S: Final = 30.0
PORT_BASE: Final = 28_000
PORT_STRETCH: Final = 1200
"""Ports from one pytest worker's base to the next one's: three blocks."""
PORT_STRETCHES: Final = 4
LOG_TAIL_BYTES: Final = 3000
PROGRAM: Final = (sys.executable, "-m", "kvnet.cli.main")

running: list[Network] = []
"""Networks whose logs belong under a failure."""


def kvnet(*arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the command line to its end."""
    return subprocess.run(
        [*PROGRAM, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "200", **variables},
        capture_output=True,
        text=True,
        timeout=DEADLINE_S * 2,
        check=False,
    )


def free_port_base() -> int:
    """Return the first port of a block for a dozen nodes, away from where networks look for one by themselves.

    Nobody holds it until its network is up, so workers of pytest that start one at once look in different places.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    base = PORT_BASE + worker % PORT_STRETCHES * PORT_STRETCH
    block = PortBlock.next_free(load("world-2018").with_pops(12).with_port_base(base))
    block.release()
    return block.topology.listen.port_base


async def until(condition: Callable[[], Awaitable[Any]], what: str, deadline_s: float = DEADLINE_S) -> Any:
    """Return the first true result of `condition`; it may fail to connect meanwhile."""
    give_up = time.monotonic() + deadline_s
    last: object = None
    while True:
        try:
            if result := await condition():
                return result
            last = result
        except (aiohttp.ClientError, OSError) as error:
            last = error
        assert time.monotonic() < give_up, f"never happened: {what} (last: {last!r})"
        await asyncio.sleep(0.05)


def open_session() -> aiohttp.ClientSession:
    """Return an HTTP client that does once what it is told: a restarted node closes every old connection."""
    session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True))
    session._retry_connection = False  # what was sent may have been done: that is for us to know
    return session


class Network:
    """One run folder and the network in it; use it as a context, so that it always ends."""

    def __init__(self, path: Path) -> None:
        self.folder = RunFolder(path)

    def __enter__(self) -> Self:
        running.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        running.remove(self)
        stop(self.folder, wipe=False)

    def up(self, *options: object) -> None:
        ended = kvnet("up", "--detach", "--data", self.folder.path, "--port-base", free_port_base(), *options)
        assert ended.returncode == 0, ended.stderr

    def kvnet(self, *arguments: object) -> str:
        """Run one command on this network, which must work; return what it printed."""
        ended = kvnet(*arguments, "--data", self.folder.path)
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    def nodes(self) -> dict[str, dict[str, Any]]:
        """Return what the launcher knows of each node."""
        with ControlClient(self.folder.control_socket) as launcher:
            return {node["name"]: node for node in launcher.ask("status")["nodes"]}

    @property
    def pops(self) -> list[str]:
        return list(self.folder.cluster()["pops"])

    @property
    def replicas(self) -> list[str]:
        return ["coordinator", *self.pops]

    def pid(self, name: str) -> int | None:
        return self.folder.pids()[name]

    def kill(self, name: str) -> int:
        """Kill a node's process at once and return its pid."""
        pid = self.pid(name)
        assert pid
        os.kill(pid, signal.SIGKILL)
        return pid

    def logs(self) -> str:
        """Return the end of every log."""
        logs = [self.folder.launcher_log, *sorted(self.folder.path.glob("*/log"))]
        tails = {log: log.read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace") for log in logs if log.exists()}
        return "\n".join(f"--- {log}\n{tail}" for log, tail in tails.items())


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def version(self) -> Version:
        return Version.parse(self.headers["KV-Version"])

    @property
    def position(self) -> Version:
        return Version.parse(self.headers["KV-Position"])

    @property
    def staleness_ms(self) -> int:
        return int(self.headers["KV-Staleness-Ms"])

    @property
    def error(self) -> tuple[int, int]:
        """(status, code) of an error in the API's form."""
        document = self.json
        assert (document["success"], document["result"]) == (False, None)
        return self.status, document["errors"][0]["code"]


class Client:
    """Asks single nodes, over the network's own addresses and with its own tokens."""

    def __init__(self, network: Network, session: aiohttp.ClientSession, title: str) -> None:
        """Work in the namespace called `title`, made with `create_namespace`."""
        self.network = network
        self.session = session
        self.title = title
        cluster = network.folder.cluster()
        self._token = cluster["tokens"]["admin"]
        self._base = f"/client/v4/accounts/{cluster['account_id']}/storage/kv/namespaces"
        self._urls = {code: pop["url"] for code, pop in cluster["pops"].items()}
        self._urls |= {name: cluster[name]["url"] for name in ("coordinator", "monitor")}

    @property
    def base(self) -> str:
        """The path of its namespace."""
        return self._base

    async def create_namespace(self) -> None:
        body = json.dumps({"title": self.title}).encode()
        answer = await self.ask("coordinator", "POST", self._base, body)
        assert answer.status == 200, answer
        self._base += f"/{answer.json['result']['id']}"
        at_least = {"KV-At-Least": str(answer.version), "KV-Wait-Timeout-Ms": "30000"}
        there = await asyncio.gather(*(self.ask(pop, "GET", self._base, None, at_least) for pop in self._pops()))
        assert {answer.status for answer in there} == {200}, there

    async def ask(
        self,
        node: str,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        token: str | None = "",
    ) -> Answer:
        """Return the answer to one request; without `token` it is the administrator's, with None there is none."""
        bearer = {} if token is None else {"Authorization": f"Bearer {token or self._token}"}
        data = None if body is None else BytesIO(body)  # aiohttp would warn of a long one sent in one piece
        async with self.session.request(
            method, self._urls[node] + path, data=data, headers={**bearer, **(headers or {})}
        ) as response:
            return Answer(response.status, response.headers, await response.read())

    async def put(self, node: str, key: str, value: bytes, **headers: str) -> Answer:
        return await self.ask(node, "PUT", f"{self._base}/values/{key}", value, _named(headers))

    async def get(self, node: str, key: str, **headers: str) -> Answer:
        return await self.ask(node, "GET", f"{self._base}/values/{key}", None, _named(headers))

    async def delete(self, node: str, key: str) -> Answer:
        return await self.ask(node, "DELETE", f"{self._base}/values/{key}")

    async def bulk(self, node: str, method: str, what: Any, path: str = "", **headers: str) -> Answer:
        """Return the answer to a request for many pairs; `what` is its body, to be written as JSON."""
        body = json.dumps(what).encode()
        return await self.ask(node, method, f"{self._base}/bulk{path}", body, _named(headers))

    async def keys(self, node: str) -> set[str]:
        """Return every key that this node's replica has in the namespace."""
        keys: set[str] = set()
        cursor = ""
        while True:
            page = (await self.ask(node, "GET", f"{self._base}/keys?cursor={cursor}")).json
            keys |= {key["name"] for key in page["result"]}
            cursor = page["result_info"]["cursor"]
            if not cursor:
                return keys

    async def status(self, node: str) -> dict[str, Any]:
        answer = await self.ask(node, "GET", "/status")
        assert answer.status == 200, answer
        return dict(answer.json)

    async def report(self) -> dict[str, Any]:
        return dict((await self.ask("monitor", "GET", "/report")).json)

    async def agreed(self, nodes: Iterable[str] | None = None) -> Version:
        """Wait until these replicas, or all, serve and have one digest at one position; return the position."""
        names = list(nodes or self.network.replicas)

        async def agree() -> Version | None:
            answers = await asyncio.gather(*(self.ask(name, "GET", "/status") for name in names))
            if not all(answer.status == 200 and answer.json["ready"] for answer in answers):
                return None  # an empty replica doesn't even know the tokens yet
            found = {(answer.json["position"], answer.json["digest"]) for answer in answers}
            return Version.parse(found.pop()[0]) if len(found) == 1 else None

        position: Version = await until(agree, f"{', '.join(names)} agree")
        return position

    def _pops(self) -> list[str]:
        return [name for name in self._urls if name not in {"coordinator", "monitor"}]


def _named(headers: Mapping[str, str]) -> dict[str, str]:
    """Return `KV_At_Least=…` as the header it stands for."""
    return {name.replace("_", "-"): value for name, value in headers.items()}
