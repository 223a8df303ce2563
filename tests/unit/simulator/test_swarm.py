from __future__ import annotations

from collections import Counter

import msgspec
import pytest

from kvnet.simulator.breaker import Breaker
from kvnet.simulator.disturbances import Disturbances
from kvnet.simulator.faults import Crash, Partition, Tamper
from kvnet.simulator.swarm import (
    FAULTS_MS,
    FAULTS_PER_RUN,
    FOREVER_MS,
    KINDS,
    KINDS_PER_RUN,
    POPS_MAX,
    POPS_MIN,
    Draw,
    Mode,
    draw,
    size_of,
)
from kvnet.simulator.world import ROOT
from kvnet.topology.load import load
from tests.support.worlds import make_world

TOPOLOGY = load("world-2018").with_pops(16)
CODES = [pop.code for pop in TOPOLOGY.pops]
REGIONS = sorted({pop.region for pop in TOPOLOGY.pops})
SEEDS = range(300)


def drawn_by(seed: int, mode: Mode = Mode.SAFETY) -> Draw:
    return draw(seed, mode, CODES, REGIONS)


@pytest.mark.parametrize("mode", list(Mode))
def test_the_same_seed_draws_the_same_and_another_another(mode: Mode) -> None:
    draws = [drawn_by(seed, mode) for seed in range(50)]
    assert draws == [drawn_by(seed, mode) for seed in range(50)]
    assert len({msgspec.json.encode(drawn.faults) for drawn in draws}) == 50


def test_a_mode_draws_a_mix_of_its_own() -> None:
    assert len({drawn_by(7, mode).kinds for mode in Mode}) == 3


def test_every_kind_is_drawn_and_every_mix_is_a_part_of_all() -> None:
    draws = [drawn_by(seed) for seed in SEEDS]
    kinds = Counter(kind for drawn in draws for kind in drawn.kinds)
    assert kinds.keys() == KINDS.keys()
    assert min(kinds.values()) > len(SEEDS) / len(KINDS) / 2, kinds
    assert {len(drawn.kinds) for drawn in draws} == set(range(KINDS_PER_RUN[0], KINDS_PER_RUN[1] + 1))
    assert {len(drawn.faults) for drawn in draws} == set(range(FAULTS_PER_RUN[0], FAULTS_PER_RUN[1] + 1))


def test_every_kind_of_fault_is_among_those_that_are_drawn() -> None:
    faults = [fault for seed in SEEDS for mode in Mode for fault in drawn_by(seed, mode).faults]
    tags = Counter(fault.__struct_config__.tag for fault in faults)
    assert set(tags) == {
        *(
            "crash",
            "crash_in_commit",
            "pause",
            "slow",
            "full_disk",
            "lying_disk",
            "flipped_bit",
            "alter",
            "slow_disk",
            "clock",
            "twin",
        ),
        *("cut", "spike", "burst", "loss", "bandwidth", "hang_up", "tamper"),
    }
    crashes = [fault for fault in faults if isinstance(fault, Crash)]
    for which in (
        lambda crash: crash.silent and crash.power,
        lambda crash: crash.wiped,
        lambda crash: crash.disk_from_ms is not None,
        lambda crash: crash.nodes == (ROOT,),
        lambda crash: len(crash.nodes) > 12,
    ):
        assert any(map(which, crashes))


def test_everything_else_about_a_network_is_drawn_too() -> None:
    draws = [drawn_by(seed) for seed in SEEDS]
    for field, count in {
        "profile": 2,
        "loss": 4,
        "jitter_sigma": 3,
        "write_rate": 3,
        "keys": 3,
        "value_bytes_max": 3,
        "edge_journal_bytes": 3,
        "edge_durability": 2,
    }.items():
        assert len({getattr(drawn, field) for drawn in draws}) == count, field


def test_a_loss_that_is_given_overrides_the_drawn_one_and_nothing_else() -> None:
    given = draw(5, Mode.SAFETY, CODES, REGIONS, loss=0.07)
    assert given == msgspec.structs.replace(drawn_by(5), loss=0.07)


@pytest.mark.parametrize("mode", list(Mode))
def test_a_draw_travels_as_json(mode: Mode) -> None:
    for seed in range(50):
        drawn = drawn_by(seed, mode)
        assert msgspec.json.decode(msgspec.json.encode(drawn), type=Draw) == drawn


@pytest.mark.parametrize("mode", list(Mode))
def test_a_draw_s_faults_fit_its_network_and_its_time(mode: Mode) -> None:
    world = make_world(16, 1)
    disturbances = Disturbances(world)
    for seed in range(100):
        drawn = drawn_by(seed, mode)
        Breaker(world, disturbances, drawn.faults, rng=world.rng)
        assert all(0 <= fault.at_ms <= FAULTS_MS for fault in drawn.faults)


def test_only_torture_does_what_no_connection_does() -> None:
    for seed in range(50):
        tampers = {mode: sum(isinstance(fault, Tamper) for fault in drawn_by(seed, mode).faults) for mode in Mode}
        assert tampers[Mode.SAFETY] == tampers[Mode.LIVENESS] == 0
        assert 1 <= tampers[Mode.TORTURE] <= 3


def test_only_liveness_leaves_edges_broken_for_good_each_by_one_fault() -> None:
    ways: Counter[str] = Counter()
    for seed in range(100):
        for mode in Mode:
            drawn = drawn_by(seed, mode)
            lasting = [fault for fault in drawn.faults if fault.lasts_ms == FOREVER_MS]
            names = [getattr(fault, "nodes", None) or fault.senders for fault in lasting]
            assert sorted(names) == sorted((name,) for name in drawn.broken)
            assert ROOT not in drawn.broken
            assert len(drawn.broken) <= 8, "half of the network at most"
            assert bool(drawn.broken) == (mode is Mode.LIVENESS)
            for fault in lasting:
                one_way = isinstance(fault, Partition) and (fault.one_way, fault.flapping_ms is None)
                ways[f"{fault.__struct_config__.tag} {one_way}"] += 1
    assert len(ways) == 5, ways


def test_a_network_s_size_comes_of_its_seed() -> None:
    sizes = [size_of(seed) for seed in range(1000)]
    assert set(sizes) == set(range(POPS_MIN, POPS_MAX + 1))
    assert sizes == [size_of(seed) for seed in range(1000)]
