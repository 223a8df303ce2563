"""One direction of a connection, 100 ms long unless said otherwise, so that every time below is exact."""

import random

import pytest

from kvnet.topology.load import parse
from kvnet.topology.wan import HELD, LinkModel, Wan

FLAT = """\
name: flat
coordinator: {place: aaa}
wan: {profile: matrix, jitter_sigma: 0, matrix: {aaa: {bbb: 200}, bbb: {aaa: 200}}}
pops:
  - {code: aaa, city: A, country: XX, lat: 0, lon: 0, region: africa}
  - {code: bbb, city: B, country: XX, lat: 0, lon: 90, region: asia}
"""
LOST, KEPT = 0.0, 0.99
RTO = 200


class Draws(random.Random):
    """Draws that the test chose, and no more of them than it chose."""

    def __init__(self, *draws):
        super().__init__(0)
        self.draws = list(draws)

    def random(self):
        return self.draws.pop(0)

    def gauss(self, mu=0.0, sigma=1.0):
        return mu


def flat(**changes) -> Wan:
    wan = Wan(parse(FLAT))
    state = wan.state.to_dict() | changes
    wan.apply(type(wan.state).from_dict(state))
    return wan


def opened(wan: Wan, *draws, lossy=True) -> LinkModel:
    return wan.link("aaa", "bbb", Draws(*draws), lossy=lossy)


def test_a_message_takes_the_delay():
    assert opened(flat()).send(7.0, 100) == 107


def test_without_loss_nothing_is_drawn():
    link = opened(flat())
    assert [link.send(now, 100) for now in (0.0, 0.5, 30.0)] == [100, 100.5, 130]


def test_a_lost_flight_leaves_one_retransmission_time_later():
    assert opened(flat(loss=0.1), LOST, KEPT).send(0.0, 100) == RTO + 100


def test_the_retransmission_time_doubles_with_every_loss():
    link = opened(flat(loss=0.1), LOST, LOST, LOST, KEPT)
    assert link.send(0.0, 100) == RTO * (1 + 2 + 4) + 100


def test_the_retransmission_time_is_the_round_trip_and_its_spread_when_that_is_longer():
    wan = flat(loss=0.1)
    wan.set_pair("bbb", "aaa", extra_ms=150)
    assert opened(wan, LOST, KEPT).send(0.0, 100) == 350 + 100
    jittered = flat(loss=0.1, jitter_sigma=0.5)
    link = jittered.link("aaa", "bbb", Draws(LOST, KEPT))
    link.send(0.0, 100)
    assert link.unsent_bytes(300.0) == 100  # 200 ms + 4 times the deviation: 426 ms
    assert link.unsent_bytes(430.0) == 0


def test_what_is_sent_meanwhile_joins_the_flight_undrawn():
    link = opened(flat(loss=0.1), LOST, KEPT, KEPT)
    assert [link.send(now, 100) for now in (0.0, 50.0, 199.9)] == [300, 300, 300]
    assert link.send(200.0, 100) == 300  # a flight of its own again, drawn


def test_messages_of_one_instant_are_one_flight():
    link = opened(flat(loss=0.1), KEPT, KEPT)
    assert [link.send(0.0, 100), link.send(0.0, 100), link.send(1.0, 100)] == [100, 100, 101]


def test_http_feels_the_delay_but_not_the_loss():
    assert opened(flat(loss=0.9), lossy=False).send(0.0, 100) == 100


def test_a_flight_lost_for_five_seconds_kills_the_connection():
    link = opened(flat(loss=0.1), LOST, LOST, LOST, LOST, LOST)
    assert link.send(1.0, 100) == HELD  # 200 + 400 + … + 3,200 ms
    assert link.dead_at_ms == 5001
    assert link.due_ms(HELD) == HELD
    assert link.send(2.0, 100) == HELD
    link.on_change(3.0)
    assert link.dead_at_ms == 5001


def test_bandwidth_makes_messages_queue():
    link = opened(flat(bandwidth_mbps=8))  # 1,000 bytes a millisecond
    assert [link.send(0.0, 5000), link.send(0.0, 1000), link.send(100.0, 1000)] == [105, 106, 201]


def test_unsent_bytes_are_those_the_line_has_not_taken():
    link = opened(flat(bandwidth_mbps=8))
    link.send(0.0, 5000)
    assert [link.unsent_bytes(now) for now in (0.0, 2.0, 5.0, 9.0)] == [5000, 3000, 0, 0]


def test_unsent_bytes_include_what_waits_for_a_retransmission():
    link = opened(flat(loss=0.1), LOST, KEPT)
    link.send(0.0, 5000)
    link.send(10.0, 300)
    assert [link.unsent_bytes(now) for now in (10.0, 199.0, 200.0)] == [5300, 5300, 0]


def test_without_bandwidth_nothing_is_unsent():
    link = opened(flat())
    link.send(0.0, 10**9)
    assert link.unsent_bytes(0.0) == 0


def test_nothing_sent_or_under_way_arrives_while_cut():
    wan = flat()
    link = opened(wan)
    under_way = link.send(0.0, 100)
    wan.cut("aaa", "bbb")
    link.on_change(50.0)
    assert link.due_ms(under_way) == HELD
    assert link.send(60.0, 100) == HELD
    assert link.unsent_bytes(60.0) == 100


def test_held_messages_leave_with_the_first_retransmission_after_the_cut():
    wan = flat()
    link = opened(wan)
    under_way = link.send(0.0, 100)
    wan.cut("aaa", "bbb")
    link.on_change(50.0)
    held = link.send(60.0, 100)
    wan.heal_all()
    link.on_change(300.0)
    # Retransmitted 200 and 600 ms after the cut began: at 250 in vain, at 650 with success.
    assert link.due_ms(under_way) == link.due_ms(held) == 650 + 100
    assert link.unsent_bytes(649.0) == 100
    assert link.send(649.0, 100) == 750
    assert link.send(651.0, 100) == 751
    assert link.dead_at_ms == HELD


def test_after_a_long_cut_the_wait_is_at_most_a_second():
    wan = flat()
    link = opened(wan)
    wan.cut("aaa", "bbb")
    link.on_change(0.0)
    held = link.send(0.0, 100)
    wan.heal_all()
    link.on_change(3100.0)
    assert link.due_ms(held) == 3100 + 1000 + 100


def test_a_cut_without_traffic_leaves_no_trace():
    wan = flat()
    link = opened(wan)
    link.send(0.0, 100)
    wan.cut("aaa", "bbb")
    link.on_change(1000.0)
    wan.heal_all()
    link.on_change(9000.0)
    assert link.dead_at_ms == HELD
    assert link.send(9000.0, 100) == 9100


def test_data_unacknowledged_for_five_seconds_of_cut_kill_the_connection():
    wan = flat()
    link = opened(wan)
    wan.cut("aaa", "bbb")
    link.on_change(0.0)
    assert link.dead_at_ms == HELD
    held = link.send(70.0, 100)
    link.send(90.0, 100)
    assert link.dead_at_ms == 5070
    wan.heal_all()
    link.on_change(5070.0)
    assert link.dead_at_ms == 5070
    assert link.due_ms(held) == HELD


def test_data_under_way_count_from_the_beginning_of_the_cut():
    wan = flat()
    link = opened(wan)
    link.send(0.0, 100)
    wan.cut("aaa", "bbb")
    link.on_change(30.0)
    assert link.dead_at_ms == 5030


def test_a_cut_way_back_lets_data_through_but_kills_the_connection():
    wan = flat()
    link = opened(wan)
    wan.cut("bbb", "aaa")
    link.on_change(0.0)
    assert link.send(10.0, 100) == 110
    assert link.dead_at_ms == 5010
    wan.heal_all()
    link.on_change(4000.0)
    assert link.dead_at_ms == HELD


def test_data_whose_acknowledgement_is_under_way_count_too():
    wan = flat()
    link = opened(wan)
    link.send(0.0, 100)
    wan.cut("bbb", "aaa")
    link.on_change(150.0)
    assert link.dead_at_ms == 5150


def test_a_second_cut_before_the_held_data_arrive_goes_on_counting():
    wan = flat()
    link = opened(wan)
    wan.cut("aaa", "bbb")
    link.on_change(0.0)
    held = link.send(0.0, 100)
    wan.heal_all()
    link.on_change(300.0)
    assert link.due_ms(held) == 700
    wan.cut("aaa", "bbb")
    link.on_change(500.0)
    assert link.due_ms(held) == HELD
    assert link.dead_at_ms == 5000


def test_a_second_cut_after_the_held_data_arrived_counts_anew():
    wan = flat()
    link = opened(wan)
    wan.cut("aaa", "bbb")
    link.on_change(0.0)
    link.send(0.0, 100)
    wan.heal_all()
    link.on_change(300.0)
    wan.cut("aaa", "bbb")
    link.on_change(2000.0)
    assert link.dead_at_ms == HELD
    link.send(2500.0, 100)
    assert link.dead_at_ms == 7500


def test_the_retransmission_after_a_cut_can_be_lost_as_well():
    wan = flat(loss=0.1)
    link = opened(wan, LOST, KEPT)
    wan.cut("aaa", "bbb")
    link.on_change(0.0)
    held = link.send(0.0, 100)
    wan.heal_all()
    link.on_change(100.0)
    assert link.due_ms(held) == 200 + RTO + 100


def test_held_data_need_their_time_on_the_line():
    wan = flat(bandwidth_mbps=8)
    link = opened(wan)
    wan.cut("aaa", "bbb")
    link.on_change(0.0)
    held = link.send(0.0, 50_000)
    wan.heal_all()
    link.on_change(100.0)
    assert link.due_ms(held) == 200 + 50 + 100


def test_a_link_opened_during_a_cut_holds_its_messages():
    wan = flat()
    wan.cut("aaa", "bbb")
    link = opened(wan)
    held = link.send(0.0, 100)
    assert link.due_ms(held) == HELD
    wan.heal_all()
    link.on_change(150.0)
    assert link.due_ms(held) == 300


def test_a_shorter_delay_does_not_let_a_message_overtake():
    wan = flat()
    wan.set_pair("aaa", "bbb", extra_ms=500)
    link = opened(wan)
    assert link.send(0.0, 100) == 600
    wan.set_pair("aaa", "bbb")
    link.on_change(10.0)
    assert link.send(10.0, 100) == 600


@pytest.mark.parametrize("sigma", [0.05, 0.5])
def test_jitter_spreads_the_delay_around_its_mean(sigma):
    """Messages are a second apart, so that none waits for the one before."""
    link = flat(jitter_sigma=sigma).link("aaa", "bbb", random.Random(7))
    delays = [link.send(now * 1000.0, 100) - now * 1000.0 for now in range(4000)]
    mean = sum(delays) / len(delays)
    deviation = (sum((delay - mean) ** 2 for delay in delays) / len(delays)) ** 0.5
    assert mean == pytest.approx(100, rel=0.05)
    assert deviation == pytest.approx(100 * sigma, rel=0.2)
