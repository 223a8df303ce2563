from __future__ import annotations

from math import isnan

import pytest

from kvnet.simulator.measure import percentile


@pytest.mark.parametrize(
    ("share", "value"), [(0.0, 1), (0.01, 1), (0.1, 1), (0.11, 2), (0.5, 5), (0.51, 6), (0.99, 10), (1.0, 10)]
)
def test_a_percentile_is_the_least_value_that_so_many_do_not_exceed(share: float, value: float) -> None:
    ordered = [float(number) for number in range(1, 11)]
    assert percentile(ordered, share) == value
    assert sum(each <= value for each in ordered) >= share * len(ordered)


def test_a_percentile_of_one_value_is_that_value() -> None:
    assert [percentile([7.0], share) for share in (0.0, 0.5, 0.99, 1.0)] == [7.0] * 4


def test_a_percentile_of_nothing_is_no_number() -> None:
    assert isnan(percentile([], 0.5))


@pytest.mark.parametrize("count", [100, 1000, 1200])
def test_the_99th_percentile_leaves_out_one_in_a_hundred(count: int) -> None:
    ordered = [float(number) for number in range(count)]
    assert sum(each > percentile(ordered, 0.99) for each in ordered) == count // 100
