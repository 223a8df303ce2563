"""A client that behaves as if it stood somewhere else."""

from __future__ import annotations

import json

import pytest
from msgspec.structs import replace

import kvnet
from kvnet.client.directory import Edge
from kvnet.client.distance import Distance
from kvnet.errors import ConfigError
from kvnet.topology.load import dump_yaml, load
from kvnet.topology.wan import Wan

LISBON = (38.77, -9.13)
FRA, NRT = Edge("fra", "http://127.0.0.1:1"), Edge("nrt", "http://127.0.0.1:2")


@pytest.fixture(scope="module")
def world():
    topology = load("world-2018")
    return replace(topology, pops=tuple(topology.pop(code) for code in ("iad", "nrt", "kix", "gru", "fra")))


def exact(topology):
    return replace(topology, wan=replace(topology.wan, jitter_sigma=0.0))


def test_place_of_a_pop_is_as_far_from_the_others_as_that_pop(world):
    distance = Distance(world, world.pop("nrt").place)
    assert distance.expected_ms(FRA) == pytest.approx(Wan(world).rtt_ms("nrt", "fra"))
    assert distance.expected_ms(NRT) == pytest.approx(12.6), "two hosts in one city aren't one host"


def test_both_ways_together_are_the_round_trip(world):
    distance = Distance(exact(world), LISBON)
    assert distance.there_ms(FRA) + distance.back_ms(FRA, 100) == pytest.approx(distance.expected_ms(FRA))


def test_jitter_is_the_models_and_the_same_for_one_seed(world):
    def drawn(seed):
        distance = Distance(world, LISBON, seed=seed)
        return [distance.there_ms(FRA) for _ in range(200)]

    assert drawn(7) == drawn(7) != drawn(8)
    half = Distance(world, LISBON).expected_ms(FRA) / 2
    times = drawn(7)
    assert sum(times) / len(times) == pytest.approx(half, rel=0.03)
    assert min(times) < half < max(times)


def test_line_of_little_bandwidth_makes_large_answers_slow(world):
    narrow = exact(replace(world, wan=replace(world.wan, bandwidth_mbps=8.0)))
    distance = Distance(narrow, LISBON)
    assert distance.back_ms(FRA, 1_000_000) == pytest.approx(distance.back_ms(FRA, 0) + 1000)


def test_with_measured_round_trips_the_nearest_pop_stands_for_the_client(world):
    codes = [pop.code for pop in world.pops]
    matrix = {a: {b: 10.0 + codes.index(b) for b in codes if b != a} for a in codes}
    distance = Distance(replace(world, wan=replace(world.wan, profile="matrix", matrix=matrix)), LISBON)
    # Half of each direction's own round trip.
    assert distance.expected_ms(NRT) == (matrix["fra"]["nrt"] + matrix["nrt"]["fra"]) / 2
    assert distance.expected_ms(FRA) == 0


async def test_client_asks_the_nearest_to_its_place_and_feels_the_way(cluster, edges, store, world, tmp_path):
    id_ = store.create("settings")
    (tmp_path / "cluster.json").write_text(json.dumps(cluster))
    (tmp_path / "topology.yaml").write_text(dump_yaml(exact(world)))
    async with kvnet.connect(data=tmp_path, from_="Lisbon") as net:
        assert net.edge.code == "fra"
        await net.namespace(id_).get("theme")
        first, second, *_ = await net.candidates()
    assert edges["fra"].requests
    assert (first.code, second.code) == ("fra", "gru")
    assert first.distance_km == pytest.approx(1872, rel=0.01)
    assert first.measured_ms >= first.expected_ms > 40, "a sleep is never shorter than asked for"
    async with kvnet.connect(data=tmp_path, from_="Lisbon", near="Tokyo") as net:
        assert net.edge.code == "nrt"
        (only,) = await net.candidates(1)
        assert only.measured_ms >= only.expected_ms > 190
    async with kvnet.connect(data=tmp_path, from_="Lisbon", pop="gru") as net:
        assert [each.code for each in await net.candidates()] == ["gru"]


def test_topology_of_another_network_is_refused(cluster, world, tmp_path):
    other = replace(world, pops=tuple(pop for pop in world.pops if pop.code != "gru"))
    (tmp_path / "cluster.json").write_text(json.dumps(cluster))
    (tmp_path / "topology.yaml").write_text(dump_yaml(other))
    with pytest.raises(ConfigError, match="gru"):
        kvnet.connect(data=tmp_path, from_="Lisbon")


def test_without_the_networks_folder_no_distance_is_known(cluster):
    with pytest.raises(ConfigError, match="give data="):
        kvnet.connect(cluster=cluster, from_="Tokyo")
