"""Large values over real processes: visible whole, everywhere, and in the way of nobody."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from random import Random

import pytest

from tests.support.network import Client, Network, open_session, until

LIMIT = 26_214_400


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    """Eight PoPs with the profile that has large values."""
    with Network(tmp_path_factory.mktemp("network")) as network:
        network.up("--pops", 8, "--limits", "workers-kv", "--limit", "write_interval_ms=0")
        yield network


@pytest.fixture
async def client(network: Network, request: pytest.FixtureRequest) -> AsyncIterator[Client]:
    async with open_session() as session:
        client = Client(network, session, request.node.name)
        await client.create_namespace()
        yield client


def value_of(size: int, seed: int = 1) -> bytes:
    return Random(seed).randbytes(size)


async def read_everywhere(network: Network, client: Client, key: str, version: str) -> set[bytes]:
    reads = await asyncio.gather(
        *(client.get(pop, key, KV_At_Least=version, KV_Wait_Timeout_Ms="30000") for pop in network.pops)
    )
    assert {read.status for read in reads} == {200}
    return {read.body for read in reads}


async def test_the_largest_value_through_an_edge_is_read_whole_at_every_pop(
    network: Network, client: Client
) -> None:
    value = value_of(LIMIT)
    written = await client.put("per", "large", value)
    assert written.status == 200
    assert await read_everywhere(network, client, "large", str(written.version)) == {value}


async def test_one_byte_more_is_refused_at_edge_and_coordinator(client: Client) -> None:
    for node in ("per", "coordinator"):
        answer = await client.put(node, "over", bytes(LIMIT + 1))
        assert answer.error == (413, 10001)


async def test_a_value_that_replaces_a_large_one_is_seen_and_never_a_mixture(
    network: Network, client: Client
) -> None:
    large, small = value_of(1_000_000, 2), b"small"
    await client.put("coordinator", "k", large)
    again = await client.put("fra", "k", small)
    assert await read_everywhere(network, client, "k", str(again.version)) == {small}
    back = await client.put("akl", "k", large)
    assert await read_everywhere(network, client, "k", str(back.version)) == {large}


async def test_small_writes_go_on_while_a_large_one_travels(network: Network, client: Client) -> None:
    large = asyncio.ensure_future(client.put("scl", "large", value_of(LIMIT, 3)))
    answered = 0
    while not large.done():
        small = await client.put("coordinator", "small", b"%d" % answered)
        assert small.status == 200
        answered += not large.done()
    assert (await large).status == 200
    assert answered > 0


async def test_a_node_that_was_away_fetches_the_chunks_before_it_shows_the_value(
    network: Network, client: Client
) -> None:
    network.kill("uln")
    value = value_of(3_000_000, 4)
    written = await client.put("coordinator", "missed", value)
    after = await client.put("coordinator", "after", b"v")
    assert (written.status, after.status) == (200, 200)

    async def is_back() -> bool:
        read = await client.get("uln", "after")
        return read.status == 200

    await until(is_back, "uln has what was written behind the large value")
    read = await client.get("uln", "missed")
    assert (read.status, read.body) == (200, value)


async def test_large_values_verify_like_all_others(network: Network, client: Client) -> None:
    written = await client.put("lad", "verified", value_of(2_000_000, 5))
    assert written.status == 200
    await client.agreed()
    found = json.loads(network.kvnet("verify", "--json"))
    assert found["problems"] == []
