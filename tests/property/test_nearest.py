"""Whatever stands wherever: the index of the nearest says what measuring everybody says, in the same order."""

from dataclasses import dataclass

from hypothesis import example, given
from hypothesis import strategies as st

from kvnet.topology.geography import NearestIndex, Place, arc_km, great_circle_km, nearest, unit_point


@dataclass(frozen=True)
class Spot:
    code: str
    place: Place
    city: str = "Somewhere"
    country: str = "XX"


anywhere = st.tuples(st.floats(-90, 90), st.floats(-180, 180))
on_a_grid = st.tuples(st.integers(-2, 2).map(lambda n: n * 45.0), st.integers(-4, 4).map(lambda n: n * 45.0))
in_one_town = st.tuples(st.floats(50.0, 50.0 + 1e-9), st.floats(8.0, 8.0 + 1e-9))
places = st.one_of(anywhere, on_a_grid, in_one_town)
worlds = st.one_of(
    st.lists(places, max_size=120),
    st.lists(on_a_grid, max_size=120),
    st.lists(in_one_town, max_size=60),
)


def spots(where: list[Place]) -> list[Spot]:
    return [Spot(f"s{i}", place) for i, place in enumerate(where)]


@given(worlds, places, st.integers(0, 130))
@example([(0.0, 0.0), (0.0, 180.0), (0.0, -180.0), (90.0, 5.0), (-90.0, 7.0)], (0.0, 0.0), 3)
@example([(90.0, float(lon)) for lon in range(40)], (-90.0, 0.0), 7)
@example([(0.0, 0.0)] * 50 + [(0.0, -0.0)] * 50, (0.0, 180.0), 60)
def test_the_index_finds_the_beginning_of_all_in_their_order(where: list[Place], place: Place, count: int) -> None:
    pops = spots(where)
    assert NearestIndex(pops).nearest(place, count) == nearest(place, pops)[:count]


@given(worlds.filter(bool), st.integers(1, 40), st.data())
def test_the_index_finds_them_from_a_pops_own_place(where: list[Place], count: int, data: st.DataObject) -> None:
    pops = spots(where)
    place = data.draw(st.sampled_from(where))
    assert NearestIndex(pops).nearest(place, count) == nearest(place, pops)[:count]


@given(places, places)
def test_the_arc_between_points_is_the_great_circle_between_places(a: Place, b: Place) -> None:
    """To a hundredth of a millimetre, but near the other end of the world, where both lose digits."""
    km = great_circle_km(a, b)
    assert abs(arc_km(unit_point(a), unit_point(b)) - km) <= (1e-8 if km < 20_000 else 2e-3)
