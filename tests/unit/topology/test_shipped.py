"""The two worlds that come with the package."""

from collections import Counter

import pytest

from kvnet.topology.geography import great_circle_km
from kvnet.topology.load import SHIPPED, load
from kvnet.topology.wan import Wan

SPRING_2018 = {"rix", "tll", "vno", "iah", "mgm", "smf"}


def test_the_world_of_2018_has_152_pops_of_which_14_are_assumed():
    topology = load("world-2018")
    assert len(topology.pops) == 152
    assert sum(pop.assumed for pop in topology.pops) == 14
    assert {pop.code for pop in topology.pops if not pop.assumed} >= SPRING_2018


def test_the_world_of_2026_has_no_assumed_pop():
    topology = load("world-2026")
    assert len(topology.pops) == 340
    assert not any(pop.assumed for pop in topology.pops)


@pytest.mark.parametrize("name", SHIPPED)
def test_the_coordinators_city_has_an_edge_too(name):
    topology = load(name)
    assert topology.name == name
    assert topology.coordinator.place == "iad"
    assert topology.pop("iad").city == "Ashburn"


@pytest.mark.parametrize("name", SHIPPED)
def test_all_seven_regions_are_served(name):
    assert len(Counter(pop.region for pop in load(name).pops)) == 7


def test_pops_of_both_worlds_stand_at_the_same_place():
    old, new = ({pop.code: pop for pop in load(name).pops} for name in SHIPPED)
    shared = old.keys() & new.keys()
    assert len(shared) > 130
    for code in shared:
        assert great_circle_km(old[code].place, new[code].place) < 1, code
        assert (old[code].city, old[code].region) == (new[code].city, new[code].region)


@pytest.mark.parametrize("name", SHIPPED)
def test_no_message_can_be_everywhere_in_less_than_167_ms(name):
    assert Wan(load(name)).floor_ms() == pytest.approx(167, abs=0.5)
