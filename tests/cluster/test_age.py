"""Reads that know their age, over real processes: waited for, put to others, or refused in words."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from random import Random

import aiohttp
import pytest

from tests.cluster.test_full_disk import VALUE, full_disk
from tests.support.network import Answer, Client, Network, kvnet, open_session, until

LARGE_BYTES = 20 << 20


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
        network.kvnet("wan", "heal")
        await client.agreed()


def root_pop(network: Network) -> str:
    return network.folder.topology().pop_of("coordinator").code


async def test_read_right_after_a_write_at_another_pop_has_it(network: Network, client: Client) -> None:
    """Whether the edge had it by itself or asked the coordinator, the client sees what it asked for."""
    for number in range(5):
        written = await client.put("per", "k", b"%d" % number)
        wish = {"KV_At_Least": str(written.version), "KV_Wait_Timeout_Ms": "0"}
        for read in await asyncio.gather(*(client.get(pop, "k", **wish) for pop in network.pops)):
            assert (read.status, read.body, read.version) == (200, b"%d" % number, written.version)
            assert read.position >= written.version


async def test_no_staleness_at_all_is_the_coordinators_answer(network: Network, client: Client) -> None:
    written = await client.put("fra", "k", b"v")
    before = (await client.status("akl"))["relays"]
    read = await client.get("akl", "k", KV_Max_Staleness_Ms="0")
    assert (read.status, read.body, read.version) == (200, b"v", written.version)
    assert (read.headers["KV-Relayed-By"], read.headers["KV-Pop"]) == ("akl", root_pop(network))
    assert read.staleness_ms == 0
    after = (await client.status("akl"))["relays"]
    assert after == {**before, "relayed": before["relayed"] + 1}
    assert "KV-Relayed-By" not in (await client.get("akl", "k")).headers
    local = await client.get("akl", "k", KV_Max_Staleness_Ms="5000")
    assert "KV-Relayed-By" not in local.headers
    assert local.headers["KV-Pop"] == "akl"


async def test_view_that_the_next_beacon_makes_new_enough_is_waited_for(network: Network, client: Client) -> None:
    """Most of these come when the last beacon is too long ago for them."""
    pop = root_pop(network)
    for _ in range(10):
        read = await client.get(pop, "none", KV_Max_Staleness_Ms="200", KV_Wait_Timeout_Ms="20000")
        assert read.status == 404
        assert "KV-Relayed-By" not in read.headers


async def test_no_beacon_is_waited_for_where_none_could_help(client: Client) -> None:
    async with asyncio.timeout(20):
        read = await client.get("akl", "none", KV_Max_Staleness_Ms="1", KV_Wait_Timeout_Ms="30000")
    assert read.headers["KV-Relayed-By"] == "akl"


async def test_lists_and_bulk_gets_are_relayed_too(client: Client) -> None:
    await client.put("fra", "k", b"v")
    fresh = {"KV-Max-Staleness-Ms": "0"}
    listed = await client.ask("scl", "GET", f"{client.base}/keys", None, fresh)
    assert [key["name"] for key in listed.json["result"]] == ["k"]
    many = await client.bulk("scl", "POST", {"keys": ["k"]}, "/get", KV_Max_Staleness_Ms="0")
    assert many.json["result"]["values"] == {"k": "v"}
    bound = {**fresh, "KV-Namespace": client.base.rpartition("/")[2]}
    by_binding = await client.ask("scl", "GET", "/k?urlencoded=true", None, bound)
    assert by_binding.body == b"v"
    missing = await client.get("scl", "none", KV_Max_Staleness_Ms="0")
    assert missing.error == (404, 10009)
    assert {a.headers["KV-Relayed-By"] for a in (listed, many, by_binding, missing)} == {"scl"}


async def test_large_value_is_relayed_whole_and_in_parts(client: Client) -> None:
    value = Random(1).randbytes(LARGE_BYTES)
    assert (await client.put("fra", "large", value)).status == 200
    reads = await asyncio.gather(*(client.get(pop, "large", KV_Max_Staleness_Ms="0") for pop in ("per", "scl")))
    assert [read.headers["KV-Relayed-By"] for read in reads] == ["per", "scl"]
    assert all(read.body == value for read in reads)
    part = await client.get("per", "large", KV_Max_Staleness_Ms="0", Range="bytes=1000000-2999999")
    assert (part.status, part.body == value[1_000_000:3_000_000]) == (206, True)
    head = await client.ask("per", "HEAD", f"{client.base}/values/large", None, {"KV-Max-Staleness-Ms": "0"})
    assert (head.status, head.headers["Content-Length"]) == (200, str(LARGE_BYTES))
    assert (await client.status("per"))["relays"]["under_way"] == 0


async def test_edge_without_its_parents_relays_from_the_coordinator(network: Network, client: Client) -> None:
    others = ",".join(pop for pop in network.pops if pop != "akl")
    network.kvnet("wan", "cut", "akl", others, "--both")
    written = await client.put("fra", "k", b"news")
    read = await client.get("akl", "k", KV_At_Least=str(written.version), KV_Wait_Timeout_Ms="0")
    assert (read.status, read.body) == (200, b"news")
    assert read.position >= written.version
    fresh = await client.get("akl", "k", KV_Max_Staleness_Ms="0")
    assert (fresh.status, fresh.headers["KV-Relayed-By"]) == (200, "akl")


async def test_isolated_edge_relays_nothing_and_says_so(network: Network, client: Client) -> None:
    await client.put("fra", "k", b"old")
    await client.agreed()
    network.kvnet("wan", "isolate", "akl")
    written = await client.put("fra", "k", b"new")
    before = (await client.status("akl"))["relays"]
    behind = await client.get("akl", "k", KV_At_Least=str(written.version), KV_Wait_Timeout_Ms="100")
    assert behind.error == (504, 20003)
    stale = await client.get("akl", "k", KV_Max_Staleness_Ms="1", KV_Wait_Timeout_Ms="100")
    assert stale.error == (503, 20002)
    assert stale.headers["Retry-After"] == "1"
    for answer in (behind, stale):
        assert "asked in its place: coordinator (cut off); " in answer.json["errors"][0]["message"]
        assert answer.headers["KV-Pop"] == "akl"
    after = (await client.status("akl"))["relays"]
    assert after == {**before, "in_vain": before["in_vain"] + 2}
    assert (await client.get("akl", "k")).body == b"old", "who doesn't ask for more is served as ever"


async def test_version_that_nobody_has_is_refused_with_the_coordinators_position(client: Client) -> None:
    written = await client.put("fra", "k", b"v")
    wanted = written.version._replace(seq=written.version.seq + 1000)
    answer = await client.get("akl", "k", KV_At_Least=str(wanted), KV_Wait_Timeout_Ms="0")
    assert answer.error == (504, 20003)
    message = answer.json["errors"][0]["message"]
    assert f"asked in its place: coordinator (stands at {written.version.epoch}-" in message


async def test_relay_that_is_cut_half_way_ends_early(network: Network, client: Client) -> None:
    """The client sees its answer end before its length: never a value that only looks whole."""
    value = Random(2).randbytes(LARGE_BYTES)
    await client.put("coordinator", "large", value)
    cluster = network.folder.cluster()
    url = f"{cluster['pops']['per']['url']}{client.base}/values/large"
    headers = {"Authorization": f"Bearer {cluster['tokens']['read']}", "KV-Max-Staleness-Ms": "0"}
    async with client.session.get(url, headers=headers) as response:
        assert (response.status, response.headers["KV-Relayed-By"]) == (200, "per")
        begun = await response.content.readexactly(1000)
        assert begun == value[:1000]
        await asyncio.to_thread(network.kvnet, "wan", "isolate", "per")
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.content.read()
    network.kvnet("wan", "heal")
    await client.agreed()
    assert (await client.get("per", "large", KV_Max_Staleness_Ms="0")).body == value
    assert (await client.status("per"))["relays"]["under_way"] == 0


async def test_nobody_answers_a_question_that_no_node_has_signed(client: Client) -> None:
    for node in ("coordinator", "fra"):
        answer = await client.ask(node, "POST", "/peer/v1/read", json.dumps({}).encode())
        assert answer.error == (401, 10000)


async def test_edge_that_cannot_store_has_a_neighbour_answer_without_the_coordinator(
    network: Network, client: Client
) -> None:
    """A full disk keeps its replica where it is; its neighbours promise more, and the nearest of them is asked."""
    await client.put("coordinator", "before", b"kept")
    await client.agreed()
    others = [name for name in network.replicas if name != "scl"]
    with full_disk(network, "scl"):
        for number in range(20):
            assert (await client.put("coordinator", f"key-{number}", VALUE)).status == 200
        head = await client.agreed(others)

        async def is_full() -> bool:
            return bool((await client.status("scl"))["driver"]["storage_full"])

        await until(is_full, "the disk is full")
        network.kvnet("wan", "cut", "scl", "coordinator", "--both")
        wish = {"KV_At_Least": str(head), "KV_Wait_Timeout_Ms": "0"}

        async def is_relayed() -> Answer | None:
            read = await client.get("scl", "key-19", **wish)
            return read if read.status == 200 else None

        read: Answer = await until(is_relayed, "a neighbour's advert tells of more, and it answers")
        assert read.body == VALUE
        assert read.position >= head
        assert read.headers["KV-Relayed-By"] == "scl"
        assert read.headers["KV-Pop"] in set(network.pops) - {"scl"}
        told = json.loads(
            kvnet("why-stale", client.title, "key-19", "--json", "--data", network.folder.path).stdout
        )
        assert (told["pops"]["scl"]["held_up_at"], told["pops"]["scl"]["why"]) == ("scl", "has a full disk")
        network.kvnet("wan", "heal")
    await client.agreed()
    assert "KV-Relayed-By" not in (await client.get("scl", "key-19", **wish)).headers
