"""`kvnet verify` on real processes: a flipped bit is named, its replica healed; the commands that show it."""

from __future__ import annotations

import asyncio
import json

from tests.support.damage import flip_value
from tests.support.network import kvnet, until


async def test_a_flipped_bit_is_named_and_the_replica_is_made_anew(network, client):
    value = b"a value that is like no other value"
    written = await client.put("per", "theme", value)
    assert written.status == 200
    await client.agreed()
    network.kvnet("stop", "fra")
    assert flip_value(network, "fra", value) == 1
    network.kvnet("start", "fra")
    await client.agreed()

    verified = await asyncio.to_thread(kvnet, "verify", "--data", network.folder.path)
    assert verified.returncode == 1, verified.stdout
    assert f"fra: {client.title} / theme: flipped bits" in verified.stdout
    assert "it is made anew from the network" in verified.stderr

    async def healed():
        read = await client.get("fra", "theme")
        return read.status == 200 and read.body == value

    await until(healed, "fra serves the value as it was written")
    await client.agreed()
    found = json.loads(network.kvnet("verify", "--json"))
    assert (found["problems"], found["findings"]) == ([], [])
    status = await client.status("fra")
    assert status["damaged"] is None
    assert status["verified"]
    assert status["driver"]["reports"]["damaged"] == 1
    assert "starting over" in network.folder.log_of("fra").read_text()


async def test_equal_replicas_are_told_in_one_line(network, client):
    await client.agreed()
    told = network.kvnet("verify")
    assert "9, coordinator to" in told
    assert "equal" in told
