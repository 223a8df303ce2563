"""`kvnet why-stale` on real processes: cut off, stopped, and while a large value is on its way."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from random import Random
from typing import Any

import pytest

from tests.support.network import Client, Network, kvnet, open_session, until

MBPS = 6
LARGE_BYTES = 10_000_000
"""Longer on its way than the coordinator waits for it to be anywhere."""


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    """Five PoPs over narrow lines."""
    folder = tmp_path_factory.mktemp("network")
    made = kvnet("topology", "gen", "--pops", 5).stdout
    narrow = made.replace("jitter_sigma: 0.05", f"jitter_sigma: 0.05, bandwidth_mbps: {MBPS}")
    assert narrow != made
    topology = folder / "topology.yaml"
    topology.write_text(narrow)
    with Network(folder / "data") as network:
        network.up("--topology", topology, "--limits", "workers-kv", "--limit", "write_interval_ms=0")
        yield network


@pytest.fixture
async def client(network: Network, request: pytest.FixtureRequest) -> AsyncIterator[Client]:
    async with open_session() as session:
        client = Client(network, session, request.node.name)
        await client.create_namespace()
        yield client
        network.kvnet("wan", "heal")
        await client.agreed()


def ask(network: Network, client: Client, key: str, *options: str) -> tuple[int, str]:
    ended = kvnet("why-stale", client.title, key, "--data", network.folder.path, *options)
    return ended.returncode, ended.stdout if ended.returncode != 4 else ended.stderr


def tell(network: Network, client: Client, key: str) -> tuple[int, dict[str, Any]]:
    code, text = ask(network, client, key, "--json")
    return code, json.loads(text)


async def test_key_that_all_have_and_one_that_is_nowhere(network: Network, client: Client) -> None:
    key = "a/b ü%"
    written = await client.put("coordinator", "a%2Fb%20%C3%BC%25", b"v")
    await client.agreed()
    code, text = ask(network, client, key)
    assert code == 0
    assert text.splitlines()[-1] == f"all 5 PoPs have {written.version}"
    assert ask(network, client, "nowhere") == (
        4,
        f"kvnet: there is no key 'nowhere' in '{client.title}' at any node that answers\n",
    )
    ended = kvnet("why-stale", "no such namespace", "k", "--data", network.folder.path)
    assert ended.returncode == 1
    assert "there is no namespace 'no such namespace'" in ended.stderr
    code, told = tell(network, client, key)
    assert code == 0
    assert (told["version"], told["told_by"]) == (str(written.version), "coordinator")
    for pop in network.pops:
        assert told["pops"][pop]["has_it"]
        assert told["pops"][pop]["path"][0] == "coordinator"
        assert told["pops"][pop]["path"][-1] == told["pops"][pop]["parent"]


async def test_pop_that_is_cut_off_and_one_that_is_down(network: Network, client: Client) -> None:
    await client.put("coordinator", "k", b"old")
    await client.agreed()
    isolated, stopped, *_, narrow = network.pops
    network.kvnet("wan", "isolate", isolated)
    network.kvnet("stop", stopped)
    try:
        written = await client.put("coordinator", "k", b"new")
        others = ["coordinator", *(pop for pop in network.pops if pop not in {isolated, stopped})]
        await client.agreed(others)
        code, told = tell(network, client, "k")
        assert code == 1
        assert told["version"] == str(written.version)
        lacking = {pop: row for pop, row in told["pops"].items() if not row["has_it"]}
        assert set(lacking) == {isolated, stopped}
        assert list(told["pops"])[:2] == [stopped, isolated], "worst first"
        assert (lacking[isolated]["held_up_at"], lacking[isolated]["behind"]) == (isolated, 1)
        assert lacking[isolated]["why"] == "is cut off from all other nodes"
        assert (lacking[stopped]["problem"], lacking[stopped]["why"]) == ("down", "is down")
        assert told["pops"][narrow]["version"] == str(written.version)
        _, text = ask(network, client, "k")
        last = text.splitlines()[-1]
        assert last.startswith(f"3 of 5 PoPs have {written.version}; ")
        assert f"{isolated} is cut off from all other nodes" in last
        assert f"{stopped} is down" in last
    finally:
        network.kvnet("wan", "heal")
        network.kvnet("start", stopped)
    await client.agreed()
    assert ask(network, client, "k")[0] == 0


async def test_large_value_on_its_way_is_waited_for(network: Network, client: Client) -> None:
    await client.put("coordinator", "k", b"old")
    await client.agreed()
    writing = asyncio.ensure_future(client.put("coordinator", "k", Random(1).randbytes(LARGE_BYTES)))

    async def is_waited_for() -> bool:
        code, told = await asyncio.to_thread(tell, network, client, "k")
        reasons = [str(row["why"]) for row in told["pops"].values() if not row["has_it"]]
        assert code == (1 if reasons else 0)
        return any("waits for chunks of a large value" in why for why in reasons)

    await until(is_waited_for, "some PoP waits for chunks of what the coordinator has sequenced")
    assert (await writing).status == 200
    await client.agreed()
    code, told = tell(network, client, "k")
    assert (code, told["conclusion"]) == (0, f"all 5 PoPs have {(await writing).version}")


async def test_coordinator_that_is_down_does_not_keep_it_from_telling(network: Network, client: Client) -> None:
    written = await client.put("coordinator", "k", b"v")
    await client.agreed()
    network.kvnet("stop", "coordinator")
    try:
        code, told = tell(network, client, "k")
        assert (code, told["version"]) == (0, str(written.version))
        assert told["told_by"] in network.pops
    finally:
        network.kvnet("start", "coordinator")
