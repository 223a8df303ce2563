import json
import random

import pytest

from kvnet.errors import ConfigError
from kvnet.topology.geography import great_circle_km
from kvnet.topology.load import load, parse
from kvnet.topology.wan import PROFILES, Wan, WanState

WORLD = load("world-2018")


def small(wan: str = "{profile: internet}") -> Wan:
    return Wan(
        parse(
            f"""\
name: three
coordinator: {{place: iad}}
wan: {wan}
pops:
  - {{code: iad, city: Ashburn, country: US, lat: 38.9, lon: -77.5, region: north-america}}
  - {{code: osl, city: Oslo, country: "NO", lat: 60.2, lon: 11.1, region: europe}}
  - {{code: per, city: Perth, country: AU, lat: -31.9, lon: 116.0, region: oceania}}
"""
        )
    )


@pytest.mark.parametrize(
    ("profile", "base", "per_100_km"), [("internet", 12.6, 1.73), ("backbone", 3.2, 1.58), ("none", 0, 0)]
)
def test_a_profile_is_a_constant_and_a_share_of_the_distance(profile, base, per_100_km):
    wan = small(f"{{profile: {profile}}}")
    km = great_circle_km((38.9, -77.5), (60.2, 11.1))
    assert wan.rtt_ms("iad", "osl") == pytest.approx(base + per_100_km * km / 100)
    assert wan.one_way_ms("osl", "iad") == pytest.approx(wan.rtt_ms("iad", "osl") / 2)
    assert PROFILES[profile] == (base, per_100_km)


def test_the_delay_between_any_two_pops_is_that_of_their_great_circle():
    wan, (base, per_100_km) = Wan(WORLD), PROFILES["internet"]
    for a in WORLD.pops:
        for b in WORLD.pops[::5]:
            km = great_circle_km(a.place, b.place)
            asked_ms = 0.0 if a is b else (base + per_100_km * km / 100) / 2
            assert wan.one_way_ms(a.code, b.code) == pytest.approx(asked_ms, rel=1e-9)


def test_a_matrix_gives_each_direction_its_own_delay():
    matrix = "{iad: {osl: 90, per: 230}, osl: {iad: 100, per: 280}, per: {iad: 231, osl: 281}}"
    wan = small(f"{{profile: matrix, matrix: {matrix}}}")
    assert wan.one_way_ms("iad", "osl") == 45
    assert wan.one_way_ms("osl", "iad") == 50
    assert wan.rtt_ms("iad", "osl") == 95
    assert wan.floor_ms() == 115


def test_a_matrix_under_a_profile_replaces_the_pairs_it_names():
    wan = small("{profile: internet, matrix: {iad: {osl: 90}}}")
    assert wan.one_way_ms("coordinator", "osl") == 45
    assert wan.one_way_ms("osl", "iad") == small().one_way_ms("osl", "iad")


def test_the_coordinator_and_the_monitor_stand_at_the_coordinators_place():
    wan = small()
    assert wan.one_way_ms("coordinator", "per") == wan.one_way_ms("monitor", "per") == wan.one_way_ms("iad", "per")
    assert wan.one_way_ms("coordinator", "iad") == pytest.approx(6.3)
    assert wan.one_way_ms("coordinator", "coordinator") == 0


def test_the_floor_is_the_farthest_pop_and_ignores_disturbances():
    wan = small()
    wan.set_pair("coordinator", "per", extra_ms=1000)
    assert wan.floor_ms() == small().one_way_ms("coordinator", "per")


def test_extra_delay_counts_in_its_direction_alone():
    wan = small()
    before = wan.rtt_ms("iad", "osl")
    wan.set_pair("iad", "osl", extra_ms=50)
    assert wan.one_way_ms("iad", "osl") == pytest.approx(before / 2 + 50)
    assert wan.one_way_ms("osl", "iad") == pytest.approx(before / 2)
    wan.set_pair("iad", "osl")
    assert wan.state.pairs == ()


def test_a_pairs_loss_replaces_the_networks():
    wan = small()
    wan.set_loss(0.01)
    wan.set_pair("iad", "osl", loss=0.5)
    assert (wan.loss("iad", "osl"), wan.loss("osl", "iad")) == (0.5, 0.01)
    wan.set_pair("iad", "osl", loss=0.0)
    assert wan.loss("iad", "osl") == 0


def test_a_cut_has_a_direction():
    wan = small()
    wan.cut("iad", "osl")
    assert wan.is_cut("iad", "osl")
    assert not wan.is_cut("osl", "iad")
    assert not wan.is_cut("coordinator", "osl")


def test_a_region_takes_the_coordinator_with_it():
    assert small().members("north-america") == ("coordinator", "monitor", "iad")
    assert small().members(["europe", "per", "osl"]) == ("osl", "per")


def test_an_isolated_region_hears_and_reaches_only_itself():
    wan = Wan(WORLD)
    wan.isolate("europe")
    inside, outside = wan.members("europe"), set(WORLD.node_names()) - set(wan.members("europe"))
    assert len(inside) > 30
    for node in inside:
        assert all(wan.is_cut(node, other) and wan.is_cut(other, node) for other in outside)
        assert not any(wan.is_cut(node, other) for other in inside)
    assert not wan.is_cut("iad", "nrt")
    wan.rejoin("europe")
    assert wan.state.cuts == ()


def test_healing_opens_exactly_the_named_directions():
    wan = Wan(WORLD)
    wan.isolate("europe")
    wan.cut("fra", "nrt")
    wan.heal("fra", "nrt")
    assert not wan.is_cut("fra", "nrt")
    assert wan.is_cut("nrt", "fra")
    assert wan.is_cut("fra", "sin")
    assert wan.is_cut("ams", "nrt")
    wan.heal_all()
    assert not wan.is_cut("ams", "nrt")


def test_healing_what_was_never_cut_changes_nothing():
    wan = small()
    wan.cut("iad", "osl")
    before = wan.state
    wan.heal("osl", "iad")
    assert wan.state == before


def test_the_state_travels_as_json():
    wan = Wan(WORLD)
    wan.set_loss(0.2)
    wan.isolate(["europe", "iad"])
    wan.set_pair("iad", "fra", extra_ms=10, loss=0.5)
    there = Wan(WORLD)
    there.apply(WanState.from_dict(json.loads(json.dumps(wan.state.to_dict()))))
    assert there.state == wan.state


def test_a_cut_that_links_asked_about_is_still_the_same_value():
    wan, there = Wan(WORLD), Wan(WORLD)
    wan.isolate("europe")
    there.isolate("europe")
    assert wan.is_cut("fra", "iad")
    assert wan.state == there.state
    assert hash(wan.state) == hash(there.state)
    assert wan.state.to_dict() == there.state.to_dict()


def test_a_state_starts_as_the_file_says():
    state = small("{loss: 0.1, jitter_sigma: 0.2, bandwidth_mbps: 8}").state
    assert (state.loss, state.jitter_sigma, state.bandwidth_mbps) == (0.1, 0.2, 8)


@pytest.mark.parametrize(
    "values", [{"loss": 1.0}, {"los": 0.1}, {"pairs": [{"sender": "a", "receiver": "b", "extra_ms": -1}]}, []]
)
def test_a_state_that_makes_no_sense_is_refused(values):
    with pytest.raises(ConfigError, match="not a state of the WAN"):
        WanState.from_dict(values)


def test_a_state_with_unknown_nodes_is_refused_whole():
    wan = small()
    before = wan.state
    with pytest.raises(ConfigError, match=r"no node (or region )?is called 'oslo': did you mean osl"):
        wan.apply(before.with_cut(("iad",), ("oslo",)))
    assert wan.state is before


@pytest.mark.parametrize(
    "call",
    [
        lambda wan: wan.one_way_ms("iad", "oslo"),
        lambda wan: wan.one_way_ms("oslo", "oslo"),
        lambda wan: wan.link("oslo", "iad", random.Random(1)),
        lambda wan: wan.cut("iad", "oslo"),
        lambda wan: wan.isolate("oslo"),
        lambda wan: wan.set_pair("iad", "oslo", extra_ms=1),
    ],
)
def test_unknown_nodes_are_refused_everywhere(call):
    with pytest.raises(ConfigError, match=r"no node (or region )?is called 'oslo': did you mean osl"):
        call(small())


@pytest.mark.parametrize("loss", [-0.1, 1, float("nan")])
def test_only_a_fraction_below_one_can_be_lost(loss):
    with pytest.raises(ConfigError, match="is not at least 0 and below 1; to stop everything, cut the link"):
        small().set_loss(loss)
    with pytest.raises(ConfigError, match="is not at least 0 and below 1; to stop everything, cut the link"):
        small().set_pair("iad", "osl", loss=loss)


@pytest.mark.parametrize("extra_ms", [-1, float("inf"), float("nan")])
def test_only_a_real_delay_can_be_added(extra_ms):
    with pytest.raises(ConfigError, match="write at least 0; to stop everything, cut the link"):
        small().set_pair("iad", "osl", extra_ms=extra_ms)
