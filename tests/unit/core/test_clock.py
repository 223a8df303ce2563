from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from kvnet.core.clock import COUNTER_BITS, SKEW_ALARM_MS, HybridClock, stamp_ms

WALL_MS = 1_700_000_000_000


@given(st.lists(st.integers(0, 1 << 47)))
def test_stamps_never_go_back_whatever_the_wall_does(walls: list[int]) -> None:
    clock = HybridClock()
    stamps = [clock.stamp(wall) for wall in walls]
    assert all(before < after for before, after in pairwise(stamps))
    assert all(stamp_ms(stamp) >= wall for stamp, wall in zip(stamps, walls, strict=True))


def test_a_stamp_is_the_walls_time_where_that_goes_on() -> None:
    clock = HybridClock()
    assert stamp_ms(clock.stamp(WALL_MS)) == WALL_MS
    assert clock.stamp(WALL_MS) == (WALL_MS << COUNTER_BITS) + 1
    assert stamp_ms(clock.stamp(WALL_MS + 1)) == WALL_MS + 1


def test_a_wall_that_was_set_back_shows() -> None:
    clock = HybridClock(WALL_MS << COUNTER_BITS)
    clock.stamp(WALL_MS - 5000)
    assert clock.ahead_ms(WALL_MS - 5000) == 5000 > SKEW_ALARM_MS
    assert clock.ahead_ms(WALL_MS + 1) == 0
