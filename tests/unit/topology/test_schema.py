import pickle

import pytest
from msgspec.structs import replace

from kvnet import limits
from kvnet.errors import ConfigError
from kvnet.topology.load import dump_yaml, load, parse
from kvnet.topology.sections import LimitsConfig

WORLD = load("world-2018")
MATRIX = parse(
    """\
name: three
coordinator: {place: iad}
wan: {profile: matrix, matrix: {iad: {osl: 90, per: 230}, osl: {iad: 91, per: 280}, per: {iad: 231, osl: 281}}}
pops:
  - {code: iad, city: Ashburn, country: US, lat: 38.9, lon: -77.5, region: north-america}
  - {code: osl, city: Oslo, country: "NO", lat: 60.2, lon: 11.1, region: europe}
  - {code: per, city: Perth, country: AU, lat: -31.9, lon: 116.0, region: oceania}
"""
)
URLS = parse(
    """\
name: urls
coordinator: {place: iad, url: "http://10.0.0.1:8080"}
monitor: {url: "http://10.0.0.2"}
pops:
  - {code: iad, city: Ashburn, country: US, lat: 38.9, lon: -77.5, region: north-america}
  - {code: osl, city: Oslo, country: "NO", lat: 60.2, lon: 11.1, region: europe, url: "https://osl.example:8443"}
  - {code: per, city: Perth, country: AU, lat: -31.9, lon: 116.0, region: oceania, url: "http://127.0.0.1:21011"}
"""
)


def test_nodes_are_the_coordinator_the_monitor_and_the_pops_in_file_order():
    assert MATRIX.node_names() == ("coordinator", "monitor", "iad", "osl", "per")


def test_addresses_are_counted_from_the_base():
    assert [MATRIX.port_of(node) for node in MATRIX.node_names()] == [21000, 21001, 21010, 21011, 21012]
    assert MATRIX.url_of("per") == "http://127.0.0.1:21012"


def test_a_url_of_its_own_goes_before_the_count():
    assert [URLS.url_of(node) for node in ("coordinator", "monitor", "iad", "osl")] == [
        "http://10.0.0.1:8080",
        "http://10.0.0.2",
        "http://127.0.0.1:21010",
        "https://osl.example:8443",
    ]


def test_a_node_binds_its_http_port_but_not_that_of_a_proxy():
    assert [URLS.port_of(node) for node in ("coordinator", "monitor", "osl", "per")] == [8080, 80, 21011, 21011]


def test_codes_are_found_in_either_case():
    assert WORLD.pop("FRA") is WORLD.pop("fra")


def test_an_unknown_pop_is_answered_with_the_closest():
    with pytest.raises(ConfigError, match="no PoP is called 'nrtt': did you mean nrt"):
        WORLD.pop("nrtt")


def test_an_unknown_node_is_answered_with_all_that_a_node_can_be_called():
    with pytest.raises(
        ConfigError, match="no node is called 'zzz': choose one of coordinator, monitor, iad, osl, per"
    ):
        MATRIX.pop_of("zzz")


def test_coordinator_and_monitor_stand_at_the_coordinators_place():
    assert WORLD.pop_of("coordinator") == WORLD.pop_of("monitor") == WORLD.pop("iad")


def test_the_base_can_be_moved_within_the_range():
    moved = WORLD.with_port_base(22000)
    assert moved.port_of("coordinator") == 22000
    assert moved.pops == WORLD.pops


@pytest.mark.parametrize("base", [1023, 32_607])
def test_a_base_without_room_is_refused(base):
    with pytest.raises(ConfigError, match=f"152 PoPs don't fit from {base}; write 1024 to 32606"):
        WORLD.with_port_base(base)


def test_a_base_that_counts_onto_a_url_is_refused():
    with pytest.raises(ConfigError, match=r"pops\[2\].url: http://127.0.0.1:21011 is already the address of iad"):
        URLS.with_port_base(21001)


def test_fewer_pops_may_not_count_onto_a_url():
    """Without Oslo, Perth is counted one port lower, where Ashburn's url already is."""
    pops = (replace(URLS.pops[0], url="http://127.0.0.1:21011"), URLS.pops[1], replace(URLS.pops[2], url=None))
    topology = replace(URLS, pops=pops)
    assert topology.with_pops(3) == topology
    with pytest.raises(ConfigError, match=r"pops\[0\].url: http://127.0.0.1:21011 is already the address of per"):
        topology.with_pops(2)


def test_fewer_pops_keep_the_coordinators_place_and_the_file_order():
    few = WORLD.with_pops(10)
    assert "iad" in {pop.code for pop in few.pops}
    assert list(few.pops) == [pop for pop in WORLD.pops if pop in few.pops]


def test_fewer_pops_keep_their_part_of_the_matrix():
    assert MATRIX.with_pops(2).wan.matrix == {"iad": {"per": 230.0}, "per": {"iad": 231.0}}


def test_whoever_wants_more_pops_than_there_are_is_told_where_to_get_them():
    with pytest.raises(ConfigError, match=r"153 PoPs of 152 .* make a larger network with `kvnet topology gen`"):
        WORLD.with_pops(153)


def test_further_pops_stand_behind_the_others_and_move_no_port():
    oslo = replace(WORLD.pop("osl"), code="osl2")
    larger = WORLD.with_further_pops((oslo,))
    assert larger.pops == (*WORLD.pops, oslo)
    assert [larger.port_of(node) for node in WORLD.node_names()] == [
        WORLD.port_of(node) for node in WORLD.node_names()
    ]


def test_a_further_pop_needs_a_code_of_its_own():
    with pytest.raises(ConfigError, match=r"pops\[152\].code: 'osl' is already the code of pops\["):
        WORLD.with_further_pops((WORLD.pop("osl"),))


@pytest.mark.parametrize("count", [0, 153])
def test_more_pops_than_there_are_is_refused(count):
    with pytest.raises(ConfigError, match="ask for 1 to 152"):
        WORLD.with_pops(count)


def test_the_digest_follows_name_place_and_pops_alone():
    assert WORLD.with_port_base(22000).with_loss(0.2).digest() == WORLD.digest()
    others = {WORLD.digest(), WORLD.with_pops(10).digest(), MATRIX.digest(), load("world-2026").digest()}
    assert len(others) == 4


def test_the_digest_is_the_same_in_every_process_and_release():
    assert MATRIX.digest() == "18f1e0b0fee93ffae061b33e3ebe5e8b"


def test_loss_is_a_fraction_below_one():
    assert WORLD.with_loss(0.2).wan.loss == 0.2
    with pytest.raises(ConfigError, match=r"loss 20 is not at least 0 and below 1: 0\.2 loses"):
        WORLD.with_loss(20)


def test_a_profile_and_single_limits_are_resolved():
    config = WORLD.with_limits("workers-kv", {"write_interval_ms": 0}).limits
    assert config.resolve() == limits.with_overrides(limits.profile("workers-kv"), {"write_interval_ms": 0})


def test_single_limits_keep_the_files_profile():
    topology = WORLD.with_limits("workers-kv", {}).with_limits(None, {"ttl_seconds_min": 1})
    assert topology.limits == LimitsConfig(profile="workers-kv", ttl_seconds_min=1)


def test_unknown_profiles_and_limits_are_refused():
    with pytest.raises(ConfigError, match="unknown limits profile 'x': choose one of"):
        WORLD.with_limits("x", {})
    with pytest.raises(ConfigError, match="unknown limit 'x': choose one of"):
        WORLD.with_limits(None, {"x": 1})


def test_every_limit_and_profile_can_be_written_in_a_file():
    assert set(LimitsConfig.__struct_fields__) == {"profile", *limits.Limits().as_dict()}
    for name in limits.PROFILES:
        assert WORLD.with_limits(name, {}).limits.resolve() == limits.profile(name)


def test_a_topology_survives_pickling_with_its_lookups():
    assert WORLD.pop("fra")
    copy = pickle.loads(pickle.dumps(WORLD))
    assert copy == WORLD
    assert copy.pop("fra") == WORLD.pop("fra")


def test_readers_are_the_networks_or_the_pops_own_and_only_edges_have_any():
    own = replace(MATRIX.pops[1], readers=3)
    none = replace(MATRIX.pops[2], readers=0)
    network = replace(MATRIX, readers=2, pops=(MATRIX.pops[0], own, none))
    assert [network.readers_of(name) for name in ("coordinator", "monitor", "iad", "osl", "per")] == [
        0,
        0,
        2,
        3,
        0,
    ]
    assert parse(dump_yaml(network)) == network
    assert [MATRIX.readers_of(name) for name in MATRIX.node_names()] == [0] * 5


def test_readers_of_one_pop_can_be_chosen():
    network = MATRIX.with_readers("OSL", 4)
    assert [network.readers_of(name) for name in ("iad", "osl")] == [0, 4]
    for node, count, cure in (
        ("coordinator", 1, "only a PoP's edge"),
        ("osl", 33, "choose 0 to 32"),
        ("osl", -1, "choose 0 to 32"),
        ("oslo", 1, "osl"),
    ):
        with pytest.raises(ConfigError, match=cure):
            MATRIX.with_readers(node, count)


def test_more_readers_than_a_replica_has_room_for_are_refused():
    with pytest.raises(ConfigError, match=r"between 0 and 32.*processes answer beside each edge"):
        parse(dump_yaml(MATRIX) + "readers: 33\n")
