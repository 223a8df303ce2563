from __future__ import annotations

from kvnet.cli.wan import describe
from kvnet.topology.load import load
from kvnet.topology.wan import Wan

WORLD = load("world-2018")


def test_an_undisturbed_network_is_one_line():
    assert describe(Wan(WORLD).state, WORLD) == ["no packets lost, jitter 0.05 of the delay"]


def test_groups_are_called_by_the_shortest_name_they_have():
    wan = Wan(WORLD)
    wan.set_loss(0.2)
    wan.isolate("oceania")
    wan.cut("fra", ["lhr", "cdg"])
    wan.cut(["iad", "fra", "lhr", "cdg", "nrt", "gru", "jnb"], "per")
    wan.set_pair("iad", "fra", extra_ms=100)
    assert describe(wan.state, WORLD) == [
        "0.2 of all packets lost, jitter 0.05 of the delay",
        "cut: oceania → all others",
        "cut: all others → oceania",
        "cut: fra → cdg, lhr",
        "cut: cdg, fra, gru, iad, jnb, lhr and 1 more → per",
        "slower: iad → fra by 100 ms",
    ]
