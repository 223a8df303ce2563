from __future__ import annotations

import aiohttp
import pytest
from aiohttp import web

from kvnet.cli import window
from kvnet.errors import RequestError


class FakeMonitor:
    """Answers `/mark`, and `/report` with the next of `reports`, the last of them for ever."""

    def __init__(self, reports):
        self.reports = reports
        self.asked = []

    async def handle(self, request):
        assert request.headers["Authorization"] == "Bearer r"
        if request.method == "POST":
            self.asked.append((request.path, await request.json()))
            return web.json_response({})
        self.asked.append((request.path, dict(request.query)))
        return web.json_response(self.reports.pop(0) if len(self.reports) > 1 else self.reports[0])


def report(writes, pending, bound_ms=10_000):
    return {"bound_ms": bound_ms, "writes": writes, "unjudged": 0, "superseded": 0, "pending": pending}


@pytest.fixture
async def watch(monkeypatch):
    """Open a window on a monitor that will tell these reports."""
    monkeypatch.setattr(window, "POLL_S", 0.001)
    runner = None
    async with aiohttp.ClientSession() as session:

        async def opened(*reports):
            nonlocal runner
            monitor = FakeMonitor(list(reports))
            runner = web.ServerRunner(web.Server(monitor.handle), handle_signals=False)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            cluster = {"monitor": {"url": url}, "tokens": {"read": "r"}}
            return monitor, window.Window(session, cluster, "mine")

        yield opened
        if runner is not None:
            await runner.cleanup()


async def test_window_is_settled_when_every_write_is_told_and_none_is_pending(watch):
    monitor, opened = await watch(report(0, 0), report(2, 1), report(3, 1), report(3, 0))
    await opened.begin()
    assert await opened.settled(3) == report(3, 0)
    assert monitor.asked[0] == ("/mark", {"name": "mine"})
    assert set(map(str, monitor.asked[1:])) == {str(("/report", {"since": "mine"}))}


async def test_writes_that_never_arrive_end_the_wait_when_the_bound_has_passed(watch, monkeypatch):
    monkeypatch.setattr(window, "GRACE_S", 0.01)
    _, opened = await watch(report(2, 1, bound_ms=1))
    assert (await opened.settled(3))["pending"] == 1


async def test_monitor_that_is_down_is_named():
    async with aiohttp.ClientSession() as session:
        cluster = {"monitor": {"url": "http://127.0.0.1:1"}, "tokens": {"read": "r"}}
        with pytest.raises(RequestError, match=r"http://127.0.0.1:1 doesn't answer.*kvnet ps"):
            await window.Window(session, cluster, "mine").begin()
