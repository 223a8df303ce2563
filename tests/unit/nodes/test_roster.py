from __future__ import annotations

import pytest

from kvnet.errors import ConfigError
from kvnet.topology.load import load
from nodes.roster import Progress, Roster


@pytest.fixture
def roster() -> Roster:
    roster = Roster(load("world-2018").with_pops(2))
    for life in roster.lives.values():
        life.ordered()
    return roster


def say(roster: Roster, name: str, *lines: str) -> None:
    for line in lines:
        roster[name].said(line, now_s=0, now_ms=5.0)


def test_network_is_formed_when_every_edge_holds_the_coordinators_head(roster):
    first, second = roster.edges
    say(roster, "coordinator", "ready", "formed 1-9")
    say(roster, "monitor", "ready")
    say(roster, first, "ready", "formed 1-9")
    say(roster, second, "ready", "formed 1-12")
    assert roster.is_formed()
    assert roster.progress() == Progress(up=2, formed=2, pops=2)


def test_edge_below_the_head_keeps_the_network_from_being_formed(roster):
    first, second = roster.edges
    say(roster, "coordinator", "ready", "formed 1-9")
    say(roster, "monitor", "ready")
    say(roster, first, "ready", "formed 1-9")
    say(roster, second, "ready", "formed 1-8")
    assert not roster.is_formed()
    assert second in roster.missing()
    assert first not in roster.missing()


def test_network_without_its_coordinators_head_is_not_formed(roster):
    say(roster, "coordinator", "ready")
    say(roster, "monitor", "ready")
    for code in roster.edges:
        say(roster, code, "ready", "formed 1-9")
    assert not roster.is_formed()
    assert "takes no writes" in roster.missing()


@pytest.mark.parametrize("name", ["coordinator", "monitor"])
def test_missing_names_the_node_that_is_not_ready(roster, name):
    for other in {"coordinator", "monitor"} - {name}:
        say(roster, other, "ready", "formed 1-1")
    assert roster.missing().startswith(f"{name} isn't ready")
    assert not roster.is_formed()


def test_truth_tells_who_listens(roster):
    first, second = roster.edges
    say(roster, first, "ready")
    assert roster.up_since_ms() == {"coordinator": None, first: 5.0, second: None}


def test_unknown_node_is_refused_with_a_guess(roster):
    with pytest.raises(ConfigError, match="coordinator"):
        roster["cordinator"]
