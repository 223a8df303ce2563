"""The client at the nearest edge, over real processes: killed, stopped, behind, and told where it stands."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import AsyncIterator

import pytest

import kvnet
from kvnet.client import trail
from kvnet.client.pace import DOUBT_MS_MIN
from tests.support.network import Client, Network, until
from tests.support.network import kvnet as command

HEDGE_MS = 100.0
ROOM_MS = 2000.0
"""For a machine with other things to do, beside what the client is allowed to wait."""
READERS = 8


@pytest.fixture
async def reads(network: Network, client: Client) -> AsyncIterator[Reads]:
    """Reads one key without a pause, near Lisbon, until the test ends."""
    await client.put("coordinator", "k", b"v")
    await client.agreed()
    async with kvnet.connect(data=network.folder.path, near="Lisbon", hedge_ms=HEDGE_MS) as net:
        reads = Reads(net, client.title)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(reads.go_on()) for _ in range(READERS)]
            try:
                await reads.some()
                yield reads
            finally:
                for task in tasks:
                    task.cancel()


class Reads:
    """What a program sees that does nothing but read."""

    def __init__(self, net: kvnet.Network, title: str) -> None:
        self.net = net
        self._namespace = net.namespace(title)
        self.longest_ms = 0.0
        self.count = 0
        self.pops: list[str] = []
        """Who answered, in order, each change once."""

    async def go_on(self) -> None:
        while True:
            began = time.monotonic()
            found = await self._namespace.get_with_metadata("k")
            self.longest_ms = max(self.longest_ms, (time.monotonic() - began) * 1000)
            assert found.value == "v"
            self.count += 1
            if self.pops[-1:] != [found.pop]:
                self.pops.append(found.pop)

    async def some(self) -> None:
        """Return when a few hundred more were answered."""
        wanted = self.count + 300
        await self.happens(lambda: self.count >= wanted, "reads go on")

    async def happens(self, condition, what: str) -> None:
        async def holds() -> bool:
            return condition()

        await until(holds, what)


async def test_no_read_fails_when_the_nearest_pop_is_killed(network: Network, reads: Reads) -> None:
    """The launcher starts it again: reads come back to it by themselves."""
    nearest = reads.net.edge.code
    assert reads.pops == [nearest]
    network.kill(nearest)
    await reads.happens(lambda: len(reads.pops) > 1, "another PoP answers")
    await reads.some()
    await reads.happens(lambda: reads.net.edge.code == nearest, "the nearest is back")
    await reads.happens(lambda: reads.pops[-1] == nearest, "it answers again")
    assert reads.net.tally.failed_over > 0, "it was lost"
    assert reads.longest_ms < 2 * HEDGE_MS + ROOM_MS


async def test_no_read_fails_when_the_nearest_pop_falls_silent(network: Network, reads: Reads) -> None:
    """Its connections stay open and nothing comes: only the clock tells."""
    nearest = reads.net.edge.code
    pid = network.pid(nearest)
    os.kill(pid, signal.SIGSTOP)
    try:
        await reads.happens(lambda: reads.net.edge.code != nearest, "it is left")
        await reads.some()
    finally:
        os.kill(pid, signal.SIGCONT)
    await reads.happens(lambda: reads.net.edge.code == nearest, "the nearest is back")
    await reads.happens(lambda: reads.pops[-1] == nearest, "it answers again")
    assert reads.net.tally.hedges_won > 0, "somebody waited for it"
    # Two requests, and each may wait for the hedge, for the edge to say that it serves, and for one more look.
    assert reads.longest_ms < 2 * (2 * HEDGE_MS + DOUBT_MS_MIN) + ROOM_MS


async def test_session_reads_its_writes_at_pops_that_are_behind(network: Network, client: Client) -> None:
    """Perth is cut off and goes on with what it has: what was written and seen elsewhere is not unseen there."""
    cluster = network.folder.cluster()
    two = {code: cluster["pops"][code] for code in ("per", "fra")}
    network.kvnet("wan", "isolate", "per")
    try:
        async with (
            kvnet.connect(cluster={**cluster, "pops": two}, near="Perth") as net,
            kvnet.connect(cluster=cluster, near="Frankfurt") as writer,
            kvnet.connect(cluster=cluster, pop="per", consistency="eventual") as careless,
        ):
            token = await writer.namespace(client.title).put("k", "new")
            assert await careless.namespace(client.title).get("k") is None
            assert await net.namespace(client.title).get("k") is None, "it has seen nothing else"
            session = net.session(token).namespace(client.title)
            found = await session.get_with_metadata("k", wait_timeout_ms=50)
            assert (found.value, found.version) == ("new", token)
            assert net.edge.code == "per", "being behind is no failure"
    finally:
        network.kvnet("wan", "heal")
    await client.agreed()


async def test_session_goes_on_at_another_pop_when_its_own_is_killed(network: Network, client: Client) -> None:
    async with kvnet.connect(data=network.folder.path, near="Lisbon") as net:
        namespace = net.namespace(client.title)
        for number in range(20):
            await namespace.put(f"k{number}", "v")
            if number == 10:
                network.kill(net.edge.code)
            assert await namespace.get(f"k{number}") == "v"
        assert net.version is not None
    await client.agreed()


async def test_reads_from_a_city_take_as_long_as_from_there(network: Network, client: Client) -> None:
    await client.put("coordinator", "k", b"v")
    await client.agreed()
    async with kvnet.connect(data=network.folder.path, from_="Lisbon", seed=1) as net:
        namespace = net.namespace(await net.namespace(client.title).id())
        with trail() as calls:
            assert await namespace.get("k") == "v"
        first, second, *_ = await net.candidates()
    assert net.edge.code == first.code
    assert first.distance_km < second.distance_km
    assert calls[0].took_ms > first.expected_ms * 0.7, "jitter is a twentieth of it"


async def test_get_explains_itself_beside_the_value(network: Network, client: Client) -> None:
    written = await client.put("coordinator", "k", b"v")
    await client.agreed()
    data = ("--data", network.folder.path)
    told = command("get", client.title, "k", "--from", "Lisbon", "--explain", *data)
    assert (told.returncode, told.stdout) == (0, "v")
    for word in ("expected ms", "the nearest to Lisbon", str(written.version), "ms old", "coordinator →"):
        assert word in told.stderr
    document = json.loads(network.kvnet("get", client.title, "k", "--near", "Lisbon", "--explain", "--json"))
    explained = document["explain"]
    assert document["value"] == "v"
    assert (explained["answer"]["pop"], explained["choice"]["why"]) == (document["pop"], "the nearest to Lisbon")
    assert explained["answer"]["path"][0] == "coordinator"
    assert [each["outcome"] for each in explained["attempts"]] == ["answered"]
    distances = [each["distance_km"] for each in explained["candidates"]]
    assert distances == sorted(distances)
    missing = command("get", client.title, "none", "--near", "Lisbon", "--explain", *data)
    assert (missing.returncode, missing.stdout) == (4, "")
    assert "no such key" in missing.stderr


async def test_failed_pop_is_told_of(network: Network, client: Client) -> None:
    await client.put("coordinator", "k", b"v")
    await client.agreed()
    nearest = json.loads(network.kvnet("get", client.title, "k", "--near", "Perth", "--json"))["pop"]
    network.kvnet("stop", nearest)
    try:
        told = network.kvnet("get", client.title, "k", "--near", "Perth", "--explain", "--json")
    finally:
        network.kvnet("start", nearest)
    explained = json.loads(told)["explain"]
    assert explained["choice"]["pop"] == nearest
    assert explained["answer"]["pop"] != nearest
    states = {each["pop"]: each["state"] for each in explained["candidates"]}
    assert states[nearest] == "away"
    await client.agreed()
