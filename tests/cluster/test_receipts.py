"""Writes that are answered when PoPs have them, on real processes over real distances."""

from __future__ import annotations

import asyncio
import json
import os
import signal

import kvnet
from kvnet.client import NewPair
from tests.support.network import until


def told(answer):
    assert answer.status == 200, answer
    return answer.json["result"]


async def test_a_write_for_all_is_read_at_every_pop_as_soon_as_it_is_answered(network, client):
    for writer in ("coordinator", "per", "fra"):
        written = await client.put(writer, f"by-{writer}", b"v", KV_Wait="all")
        spread = told(written)
        assert (spread["complete"], spread["applied"], spread["of"], spread["missing"]) == (True, 8, 8, [])
        assert spread["took_ms"].keys() == set(network.pops)
        assert "KV-Pending" not in written.headers
        reads = await asyncio.gather(*(client.get(pop, f"by-{writer}") for pop in network.pops))
        assert {read.version for read in reads} == {written.version}


async def test_times_tell_near_from_far(client):
    took_ms = told(await client.put("coordinator", "times", b"v", KV_Wait="all"))["took_ms"]
    assert took_ms["per"] > 60, "light needs as long from Ashburn to Perth, and as long back"
    assert min(took_ms.values()) < took_ms["per"]


async def test_a_write_that_changes_nothing_is_where_its_equal_is(client):
    first = await client.put("fra", "same", b"v", KV_Wait="all")
    await asyncio.sleep(1)  # a key may be written once a second
    again = await client.put("akl", "same", b"v", KV_Wait="all")
    assert again.version == first.version
    assert told(again)["complete"]


async def test_bulk_writes_and_deletes_are_waited_for_as_well(network, client):
    pairs = [{"key": f"k{number}", "value": "v"} for number in range(50)]
    assert told(await client.bulk("scl", "PUT", pairs, KV_Wait="all"))["complete"]
    for pop in network.pops:
        assert await client.keys(pop) == {pair["key"] for pair in pairs}
    await asyncio.sleep(1)  # a key may be written once a second
    deleted = await client.bulk("scl", "POST", [pair["key"] for pair in pairs], "/delete", KV_Wait="all")
    assert told(deleted)["complete"]
    for pop in network.pops:
        assert await client.keys(pop) == set()


async def test_who_is_down_is_missing_and_the_others_are_enough_for_a_share(network, client):
    network.kvnet("stop", "per")
    try:
        short = told(await client.put("fra", "short", b"v", KV_Wait="all", KV_Wait_Timeout_Ms="1500"))
        assert (short["complete"], short["applied"], short["missing"]) == (False, 7, ["per"])
        most = told(await client.put("fra", "most", b"v", KV_Wait="87%"))
        assert (most["complete"], most["applied"] >= 7) == (True, True)
        waiting = asyncio.ensure_future(
            client.put("fra", "later", b"v", KV_Wait="all", KV_Wait_Timeout_Ms="30000")
        )
        await asyncio.sleep(0.2)
        assert not waiting.done()
    finally:
        network.kvnet("start", "per")
    spread = told(await waiting)
    assert (spread["complete"], spread["missing"]) == (True, [])
    assert spread["took_ms"]["per"] == max(spread["took_ms"].values())


async def test_a_pop_that_stands_still_is_missing_too(network, client):
    pid = network.pid("uln")
    os.kill(pid, signal.SIGSTOP)
    try:
        spread = told(await client.put("fra", "still", b"v", KV_Wait="all", KV_Wait_Timeout_Ms="1000"))
        assert spread["missing"] == ["uln"]
    finally:
        os.kill(pid, signal.SIGCONT)
    assert told(await client.put("fra", "again", b"v", KV_Wait="all", KV_Wait_Timeout_Ms="30000"))["complete"]


async def test_a_coordinator_that_dies_over_a_wait_has_the_write_and_goes_on_telling(network, client):
    network.kvnet("stop", "akl")
    try:
        waiting = asyncio.ensure_future(client.put("fra", "died", b"v", KV_Wait="all", KV_Wait_Timeout_Ms="30000"))

        async def is_sequenced():
            return (await client.get("scl", "died")).status == 200

        await until(is_sequenced, "the write is sequenced")
        before = network.kill("coordinator")

        async def is_back():
            return network.pid("coordinator") not in {None, before}

        await until(is_back, "the coordinator is back")
    finally:
        network.kvnet("start", "akl")
    assert told(await waiting)["complete"]


async def test_an_edge_that_is_cut_off_from_the_coordinator_tells_what_it_knows_itself(network, client):
    network.kvnet("stop", "akl")
    try:
        waiting = asyncio.ensure_future(client.put("scl", "cut", b"v", KV_Wait="all", KV_Wait_Timeout_Ms="3000"))

        async def is_sequenced():
            return (await client.get("scl", "cut")).status == 200

        await until(is_sequenced, "the write is there")
        network.kvnet("wan", "cut", "scl", "coordinator", "--both")
        spread = told(await waiting)
        assert (spread["complete"], spread["applied"], spread["of"]) == (False, 1, 8)
        assert set(spread["missing"]) == set(network.pops) - {"scl"}
    finally:
        network.kvnet("wan", "heal")
        network.kvnet("start", "akl")
    await client.agreed()


async def test_many_waits_at_once_all_end(client):
    answers = await asyncio.gather(
        *(client.put("fra", f"many-{number}", b"v", KV_Wait=f"{number % 100 + 1}%") for number in range(200))
    )
    assert all(told(answer)["complete"] for answer in answers)


async def test_the_python_client_returns_a_receipt(network, client):
    async with kvnet.connect(data=network.folder.path, near="Santiago") as net:
        namespace = net.namespace(client.title)
        receipt = await namespace.put("by-client", "v", wait="all")
        assert (receipt.complete, receipt.applied, receipt.of, receipt.missing) == (True, 8, 8, ())
        assert receipt.took_ms.keys() == set(network.pops)
        assert (
            await namespace.put_many([NewPair(key="a", value=b"1"), NewPair(key="b", value=b"2")], wait="50%")
        ).complete
        assert (await namespace.delete("c", wait="all")).complete


async def test_the_command_line_prints_it(network, client):
    printed = json.loads(network.kvnet("put", client.title, "by-cli", "v", "--wait", "all", "--json"))
    assert (printed["complete"], printed["applied"]) == (True, 8)
