"""What is used: counted by month, told, read again, and priced."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
import pytest

from kvnet.core.usage import (
    MONTHS_MAX,
    Usage,
    UsageMeter,
    gb_months,
    month_of,
    month_seconds,
    price_dollars,
    read_months,
)

ONE, TWO = b"1" * 16, b"2" * 16


def seconds(*date: int) -> float:
    return datetime(*date, tzinfo=UTC).timestamp()


def test_what_is_counted_belongs_to_the_month_it_was_counted_in():
    meter = UsageMeter()
    meter.turn(seconds(2026, 1, 31, 23, 59))
    meter.of(ONE).reads += 2
    meter.turn(seconds(2026, 2, 1))
    meter.of(ONE).reads += 3
    meter.of(TWO).lists += 1
    assert meter.months == {
        "2026-01": {ONE: Usage(reads=2)},
        "2026-02": {ONE: Usage(reads=3), TWO: Usage(lists=1)},
    }


def test_it_is_told_and_read_again_as_json():
    meter = UsageMeter()
    meter.turn(seconds(2026, 1, 1))
    meter.of(ONE).add(Usage(1, 2, 3, 4, 5.5))
    told = msgspec.json.decode(msgspec.json.encode(meter.to_dict()))
    again = UsageMeter(told)
    assert again.months == meter.months == read_months(told)
    again.turn(seconds(2026, 1, 2))
    again.of(ONE).add(Usage(1, 1, 1, 1, 1.0))
    assert again.months["2026-01"][ONE] == Usage(2, 3, 4, 5, 6.5)


@pytest.mark.parametrize(
    "told", [None, [], 1, {"2026-01": []}, {"2026-01": {"ab": {}}}, {"2026-01": {ONE.hex(): {"reads": "many"}}}]
)
def test_what_can_not_be_read_counts_nothing(told):
    assert UsageMeter(told).months == {}


def test_old_months_are_forgotten():
    meter = UsageMeter()
    for month in range(1, 13):
        for year in (2025, 2026):
            meter.turn(seconds(year, month, 1))
            meter.of(ONE).reads += 1
    meter.turn(seconds(2026, 12, 31))
    assert sorted(meter.months) == ["2025-12", *(f"2026-{month:02}" for month in range(1, 13))][-MONTHS_MAX:]


def test_months_are_as_long_as_they_are():
    assert month_of(seconds(2026, 12, 31, 23, 59)) == "2026-12"
    assert month_seconds("2024-02") == 29 * 86_400
    assert month_seconds("2026-12") == 31 * 86_400
    for text in ("2026-13", "2026", "", "x"):
        with pytest.raises(ValueError, match=r"."):
            month_seconds(text)


@pytest.mark.parametrize(
    ("reads", "stored", "price"),
    [
        (0, 0.0, 5.0),
        (10_000_000, 1.0, 5.0),
        (11_000_000, 1.0, 5.5),
        (10_500_000, 0.0, 5.25),
        (0, 3.0, 6.0),
        (20_000_000, 2.0, 10.5),
    ],
)
def test_the_price_is_that_of_the_announcement(reads, stored, price):
    assert price_dollars(reads, stored) == pytest.approx(price)


def test_a_gigabyte_for_a_month_is_a_gb_month():
    assert gb_months(1e9 * month_seconds("2026-02"), "2026-02") == pytest.approx(1.0)
    assert gb_months(2e9 * month_seconds("2026-02") / 4, "2026-02") == pytest.approx(0.5)
