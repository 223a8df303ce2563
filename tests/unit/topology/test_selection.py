import pytest

from kvnet.errors import ConfigError
from kvnet.topology.geography import great_circle_km
from kvnet.topology.load import load
from kvnet.topology.selection import best_spread

POPS = load("world-2018").pops


def test_the_start_comes_first_and_the_farthest_next():
    first, second = best_spread(POPS, 2, "iad")
    assert first.code == "iad"
    assert second == max(POPS, key=lambda pop: great_circle_km(first.place, pop.place))


def test_a_shorter_choice_begins_a_longer_one():
    assert best_spread(POPS, 40, "iad")[:12] == best_spread(POPS, 12, "iad")


def test_each_choice_is_the_farthest_from_those_before():
    chosen = best_spread(POPS, 15, "fra")
    for i in range(1, len(chosen)):
        gaps = {pop.code: min(great_circle_km(pop.place, before.place) for before in chosen[:i]) for pop in POPS}
        assert gaps[chosen[i].code] == max(gaps.values())


def test_ten_pops_span_every_inhabited_continent():
    regions = {pop.region for pop in best_spread(POPS, 10, "iad")}
    assert regions >= {"africa", "asia", "europe", "latin-america", "north-america", "oceania"}


def test_all_pops_can_be_chosen_but_no_more():
    assert {pop.code for pop in best_spread(POPS, 152, "iad")} == {pop.code for pop in POPS}
    with pytest.raises(ConfigError, match="153 PoPs of 152 can't be chosen: ask for 1 to 152"):
        best_spread(POPS, 153, "iad")
