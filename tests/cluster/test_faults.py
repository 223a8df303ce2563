"""What a network promises while its nodes are killed, stopped, wiped and cut off."""

from __future__ import annotations

import json
import re
import shutil

import pytest

from kvnet.core.versions import Version
from tests.support.history import Load
from tests.support.network import Network, kvnet, until

SEED = 20180315
JOURNAL_MIB = 1
"""What an edge keeps here: less than one test writes."""


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    folder = tmp_path_factory.mktemp("network")
    made = kvnet("topology", "gen", "--pops", 8).stdout
    topology = folder / "topology.yaml"
    topology.write_text(re.sub(r"edge_journal_mib: \d+", f"edge_journal_mib: {JOURNAL_MIB}", made))
    with Network(folder / "data") as network:
        network.up("--topology", topology)
        yield network


async def epoch_of(client) -> int:
    return Version.parse((await client.status("coordinator"))["position"]).epoch


async def test_no_kill_loses_a_write_or_takes_a_reader_back(network, client):
    """kill -9 of an edge, of the coordinator and of the monitor, while writers and readers keep at it."""
    epoch = await epoch_of(client)
    writers = ["coordinator", "fra", "per", "scl"]
    async with Load(client, SEED, writers=writers, readers=network.pops) as load:
        for victim in ("fra", "coordinator", "monitor"):
            await load.progressed(5)
            restarts = network.nodes()[victim]["restarts"]
            before = network.kill(victim)

            async def is_back(victim=victim, before=before):
                return network.pid(victim) not in {None, before} and (await client.ask(victim, "GET", "/healthz"))

            await until(is_back, f"{victim} is back")
            assert network.nodes()[victim]["restarts"] == restarts + 1
        await load.progressed(5)
    assert await epoch_of(client) == epoch + 1
    assert load.history.failed_reads["fra"] > 0
    assert load.history.retries + len(load.history.refused) > 0
    head = await client.agreed()
    assert head >= max(load.history.acknowledged.values())
    for pop in network.pops:
        load.history.ended(pop, await client.keys(pop))
    assert load.history.problems() == []
    assert json.loads(network.kvnet("verify", "--json"))["problems"] == []

    async def judged():
        report = await client.report()
        return Version.parse(report["head"]) >= head and report["pending"] == 0 and report

    assert (await until(judged, "the restarted monitor has judged every write"))["violations"] == []


async def test_edges_serve_reads_without_a_coordinator_and_say_how_stale_they_are(network, client):
    written = await client.put("fra", "before", b"kept")
    await client.get("akl", "before", KV_At_Least=str(written.version))
    epoch = await epoch_of(client)
    network.kvnet("stop", "coordinator")
    fresh = await client.get("akl", "before")

    async def is_staler():
        read = await client.get("akl", "before")
        assert (read.status, read.body) == (200, b"kept")
        return read.staleness_ms >= fresh.staleness_ms + 1500

    await until(is_staler, "staleness grows")
    assert (await client.get("akl", "before", KV_Max_Staleness_Ms="1000")).error == (503, 20002)
    refused = await client.put("fra", "meanwhile", b"lost")
    assert refused.error == (503, 20010)
    assert refused.headers["Retry-After"] == "1"
    network.kvnet("start", "coordinator")

    async def writes_go_on():
        return (await client.put("fra", "after", b"new")).status == 200

    await until(writes_go_on, "writes go on")
    assert await epoch_of(client) == epoch + 1
    await client.agreed()
    assert await client.keys("akl") == {"before", "after"}

    async def is_fresh():
        return (await client.get("akl", "before")).staleness_ms <= 1500

    await until(is_fresh, "akl hears the coordinator again")


@pytest.mark.parametrize("wiped", [False, True], ids=["with its disk", "wiped"])
async def test_edge_catches_up_with_more_than_other_edges_remember(network, client, wiped):
    await client.put("fra", "early", b"1")
    await client.put("fra", "deleted", b"must not come back")
    await client.agreed()
    network.kvnet("stop", "uln")
    assert network.nodes()["uln"]["phase"] == "stopped"
    away_at = (await client.status("coordinator"))["position"]

    async def is_deleted():
        return (await client.delete("coordinator", "deleted")).status == 200  # 429 within a second of the put

    await until(is_deleted, "a second has passed since the put")
    for number in range(40):
        assert (await client.put("coordinator", f"late-{number}", b"x" * 60_000)).status == 200
    if wiped:
        shutil.rmtree(network.folder.node_folder("uln"))
    others = [name for name in network.replicas if name != "uln"]
    await client.agreed(others)
    for pop in others[1:]:
        assert (await client.status(pop))["store"]["horizon_seq"] > Version.parse(away_at).seq
    # The coordinator's journal reaches back: whoever asks it first is given frames, and rightly so.
    network.kvnet("wan", "cut", "uln", "coordinator", "--both")
    try:
        network.kvnet("start", "uln")
        await client.agreed()
    finally:
        network.kvnet("wan", "heal")
    assert await client.keys("uln") == {"early", *(f"late-{number}" for number in range(40))}
    status = await client.status("uln")
    assert status["driver"]["reports"]["bootstrap"] >= 2, "it was made anew of pages"
    assert status["counters"]["frame_bytes_received"] < JOURNAL_MIB << 20
    assert json.loads(network.kvnet("verify", "--json"))["problems"] == []


async def test_isolated_region_reads_on_and_converges_after_the_heal(network, client):
    """Cut off, a region knows less and says so; nothing it was refused shows up afterwards."""
    away = [pop.code for pop in network.folder.topology().pops if pop.region == "oceania"]
    assert 0 < len(away) < len(network.pops)
    here = [name for name in network.replicas if name not in away]
    inside = away[0]
    written = await client.put(inside, "before", b"kept")
    assert written.status == 200
    await client.agreed()
    network.kvnet("wan", "isolate", "oceania")
    state = json.loads(network.kvnet("wan", "show", "--json"))
    assert (state["behind"], len(state["cuts"])) == ([], 2)
    try:
        assert (await client.put("fra", "meanwhile", b"news")).status == 200
        assert (await client.put(inside, "refused", b"lost")).error == (503, 20010)
        await client.agreed(here)

        async def is_stale():
            read = await client.get(inside, "before")
            assert (read.status, read.body) == (200, b"kept")
            return read.staleness_ms >= 3000

        await until(is_stale, f"{inside} says that it is stale")
        network.kvnet("restart", inside)
        assert (await client.get(inside, "before")).body == b"kept"
        assert (await client.get(inside, "meanwhile")).error == (404, 10009)
        assert (await client.report())["connected"] == len(network.pops) - len(away)
    finally:
        network.kvnet("wan", "heal")
    head = await client.agreed()
    for pop in away:
        assert await client.keys(pop) == {"before", "meanwhile"}

    async def judged():
        report = await client.report()
        told = Version.parse(report["head"]) >= head and report["pending"] == 0
        return told and report["connected"] == len(network.pops) and report

    assert (await until(judged, "the monitor has judged every write"))["violations"] == []
