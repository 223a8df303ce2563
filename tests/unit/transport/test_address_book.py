import pytest
from msgspec.structs import replace

from kvnet.topology.generation import generated
from kvnet.topology.geography import nearest
from kvnet.topology.load import load
from kvnet.transport.address_book import NEAREST_KNOWN, AddressBook

WORLD = load("world-2026")
LARGE = generated(WORLD, 2000)


@pytest.mark.parametrize("topology", [WORLD, LARGE], ids=["shipped", "generated"])
def test_a_node_knows_the_pops_nearest_to_it_and_not_itself(topology):
    book = AddressBook(topology)
    for name in ("coordinator", *(pop.code for pop in topology.pops[::40])):
        others = [pop.code for pop in nearest(topology.pop_of(name).place, topology.pops) if pop.code != name]
        assert book.config(name).nearest == tuple(others[:NEAREST_KNOWN])


def test_a_node_among_more_of_its_place_than_it_may_know_knows_the_first():
    here = WORLD.pop("fra")
    crowd = tuple(replace(here, code=f"fra{i}") for i in range(NEAREST_KNOWN + 10))
    book = AddressBook(WORLD.with_further_pops(crowd))
    first = ("fra", *(pop.code for pop in crowd))
    assert book.config("fra").nearest == first[1 : NEAREST_KNOWN + 1]
    assert book.config("fra3").nearest == tuple(code for code in first if code != "fra3")[:NEAREST_KNOWN]
    assert book.config(crowd[-1].code).nearest == first[:NEAREST_KNOWN]


def test_a_small_network_knows_all_its_pops():
    book = AddressBook(WORLD.with_pops(3))
    assert len(book.config("coordinator").nearest) == 3
    assert {len(book.config(code).nearest) for code in book.config("coordinator").members} == {2}


def test_the_coordinator_dials_pops_all_over_the_world_and_its_own_place_first():
    config = AddressBook(LARGE).config("coordinator")
    assert config.root_links[0] == LARGE.coordinator.place
    assert len(config.root_links) == LARGE.timers.coordinator_links
    assert len({LARGE.pop(code).region for code in config.root_links}) >= 5


def test_every_node_is_told_the_same_members_without_a_copy():
    book = AddressBook(WORLD)
    assert book.config("fra").members is book.config("nrt").members
    assert book.config("fra").name == "fra"
