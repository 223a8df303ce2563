"""One direction of a connection, 20 ms long unless said otherwise, packet by packet; every time below is exact.

The round trip is 40 ms: RACK repairs a hole 50 ms after it left, but not before 40 ms after the packet that shows
it; a probe goes after 80, the time-out is 240.
"""

import random
from itertools import pairwise

import pytest

from kvnet.topology.load import parse
from kvnet.topology.wan import HELD, LinkModel, SackLinkModel, Wan

FLAT = """\
name: flat
coordinator: {place: aaa}
wan: {profile: matrix, jitter_sigma: 0, matrix: {aaa: {bbb: 40}, bbb: {aaa: 40}}}
pops:
  - {code: aaa, city: A, country: XX, lat: 0, lon: 0, region: africa}
  - {code: bbb, city: B, country: XX, lat: 0, lon: 90, region: asia}
"""
LOST, KEPT = 0.0, 0.99
DELAY, RTT, RTO, RACK, PROBE = 20, 40, 240, 50, 80
PACKET = 1448


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
    wan = Wan(parse(FLAT), tcp="sack")
    wan.apply(type(wan.state).from_dict(wan.state.to_dict() | changes))
    return wan


def opened(wan: Wan, *draws, lossy=True) -> LinkModel:
    return wan.link("aaa", "bbb", Draws(*draws), lossy=lossy)


def test_the_network_chooses_the_model_and_flights_are_the_default():
    assert type(opened(flat())) is SackLinkModel
    assert type(opened(Wan(parse(FLAT)))) is LinkModel


def test_without_loss_nothing_is_drawn():
    link = opened(flat())
    assert [link.send(now, 100_000) for now in (0.0, 0.5, 30.0)] == [20, 20.5, 50]
    assert link.unsent_bytes(30.0) == 0


def test_http_feels_the_delay_but_not_the_loss():
    assert opened(flat(loss=0.9), lossy=False).send(0.0, 100_000) == DELAY


@pytest.mark.parametrize(("size", "packets"), [(0, 1), (1, 1), (PACKET, 1), (PACKET + 1, 2), (10 * PACKET, 10)])
def test_each_packet_of_a_message_is_drawn(size, packets):
    rng = Draws(*[KEPT] * packets)
    assert flat(loss=0.1).link("aaa", "bbb", rng).send(0.0, size) == DELAY
    assert rng.draws == []


# -- holes with packets behind them --------------------------------------------------------------------------


def test_a_hole_within_a_message_is_repaired_a_round_trip_and_a_quarter_later():
    link = opened(flat(loss=0.1), LOST, KEPT, KEPT)
    assert link.send(0.0, 2 * PACKET) == RACK + DELAY


def test_what_is_sent_behind_a_hole_waits_for_it_but_is_not_lost_with_it():
    link = opened(flat(loss=0.1), LOST, KEPT, KEPT, KEPT, KEPT)
    assert link.send(0.0, 2 * PACKET) == RACK + DELAY
    assert link.due_ms(link.send(10.0, 100)) == RACK + DELAY  # arrived at 30, delivered with the hole
    assert link.send(60.0, 100) == 60 + DELAY  # behind a hole that is filled before it arrives


def test_two_holes_are_repaired_side_by_side():
    link = opened(flat(loss=0.1), LOST, KEPT, LOST, KEPT, KEPT)
    assert link.send(0.0, 3 * PACKET) == RACK + DELAY


def test_a_lost_retransmission_that_nothing_follows_waits_for_time_outs_doubling():
    link = opened(flat(loss=0.1), LOST, LOST, LOST, KEPT, KEPT)
    assert link.send(0.0, 2 * PACKET) == RACK + RTO * (1 + 2) + DELAY


@pytest.mark.parametrize(("sent", "found"), [(51.0, 100), (60.0, 100), (61.0, 101), (200.0, 240)])
def test_a_lost_retransmission_is_found_by_what_leaves_after_it(sent, found):
    """A round trip later, but not before a round trip and a quarter after the retransmission left."""
    link = opened(flat(loss=0.1), LOST, LOST, KEPT, KEPT, KEPT)
    lost = link.send(0.0, 2 * PACKET)
    assert link.due_ms(lost) == RACK + RTO + DELAY
    link.send(sent, 100)
    assert link.due_ms(lost) == found + DELAY


def test_what_leaves_before_the_retransmission_says_nothing_about_it():
    link = opened(flat(loss=0.1), LOST, LOST, KEPT, KEPT, KEPT)
    lost = link.send(0.0, 2 * PACKET)
    link.send(49.0, 100)
    assert link.due_ms(lost) == RACK + RTO + DELAY


def test_a_retransmission_shows_another_that_was_lost():
    """The probe of the last packet gets through, a round trip later the one before goes."""
    link = opened(flat(loss=0.1), LOST, KEPT, LOST, KEPT)
    assert link.send(0.0, 2 * PACKET) == PROBE + RTT + DELAY
    link = opened(flat(loss=0.1), LOST, LOST, KEPT, LOST, KEPT)
    assert link.send(0.0, 2 * PACKET) == PROBE + RTT + RTO + DELAY


def test_a_busy_connection_repeats_a_lost_retransmission_each_round_trip_and_a_quarter():
    link = opened(flat(loss=0.1), *[LOST] * 9, *[KEPT] * 100)
    lost = link.send(0.0, 100)
    assert [link.due_ms(lost), link.dead_at_ms] == [HELD, 5000]  # should nothing follow
    for now in range(1, 450, 5):
        link.send(float(now), 100)
    assert [link.due_ms(lost), link.dead_at_ms] == [9 * RACK + DELAY, HELD]


def test_time_outs_double_anew_after_something_got_through():
    """240, 480, 960 ms without a word; then a packet shows the hole, and the next time-out is 240 again."""
    link = opened(flat(loss=0.1), *[LOST] * 5, KEPT, KEPT)
    lost = link.send(0.0, 100)
    assert link.due_ms(lost) == RTO * (1 + 1 + 2 + 4 + 8) + DELAY
    link.send(1000.0, 100)  # after the third repetition, at 960
    assert link.due_ms(lost) == 1000 + RTT + RTO + DELAY


def test_the_time_out_comes_before_rack_only_when_a_quarter_of_the_round_trip_is_more_than_200_ms():
    for extra, repeats in ((760, 1000), (960, 1200)):
        wan = flat(loss=0.1)
        wan.set_pair("bbb", "aaa", extra_ms=extra)
        assert opened(wan, LOST, KEPT, KEPT).send(0.0, 2 * PACKET) == repeats + DELAY


# -- tails ---------------------------------------------------------------------------------------------------


def test_a_lone_lost_packet_waits_for_the_retransmission_time():
    assert opened(flat(loss=0.1), LOST, KEPT).send(0.0, 100) == RTO + DELAY


def test_the_last_packet_of_several_under_way_is_probed_after_two_round_trips():
    assert opened(flat(loss=0.1), KEPT, LOST, KEPT).send(0.0, 2 * PACKET) == PROBE + DELAY
    link = opened(flat(loss=0.1), KEPT, LOST, KEPT)
    link.send(0.0, 100)
    assert link.send(10.0, 100) == 10 + PROBE + DELAY


def test_a_packet_counts_as_under_way_until_its_acknowledgement_is_back():
    for now, waits in ((39.0, PROBE), (40.0, RTO)):
        link = opened(flat(loss=0.1), KEPT, LOST, KEPT)
        link.send(0.0, 100)
        assert link.send(now, 100) == now + waits + DELAY


def test_with_jitter_a_lone_packet_is_probed_200_ms_after_the_others_would_be():
    wan = flat(loss=0.1, jitter_sigma=2)  # four mean deviations of the round trip of 240 ms are 1,083 ms
    lone = wan.link("aaa", "bbb", Draws(LOST, KEPT))
    wan.set_pair("aaa", "bbb", extra_ms=100)
    wan.set_pair("bbb", "aaa", extra_ms=100)
    lone.on_change(0.0)
    arrival = wan.link("aaa", "bbb", Draws(KEPT)).send(0.0, 100)
    assert lone.send(0.0, 100) == pytest.approx(2 * 240 + 200 + arrival)


def test_a_later_message_brings_the_arrival_of_a_lost_one_forward():
    link = opened(flat(loss=0.1), LOST, KEPT, KEPT)
    lost = link.send(0.0, 100)
    assert link.due_ms(lost) == RTO + DELAY
    behind = link.send(30.0, 100)
    assert link.due_ms(lost) == link.due_ms(behind) == 30 + RTT + DELAY
    assert link.dead_at_ms == HELD


def test_a_later_message_finds_every_loss_before_it():
    link = opened(flat(loss=0.1), LOST, KEPT, LOST, KEPT, KEPT)
    lost = [link.send(0.0, 100), link.send(10.0, 100)]
    assert [link.due_ms(promised) for promised in lost] == [
        10 + PROBE + RTT + DELAY
    ] * 2  # the second shows the first
    link.send(20.0, 100)
    assert [link.due_ms(promised) for promised in lost] == [20 + RTT + DELAY, 20 + RTT + DELAY]


def test_a_later_message_that_is_lost_itself_finds_nothing():
    link = opened(flat(loss=0.1), LOST, KEPT, LOST, LOST, KEPT)
    lost = link.send(0.0, 100)
    link.send(10.0, 100)  # nor does its probe
    assert link.due_ms(lost) == RTO + DELAY


def test_a_later_message_too_late_to_help_changes_nothing():
    link = opened(flat(loss=0.1), LOST, KEPT, KEPT)
    lost = link.send(0.0, 100)
    assert link.due_ms(link.send(210.0, 100)) == RTO + DELAY
    assert link.due_ms(lost) == RTO + DELAY


def test_the_repetitions_of_a_hole_that_was_found_are_those_drawn_with_it():
    link = opened(flat(loss=0.1), LOST, LOST, KEPT, KEPT)
    lost = link.send(0.0, 100)
    assert link.due_ms(lost) == RTO + RTO + DELAY
    link.send(30.0, 100)
    assert link.due_ms(lost) == 30 + RTT + RTO + DELAY


def test_a_hole_found_is_found_once():
    link = opened(flat(loss=0.1), LOST, KEPT, KEPT, KEPT)
    lost = link.send(0.0, 100)
    for now in (30.0, 40.0):
        link.send(now, 100)
        assert link.due_ms(lost) == 30 + RTT + DELAY


def test_a_hole_brought_forward_stays_so_when_the_next_one_opens():
    link = opened(flat(loss=0.1), LOST, KEPT, KEPT, LOST, KEPT, KEPT)
    first = link.send(0.0, 100)
    second = link.send(10.0, 2 * PACKET)  # its first packet gets through and finds `first`; its last is a tail
    assert [link.due_ms(first), link.due_ms(second)] == [RACK + DELAY, 10 + PROBE + DELAY]
    link.send(30.0, 100)
    assert [link.due_ms(first), link.due_ms(second)] == [RACK + DELAY, 30 + RTT + DELAY]


def test_the_part_that_got_through_before_the_tail_keeps_its_own_time():
    """The hole within the message takes longer than its tail once that is found: nothing leaves after both."""
    link = opened(flat(loss=0.1), LOST, LOST, KEPT, KEPT, LOST, KEPT, KEPT)
    promised = link.send(0.0, 3 * PACKET)
    link.send(1.0, 100)
    assert link.due_ms(promised) == RACK + RACK + DELAY  # the tail's repetition left at 50 too, and shows it
    link = opened(flat(loss=0.1), LOST, KEPT, KEPT, LOST, LOST, KEPT, KEPT)
    promised = link.send(0.0, 3 * PACKET)
    link.send(1.0, 100)
    assert link.due_ms(promised) == RACK + RTO + DELAY


def test_a_tail_that_filled_itself_long_ago_is_not_brought_forward():
    """Its promise was forgotten when the next tail began, and looking for it failed."""
    link = opened(flat(loss=0.1), LOST, KEPT, LOST, KEPT, KEPT)
    first, second = link.send(0.0, 100), link.send(300.0, 100)
    assert [first, second] == [RTO + DELAY, 300 + RTO + DELAY]
    link.send(320.0, 100)
    assert [link.due_ms(first), link.due_ms(second)] == [RTO + DELAY, 320 + RTT + DELAY]


def test_a_promise_equal_to_one_that_was_brought_forward_is_kept_apart_from_it():
    """Times are names of messages here: 260 was promised to the first, which then came earlier."""
    link = opened(flat(loss=0.1), LOST, KEPT, KEPT, KEPT)
    first = link.send(0.0, 100)
    link.send(20.0, 100)
    last = link.send(240.0, 100)
    assert link.due_ms(first) == 20 + RTT + DELAY
    assert link.due_ms(last) >= 260


def test_what_has_arrived_is_never_said_to_arrive_later():
    """An owner that asks late once heard the first promise again: it was forgotten when the next hole opened."""
    link = opened(flat(loss=0.1), LOST, KEPT, KEPT, LOST, KEPT)
    first = link.send(0.0, 100)
    link.send(20.0, 100)
    link.send(90.0, 100)
    assert link.due_ms(first) == 20 + RTT + DELAY


# -- the window ----------------------------------------------------------------------------------------------


def test_ten_packets_leave_at_once_after_a_round_trip_without_a_word():
    link = opened(flat(loss=0.2), *[KEPT] * 20)
    assert link.send(0.0, 10 * PACKET) == DELAY
    assert link.unsent_bytes(0.0) == 0
    assert link.send(RTT, 10 * PACKET) == RTT + DELAY


def test_more_than_the_initial_window_waits_for_the_window_to_move_on():
    wan = flat(loss=0.25)  # a window of 2.44 packets
    link = opened(wan, *[KEPT] * 30)
    assert link.send(0.0, 10 * PACKET) == DELAY
    assert link.send(10.0, 20 * PACKET) == pytest.approx(20 / 2.44 * RTT + DELAY)
    assert link.unsent_bytes(10.0) == pytest.approx((20 - 2.44 * 10 / RTT) * PACKET, abs=1)


@pytest.mark.parametrize("loss", [0.01, 0.05, 0.2])
def test_a_flow_carries_a_window_per_round_trip(loss):
    """1.22 / sqrt(loss) packets; what is offered beyond it stands in the backlog."""
    link = flat(loss=loss).link("aaa", "bbb", random.Random(2))
    until, window = 2000, 1.22 / loss**0.5
    for now in range(until):
        link.send(float(now), PACKET)
    assert link.dead_at_ms == HELD
    carried = until - link.unsent_bytes(float(until)) / PACKET
    at_once = max(10, window)
    assert window * until / RTT < carried < at_once + 1 + window * until / RTT < until / 2


def test_a_quiet_flow_of_small_messages_is_not_slowed_by_the_window():
    link = opened(flat(loss=0.2), *[KEPT] * 1000)
    assert [link.send(now * 10.0, 100) - now * 10.0 for now in range(1000)] == [DELAY] * 1000


def test_the_line_bounds_a_flow_that_the_window_would_let_pass():
    link = opened(flat(loss=0.01, bandwidth_mbps=8), *[KEPT] * 14)  # 1,000 bytes a millisecond
    assert [link.send(0.0, 5000), link.send(0.0, 5000), link.send(100.0, 5000)] == [25, 30, 125]
    assert [link.unsent_bytes(now) for now in (100.0, 102.0, 105.0)] == [5000, 3000, 0]


def test_a_hole_is_found_when_the_packet_behind_it_has_left_the_line():
    link = opened(flat(loss=0.01, bandwidth_mbps=1.448), LOST, KEPT, KEPT, KEPT)  # a packet in 8 ms
    assert link.send(0.0, 3 * PACKET) == 8 + RACK + DELAY
    link = opened(flat(loss=0.01, bandwidth_mbps=1.448), KEPT, LOST, KEPT, KEPT, KEPT)
    lost = link.send(0.0, 2 * PACKET)
    link.send(0.0, 2 * PACKET)
    assert link.due_ms(lost) == 16 + RACK + DELAY


# -- death and cuts ------------------------------------------------------------------------------------------


def test_a_packet_lost_for_five_seconds_kills_the_connection():
    link = opened(flat(loss=0.1), KEPT, *[LOST] * 6, KEPT, *[LOST] * 6, KEPT, KEPT)
    before = link.send(0.0, 100)
    assert link.due_ms(link.send(1.0, 100)) == HELD  # 80 + 240 + 480 + … + 3,840 ms
    assert link.dead_at_ms == 5001
    assert [link.due_ms(before), link.due_ms(HELD)] == [DELAY, HELD]
    assert link.due_ms(link.send(2.0, 100)) == HELD
    assert link.unsent_bytes(2.0) == 200
    link.on_change(3.0)
    assert link.dead_at_ms == 5001
    assert link.due_ms(link.send(4970.0, 100)) == HELD  # shown too late
    assert link.dead_at_ms == 5001


def test_a_later_message_saves_a_dying_connection():
    link = opened(flat(loss=0.1), *[LOST] * 6, KEPT, LOST, KEPT, KEPT)
    first, second = link.send(0.0, 100), link.send(1.0, 100)
    assert first != second  # names
    assert [link.due_ms(first), link.due_ms(second), link.dead_at_ms] == [HELD, HELD, 5000]
    saves = link.send(4000.0, 100)  # after the fifth repetition, at 3,840
    assert link.due_ms(first) == link.due_ms(second) == link.due_ms(saves) == 4000 + RTT + DELAY
    assert link.dead_at_ms == HELD
    assert link.unsent_bytes(4000.0) == 0


def test_the_five_seconds_begin_when_the_lost_packet_leaves():
    link = opened(flat(loss=0.01, bandwidth_mbps=1.448), KEPT, *[LOST] * 6, KEPT)
    link.send(0.0, PACKET)
    assert link.due_ms(link.send(0.0, PACKET)) == HELD
    assert link.dead_at_ms == 5016


def test_a_cut_kills_sooner_than_a_loss_that_stands_far_back_in_the_queue():
    """Nothing of the queue arrives after such a cut: the connection is dying anyway."""
    wan = flat(loss=0.25)
    link = opened(wan, *[KEPT] * 1000, *[LOST] * 6, KEPT)
    under_way = link.send(0.0, 1000 * PACKET)
    assert link.due_ms(link.send(0.0, 100)) == HELD
    assert link.dead_at_ms > 20_000
    wan.cut("aaa", "bbb")
    link.on_change(100.0)
    assert link.dead_at_ms == 5100
    wan.heal_all()
    link.on_change(200.0)
    assert [link.due_ms(under_way), link.dead_at_ms] == [HELD, 5100]


def test_one_retransmission_less_lets_it_live():
    link = opened(flat(loss=0.1), *[LOST] * 5, KEPT)
    assert link.send(0.0, 100) == RTO * (1 + 1 + 2 + 4 + 8) + DELAY
    assert link.dead_at_ms == HELD


def test_nothing_sent_or_under_way_arrives_while_cut():
    wan = flat(loss=0.1)
    link = opened(wan, LOST, KEPT, KEPT)
    lost, behind = link.send(0.0, 100), link.send(5.0, 100)
    wan.cut("aaa", "bbb")
    link.on_change(10.0)
    assert link.due_ms(lost) == link.due_ms(behind) == link.send(20.0, 100) == HELD
    assert link.unsent_bytes(20.0) == 100
    assert link.dead_at_ms == 5010


def test_the_end_of_a_cut_mends_holes_with_all_that_was_held():
    wan = flat(loss=0.1)
    link = opened(wan, LOST, KEPT, KEPT, KEPT)
    lost = link.send(0.0, 100)
    wan.cut("aaa", "bbb")
    link.on_change(10.0)
    held = link.send(20.0, 100)
    wan.heal_all()
    link.on_change(100.0)
    assert link.due_ms(lost) == link.due_ms(held) == 250 + DELAY
    assert link.send(150.0, 100) == 250 + DELAY  # brings nothing forward
    assert link.due_ms(lost) == 250 + DELAY
    assert link.unsent_bytes(249.0) == 200


def test_held_data_pass_the_window_after_a_cut():
    wan = flat(loss=0.25)
    link = opened(wan, KEPT)
    wan.cut("aaa", "bbb")
    link.on_change(0.0)
    held = link.send(0.0, 244 * PACKET)
    wan.heal_all()
    link.on_change(100.0)
    arrives = link.due_ms(held)
    assert arrives == pytest.approx(240 + 99 * RTT + DELAY)
    assert link.unsent_bytes(150.0) == 244 * PACKET
    assert link.unsent_bytes(260.0) == pytest.approx((244 - 2.44 * 1.5) * PACKET, abs=1)
    wan.cut("bbb", "aaa")
    link.on_change(arrives + 10)  # the last acknowledgement is still under way
    assert link.dead_at_ms == arrives + 10 + 5000


@pytest.mark.parametrize("tcp", ["flight", "sack"])
def test_a_connection_that_loss_has_doomed_dies_whatever_is_cut_and_healed_meanwhile(tcp):
    """A heal once made such a flight link live for ever, with nothing arriving on it."""
    wan = Wan(parse(FLAT), tcp=tcp)
    wan.set_loss(0.1)
    link = opened(wan, *[LOST] * 6, KEPT)
    doomed = link.send(0.0, 100)
    for now, change in enumerate((wan.cut, wan.heal, wan.cut, wan.heal), 1):
        change("aaa", "bbb")
        link.on_change(now * 100.0)
        link.on_change(now * 100.0)
        assert [link.due_ms(doomed), link.dead_at_ms] == [HELD, 5000]


@pytest.mark.parametrize("tcp", ["flight", "sack"])
def test_a_loss_behind_a_cut_way_back_does_not_put_off_the_death(tcp):
    wan = Wan(parse(FLAT), tcp=tcp)
    wan.set_loss(0.1)
    wan.cut("bbb", "aaa")
    link = opened(wan, KEPT, *[LOST] * 6, KEPT)
    link.send(0.0, 100)
    link.send(3000.0, 100)
    assert link.dead_at_ms == 5000


def test_loss_that_ends_lets_the_next_message_find_the_hole():
    wan = flat(loss=0.1)
    link = opened(wan, LOST, KEPT)
    lost = link.send(0.0, 100)
    wan.set_loss(0)
    link.on_change(10.0)
    link.send(20.0, 100)
    assert link.due_ms(lost) == 20 + RTT + DELAY


def test_a_shorter_delay_does_not_let_a_message_overtake():
    wan = flat()
    wan.set_pair("aaa", "bbb", extra_ms=500)
    link = opened(wan)
    assert link.send(0.0, 100) == 520
    wan.set_pair("aaa", "bbb")
    link.on_change(10.0)
    assert link.send(10.0, 100) == 520


def test_jitter_spreads_the_delay_around_its_mean():
    link = flat(jitter_sigma=0.3).link("aaa", "bbb", random.Random(7))
    delays = [link.send(now * 1000.0, 100) - now * 1000.0 for now in range(4000)]
    mean = sum(delays) / len(delays)
    assert mean == pytest.approx(DELAY, rel=0.05)
    assert (sum((delay - mean) ** 2 for delay in delays) / len(delays)) ** 0.5 == pytest.approx(6, rel=0.2)


def test_a_busy_lossy_flow_is_late_less_than_its_flights_would_be():
    """The reason for this model: 5 % loss, a message every 10 ms."""

    def mean_delay(tcp) -> float:
        wan = Wan(parse(FLAT), tcp=tcp)
        wan.set_loss(0.05)
        link, delays, queue = wan.link("aaa", "bbb", random.Random(5)), [], []
        for now in range(0, 100_000, 10):
            while queue and link.due_ms(queue[0][1]) <= now:
                sent, promised = queue.pop(0)
                delays.append(link.due_ms(promised) - sent)
            queue.append((now, link.send(float(now), 100)))
        assert all(delay >= DELAY for delay in delays)
        return sum(delays) / len(delays)

    assert mean_delay("sack") < 0.8 * mean_delay("flight")


def test_arrivals_stay_in_order_whatever_is_found_later():
    link = flat(loss=0.3).link("aaa", "bbb", random.Random(11))
    under_way, now, moved = [], 0.0, 0
    for number in range(400):
        now += 7 * (number % 5)
        under_way = [promise for promise in under_way if link.due_ms(promise) > now]
        before = [link.due_ms(promise) for promise in under_way]
        under_way.append(link.send(now, 700 * (number % 6)))
        after = [link.due_ms(promise) for promise in under_way]
        assert all(a <= b for a, b in pairwise(after))
        assert all(now < a <= b for a, b in zip(after, before, strict=False))
        moved += sum(a < b for a, b in zip(after, before, strict=False))
    assert moved > 0
    assert link.dead_at_ms == HELD
