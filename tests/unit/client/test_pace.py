"""How long an answer may take, and how often another edge is asked too."""

from __future__ import annotations

import pytest

from kvnet.client.directory import Edge
from kvnet.client.pace import HEDGE_MS_MIN, HEDGE_MS_UNMEASURED, HEDGED_SHARE_MAX, HEDGES_SAVED_MAX, Pace

EDGE = Edge("nrt", "http://127.0.0.1:1")


def test_usual_time_is_the_median_so_that_one_pause_changes_nothing():
    pace = Pace("auto")
    for ms in (50, 52, 51, 4000, 49):
        pace.record(EDGE, ms)
    assert pace.usual_ms(EDGE) == 51
    assert pace.hedge_ms(EDGE) == 3 * 51


def test_what_changed_for_good_becomes_usual():
    pace = Pace("auto")
    for ms in [50.0] * 31 + [200.0] * 16:
        pace.record(EDGE, ms)
    assert pace.usual_ms(EDGE) == 200


def test_a_near_edge_may_pause_and_an_unknown_one_has_some_time():
    pace = Pace("auto")
    assert pace.hedge_ms(EDGE) == HEDGE_MS_UNMEASURED
    pace.record(EDGE, 0.5)
    assert pace.hedge_ms(EDGE) == HEDGE_MS_MIN


@pytest.mark.parametrize("given", [None, 0.0, 70.0])
def test_what_was_given_is_not_measured(given):
    pace = Pace(given)
    pace.record(EDGE, 500)
    assert pace.hedge_ms(EDGE) == given


def test_however_slow_reads_are_few_of_them_are_asked_twice():
    pace = Pace("auto")
    spent = 0
    for _ in range(10_000):
        pace.earn()
        spent += pace.spend()
    assert 10_000 * HEDGED_SHARE_MAX <= spent <= 10_000 * HEDGED_SHARE_MAX + HEDGES_SAVED_MAX


def test_no_more_is_saved_up_than_a_few():
    pace = Pace("auto")
    for _ in range(10_000):
        pace.earn()
    assert sum(pace.spend() for _ in range(100)) == HEDGES_SAVED_MAX
