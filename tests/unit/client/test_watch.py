"""Connections kept warm, and the order kept true."""

from __future__ import annotations

import pytest

import kvnet
from kvnet.client import watch
from kvnet.client.directory import Edge
from kvnet.client.pace import Pace
from kvnet.client.route import Route
from kvnet.client.watch import Watch
from tests.support.fake_edge import until

EDGES = [Edge(code, f"http://{code}") for code in ("a", "b", "c")]


class Lines:
    """Round trips as they are told; None for an edge that doesn't serve."""

    def __init__(self, **times):
        self.times = times
        self.asked = 0

    async def round_trip_ms(self, edge):
        self.asked += 1
        return self.times[edge.code]

    async def serves(self, edge):
        return self.times[edge.code] is not None


async def test_the_first_two_are_asked_before_they_are_needed(cluster, edges):
    async with kvnet.connect(cluster=cluster, near="Tokyo") as net:
        await until(lambda: edges["nrt"].health_checks >= 2 and edges["kix"].health_checks >= 2)
        assert net.edge.code == "nrt"
    assert edges["gru"].health_checks == edges["fra"].health_checks == 0


async def test_dead_edge_is_left_before_it_is_needed(cluster, edges, store):
    store.create("settings")
    edges["nrt"].refuses = True
    async with kvnet.connect(cluster=cluster, near="Tokyo") as net:
        await until(lambda: net.edge.code == "kix")
        await net.namespace("settings").get("theme")
    assert not edges["nrt"].requests


async def test_when_the_first_fails_the_next_two_are_warm(cluster, edges):
    async with kvnet.connect(cluster=cluster, near="Tokyo") as net:
        await until(lambda: edges["kix"].health_checks >= 2)
        assert edges["fra"].health_checks == 0
        edges["nrt"].refuses = True
        with pytest.raises(kvnet.RequestError):
            await net.namespace("f" * 32).get("theme")
        await until(lambda: edges["fra"].health_checks >= 2)


@pytest.mark.parametrize(
    ("times", "order"),
    [
        ({"a": 10.0, "b": 20.0, "c": 30.0}, "abc"),
        ({"a": 10.0, "b": 9.0, "c": 30.0}, "abc"),
        ({"a": 10.0, "b": 30.0, "c": 2.0}, "cab"),
        ({"a": None, "b": 30.0, "c": 20.0}, "cba"),
    ],
)
async def test_order_follows_the_round_trips_when_they_clearly_change(times, order):
    route, pace = Route(EDGES), Pace("auto")
    looking = Watch(Lines(**times), route, pace, by_measure=True)
    await looking._reorder()
    await looking.close()
    assert "".join(edge.code for edge in route.candidates()) == order


async def test_order_that_was_chosen_stays(monkeypatch):
    monkeypatch.setattr(watch, "WARM_INTERVAL_S", 0.001)
    monkeypatch.setattr(watch, "REMEASURE_ROUNDS", 1)
    route, pace = Route(EDGES), Pace("auto")
    told = Lines(a=10.0, b=1.0, c=1.0)
    chosen = Watch(told, route, pace, by_measure=False)
    measured = Watch(Lines(a=10.0, b=1.0, c=1.0), Route(EDGES), Pace("auto"), by_measure=True)
    for each in (chosen, measured):
        each.start()
    await until(lambda: measured._route.preferred.code == "b")
    await until(lambda: told.asked >= 10)
    assert route.preferred.code == "a"
    for each in (chosen, measured):
        await each.close()
