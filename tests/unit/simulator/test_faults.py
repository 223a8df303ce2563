from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import msgspec
import pytest

from kvnet.errors import ConfigError
from kvnet.simulator.breaker import Breaker
from kvnet.simulator.desk import CrashPoint
from kvnet.simulator.disturbances import Disturbances
from kvnet.simulator.faults import (
    Alter,
    AnyFault,
    Bandwidth,
    Burst,
    Clock,
    Crash,
    CrashInCommit,
    FlippedBit,
    FullDisk,
    HangUp,
    Loss,
    LyingDisk,
    Partition,
    Pause,
    Slow,
    SlowDisk,
    Spike,
    Tamper,
    Twin,
    describe,
    read_schedule,
)
from kvnet.simulator.world import ROOT, World
from tests.support.worlds import make_world, start

A, B = "fra", "lad"


class Broken:
    """A small world that runs, and who breaks it."""

    def __init__(self, *schedule: AnyFault) -> None:
        self.world = make_world(8, 1)
        start(self.world)
        self.began = self.world.now
        self.disturbances = Disturbances(self.world)
        self.faults = Breaker(self.world, self.disturbances, schedule, rng=random.Random(1))

    def at(self, ms: float) -> World:
        """Return the world at this time of the schedule."""
        self.world.run_until(self.began + ms)
        return self.world

    def connected(self, name: str = A) -> bool:
        return name in self.disturbances.connected_since()


def broken_between(
    broken: Broken, is_broken: Callable[[World], bool], began_ms: float = 100, ended_ms: float = 300
) -> None:
    """Assert that this holds while the fault lasts, and neither before nor after."""
    assert not is_broken(broken.at(began_ms - 1)), "before it begins"
    assert is_broken(broken.at(began_ms)), "as it begins"
    assert is_broken(broken.at(ended_ms - 1)), "before it ends"
    assert not is_broken(broken.at(ended_ms)), "as it ends"


TIMES = {"at_ms": 100, "lasts_ms": 200}


# -- nodes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("silent", [False, True])
def test_a_crash_stops_its_nodes_and_starts_them_again(silent: bool) -> None:
    broken = Broken(Crash(**TIMES, nodes=(A, B), silent=silent))
    broken_between(broken, lambda world: world.nodes[A].core is None and world.nodes[B].core is None)
    assert broken.world.nodes[A].core is not None
    assert broken.world.nodes[B].core is not None
    assert broken.faults.begun == {"crash": 1}


def test_a_crash_keeps_the_disk_unless_it_is_wiped_or_loses_power() -> None:
    broken = Broken(
        Crash(at_ms=100, lasts_ms=1000, nodes=(A,)),
        Crash(at_ms=100, lasts_ms=1000, nodes=(B,), wiped=True),
        Crash(at_ms=100, lasts_ms=1000, nodes=("iad",), power=True),
    )
    world = broken.at(200)
    assert [world.nodes[name].disk.position.seq > 0 for name in (A, B, "iad")] == [True, False, False]


def test_a_node_comes_back_with_the_disk_that_it_had_before() -> None:
    broken = Broken(Crash(at_ms=1000, lasts_ms=200, nodes=(A,), disk_from_ms=100))
    before = broken.at(50).nodes[A].disk.position
    broken.at(150).write()
    broken.at(990)
    assert broken.world.nodes[A].disk.position != before
    assert broken.at(1100).nodes[A].disk.position == before


def test_overlapping_crashes_end_with_the_last() -> None:
    broken = Broken(
        Crash(at_ms=100, lasts_ms=500, nodes=(A,)), Crash(at_ms=200, lasts_ms=100, nodes=(A, B), wiped=True)
    )
    assert broken.at(350).nodes[A].core is None
    assert broken.world.nodes[B].core is not None
    assert broken.at(600).nodes[A].core is not None
    assert broken.disturbances.whole_since(A) == broken.began + 600


@pytest.mark.parametrize("point", list(CrashPoint))
def test_the_coordinator_dies_in_its_next_commit_and_comes_back(point: CrashPoint) -> None:
    broken = Broken(CrashInCommit(at_ms=100, lasts_ms=1000, point=point))
    broken.at(200)
    assert broken.world.root.core is not None, "nothing was committed yet"
    broken.world.write()
    assert broken.at(201).root.core is None
    assert broken.at(1100).root.core is not None


def test_a_coordinator_that_dies_as_the_fault_ends_comes_back() -> None:
    """Its commit began as everything was healed: it died after it should have been started. Torture, seed 232."""
    broken = Broken(CrashInCommit(at_ms=100, lasts_ms=60_000, point=CrashPoint.FSYNC))
    broken.at(200).write()
    assert broken.world.root.core is not None, "it dies in this very moment"
    broken.faults.heal()
    assert broken.at(201).root.core is not None
    assert broken.world.root.started_at == broken.began + 200


def test_a_coordinator_that_commits_nothing_meanwhile_does_not_die_later() -> None:
    broken = Broken(CrashInCommit(at_ms=100, lasts_ms=100, point=CrashPoint.APPEND))
    broken.at(300).write()
    assert broken.at(400).root.core is not None


def test_a_pause_holds_a_node_s_events_back_until_it_ends() -> None:
    broken = Broken(Pause(at_ms=100, lasts_ms=2000, nodes=(A,)))
    events = broken.at(100).nodes[A].events
    broken.world.write()
    assert broken.at(2099).nodes[A].events == events
    assert broken.at(3000).nodes[A].events > events
    assert broken.world.nodes[A].disk.position == broken.world.root.disk.position


def test_a_short_pause_within_a_long_one_wakes_nobody() -> None:
    """The end of either used to wake the node."""
    broken = Broken(Pause(at_ms=100, lasts_ms=2000, nodes=(A,)), Pause(at_ms=200, lasts_ms=100, nodes=(A,)))
    events = broken.at(100).nodes[A].events
    assert broken.at(1500).nodes[A].events == events
    assert broken.world.nodes[A].stalled_until == broken.began + 2100
    assert broken.at(3000).nodes[A].events > events


def test_slow_nodes_take_their_time_over_every_event_and_their_sum_when_they_overlap() -> None:
    broken = Broken(Slow(**TIMES, nodes=(A,), cpu_ms=2), Slow(at_ms=200, lasts_ms=200, nodes=(A, B), cpu_ms=0.5))
    assert [broken.at(ms).nodes[A].cpu_ms for ms in (99, 100, 200, 300, 400)] == [0, 2, 2.5, 0.5, 0]


def test_a_full_disk_has_room_again_when_the_last_fault_has_ended() -> None:
    """The end of the first of two used to make room."""
    broken = Broken(FullDisk(**TIMES, nodes=(A, B)), FullDisk(at_ms=200, lasts_ms=200, nodes=(A,)))
    full = lambda name: broken.world.nodes[name].disk.is_full  # noqa: E731
    broken_between(broken, lambda _: full(A) and full(B))
    assert full(A)
    broken.at(400)
    assert not full(A)


def test_a_lying_disk_ends_in_a_power_cut_that_costs_what_it_kept_back() -> None:
    broken = Broken(LyingDisk(**TIMES, nodes=(ROOT,)), LyingDisk(at_ms=250, lasts_ms=200, nodes=(ROOT,)))
    honest = broken.at(99).root.disk.position
    assert broken.at(100).root.disk.is_lying
    broken.world.write()
    assert broken.world.root.disk.position != honest
    world = broken.at(300)
    assert world.root.started_at == world.now
    assert world.root.disk.position == honest
    assert world.root.disk.is_lying, "the second one's time isn't over"
    assert not broken.at(450).root.disk.is_lying
    assert "the coordinator's disk lied" in broken.disturbances.excuses


def test_a_slow_disk_slows_the_desk_that_writes_now_and_the_one_after_it() -> None:
    """It used to reach only a coordinator that started meanwhile, and to stay with that one for ever."""
    broken = Broken(
        SlowDisk(at_ms=100, lasts_ms=9900, least_ms=50, most_ms=60),
        Crash(at_ms=1000, lasts_ms=1000, nodes=(ROOT,)),
    )
    waits: list[float] = []
    for ms in (50, 200, 9000, 10_100):
        world = broken.at(ms)
        began, seq = world.now, world.root.disk.position.seq
        world.write()
        assert world.run_while(lambda w=world, s=seq: w.root.disk.position.seq == s, 1000)
        waits.append(world.now - began)
    assert waits[0] == waits[3] == 0
    assert 50 <= waits[1] <= 60
    assert 50 <= waits[2] <= 60


def test_of_two_slow_disks_the_one_that_lasts_goes_on() -> None:
    broken = Broken(
        SlowDisk(at_ms=100, lasts_ms=100, least_ms=5, most_ms=5),
        SlowDisk(at_ms=150, lasts_ms=500, least_ms=9, most_ms=9),
    )
    assert [broken.at(ms).desk.fsync_ms() for ms in (99, 100, 160, 300, 650)] == [0, 5, 9, 9, 0]


def test_clocks_are_set_and_drift_and_are_set_back() -> None:
    broken = Broken(Clock(at_ms=100, lasts_ms=10_000, nodes=(A,), step_ms=5000, drift_ppm=1000))
    node = broken.at(100).nodes[A]
    assert node.wall_ms() == broken.world.now + 5000
    assert node.clock_ms() == pytest.approx(broken.world.now)
    broken.at(10_099)
    assert node.clock_ms() - broken.world.now == pytest.approx(9.999)
    broken.at(10_100)
    assert node.wall_ms() == pytest.approx(broken.world.now)
    ahead = node.clock_ms() - broken.world.now
    assert ahead == pytest.approx(10), "a monotonic clock is never set back"
    broken.at(20_000)
    assert node.clock_ms() - broken.world.now == pytest.approx(ahead)
    assert broken.disturbances.clock_error_ms >= 5000


def test_a_twin_runs_beside_its_node_and_goes() -> None:
    broken = Broken(Twin(at_ms=100, lasts_ms=3000, node=A))
    broken_between(broken, lambda world: f"{A}~1" in world.nodes, 100, 3100)
    assert broken.disturbances.whole_since(A) == broken.began + 3100


def test_a_second_coordinator_is_an_excuse_and_makes_the_first_one_start_again() -> None:
    broken = Broken(Twin(**TIMES, node=ROOT))
    broken.at(300)
    assert broken.world.root.started_at == broken.world.now
    assert broken.disturbances.excuses == ["two coordinators"]


# -- the network ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("one_way", [False, True])
def test_a_cut_is_cut_and_open_again(one_way: bool) -> None:
    broken = Broken(Partition(**TIMES, senders=(A,), receivers=(B,), one_way=one_way))
    broken_between(broken, lambda world: world.wan.is_cut(A, B))
    again = Broken(Partition(**TIMES, senders=(A,), receivers=(B,), one_way=one_way))
    assert again.at(100).wan.is_cut(B, A) is not one_way


def test_a_region_is_cut_off_from_everybody_else() -> None:
    world = make_world(8, 1)
    region = next(pop.region for pop in world.topology.pops if pop.code == A)
    inside = [name for name in world.wan.members(region) if name in world.nodes]
    broken = Broken(Partition(**TIMES, senders=(region,)))
    wan = broken.at(100).wan
    for a in broken.world.nodes:
        for b in broken.world.nodes:
            assert wan.is_cut(a, b) == ((a in inside) != (b in inside)), (a, b)


def test_overlapping_cuts_end_with_the_last() -> None:
    broken = Broken(
        Partition(**TIMES, senders=(A,)), Partition(at_ms=200, lasts_ms=200, senders=(B,), receivers=(A,))
    )
    assert broken.at(350).wan.is_cut(A, B)
    assert not broken.world.wan.is_cut(A, ROOT)
    assert not broken.at(400).wan.is_cut(A, B)
    assert broken.disturbances.whole_since((A, B)) == broken.began + 400
    assert broken.disturbances.whole_since((A, ROOT)) == broken.began + 300


def test_a_flapping_way_is_disturbed_also_while_it_is_open() -> None:
    broken = Broken(Partition(at_ms=100, lasts_ms=1000, senders=(A,), flapping_ms=200))
    seen = [broken.at(ms).wan.is_cut(A, ROOT) for ms in (150, 350, 550, 750, 950, 1150, 1350)]
    assert seen == [True, False, True, False, True, False, False]
    again = Broken(Partition(at_ms=100, lasts_ms=1000, senders=(A,), flapping_ms=200))
    again.at(350)
    assert again.disturbances.whole_since((A, ROOT)) == float("inf")
    assert not again.connected()


def test_a_spike_makes_one_way_longer_and_two_add_up() -> None:
    spike = Spike(**TIMES, sender=A, receiver=B, extra_ms=500)
    broken = Broken(spike, Spike(at_ms=200, lasts_ms=200, sender=A, receiver=B, extra_ms=100))
    near = broken.world.wan.one_way_ms(A, B)
    back = broken.world.wan.one_way_ms(B, A)
    extra = [broken.at(ms).wan.one_way_ms(A, B) - near for ms in (99, 100, 200, 300, 400)]
    assert extra == pytest.approx([0, 500, 600, 100, 0])
    assert broken.world.wan.one_way_ms(B, A) == back


def test_a_burst_comes_and_goes_on_its_way_and_is_over_when_it_ends() -> None:
    """The last fault of a schedule that was a burst used to go on for ever, and nobody was told."""
    broken = Broken(Burst(at_ms=100, lasts_ms=5000, sender=A, receiver=B, loss=0.7, bad_ms=200, good_ms=200))
    seen = [broken.at(ms).wan.loss(A, B) for ms in range(100, 5100, 50)]
    assert set(seen) == {0.7, 0.0}
    assert 0.2 < seen.count(0.7) / len(seen) < 0.8
    assert {broken.at(ms).wan.loss(A, B) for ms in range(5100, 30_000, 50)} == {0.0}
    assert not broken.world.wan.state.pairs


def test_the_worst_loss_counts() -> None:
    broken = Broken(Loss(**TIMES, loss=0.1), Loss(at_ms=200, lasts_ms=200, loss=0.05))
    assert [broken.at(ms).wan.state.loss for ms in (99, 100, 250, 350, 400)] == [0, 0.1, 0.1, 0.05, 0]


def test_a_node_is_connected_through_20_percent_of_loss_and_not_through_more() -> None:
    """Time under heavy loss used to count as connected once it was over."""
    broken = Broken(Loss(at_ms=100, lasts_ms=200, loss=0.2), Loss(at_ms=1000, lasts_ms=200, loss=0.4))
    broken.at(250)
    assert broken.disturbances.connected_since()[A] < broken.began
    broken.at(1100)
    assert not broken.connected()
    broken.at(1300)
    assert broken.disturbances.connected_since()[A] >= broken.began + 1200


def test_the_least_bandwidth_counts() -> None:
    broken = Broken(Bandwidth(**TIMES, mbps=10), Bandwidth(at_ms=200, lasts_ms=200, mbps=100))
    seen = [broken.at(ms).wan.state.bandwidth_mbps for ms in (99, 100, 250, 350, 400)]
    assert seen == [None, 10, 10, 100, None]


def test_a_connection_that_is_hung_up_is_dialled_again() -> None:
    world = make_world(8, 1)
    start(world)
    peer = next(iter(world.nodes[A].links))
    broken = Broken(HangUp(at_ms=100, a=A, b=peer))
    link = broken.at(99).nodes[A].links[peer]
    broken.at(100)
    assert not link.alive
    assert peer not in broken.world.nodes[A].links
    assert broken.at(5000).nodes[A].links[peer] is not link


def test_of_two_tamperings_the_one_that_lasts_goes_on() -> None:
    """The end of the first used to end both, and to leave the network disturbed on paper."""
    broken = Broken(Tamper(**TIMES, drop=0.1), Tamper(at_ms=200, lasts_ms=200, duplicate=0.1))
    seen = [broken.at(ms).tampering for ms in (99, 100, 200, 300, 400)]
    assert [each and each.shares.drop for each in seen] == [None, 0.1, 0.0, 0.0, None]
    assert broken.connected()


# -- healing -------------------------------------------------------------------------------------------------


def test_heal_ends_everything_and_nothing_begins_any_more() -> None:
    everybody = {"at_ms": 100, "lasts_ms": 60_000}
    broken = Broken(
        Crash(**everybody, nodes=("iad",)),
        Pause(**everybody, nodes=(A,)),
        Slow(**everybody, nodes=(B,), cpu_ms=1),
        FullDisk(**everybody, nodes=(A,)),
        SlowDisk(**everybody, least_ms=5, most_ms=5),
        Partition(**everybody, senders=(A,), flapping_ms=1000),
        Spike(**everybody, sender=A, receiver=B, extra_ms=100),
        Burst(**everybody, sender=B, receiver=A, loss=0.5, bad_ms=1000, good_ms=10),
        Loss(**everybody, loss=0.5),
        Bandwidth(**everybody, mbps=1),
        Tamper(**everybody, drop=0.5),
        Twin(**everybody, node=B),
        Crash(at_ms=500, lasts_ms=60_000, nodes=(B,)),
    )
    broken.at(200)
    assert len(broken.world.wan.state.cuts) == 2
    broken.faults.heal()
    world = broken.at(20_000)
    assert world.wan.state == broken.faults._calm
    assert all(
        node.core is not None and not node.cpu_ms and not node.disk.is_full for node in world.nodes.values()
    )
    assert world.tampering is None
    assert world.desk.fsync_ms() == 0
    assert len(world.nodes) == 9
    assert len(broken.disturbances.connected_since()) == 9
    assert broken.faults.begun["crash"] == 1


def test_heal_leaves_alone_what_only_touches_those_that_stay_broken() -> None:
    long = {"at_ms": 100, "lasts_ms": 60_000}
    broken = Broken(
        Crash(**long, nodes=(A,)),
        Pause(**long, nodes=(A, B)),
        Partition(**long, senders=("iad",)),
        FullDisk(**long, nodes=("scl",)),
    )
    broken.at(200)
    broken.faults.heal(keep=(A, "iad"))
    world = broken.at(300)
    assert world.nodes[A].core is None
    assert world.nodes[B].stalled_until <= world.now
    assert world.wan.is_cut("iad", ROOT)
    assert not world.nodes["scl"].disk.is_full


# -- schedules -----------------------------------------------------------------------------------------------

EVERY_KIND: list[AnyFault] = [
    Crash(at_ms=1, lasts_ms=2, nodes=(A,), silent=True, power=True, wiped=True, disk_from_ms=0.5),
    CrashInCommit(at_ms=1, lasts_ms=2, point=CrashPoint.FSYNC),
    Pause(at_ms=1, nodes=(A, B)),
    Slow(at_ms=1, nodes=(A,), cpu_ms=0.5),
    FullDisk(at_ms=1, nodes=(A,)),
    FlippedBit(at_ms=1, nodes=(A,)),
    Alter(at_ms=1, lasts_ms=2, pages=0.5, chunks=0.1, forged=True),
    LyingDisk(at_ms=1, nodes=(A,)),
    SlowDisk(at_ms=1, least_ms=1, most_ms=2),
    Clock(at_ms=1, nodes=(A,), step_ms=-5, drift_ppm=-7),
    Twin(at_ms=1, node=A),
    Partition(at_ms=1, senders=("asia",), receivers=(A,), one_way=True, flapping_ms=100),
    Spike(at_ms=1, sender=A, receiver=B, extra_ms=3),
    Burst(at_ms=1, sender=A, receiver=B, loss=0.5, bad_ms=1, good_ms=2),
    Loss(at_ms=1, loss=0.5),
    Bandwidth(at_ms=1, mbps=2),
    HangUp(at_ms=1, a=A, b=B),
    Tamper(at_ms=1, drop=0.1, duplicate=0.2, reorder=0.3, replay=0.4, corrupt=0.5, replay_after_ms=(1, 2)),
]


def test_every_kind_of_fault_travels_as_json(tmp_path: Path) -> None:
    assert {type(fault) for fault in EVERY_KIND} == set(get_args(AnyFault))
    path = tmp_path / "schedule.json"
    path.write_bytes(msgspec.json.encode(EVERY_KIND))
    assert read_schedule(path) == EVERY_KIND


@pytest.mark.parametrize("fault", EVERY_KIND)
def test_a_fault_is_described_in_one_line_of_what_is_not_usual(fault: AnyFault) -> None:
    line = describe(fault)
    assert line.startswith(f"{fault.__struct_config__.tag} ")
    assert "\n" not in line
    assert "False" not in line
    assert "at_ms" not in line


def test_an_ordinary_crash_is_described_by_its_nodes_and_how_long_it_lasts() -> None:
    assert describe(Crash(at_ms=1, lasts_ms=2, nodes=(A, B))) == "crash lasts_ms=2 nodes=fra,lad"
    assert describe(Partition(at_ms=1, lasts_ms=2, senders=(A,))) == "cut lasts_ms=2 senders=fra"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "Expected `array`, got `object`; write a list such as [{"),
        ("", "truncated; write a list such as [{"),
        ("[", "truncated; write a list such as [{"),
        ("\xff", "malformed: invalid character (byte 0); write a list such as [{"),
        ('["crash"]', "Expected `object`, got `str` - at `$[0]`; write a list such as [{"),
        ('[{"at_ms": 1}]', "missing required field `fault` - at `$[0]`; the faults are crash, crash_in_commit, "),
        ('[{"fault": "crsh"}]', "Invalid value 'crsh' - at `$[0].fault`; the faults are crash, crash_in_commit, "),
        (
            '[{"fault": "loss", "at_ms": 1, "loss": 0.1}, {"fault": "twin", "at_ms": 1, "nodes": ["fra"]}]',
            "unknown field `nodes` - at `$[1]`; the fields of twin are at_ms, lasts_ms, node",
        ),
        (
            '[{"fault": "pause", "at_ms": 1}]',
            "missing required field `nodes` - at `$[0]`; the fields of pause are ",
        ),
        ('[{"fault": "pause", "at_ms": -1, "nodes": ["fra"]}]', "Expected `float` >= 0.0 - at `$[0].at_ms`"),
        ('[{"fault": "pause", "at_ms": 1, "lasts_ms": -1, "nodes": ["fra"]}]', ">= 0.0 - at `$[0].lasts_ms`"),
        ('[{"fault": "pause", "at_ms": 1, "nodes": []}]', "Expected `array` of length >= 1 - at `$[0].nodes`"),
        ('[{"fault": "loss", "at_ms": 1, "loss": 1}]', "Expected `float` < 1.0 - at `$[0].loss`"),
        (
            '[{"fault": "crash_in_commit", "at_ms": 1, "point": "later"}]',
            "Invalid enum value 'later' - at `$[0].point`; the points are append, fsync, send",
        ),
        (
            '[{"fault": "tamper", "at_ms": 1, "replay_after_ms": [-5, 1]}]',
            "Expected `float` >= 0.0 - at `$[0].replay_after_ms[0]`",
        ),
    ],
)
def test_a_schedule_that_is_none_says_in_one_line_where_and_what_to_write(
    tmp_path: Path, text: str, told: str
) -> None:
    path = tmp_path / "schedule.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(ConfigError) as failed:
        read_schedule(path)
    assert str(failed.value).startswith(f"{path} is not a schedule of faults: ")
    assert told in str(failed.value)
    assert "\n" not in str(failed.value)


def test_a_schedule_that_is_not_there_says_what_to_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"can't be read \(No such file or directory\): name a JSON file"):
        read_schedule(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (Crash(at_ms=1, nodes=(A, "fro")), "fault schedule: no node is called 'fro': did you mean fra"),
        (Pause(at_ms=1, nodes=("x",)), "fault schedule: no node is called 'x': choose one of coordinator, "),
        (Slow(at_ms=1, nodes=("x",), cpu_ms=1), "fault schedule: no node is called 'x'"),
        (FullDisk(at_ms=1, nodes=("x",)), "fault schedule: no node is called 'x'"),
        (LyingDisk(at_ms=1, nodes=("x",)), "fault schedule: no node is called 'x'"),
        (Clock(at_ms=1, nodes=("x",)), "fault schedule: no node is called 'x'"),
        (Twin(at_ms=1, node="x"), "fault schedule: no node is called 'x'"),
        (Spike(at_ms=1, sender=A, receiver="x", extra_ms=1), "fault schedule: no node is called 'x'"),
        (HangUp(at_ms=1, a="x", b=A), "fault schedule: no node is called 'x'"),
        (FlippedBit(at_ms=1, nodes=("coordinator",)), "fault schedule: flipped_bit is for edges"),
        (Burst(at_ms=1, sender="x", receiver=A, loss=0, bad_ms=1, good_ms=1), "no node is called 'x'"),
        (Partition(at_ms=1, senders=("azia",)), "fault schedule: no node or region is called 'azia': "),
        (Partition(at_ms=1, senders=(A,), receivers=("x",)), "fault schedule: no node or region is called 'x': "),
        (
            Crash(at_ms=100, nodes=(A,), disk_from_ms=200),
            "fault schedule: disk_from_ms 200 is after at_ms 100: write a time at or before the crash",
        ),
    ],
)
def test_a_schedule_for_another_world_is_refused_before_anything_breaks(fault: AnyFault, told: str) -> None:
    with pytest.raises(ConfigError) as failed:
        Broken(fault)
    assert told in str(failed.value)
    assert "\n" not in str(failed.value)
