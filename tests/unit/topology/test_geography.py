import pytest

from kvnet.errors import ConfigError
from kvnet.topology.geography import find_place, great_circle_km, nearest
from kvnet.topology.load import load

WORLD = load("world-2026")
POPS = WORLD.pops


@pytest.mark.parametrize(
    ("a", "b", "km"),
    [
        ((0, 0), (0, 0), 0),
        ((0, 0), (0, 180), 20015.1),
        ((90, 0), (-90, 77), 20015.1),
        ((0, 179), (0, -179), 222.4),
        ((51.4706, -0.46194), (40.6413, -73.7781), 5540),  # London Heathrow to New York JFK
    ],
)
def test_distances_follow_the_sphere(a, b, km):
    assert great_circle_km(a, b) == pytest.approx(km, rel=0.001)


@pytest.mark.parametrize("text", ["sao paulo", "São Paulo", "SAO-PAULO", "gru", " GRU "])
def test_a_place_goes_by_city_or_code_without_accents_or_case(text):
    assert find_place(text, POPS) == WORLD.pop("gru").place


@pytest.mark.parametrize(
    ("text", "code"), [("xian", "xiy"), ("St Louis", "stl"), ("zurich", "zrh"), ("Mexico City", "mex")]
)
def test_punctuation_does_not_matter(text, code):
    assert find_place(text, POPS) == WORLD.pop(code).place


@pytest.mark.parametrize(("text", "place"), [("35.68,139.69", (35.68, 139.69)), ("-90, -180", (-90.0, -180.0))])
def test_any_place_goes_by_its_coordinates(text, place):
    assert find_place(text, POPS) == place


@pytest.mark.parametrize("text", ["91,0", "0,181", "nan,0"])
def test_coordinates_off_the_globe_are_refused(text):
    with pytest.raises(ConfigError, match="is not on the globe: write degrees north from -90 to 90"):
        find_place(text, POPS)


def test_an_unknown_city_is_answered_with_the_closest():
    with pytest.raises(ConfigError, match="no PoP is in a place called 'Tokio': did you mean 'Tokyo'"):
        find_place("Tokio", POPS)


def test_a_place_like_no_other_is_answered_with_what_works():
    with pytest.raises(ConfigError, match="or write 'lat,lon', which works for any place"):
        find_place("Qwghlm-on-the-Zyx", POPS)


def test_an_empty_place_is_no_place():
    with pytest.raises(ConfigError, match="no PoP is in a place called ''"):
        find_place("", POPS)


def test_two_far_cities_of_one_name_are_told_apart_by_code():
    with pytest.raises(ConfigError, match=r"more than one 'san jose': say sjc \(US\) or sjo \(CR\)"):
        find_place("san jose", POPS)


def test_the_nearest_come_first():
    order = nearest(find_place("48.85,2.35", POPS), POPS)
    assert order[0].code == "cdg"
    assert {pop.code for pop in order} == {pop.code for pop in POPS}
    distances = [great_circle_km((48.85, 2.35), pop.place) for pop in order]
    assert distances == sorted(distances)
