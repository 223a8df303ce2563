"""Pairs that expire, over real processes: hidden everywhere, then gone from every disk."""

from __future__ import annotations

import asyncio

import pytest

from tests.support.network import Client, Network, open_session, until


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    with Network(tmp_path_factory.mktemp("network")) as network:
        network.up("--pops", 3, "--limit", "ttl_seconds_min=1")
        yield network


async def test_what_expired_is_hidden_at_every_node_removed_everywhere_and_stays_gone(network):
    async with open_session() as session:
        client = Client(network, session, "expiring")
        await client.create_namespace()
        assert (await client.put("coordinator", "kept", b"v")).status == 200
        for number in range(20):
            written = await client.put("coordinator", f"k{number}?expiration_ttl=3", b"v")
            assert written.status == 200, written.body
        expires_at = int((await client.get("coordinator", "k19")).headers["expiration"])
        assert expires_at > 0

        async def hidden() -> bool:
            keys = await asyncio.gather(*(client.keys(name) for name in network.replicas))
            return all(found == {"kept"} for found in keys)

        async def removed() -> bool:
            statuses = await asyncio.gather(*(client.status(name) for name in network.replicas))
            held = [
                space["keys"]
                for status in statuses
                for space in status["namespaces"].values()
                if space["title"] == "expiring"
            ]
            return held == [1] * len(network.replicas)

        await until(hidden, "no node shows what has expired")
        await until(removed, "every replica has removed what has expired")
        assert await client.agreed() > written.version
        victim = network.pops[-1]
        before = network.kill(victim)

        async def back() -> bool:
            return network.pid(victim) not in (None, before) and (await client.status(victim))["ready"]

        await until(back, f"{victim} is back")
        assert await client.keys(victim) == {"kept"}
        assert (network.folder.path / victim / "store" / "clock").stat().st_size == 24
