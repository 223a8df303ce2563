from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kvnet.core.clock import stamp_ms
from kvnet.core.freshness import BeaconSeen, ReplicaClock, staleness_ms

WALL = 1_522_540_800_000.0


def stamp(wall_ms: float) -> int:
    return int(wall_ms) << 16 | 7


def test_replica_time_is_the_beacons_time_and_what_has_passed_since():
    clock = ReplicaClock()
    clock.on_beacon(WALL, 1000.0)
    assert clock.now_ms(1500.0) == WALL + 500


def test_a_slower_beacon_doesnt_set_replica_time_back():
    clock = ReplicaClock()
    clock.on_beacon(WALL, 1000.0)
    clock.on_beacon(WALL + 100, 1400.0)  # 300 ms longer on its way
    assert clock.now_ms(1400.0) == WALL + 400


def test_after_a_restart_time_isnt_before_the_last_applied_stamp():
    clock = ReplicaClock(stamp(WALL))
    assert clock.now_ms(0.0) == WALL
    clock.on_beacon(WALL - 60_000, 10.0)  # a coordinator whose clock was set back
    assert clock.now_ms(20.0) == WALL


def test_an_applied_frame_moves_time_on():
    clock = ReplicaClock(stamp(WALL))
    clock.on_applied(stamp(WALL + 5))
    clock.on_applied(stamp(WALL + 2))
    assert clock.now_ms(0.0) == WALL + 5


def test_after_a_restart_time_isnt_before_what_was_told():
    clock = ReplicaClock(stamp(WALL), WALL + 5000)
    assert clock.now_ms(0.0) == WALL + 5000
    clock.on_beacon(WALL + 4000, 10.0)
    assert clock.now_ms(500.0) == WALL + 5000
    assert clock.now_ms(2010.0) == WALL + 6000
    assert ReplicaClock(stamp(WALL), WALL - 5000).now_ms(0.0) == WALL


def test_the_roots_time_goes_on_though_its_wall_was_set_back():
    clock = ReplicaClock()
    clock.on_beacon(WALL, 0.0)
    clock.on_beacon(WALL - 3_600_000, 1000.0)
    assert clock.now_ms(1000.0) == WALL + 1000
    restarted = ReplicaClock(stamp(WALL), WALL + 1000)
    restarted.go_on(50.0)
    restarted.on_beacon(WALL - 3_600_000, 60.0)
    assert restarted.now_ms(1050.0) == WALL + 2000


@given(st.lists(st.tuples(st.sampled_from(["beacon", "applied", "wait"]), st.floats(-1e6, 1e6)), max_size=40))
def test_replica_time_never_goes_back_whatever_comes(events):
    clock, now, last = ReplicaClock(stamp(WALL)), 0.0, 0.0
    for what, by in events:
        now += abs(by) / 1000
        if what == "beacon":
            clock.on_beacon(WALL + by, now)
        elif what == "applied":
            clock.on_applied(stamp(WALL + by))
        assert clock.now_ms(now) >= last
        last = clock.now_ms(now)


def test_staleness_is_the_beacons_age_and_the_round_trips_on_its_path():
    beacon = BeaconSeen(at_ms=1000.0, time_ms=WALL, held_ms=20.0, latency_ms=80.0)
    assert staleness_ms(now_ms=1300.0, wall_ms=WALL + 390, beacon=beacon, applied_stamp=0) == 300 + 20 + 160


def test_a_beacon_that_lost_packets_held_up_is_as_old_as_its_time_says():
    """Staleness once counted from the arrival alone: a retransmitted beacon made a PoP look too fresh."""
    beacon = BeaconSeen(at_ms=1000.0, time_ms=WALL, held_ms=0.0, latency_ms=80.0)
    assert staleness_ms(now_ms=1000.0, wall_ms=WALL + 900, beacon=beacon, applied_stamp=0) == 900


def test_a_replica_that_heard_nothing_yet_is_as_stale_as_its_last_frame():
    assert staleness_ms(now_ms=5.0, wall_ms=WALL + 9000, beacon=None, applied_stamp=stamp(WALL)) == 9000


def test_a_stamp_holds_milliseconds_above_its_counter():
    assert stamp_ms(stamp(WALL)) == WALL
