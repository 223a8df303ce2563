import pytest
from msgspec.structs import replace

from kvnet.errors import ConfigError
from kvnet.topology.generation import AWAY_KM_MAX, AWAY_KM_MIN, POPS_MAX, generated
from kvnet.topology.geography import find_place, great_circle_km
from kvnet.topology.load import dump_yaml, generate, load, parse
from kvnet.topology.schema import Topology

WORLD = load("world-2018")
LARGEST = generated(WORLD, POPS_MAX)
PINNED = [("iah2", (29.9865, -92.6526)), ("yul2", (45.3613, -73.6029)), ("fuo2", (23.1535, 113.0958))]
THREE = parse(
    """\
name: three
coordinator: {place: iad}
wan: {profile: internet, matrix: {iad: {osl: 90}}}
pops:
  - {code: iad, city: Ashburn, country: US, lat: 38.9, lon: -77.5, region: north-america}
  - {code: osl, city: Oslo, country: "NO", lat: 60.2, lon: 11.1, region: europe, url: "http://10.0.0.7:80"}
  - {code: iad2, city: Sterling, country: US, lat: 39.0, lon: -77.4, region: north-america}
"""
)


def lonely(**fields: str | float) -> Topology:
    """A network of one PoP."""
    pop = replace(THREE.pops[0], **fields)
    coordinator = replace(THREE.coordinator, place=pop.code)
    return replace(THREE, coordinator=coordinator, wan=replace(THREE.wan, matrix=None), pops=(pop,))


def test_a_larger_network_begins_with_all_pops_of_its_source():
    assert LARGEST.pops[:152] == WORLD.pops
    assert len(LARGEST.pops) == 10_000


def test_the_largest_network_is_a_working_file():
    assert parse(dump_yaml(LARGEST)) == LARGEST
    assert LARGEST.port_of(LARGEST.pops[-1].code) == 31_009


@pytest.mark.parametrize("count", [1, 10, 152])
def test_a_network_no_larger_than_its_source_is_the_best_spread_part(count):
    assert generated(WORLD, count) == WORLD.with_pops(count)


def test_a_network_is_the_beginning_of_a_larger_one():
    assert generated(WORLD, 400).pops == LARGEST.pops[:400]


def test_a_further_pop_says_near_which_city_it_lies():
    for pop in LARGEST.pops[152:]:
        near = WORLD.pop(pop.code.rstrip("0123456789"))
        assert pop.city.rstrip("0123456789") == f"{near.city} "
        assert (pop.country, pop.region) == (near.country, near.region)
        assert AWAY_KM_MIN - 0.1 <= great_circle_km(pop.place, near.place) <= AWAY_KM_MAX + 0.1
        assert pop.assumed
        assert pop.url is None


def test_further_pops_lie_in_suburbs_and_far_outside_of_every_city():
    away_km = [
        great_circle_km(pop.place, WORLD.pop(pop.code.rstrip("0123456789")).place) for pop in LARGEST.pops[152:]
    ]
    assert min(away_km) < 10
    assert max(away_km) > 300
    assert {pop.code.rstrip("0123456789") for pop in LARGEST.pops[152:]} == {pop.code for pop in WORLD.pops}


def test_a_city_stays_the_name_of_one_place():
    """Further PoPs of the same city's name, far outside, would make `--near Ashburn` ambiguous."""
    assert find_place("Ashburn", LARGEST.pops) == WORLD.pop("iad").place
    assert find_place("Ashburn 2", LARGEST.pops) == LARGEST.pop("iad2").place


def test_a_code_that_the_source_has_is_not_given_again():
    codes = [pop.code for pop in generated(THREE, 100).pops]
    assert len(set(codes)) == 100
    assert {"iad3", "osl2", "iad22"} <= set(codes)


def test_a_generated_network_can_be_generated_from():
    again = generated(generated(WORLD, 1000), 2000)
    assert len(again.pops) == 2000
    assert parse(dump_yaml(again)) == again


def test_long_codes_and_cities_stay_within_their_length():
    longest = generated(lonely(code="x" * 31, city="y" * 64), 200)
    assert parse(dump_yaml(longest)) == longest
    assert longest.pops[-1].code == "x" * 28 + "200"
    assert longest.pops[-1].city == "y" * 60 + " 200"


@pytest.mark.parametrize("place", [(90.0, 0.0), (-90.0, 12.0), (0.0, 180.0), (-17.8, -180.0)])
def test_further_pops_stay_on_the_globe_beyond_poles_and_date_line(place):
    around = generated(lonely(lat=place[0], lon=place[1]), 300)
    assert parse(dump_yaml(around)) == around
    for pop in around.pops[1:]:
        assert AWAY_KM_MIN - 0.1 <= great_circle_km(pop.place, place) <= AWAY_KM_MAX + 0.1


def test_measured_round_trips_and_urls_are_kept():
    larger = generated(THREE, 50)
    assert larger.wan == THREE.wan
    assert larger.url_of("osl") == "http://10.0.0.7:80"


def test_the_further_pops_are_the_same_in_every_process_and_release():
    assert [(pop.code, pop.place) for pop in LARGEST.pops[152:155]] == PINNED


def test_networks_of_other_names_have_their_pops_elsewhere():
    other = generated(replace(WORLD, name="other"), 200)
    assert other.pops[:152] == WORLD.pops
    assert not {pop.place for pop in other.pops[152:]} & {pop.place for pop in LARGEST.pops[152:]}


def test_a_larger_network_has_a_name_of_its_own():
    topology = generate(WORLD, 200)
    assert topology.name == "world-2018-200"
    assert topology.pops == LARGEST.pops[:200]


@pytest.mark.parametrize("count", [-1, 0, 10_001])
def test_a_count_that_makes_no_network_is_refused(count):
    with pytest.raises(ConfigError, match=f"a network of {count} PoPs can't be generated: ask for 1 to 10000"):
        generated(WORLD, count)


def test_a_network_of_measured_round_trips_cannot_grow():
    trips = {"iad": {"osl": 90.0}, "osl": {"iad": 95.0}}
    wan = replace(THREE.wan, profile="matrix", matrix=trips)
    measured = replace(THREE, wan=wan, pops=THREE.pops[:2])
    assert generated(measured, 2) == measured
    with pytest.raises(ConfigError, match=r"1 further PoPs have no measured round trips.*ask for 1 to 2"):
        generated(measured, 3)


def test_ports_that_do_not_suffice_are_refused():
    with pytest.raises(ConfigError, match="10000 PoPs don't fit from 30000; write 1024 to 22758"):
        generated(WORLD.with_port_base(30_000), 10_000)
