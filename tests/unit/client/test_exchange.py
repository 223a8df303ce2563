from __future__ import annotations

import asyncio

import pytest
from aiohttp import web

import kvnet
from kvnet.client import exchange, race, watch
from kvnet.errors import RequestError
from tests.support.fake_edge import ACCOUNT, TOKEN, until


async def test_reads_go_to_the_nearest_edge(cluster, edges, store):
    store.create("settings")
    async with kvnet.connect(cluster=cluster, near="sao paulo") as net:
        await net.namespace("settings").get("theme")
    assert edges["gru"].requests
    assert not any(edges[code].requests for code in ("nrt", "kix", "fra"))


async def test_read_fails_over_to_the_next_nearest_and_returns_when_the_edge_is_back(
    cluster, edges, store, monkeypatch
):
    monkeypatch.setattr(watch, "RETURN_CHECK_S", (0.01,))
    store.create("settings")
    edges["nrt"].refuses = True
    async with kvnet.connect(cluster=cluster, near="Tokyo") as net:
        assert await net.namespace("settings").get("theme") is None
        assert edges["nrt"].requests
        assert edges["kix"].requests
        assert net.edge.code == "kix"
        asked = len(edges["nrt"].requests)
        await net.namespace("settings").get("theme")
        assert len(edges["nrt"].requests) == asked, "an edge that is away is left in peace"
        edges["nrt"].refuses = False
        await until(lambda: net.edge.code == "nrt")
        await net.namespace("settings").get("theme")
        assert len(edges["nrt"].requests) > asked


async def test_unreachable_edge_is_passed_over(cluster, edges, store):
    store.create("settings")
    cluster["pops"]["nrt"]["url"] = "http://127.0.0.1:1"
    async with kvnet.connect(cluster=cluster, near="Tokyo") as net:
        await net.namespace("settings").put("theme", b"dark")
        assert net.edge.code == "kix"
    assert list(store.pairs.values()) == [{"theme": (b"dark", None, None, 1)}]


async def test_write_whose_answer_was_lost_is_answered_elsewhere_and_not_repeated(cluster, edges, store):
    store.create("settings")
    async with kvnet.connect(cluster=cluster, near="Tokyo") as net:
        namespace = net.namespace("settings")
        await namespace.get("theme")
        edges["nrt"].drops_after_applying = 1
        version = await namespace.put("theme", b"dark")
    puts = [e for e in edges.values() for method, _ in e.requests if method == "PUT"]
    assert len(puts) >= 2, "the answer was lost"
    assert store.seq == version.seq == 1


async def test_write_to_an_edge_that_dies_over_it_may_have_been_made():
    """aiohttp sent it a second time by itself: that one was refused at the door, and the first was forgotten."""
    requests = []

    async def die(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        if b"/healthz" in request:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            writer.close()
            return
        requests.append(request)
        server.close()
        writer.transport.abort()

    server = await asyncio.start_server(die, "127.0.0.1", 0)
    place = {"city": "Tokyo", "country": "JP", "lat": 35.76, "lon": 139.39}
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    cluster = {"account_id": ACCOUNT, "tokens": {"write": TOKEN}, "pops": {"nrt": {"url": url, **place}}}
    async with kvnet.connect(cluster=cluster, near="Tokyo") as net:
        with pytest.raises(RequestError) as caught:
            await net.namespace("f" * 32).put("theme", b"dark")
    assert len(requests) == 1
    assert not caught.value.definite


async def test_every_write_has_a_request_id_of_its_own(cluster, edges, store):
    store.create("settings")
    async with kvnet.connect(cluster=cluster, near="Tokyo") as net:
        namespace = net.namespace("settings")
        for value in (b"1", b"2"):
            await namespace.put("theme", value)
        await namespace.delete("theme")
    ids = [headers["KV-Request-Id"] for headers in edges["nrt"].headers_seen if "KV-Request-Id" in headers]
    assert len(set(ids)) == 3


async def test_write_refused_by_all_is_given_up_after_a_few(cluster, edges, store):
    id_ = store.create("settings")
    for edge in edges.values():
        edge.refuses = True
    async with kvnet.connect(cluster=cluster, near="Tokyo") as net:
        with pytest.raises(RequestError, match="no catalogue yet") as caught:
            await net.namespace(id_).put("theme", b"dark")
    assert (caught.value.status, caught.value.definite) == (503, False)
    assert sum(len(edge.requests) for edge in edges.values()) == race.REFUSALS_MAX


async def test_write_that_never_left_is_definitely_not_done():
    urls = ["http://127.0.0.1:1", "http://127.0.0.1:2"]
    async with kvnet.connect(urls=urls, token=TOKEN, account_id=ACCOUNT) as net:
        with pytest.raises(RequestError, match=r"no edge answered.*kvnet ps") as caught:
            await net.namespace("0" * 32).put("theme", b"dark")
    assert (caught.value.status, caught.value.definite) == (503, True)


async def test_silent_edge_is_passed_over_within_the_calls_time(cluster, edges, store, monkeypatch):
    store.create("settings")
    asked = asyncio.Event()

    async def silent(request, path):
        asked.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(exchange, "READ_SILENCE_S", 0.05)
    monkeypatch.setattr(edges["nrt"], "_route", silent)
    async with kvnet.connect(cluster=cluster, near="Tokyo") as net:
        assert await net.namespace("settings").get("theme") is None
        assert asked.is_set()
        assert net.edge.code == "kix"


async def test_wrong_token_is_told_and_not_tried_elsewhere(cluster, edges):
    async with kvnet.connect(cluster=cluster, token="wrong", near="Tokyo") as net:
        with pytest.raises(RequestError, match="Authentication error") as caught:
            await net.namespaces()
    assert caught.value.status == 401
    assert not edges["kix"].requests


async def test_something_else_at_the_address_is_named():
    async def page(request: web.BaseRequest) -> web.Response:
        return web.Response(text="<html>It works!</html>")

    runner = web.ServerRunner(web.Server(page), handle_signals=False)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    async with kvnet.connect(urls=[url], token=TOKEN, account_id=ACCOUNT) as net:
        with pytest.raises(RequestError, match=f"{url} answered with no JSON"):
            await net.namespaces()
    await runner.cleanup()


async def test_edges_own_refusal_is_told_rather_than_the_silence_of_the_next(cluster, edges, store, monkeypatch):
    id_ = store.create("settings")
    edges["nrt"].refuses = True
    asked = asyncio.Event()

    async def silent(request, path):
        asked.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(edges["kix"], "_route", silent)
    async with kvnet.connect(cluster=cluster, near="Tokyo", timeout_s=0.5) as net:
        with pytest.raises(RequestError, match="no catalogue yet") as caught:
            await net.namespace(id_).put("theme", b"dark")
        assert asked.is_set()
        assert net.edge.code == "kix", "a call that ran out of time blames no edge"
    assert not caught.value.definite
