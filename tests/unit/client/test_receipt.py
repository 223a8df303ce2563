"""Writes that are waited for."""

from __future__ import annotations

import pytest

import kvnet
from kvnet.client import NewPair, Receipt
from kvnet.core.versions import Version

SPREAD = {"complete": False, "applied": 150, "of": 152, "missing": ["per", "akl"], "took_ms": {"p50": 90.5}}


@pytest.fixture
async def settings(cluster, store):
    id_ = store.create("settings")
    async with kvnet.connect(cluster=cluster, near="Tokyo") as net:
        yield net.namespace(id_)


async def test_write_that_is_waited_for_tells_how_far_it_is(settings, edges):
    edges["nrt"].receipt = SPREAD
    expected = {"complete": False, "applied": 150, "of": 152, "missing": ("per", "akl"), "took_ms": {"p50": 90.5}}
    put = await settings.put("theme", "dark", wait="99%", wait_timeout_ms=500)
    assert put == Receipt(version=Version(1, 1), **expected)
    sent = edges["nrt"].headers_seen[-1]
    assert (sent["KV-Wait"], sent["KV-Wait-Timeout-Ms"]) == ("99%", "500")
    many = await settings.put_many([NewPair(key="a", value=b"1")], wait="all")
    assert many == Receipt(version=Version(1, 2), **expected)
    gone = await settings.delete("a", wait="all")
    assert gone == Receipt(version=Version(1, 3), **expected)


async def test_plain_answer_tells_of_the_edge_that_was_asked(settings):
    assert await settings.put("theme", "dark", wait="local") == Receipt(
        version=Version(1, 1), complete=True, applied=1, of=1
    )


async def test_write_that_nobody_waits_for_is_a_version(settings, edges):
    assert await settings.put("theme", "dark") == Version(1, 1)
    assert "KV-Wait" not in edges["nrt"].headers_seen[-1]
    assert await settings.put_many([], wait="all") is None


async def test_time_without_anything_to_wait_for_is_refused(settings):
    with pytest.raises(ValueError, match="say with wait for what"):
        await settings.put("theme", "dark", wait_timeout_ms=5)
