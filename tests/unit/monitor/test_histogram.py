import pytest

from kvnet.monitor.histogram import Histogram


def test_a_single_sample_is_every_percentile():
    histogram = Histogram()
    histogram.add(186.4)
    for fraction in (0.0, 0.5, 0.99, 1.0):
        assert histogram.percentile(fraction) == pytest.approx(186.4, rel=0.002)
    assert histogram.maximum == 186.4


def test_nothing_has_no_percentile():
    assert Histogram().percentile(0.5) is None


def test_no_percentile_exceeds_the_largest_sample():
    histogram = Histogram()
    histogram.add(100.01)
    assert histogram.percentile(1.0) <= 100.01


def test_zero_and_less_are_the_smallest():
    histogram = Histogram()
    histogram.add(0.0, 3)
    histogram.add(50.0)
    assert histogram.percentile(0.75) < 0.01
    assert histogram.percentile(0.76) == pytest.approx(50, rel=0.002)


def test_memory_depends_on_the_range_not_on_the_count():
    histogram = Histogram()
    for i in range(20_000):
        histogram.add(100 + i / 200)
    assert histogram.count == 20_000
    assert len(histogram._counts) < 300
