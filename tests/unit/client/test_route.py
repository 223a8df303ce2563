"""The order in which edges are asked."""

from __future__ import annotations

import pytest

from kvnet.client.directory import Directory, PlacedEdge
from kvnet.client.route import nearest_first
from kvnet.errors import ConfigError
from kvnet.topology.load import load


@pytest.fixture
def directory() -> Directory:
    """Three edges, far apart."""
    topology = load("world-2018")
    pops = [topology.pop(code) for code in ("akl", "fra", "scl")]
    edges = [
        PlacedEdge(pop.code, f"http://127.0.0.1:{port}", pop.city, pop.country, pop.place)
        for port, pop in enumerate(pops, 21010)
    ]
    return Directory(account_id="0" * 32, token="token", edges=edges)


def test_a_city_without_a_pop_here_is_known_from_the_shipped_worlds(directory):
    """A network of six once refused `--near Johannesburg`, which the README's tour asks for."""
    assert [edge.code for edge in nearest_first(directory, "johannesburg")] == ["fra", "scl", "akl"]
    assert nearest_first(directory, "Sydney")[0].code == "akl"


def test_a_misspelt_city_is_answered_with_the_closest(directory):
    with pytest.raises(ConfigError, match="Tokyo"):
        nearest_first(directory, "Tokio")
