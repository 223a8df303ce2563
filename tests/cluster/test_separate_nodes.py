"""A network of nodes that were each started by hand: they share a topology file and a secret, nothing else."""

from __future__ import annotations

import asyncio
import json
import os
import re
import secrets
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import aiohttp
import pytest

from tests.support.network import (
    DEADLINE_S,
    PROGRAM,
    ROOT,
    Client,
    Network,
    free_port_base,
    kvnet,
    open_session,
    until,
)

POPS = ("iad", "lad", "per")


class Site:
    """The hosts of one network: a folder for each, and a secret that was copied to all."""

    def __init__(self, folder: Path) -> None:
        made = kvnet("topology", "gen", "--pops", len(POPS)).stdout
        self.topology = folder / "topology.yaml"
        self.topology.write_text(re.sub(r"port_base: \d+", f"port_base: {free_port_base()}", made))
        self.folder = folder
        self.secret = folder / "secret"
        self.network = Network(folder / "coordinator")
        """The coordinator's host; clients get its cluster.json."""

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    @contextmanager
    def host(self, name: str, secret: Path | None = None) -> Iterator[subprocess.Popen[bytes]]:
        """Run one node; it ends well when it is told to."""
        with (self.folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                [*PROGRAM, "node", name, "--topology", self.topology, "--data", self.folder / name],
                cwd=ROOT,
                env={**os.environ, "KVNET_SECRET_FILE": str(secret or self.secret)},
                stdout=log,
                stderr=log,
            )
        try:
            yield process
            process.terminate()
            assert process.wait(DEADLINE_S) == 0, self.log(name)
        finally:
            process.kill()
            process.wait()

    async def coordinator_listens(self, session: aiohttp.ClientSession) -> Client:
        """Wait for the coordinator and return a client."""

        async def listens() -> bool:
            url = self.network.folder.cluster()["coordinator"]["url"]
            async with session.get(f"{url}/healthz") as response:
                return bool((await response.json())["ready"])

        async def there() -> bool:
            return self.network.folder.cluster_file.exists() and await listens()

        await until(there, f"the coordinator writes\n{self.log('coordinator')}")
        return Client(self.network, session, "by-hand")


@pytest.fixture
def site(tmp_path) -> Site:
    return Site(tmp_path)


async def test_nodes_started_by_hand_form_a_network(site):
    async with open_session() as session:
        with site.host("coordinator"):
            client = await site.coordinator_listens(session)
            with site.host("iad"), site.host("lad"), site.host("per"):
                await client.agreed()
                await client.create_namespace()
                assert (await client.put("per", "greeting", b"hello")).status == 200
                await client.agreed()
                reads = await asyncio.gather(*(client.get(pop, "greeting") for pop in POPS))
                assert {read.body for read in reads} == {b"hello"}
            assert sorted(path.name for path in (site.folder / "per").iterdir()) == ["per"]


async def test_node_with_another_secret_never_joins_and_says_why(site):
    wrong = site.folder / "wrong"
    wrong.write_text(secrets.token_hex(32))
    async with open_session() as session:
        with site.host("coordinator"):
            client = await site.coordinator_listens(session)
            with site.host("iad"), site.host("per", wrong):
                await client.agreed(["coordinator", "iad"])

                async def says_so():
                    lines = [line for line in site.log("per").splitlines() if "another secret" in line]
                    return {peer for peer in ("coordinator", "iad") if any(f"{peer}: " in line for line in lines)}

                assert await until(says_so, "per says that it is refused")
                assert (await client.ask("per", "GET", "/healthz")).json["ready"] is False
                assert (await client.ask("per", "GET", "/status")).error == (503, 20001)
                assert "per" not in (await client.status("coordinator"))["links"]
    lines = [line for line in site.log("per").splitlines() if "another secret" in line]
    assert all("KVNET_SECRET_FILE" in line for line in lines)
    assert len(lines) <= len(POPS)  # one for each peer, however often it was tried
    assert "Traceback" not in site.log("per")


async def test_name_or_port_that_is_taken_ends_a_node_with_one_line(site):
    async with open_session() as session:
        with site.host("coordinator"):
            await site.coordinator_listens(session)
            account = json.loads(site.network.folder.cluster_file.read_bytes())["account_id"]
            secret = {"KVNET_SECRET_FILE": str(site.secret)}
            for name, told in (("coordinator", "is taken by pid"), ("oslo", "no node is called 'oslo'")):
                data = site.folder / "another"
                ended = kvnet("node", name, "--topology", site.topology, "--data", data, **secret)
                assert (ended.returncode, ended.stdout) == (2, "")
                assert told in ended.stderr
                assert ended.stderr.count("\n") == 1
                assert not data.exists()
            assert json.loads(site.network.folder.cluster_file.read_bytes())["account_id"] == account
