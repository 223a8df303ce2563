"""What a healthy network promises, over real processes, disks and distances."""

from __future__ import annotations

import asyncio
import json

from kvnet.core.versions import Version
from tests.support.network import until


async def test_write_at_the_coordinator_is_read_at_every_pop(network, client):
    written = await client.put("coordinator", "greeting", b"hello")
    assert written.status == 200
    token = str(written.version)
    reads = await asyncio.gather(
        *(client.get(pop, "greeting", KV_At_Least=token, KV_Wait_Timeout_Ms="30000") for pop in network.pops)
    )
    assert {read.body for read in reads} == {b"hello"}
    assert {read.version for read in reads} == {written.version}
    assert [read.headers["KV-Pop"] for read in reads] == network.pops


async def test_all_replicas_agree_and_verify_finds_nothing(network, client):
    for number in range(20):
        pop = network.pops[number % len(network.pops)]
        assert (await client.put(pop, f"key-{number}", b"x" * number * 100)).status == 200
    position = await client.agreed()
    assert position >= (await client.get("coordinator", "key-19")).version
    found = json.loads(network.kvnet("verify", "--json"))
    assert found["problems"] == []
    assert set(found["replicas"]) == set(network.replicas)
    assert all(replica["recomputed"] == replica["digest"] for replica in found["replicas"].values())


async def test_write_through_an_edge_is_there_when_it_is_answered(client):
    written = await client.put("per", "near", b"mine")
    assert written.status == 200
    assert "KV-Pending" not in written.headers
    read = await client.get("per", "near")
    assert (read.body, read.version) == (b"mine", written.version)
    assert read.position >= written.version


async def test_version_of_a_write_is_a_token_that_another_pop_waits_for(client):
    written = await client.put("per", "far", b"mine")
    read = await client.get("fra", "far", KV_At_Least=str(written.version))
    assert (read.status, read.body, read.version) == (200, b"mine", written.version)
    ahead = Version(written.version.epoch, written.version.seq + 1000)
    late = await client.get("fra", "far", KV_At_Least=str(ahead), KV_Wait_Timeout_Ms="50")
    assert late.error == (504, 20003)


async def test_write_that_is_sent_again_is_answered_not_repeated(client):
    """The second body tells a remembered answer from a write that happens to change nothing."""
    first = await client.put("scl", "once", b"1", KV_Request_Id="order-7")
    assert (await client.put("scl", "other", b"1")).version > first.version
    again = await client.put("scl", "once", b"2", KV_Request_Id="order-7")
    elsewhere = await client.put("akl", "once", b"3", KV_Request_Id="order-7")
    assert first.version == again.version == elsewhere.version
    read = await client.get("scl", "once")
    assert (read.body, read.version) == (b"1", first.version)


async def test_monitor_has_seen_every_write_everywhere_in_time(network, client):
    for number in range(5):
        written = await client.put("coordinator", f"seen-{number}", b"x")

    async def judged():
        report = await client.report()
        return Version.parse(report["head"]) >= written.version and report["pending"] == 0 and report

    report = await until(judged, "the monitor has judged every write")
    assert (report["pops"], report["violations"]) == (8, [])
    assert report["floor_ms"] <= report["converge_max_ms"] <= 10_000
