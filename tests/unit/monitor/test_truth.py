import json
import os

import pytest

from kvnet.errors import ConfigError
from kvnet.monitor.truth import Truth, TruthFile, parse_truth
from kvnet.topology.wan_state import Cut, PairFault, WanState

UP = {"fra": 10.0, "nrt": 20.0, "gru": 30.0}
EVERYBODY = ("coordinator", "fra", "nrt", "gru")


def connected(wan=None, up=UP, **more):
    return set(Truth(up_since_ms=up, wan=wan or WanState(), written_ms=100.0, **more).connected())


def both_ways(a, b):
    return Cut((a,), (b,)), Cut((b,), (a,))


def test_everybody_who_is_up_is_connected_in_a_whole_network():
    assert connected() == {"fra", "nrt", "gru"}
    assert connected(up={"fra": 1.0}) == {"fra"}


def test_a_way_around_a_cut_connects():
    assert connected(WanState(cuts=both_ways("coordinator", "nrt"))) == {"fra", "nrt", "gru"}


def test_a_way_over_a_pop_that_is_down_does_not_connect():
    wan = WanState(cuts=(*both_ways("coordinator", "nrt"), *both_ways("nrt", "gru")))
    assert connected(wan) == {"fra", "nrt", "gru"}
    assert connected(wan, up={"nrt": 1.0, "gru": 1.0}) == {"gru"}


def test_one_direction_alone_connects_nobody():
    wan = WanState(cuts=(Cut(("nrt",), ("coordinator", "fra", "gru")),))
    assert connected(wan) == {"fra", "gru"}


def test_lines_that_lose_more_than_a_fifth_do_not_count():
    assert connected(WanState(loss=0.2)) == {"fra", "nrt", "gru"}
    assert connected(WanState(loss=0.21)) == set()
    bad = tuple(PairFault("nrt", other, loss=0.5) for other in EVERYBODY if other != "nrt")
    assert connected(WanState(pairs=bad)) == {"fra", "gru"}


def test_nobody_is_connected_to_a_coordinator_that_is_down():
    assert connected(tells_coordinator=True, coordinator_since_ms=None) == set()


def test_connections_are_as_old_as_the_younger_end():
    truth = Truth(
        up_since_ms=UP, wan=WanState(), written_ms=0.0, tells_coordinator=True, coordinator_since_ms=25.0
    )
    assert truth.connected() == {"fra": 25.0, "nrt": 25.0, "gru": 30.0}


def test_the_launchers_file_is_read_whenever_it_is_replaced(tmp_path):
    path = tmp_path / "truth.json"
    configured = WanState(loss=0.05)
    file = TruthFile(path, configured)
    assert file.poll() is None
    document = {"pops": {"fra": {"up_since_ms": 5.0}, "nrt": {"up_since_ms": None}}, "wan": {}, "written_ms": 7.0}
    path.write_text(json.dumps(document))
    truth = file.poll()
    assert (truth.up_since_ms, truth.wan, truth.written_ms) == ({"fra": 5.0}, configured, 7.0)
    assert not truth.tells_coordinator
    assert file.poll() is None
    document["wan"] = WanState(loss=0.5).to_dict()
    new = tmp_path / "new"
    new.write_text(json.dumps(document))
    os.replace(new, path)  # noqa: PTH105 - as the launcher does
    assert file.poll().wan.loss == 0.5


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"pops": {"fra": 5}, "written_ms": 1}', '{"pops": 3}'])
def test_a_file_that_is_no_truth_is_named_once_and_passed_over(tmp_path, text):
    path = tmp_path / "truth.json"
    path.write_text(text)
    file = TruthFile(path, WanState())
    with pytest.raises(ConfigError, match=r"truth\.json"):
        file.poll()
    assert file.poll() is None


def test_the_coordinators_life_is_part_of_the_truth_where_the_launcher_tells_it():
    document = {"pops": {"fra": {"up_since_ms": 5.0}}, "coordinator": {"up_since_ms": None}, "written_ms": 7.0}
    assert parse_truth(document, WanState()).connected() == {}
