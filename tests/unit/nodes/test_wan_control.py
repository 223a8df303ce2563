from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from kvnet.errors import ConfigError
from kvnet.topology.load import parse
from kvnet.topology.wan_state import WanState
from kvnet.transport.handshake import Identity
from kvnet.transport.signing import HEADER, check
from nodes.wan_control import LAUNCHER, WAN_PATH, WanControl

SECRET = b"a secret of the cluster"


def three(url: str = "http://127.0.0.1:9"):
    return parse(
        f"""\
name: three
coordinator: {{place: iad}}
pops:
  - {{code: iad, city: Ashburn, country: US, lat: 38.9, lon: -77.5, region: north-america}}
  - {{code: osl, city: Oslo, country: "NO", lat: 60.2, lon: 11.1, region: europe, url: "{url}"}}
  - {{code: per, city: Perth, country: AU, lat: -31.9, lon: 116.0, region: oceania}}
"""
    )


@asynccontextmanager
async def controlled(topology=None, listening=(), on_change=lambda: None) -> AsyncIterator[WanControl]:
    control = WanControl(topology or three(), SECRET, listening=lambda: list(listening), on_change=on_change)
    running = asyncio.create_task(control.run())
    yield control
    running.cancel()


async def cuts_after(*orders) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    async with controlled() as control:
        for order in orders:
            told = await control.obey(order)
    return [(cut.senders, cut.receivers) for cut in WanState.from_dict(told["state"]).cuts]


async def test_every_change_has_a_version_and_looking_has_none():
    async with controlled() as control:
        first = await control.obey({"loss": 0.2})
        assert (first["state"]["version"], first["state"]["loss"], first["behind"]) == (1, 0.2, [])
        assert (await control.obey({}))["state"] == first["state"]
        assert (await control.obey({"isolate": ["OSL"]}))["state"]["version"] == 2


async def test_a_cut_has_one_direction_unless_told_both():
    assert await cuts_after({"cut": ["europe"], "to": ["iad", "per"]}) == [(("osl",), ("iad", "per"))]
    assert await cuts_after({"cut": ["osl"], "to": ["iad"], "both": True}) == [
        (("osl",), ("iad",)),
        (("iad",), ("osl",)),
    ]


async def test_healing_a_group_opens_what_is_cut_from_and_to_it_and_nothing_else():
    orders = ({"isolate": ["osl"]}, {"cut": ["iad"], "to": ["per"]})
    assert await cuts_after(*orders, {"heal": ["osl"]}) == [(("iad",), ("per",))]
    assert await cuts_after(*orders, {"heal": []}) == []


async def test_a_delay_works_both_ways_until_it_is_nothing():
    async with controlled() as control:
        await control.obey({"delay": ["IAD", "osl"], "extra_ms": 100})
        assert {(pair.sender, pair.receiver, pair.extra_ms) for pair in control.state.pairs} == {
            ("iad", "osl", 100),
            ("osl", "iad", 100),
        }
        await control.obey({"delay": ["iad", "osl"], "extra_ms": 0})
        assert control.state.pairs == ()


@pytest.mark.parametrize(
    ("order", "told"),
    [
        ({"isolate": ["eurpe"]}, "no node or region is called 'eurpe': did you mean europe"),
        ({"isolate": ["europe", "north-america", "oceania"]}, "name fewer"),
        ({"loss": 1.5}, "below 1"),
        ({"delay": ["iad", "osl"], "extra_ms": -5}, "at least 0"),
        ({"explode": []}, "another version"),
    ],
)
async def test_what_cannot_be_changes_nothing(order, told):
    async with controlled() as control:
        before = control.state
        with pytest.raises(ConfigError, match=told):
            await control.obey(order)
        assert control.state is before


class FakeNode:
    """Answers at the path for changes; refuses the first `failures` of them."""

    def __init__(self, failures: int = 0) -> None:
        self.failures = failures
        self.states: list[WanState] = []
        self.told = asyncio.Event()

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        body = await request.read()
        me = Identity(name="osl", start_id=bytes(8), cluster_id=three().digest(), secret=SECRET)
        sender = check(me, {LAUNCHER}, request.headers.get(HEADER), "PUT", WAN_PATH, body)
        assert (sender, request.method, request.path) == (LAUNCHER, "PUT", WAN_PATH)
        if self.failures:
            self.failures -= 1
            return web.Response(status=503)
        self.states.append(WanState.from_dict(json.loads(body)))
        self.told.set()
        return web.Response()


@asynccontextmanager
async def listening_node(node: FakeNode):
    runner = web.ServerRunner(web.Server(node.handle))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield three(f"http://127.0.0.1:{runner.addresses[0][1]}")
    await runner.cleanup()


async def test_a_node_that_listens_is_told_until_it_answers():
    node = FakeNode(failures=2)
    async with listening_node(node) as topology, controlled(topology, ["osl", "monitor"]) as control:
        told = await control.obey({"isolate": ["osl"]})
        assert (node.failures, told["behind"]) == (0, [])
        assert node.states == [control.state]


async def test_a_node_that_starts_is_told_again():
    node, up = FakeNode(), []
    async with listening_node(node) as topology, controlled(topology, up) as control:
        await control.obey({"loss": 0.5})
        assert node.states == []
        up.append("osl")
        control.started("osl")
        await asyncio.wait_for(node.told.wait(), 10)
        assert node.states[0].loss == 0.5


async def test_ground_truth_knows_a_cut_before_the_nodes_and_a_heal_after_them():
    node, seen = FakeNode(), []
    async with listening_node(node) as topology:

        def note() -> None:
            seen.append((len(node.states), control.truth.is_cut("osl", "iad")))

        async with controlled(topology, ["osl"], note) as control:
            await control.obey({"isolate": ["osl"]})
            await control.obey({"heal": []})
    assert seen == [(0, True), (1, True), (1, True), (2, False)]
