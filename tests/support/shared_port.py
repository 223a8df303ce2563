"""Connections to a port that several processes share, and whose each of them is."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from tests.support.http import Answer, read_answer, request_bytes
from tests.support.network import Client, Network

TRIES_MAX = 400
PROC = Path("/proc")


class Line:
    """One connection, kept open."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.own_port: int = writer.get_extra_info("sockname")[1]
        self.port: int = writer.get_extra_info("peername")[1]

    @classmethod
    async def open(cls, network: Network, pop: str) -> Self:
        parts = urlsplit(network.folder.cluster()["pops"][pop]["url"])
        assert parts.hostname is not None
        return cls(*await asyncio.open_connection(parts.hostname, parts.port))

    async def ask(
        self, client: Client, method: str, path: str, body: bytes = b"", *, token: str = "", **headers: str
    ) -> Answer:
        """Return the answer to one request below the client's namespace, or to one of a path that is whole."""
        self.send(client, method, path, body, token=token, **headers)
        return await self.answer(method)

    async def answer(self, method: str = "GET") -> Answer:
        """Return the next answer."""
        return await read_answer(self.reader, method)

    def send(
        self, client: Client, method: str, path: str, body: bytes = b"", *, token: str = "", **headers: str
    ) -> None:
        secret = token or client.network.folder.cluster()["tokens"]["admin"]
        fields = {"Host": "localhost", "Authorization": f"Bearer {secret}"}
        if body:
            fields["Content-Length"] = str(len(body))
        fields |= {name.replace("_", "-"): value for name, value in headers.items()}
        bound = "KV-Namespace" in fields
        whole = bound or path in {"/status", "/usage", "/metrics", "/healthz"}
        self.writer.write(request_bytes(method, path if whole else client.base + path, fields, body))

    @property
    def owner(self) -> int:
        """Pid of the process that has it now; 0 for none."""
        inode = self._inode()
        for process in PROC.iterdir() if inode else ():
            if process.name.isdecimal() and f"socket:[{inode}]" in _files(process / "fd"):
                return int(process.name)
        return 0

    def _inode(self) -> str:
        for line in (PROC / "net" / "tcp").read_text().splitlines()[1:]:
            fields = line.split()
            ports = (int(fields[1].rpartition(":")[2], 16), int(fields[2].rpartition(":")[2], 16))
            if ports == (self.port, self.own_port):
                return fields[9]
        return ""

    def close(self) -> None:
        self.writer.close()


class Lines:
    """One connection to each process of a PoP."""

    def __init__(self, by_pid: Mapping[int, Line]) -> None:
        self.by_pid = dict(by_pid)

    @classmethod
    async def open(cls, network: Network, client: Client, pop: str) -> Self:
        """Connect until each has one; the kernel chooses."""
        wanted = processes(network, pop)
        found: dict[int, Line] = {}
        for _ in range(TRIES_MAX):
            line = await Line.open(network, pop)
            # Answered once, so that it was accepted.
            assert (await line.ask(client, "GET", "/values/nothing")).status == 404
            owner = line.owner
            assert owner in wanted
            if owner in found:
                line.close()
                continue
            found[owner] = line
            if len(found) == len(wanted):
                return cls(found)
        raise AssertionError(f"of {wanted} only {set(found)} were ever given a connection")

    def __iter__(self):
        return iter(self.by_pid.values())

    def close(self) -> None:
        for line in self:
            line.close()


def processes(network: Network, pop: str) -> set[int]:
    """Pids of the node and of its readers, as the launcher knows them."""
    node = network.nodes()[pop]
    return {node["pid"], *node["readers"]}


def _files(folder: Path) -> set[str]:
    found: set[str] = set()
    try:
        for entry in folder.iterdir():
            try:
                found.add(str(entry.readlink()))
            except OSError:
                continue
    except OSError:
        return set()
    return found
