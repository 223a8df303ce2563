"""Reads that are slow: another edge is asked too, seldom enough."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

import kvnet
from kvnet.client import pace
from kvnet.client.trail import trail
from kvnet.errors import RequestError
from tests.support.fake_edge import until


@pytest.fixture
async def net(cluster, store, monkeypatch):
    """Asks a second edge after a hundredth of a second; a slow one has all the time to say that it serves."""
    monkeypatch.setattr(pace, "DOUBT_MS_MIN", 60_000.0)
    store.create("settings")
    async with kvnet.connect(cluster=cluster, near="Tokyo", hedge_ms=10) as net:
        yield net


@pytest.fixture
async def settings(net):
    """Knows its id, so that a read is one request."""
    settings = net.namespace(await net.namespace("settings").id())
    await settings.put("theme", b"dark")
    return settings


def asked(edge, method, key):
    return [path for verb, path in edge.requests if verb == method and path.endswith(f"/values/{key}")]


async def test_slow_read_is_answered_by_the_second_nearest_and_the_first_is_dropped(net, settings, edges):
    edges["nrt"].slow = asyncio.Event()
    before = replace(net.tally)
    with trail() as calls:
        assert await settings.get("theme") == "dark"
    assert edges["nrt"].held
    await until(lambda: all(request.transport is None for request in edges["nrt"].held))
    assert {call.answered_by.code for call in calls} == {"kix"}
    assert [(each.edge.code, each.why, each.outcome) for each in calls[-1].attempts] == [
        ("nrt", "first", "dropped"),
        ("kix", "hedge", "answered"),
    ]
    assert net.edge.code == "nrt", "an edge that says that it serves is only slow"
    assert (net.tally.hedged, net.tally.hedges_won) == (before.hedged + 1, before.hedges_won + 1)
    assert not edges["gru"].requests


async def test_answer_of_the_first_counts_when_it_comes_first(net, settings, edges):
    edges["nrt"].slow, edges["kix"].slow = asyncio.Event(), asyncio.Event()
    before = replace(net.tally)
    reading = asyncio.create_task(settings.get_with_metadata("theme"))
    await until(lambda: edges["kix"].held)
    edges["nrt"].slow.set()
    edges["nrt"].slow = None
    assert (await reading).pop == "nrt"
    assert net.tally.hedged > before.hedged
    assert net.tally.hedges_won == before.hedges_won


async def test_write_is_never_asked_of_two_edges(net, settings, edges, store):
    edges["nrt"].slow = asyncio.Event()
    writing = asyncio.create_task(settings.put("slow", b"1"))
    await until(lambda: edges["nrt"].held)
    assert await settings.get("theme") == "dark"  # which has waited for longer than the write may
    assert asked(edges["kix"], "GET", "theme")
    edges["nrt"].slow.set()
    await writing
    assert not asked(edges["kix"], "PUT", "slow")


async def test_with_none_no_second_edge_is_asked(net, settings, cluster, edges):
    async with kvnet.connect(cluster=cluster, near="Tokyo", hedge_ms=None) as patient:
        unhurried = patient.namespace(await settings.id())
        edges["nrt"].slow = asyncio.Event()
        reading = asyncio.create_task(unhurried.get("missing"))
        await until(lambda: edges["nrt"].held)
        await settings.get("theme")
        assert asked(edges["kix"], "GET", "theme")
        assert not asked(edges["kix"], "GET", "missing")
        edges["nrt"].slow.set()
        assert await reading is None


async def test_answer_that_has_begun_is_waited_for_however_long_it_is(net, settings, edges):
    edges["nrt"].slow_bodies = asyncio.Event()
    reading = asyncio.create_task(settings.get("theme"))
    await until(lambda: edges["nrt"].held)
    edges["nrt"].slow = asyncio.Event()
    await settings.get("missing")
    assert asked(edges["kix"], "GET", "missing")
    edges["nrt"].slow_bodies.set()
    assert await reading == "dark"
    assert not asked(edges["kix"], "GET", "theme")


async def test_silent_edge_is_left_until_it_speaks_again(net, settings, edges, monkeypatch):
    monkeypatch.setattr(pace, "DOUBT_MS_MIN", 20.0)
    edges["nrt"].silent = asyncio.Event()
    assert await settings.get("theme") == "dark"
    await until(lambda: net.edge.code == "kix")
    before = len(edges["nrt"].requests)
    assert await settings.get("theme") == "dark"
    assert len(edges["nrt"].requests) == before
    edges["nrt"].silent.set()
    edges["nrt"].silent = None
    await until(lambda: net.edge.code == "nrt")


async def test_any_number_of_reads_leave_an_edge_that_fell_silent(net, settings, edges, monkeypatch):
    """The allowance is five. Whoever finds it spent moves on when the edge doesn't say that it serves either."""
    monkeypatch.setattr(pace, "DOUBT_MS_MIN", 20.0)
    edges["nrt"].silent = asyncio.Event()
    found = await asyncio.gather(*(settings.get("theme") for _ in range(40)))
    assert found == ["dark"] * 40
    assert len(edges["nrt"].held) >= 40
    assert net.tally.hedged >= 40


async def test_slow_edges_are_not_asked_twice_for_every_read(net, settings, edges):
    edges["nrt"].slow = asyncio.Event()
    reading = [asyncio.create_task(settings.get(f"key-{each}")) for each in range(40)]
    await until(lambda: len(edges["nrt"].held) >= 40 and sum(each.done() for each in reading) >= 4)
    await until(lambda: edges["nrt"].health_checks > 20)
    assert sum(each.done() for each in reading) <= 6
    edges["nrt"].slow.set()
    await asyncio.gather(*reading)
    assert net.tally.hedged <= 6


async def test_slow_edge_is_waited_for_when_all_others_refuse(net, settings, edges):
    edges["nrt"].slow = asyncio.Event()
    for code in ("kix", "gru", "fra"):
        edges[code].refuses = True
    reading = asyncio.create_task(settings.get("theme"))
    await until(lambda: asked(edges["gru"], "GET", "theme"))
    edges["nrt"].slow.set()
    assert await reading == "dark"


@pytest.mark.parametrize("lacking", [{"position": 0}, {"staleness_ms": 60_000}])
async def test_edge_that_is_not_new_enough_is_no_failed_edge(net, settings, edges, lacking):
    for name, value in lacking.items():
        setattr(edges["nrt"], name, value)
    found = await settings.get_with_metadata("theme", max_staleness_ms=1000)
    assert (found.value, found.pop) == ("dark", "kix")
    assert net.edge.code == "nrt"


async def test_what_no_edge_is_new_enough_for_is_refused_in_an_edges_words(net, settings, edges):
    for edge in edges.values():
        edge.position = 0
    with pytest.raises(RequestError, match="stands at 1-0 and did not reach 1-1") as caught:
        await settings.get("theme")
    assert (caught.value.status, caught.value.code, caught.value.definite) == (504, 20003, True)
