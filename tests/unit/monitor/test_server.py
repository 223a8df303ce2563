import asyncio
import contextlib
import io

import pytest
from aiohttp.test_utils import RawTestServer, TestClient

TOKEN = {"Authorization": "Bearer letmein"}


async def until(condition):
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - a report has no event to wait for
            await asyncio.sleep(0)


@pytest.fixture
async def client(story):
    async with TestClient(RawTestServer(story.monitor.handle)) as client:
        yield client


async def test_health_takes_no_token(client):
    response = await client.get("/healthz")
    assert (response.status, (await response.json())["status"]) == (200, "ok")


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({}, 400, 9106),
        ({"Authorization": "letmein"}, 400, 6003),
        ({"Authorization": "Bearer wrong"}, 401, 10000),
    ],
)
@pytest.mark.parametrize("path", ["/report", "/report.txt", "/status", "/mark", "/elsewhere"])
async def test_everything_else_does(client, headers, status, code, path):
    response = await client.get(path, headers=headers)
    document = await response.json()
    assert (response.status, document["success"], document["errors"][0]["code"]) == (status, False, code)


async def test_the_report_comes_as_json_and_as_text(client, story):
    story.all_up()
    story.arrive(1100, story.commit(1000))
    assert (await (await client.get("/report", headers=TOKEN)).json())["writes"] == 1
    text = await client.get("/report.txt", headers=TOKEN)
    assert text.content_type == "text/plain"
    assert "1 writes" in await text.text()


async def test_a_mark_can_be_reported_on(client, story):
    story.now = 5000.0
    marked = await client.post("/mark", headers=TOKEN, json={"name": "bench-1"})
    assert await marked.json() == {"name": "bench-1", "wall_ms": 5000.0}
    report = await client.get("/report?since=bench-1", headers=TOKEN)
    assert (await report.json())["since"]["name"] == "bench-1"


async def test_an_unknown_mark_names_the_cure(client):
    response = await client.get("/report?since=x", headers=TOKEN)
    assert response.status == 404
    assert "POST /mark" in (await response.json())["errors"][0]["message"]


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{}", b'{"name": 5}', b'{"name": "start"}', b'{"name": "a b"}', b"\xff", b"x" * 2_000_000],
)
async def test_a_mark_without_a_proper_name_is_refused(client, body):
    response = await client.post("/mark", headers=TOKEN, data=io.BytesIO(body))
    assert (response.status, (await response.json())["errors"][0]["code"]) == (400, 10001)


async def test_wrong_methods_and_places_have_answers(client):
    assert (await client.post("/report", headers=TOKEN)).status == 405
    assert (await client.get("/mark", headers=TOKEN)).status == 405
    assert (await client.get("/client/v4/", headers=TOKEN)).status == 404


async def test_a_running_monitor_follows_the_coordinator_first_and_survives_nonsense(story):
    """Edges' stamps that come before any commit would wait in memory."""
    order = []
    done = asyncio.Event()

    class Feeds:
        async def follow(self, node):
            order.append(node)
            yield ["hello", node, b"1", 0.0, {"oldest_seq": 0}]
            yield ["nonsense"]
            if node == "coordinator":
                yield ["commits", [[1, 1, 1, 1000.0, 100, 1]], {}]
            else:
                yield ["stamps", [[1, 1, 1100.0]], {}]
            if len(order) == len(story.pops) + 1:
                done.set()
            await asyncio.Event().wait()

    story.monitor._source = Feeds()
    story.all_up()
    running = asyncio.create_task(story.monitor.run())
    await done.wait()
    await until(lambda: story.report()["writes"] == 1 and story.report()["pending"] == 0)
    assert order[0] == "coordinator"
    assert story.report()["converge_max_ms"] == pytest.approx(100)
    assert story.monitor.status()["silent"] == []
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running


async def test_without_a_launcher_every_pop_counts_as_up(story):
    story.now = 500.0
    story.start()
    running = asyncio.create_task(story.monitor.run())
    await until(lambda: story.report()["connected"] == len(story.pops))
    assert story.report()["per_pop"]["fra"]["connected_since_ms"] == 500
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
