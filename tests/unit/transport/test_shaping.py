from __future__ import annotations

import random
from heapq import heappop, heappush

import pytest
from msgspec.structs import replace

from kvnet.topology.link import USER_TIMEOUT_MS
from kvnet.topology.wan import Wan
from kvnet.transport.shaping import IN_FLIGHT_FREE_BYTES, QUEUE_BYTES_MAX, SLACK_MS, Shaper
from tests.support.peers import topology


class World:
    """A clock that jumps from timer to timer, and a shaper of `ams` in it."""

    def __init__(self, profile="internet", **wan):
        self.now = 1000.0
        self._timers = []
        self.timers_made = 0
        self.wan = Wan(topology(profile, **wan))
        self.shaper = Shaper(
            self.wan, "ams", random.Random(7), now_ms=lambda: self.now, call_later=self._call_later
        )
        self.delivered: list[tuple[float, bytes]] = []
        self.deaths: list[float] = []

    def _call_later(self, delay_s, callback):
        self.timers_made += 1
        timer = _Timer(self.now + delay_s * 1000, self.timers_made, callback)
        heappush(self._timers, timer)
        return timer

    def wire(self, peer="nrt", **options):
        return self.shaper.open(
            peer,
            lambda data: self.delivered.append((self.now, data)),
            lambda: self.deaths.append(self.now),
            **options,
        )

    def run(self, for_ms=60_000.0):
        end = self.now + for_ms
        while self._timers and self._timers[0].at_ms <= end:
            timer = heappop(self._timers)
            if not timer.cancelled:
                self.now = max(self.now, timer.at_ms)
                timer.callback()
        self.now = end


class _Timer:
    def __init__(self, at_ms, tie, callback):
        self.at_ms, self.tie, self.callback, self.cancelled = at_ms, tie, callback, False

    def __lt__(self, other):
        return (self.at_ms, self.tie) < (other.at_ms, other.tie)

    def cancel(self):
        self.cancelled = True


def test_a_message_arrives_after_the_pairs_delay_within_half_a_tick():
    world = World()
    world.wire("nrt").send(b"far")
    world.wire("fra").send(b"near")
    world.run()
    assert [data for _, data in world.delivered] == [b"near", b"far"]
    for (at, _), peer in zip(world.delivered, ("fra", "nrt"), strict=True):
        assert at - 1000.0 == pytest.approx(world.wan.one_way_ms("ams", peer), abs=0.5)


def test_delays_are_right_on_average_not_always_rounded_up():
    world = World()
    errors = []
    for i in range(200):
        world.wan.set_pair("ams", "fra", extra_ms=i * 0.137)  # no multiple of a tick
        sent = world.now
        world.wire("fra").send(b"data")
        world.run(100)
        assert len(world.delivered) == i + 1
        errors.append(world.delivered[-1][0] - sent - world.wan.one_way_ms("ams", "fra"))
    assert abs(sum(errors) / len(errors)) < 0.1
    assert -0.51 < min(errors) < 0 < max(errors) < 0.51


def test_nothing_is_queued_where_the_network_adds_nothing():
    world = World("none")
    wire = world.wire()
    wire.send(b"now")
    assert world.delivered == [(1000.0, b"now")]
    assert world.timers_made == 0
    assert wire.unsent_bytes() == 0


@pytest.mark.parametrize("loss", [0.0, 0.2])
def test_nothing_overtakes_on_one_connection_whatever_jitter_and_loss_do(loss):
    world = World(jitter=0.3, loss=loss)
    wire = world.wire()
    for i in range(300):
        wire.send(b"%d" % i)
        world.run(3)
    world.run()
    assert [data for _, data in world.delivered] == [b"%d" % i for i in range(300)]


def test_what_is_due_together_takes_one_timer():
    world = World()
    wire = world.wire()
    for i in range(100):
        wire.send(b"%d" % i)
    world.run()
    assert len(world.delivered) == 100
    assert world.timers_made == 1


def test_what_has_slack_goes_with_the_first_timer_after_its_time():
    world = World()
    world.wire(slack_ms=SLACK_MS).send(b"patient")
    exact = world.wire()
    exact.send(b"at the same time")
    world.run(10)
    exact.send(b"10 ms later")
    world.run()
    due = 1000.0 + world.wan.one_way_ms("ams", "nrt")
    assert [data for _, data in world.delivered] == [b"at the same time", b"patient", b"10 ms later"]
    assert world.delivered[0][0] == world.delivered[1][0] == pytest.approx(due, abs=0.5)


def test_what_has_slack_is_never_early_and_late_by_its_slack_at_most():
    world = World()
    patient = world.wire(slack_ms=SLACK_MS)
    patient.send(b"alone")
    patient.send(b"with it")
    world.run(10)
    world.wire("fra").send(b"too early for it")
    world.run()
    due = 1000.0 + world.wan.one_way_ms("ams", "nrt")
    assert [data for _, data in world.delivered] == [b"too early for it", b"alone", b"with it"]
    assert [at for at, _ in world.delivered[1:]] == [pytest.approx(due + SLACK_MS, abs=0.5)] * 2


def test_what_has_slack_and_was_closed_is_not_delivered():
    world = World()
    patient, exact = world.wire(slack_ms=SLACK_MS), world.wire()
    patient.send(b"never")
    exact.send(b"exact")
    exact.finish(patient.close)
    world.run()
    assert [data for _, data in world.delivered] == [b"exact"]


def test_a_cut_holds_what_is_under_way_and_its_end_lets_it_arrive_in_order():
    world = World()
    wire = world.wire("nrt")
    wire.send(b"1")
    world.run(20)
    open_again = world.wan.state
    world.shaper.apply_wan_state(open_again.with_cut(("ams",), ("nrt",)))
    wire.send(b"2")
    world.run(2000)
    assert world.delivered == []
    assert wire.unsent_bytes() > 0
    world.shaper.apply_wan_state(open_again)
    world.run(3000)
    assert [data for _, data in world.delivered] == [b"1", b"2"]
    assert world.deaths == []


def test_a_connection_dies_when_its_data_stay_unacknowledged():
    world = World()
    wire = world.wire("nrt")
    world.shaper.apply_wan_state(world.wan.state.with_cut(("ams",), ("nrt",)))
    began = world.now
    wire.send(b"lost")
    world.run()
    assert world.deaths == [pytest.approx(began + USER_TIMEOUT_MS, abs=1)]
    world.shaper.apply_wan_state(replace(world.wan.state, cuts=()))
    wire.send(b"too late")
    world.run()
    assert world.delivered == []


def test_another_loss_applies_to_links_that_stand():
    world = World()
    wire = world.wire("nrt")
    world.shaper.apply_wan_state(replace(world.wan.state, loss=0.99))
    wire.send(b"data")
    world.run(world.wan.one_way_ms("ams", "nrt") + 10)
    assert world.delivered == []


def test_in_flight_bytes_count_as_unsent_only_beyond_what_tcp_carries():
    world = World()
    wire = world.wire()
    wire.send(bytes(IN_FLIGHT_FREE_BYTES))
    assert wire.unsent_bytes() == 0
    wire.send(bytes(1000))
    assert wire.unsent_bytes() == 1000
    world.run()
    assert wire.unsent_bytes() == wire.queued_bytes == 0


def test_a_narrow_line_shows_its_backlog():
    world = World(mbps=8)  # 1,000 bytes a millisecond
    wire = world.wire()
    wire.send(bytes(500_000))
    assert wire.unsent_bytes() == pytest.approx(500_000, rel=0.01)
    world.run(250)
    assert wire.unsent_bytes() == pytest.approx(250_000, rel=0.01)


def test_a_queue_without_end_kills_its_connection_instead_of_the_process():
    world = World()
    wire = world.wire()
    for _ in range(QUEUE_BYTES_MAX // 2**20 + 1):
        wire.send(bytes(2**20))
    assert len(world.deaths) == 1
    assert wire.queued_bytes == 0


def test_finish_waits_for_what_was_sent():
    world = World()
    wire = world.wire()
    done = []
    wire.send(b"last")
    wire.finish(lambda: done.append(len(world.delivered)))
    wire.send(b"not any more")
    world.run()
    assert done == [1]
    assert [data for _, data in world.delivered] == [b"last"]


def test_a_closed_wire_delivers_nothing():
    world = World()
    wire = world.wire()
    wire.send(b"1")
    wire.close()
    world.run()
    assert world.delivered == world.deaths == []
