"""`kvnet snapshot`, `compact`, `status` and `doctor` on real processes, while others write."""

from __future__ import annotations

import asyncio
import json
import shutil

from kvnet.core.versions import Version
from tests.support.network import kvnet, until


class Writing:
    """Keys that are written one after the other, as long as the context lasts."""

    def __init__(self, client, node):
        self._client = client
        self._node = node
        self.acknowledged = {}

    async def __aenter__(self):
        self._task = asyncio.create_task(self._write())
        return self

    async def __aexit__(self, *_):
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _write(self):
        for number in range(1_000_000):
            answer = await self._client.put(self._node, f"during-{number}", b"%d" % number)
            assert answer.status == 200, answer
            self.acknowledged[f"during-{number}"] = answer.version

    async def progressed(self, count):
        target = len(self.acknowledged) + count

        async def enough():
            return len(self.acknowledged) >= target or self._task.done()

        await until(enough, f"{count} more writes")
        assert not self._task.done(), self._task


async def run(network, *arguments):
    """As `network.kvnet`, beside whatever else is under way."""
    return await asyncio.to_thread(network.kvnet, *arguments)


async def writes_go_on(client):
    async def written():
        return (await client.put("coordinator", "after", b"1")).status == 200

    await until(written, "writes go on")


async def test_a_coordinator_that_lost_its_disk_goes_on_with_a_snapshot(network, client, tmp_path):
    """It was saved while others wrote; what came later the PoPs give back."""
    file = tmp_path / "copy.snapshot"
    for number in range(30):
        assert (await client.put("coordinator", f"before-{number}", b"x" * 1000)).status == 200
    async with Writing(client, "coordinator") as writing:
        await writing.progressed(5)
        told = json.loads(await run(network, "snapshot", "save", file, "--json"))
        assert told["saved_from"] != "coordinator"
        await writing.progressed(5)
    head = await client.agreed()
    assert Version.parse(told["position"]) < head
    before = {node: await client.keys(node) for node in network.replicas}
    assert before["coordinator"] >= writing.acknowledged.keys()

    network.kvnet("stop", "coordinator")
    shutil.rmtree(network.folder.node_folder("coordinator") / "store")
    restored = json.loads(await run(network, "snapshot", "restore", file, "--json"))
    assert restored["position"] == told["position"]
    await run(network, "start", "coordinator")
    await writes_go_on(client)
    assert (await client.agreed()).epoch == head.epoch + 1
    for node in network.replicas:
        assert await client.keys(node) == before[node] | {"after"}
    assert json.loads(await run(network, "verify", "--json"))["problems"] == []


async def test_a_node_that_is_asked_for_is_saved_from(network, client, tmp_path):
    await client.put("coordinator", "key", b"value")
    position = await client.agreed()
    for node in ("coordinator", "fra"):
        file = tmp_path / node
        told = json.loads(await run(network, "snapshot", "save", file, "--pop", node, "--json"))
        assert (told["saved_from"], told["position"]) == (node, str(position))
        assert json.loads(kvnet("snapshot", "show", file, "--json").stdout) == told


async def test_a_node_that_runs_is_not_restored(network, client, tmp_path):
    file = tmp_path / "copy.snapshot"
    await client.agreed()
    await run(network, "snapshot", "save", file)
    refused = await asyncio.to_thread(kvnet, "snapshot", "restore", file, "--force", "--data", network.folder.path)
    assert refused.returncode == 1
    assert "in use by process" in refused.stderr
    await client.agreed()


async def test_an_edge_is_restored_as_well(network, client, tmp_path):
    file = tmp_path / "copy.snapshot"
    await client.put("coordinator", "key", b"value")
    await client.agreed()
    await run(network, "snapshot", "save", file)
    network.kvnet("stop", "fra")
    shutil.rmtree(network.folder.node_folder("fra") / "store")
    await run(network, "snapshot", "restore", file, "--node", "fra")
    network.kvnet("start", "fra")
    await client.put("coordinator", "later", b"value")
    await client.agreed()
    assert await client.keys("fra") == await client.keys("coordinator")
    status = await client.status("fra")
    assert status["discarded"] is None
    assert "bootstrap" not in status["driver"]["reports"]


async def test_replicas_are_compacted_while_others_write(network, client):
    await client.agreed()
    async with Writing(client, "fra") as writing:
        await writing.progressed(2)
        told = json.loads(await run(network, "compact", "coordinator", "fra", "--json"))
        await writing.progressed(2)
    assert set(told) == {"coordinator", "fra"}
    assert all(sizes["after"] > 0 for sizes in told.values())
    await client.agreed()
    assert await client.keys("coordinator") >= writing.acknowledged.keys()
    assert json.loads(await run(network, "verify", "--json"))["problems"] == []
    refused = await asyncio.to_thread(kvnet, "compact", "nowhere", "--data", network.folder.path)
    assert refused.returncode == 2


async def test_status_and_doctor_tell_what_is_stored_and_that_it_is_whole(network, client):
    await client.put("coordinator", "key", b"value")
    await client.agreed()
    told = json.loads(await run(network, "status", "--json"))
    for status in (told["coordinator"], *told["pops"].values()):
        spaces = {space["title"]: space for space in status["namespaces"].values()}
        assert (spaces[client.title]["keys"], spaces[client.title]["bytes"]) == (1, 8)
        assert status["bootstrap"] is None
        assert status["verified"]
    text = await run(network, "status")
    assert client.title[:10] in text
    assert "disk: coordinator" in text
    assert "journals: coordinator's from" in text
    found = {finding["subject"]: finding for finding in json.loads(await run(network, "doctor", "--json"))}
    assert found["stores"]["ok"]
    assert {"address space", "room", "clock"} <= set(found)


async def test_a_replica_that_knows_no_token_yet_still_tells_how_far_it_is(network, client):
    """It was emptied, and its peers are out of reach: nobody could ask it with a token."""
    await client.agreed()
    network.kvnet("wan", "isolate", "per")
    network.kvnet("stop", "per")
    shutil.rmtree(network.folder.node_folder("per") / "store")
    network.kvnet("start", "per")
    assert (await client.ask("per", "GET", "/status")).status == 503
    told = json.loads(await run(network, "status", "--json"))["pops"]["per"]
    assert (told["ready"], told["verified"], told["position"]) == (False, False, "0-0")
    assert "not ready" in await run(network, "status")
    network.kvnet("wan", "heal")
    await client.agreed()
