from __future__ import annotations

import pytest

import kvnet
from kvnet.client import Value
from kvnet.core.versions import Version
from kvnet.errors import RequestError


@pytest.fixture
async def net(cluster):
    async with kvnet.connect(cluster=cluster, near="Tokyo") as net:
        yield net


async def test_value_is_read_back_as_it_was_written(net):
    namespace = await net.create_namespace("settings")
    version = await namespace.put("theme", b"\x00dark\xff")
    assert version == Version(1, 2)
    assert await namespace.get("theme") == b"\x00dark\xff"


async def test_empty_value_is_a_value_and_a_missing_one_is_none(net):
    namespace = await net.create_namespace("settings")
    await namespace.put("empty", b"")
    assert await namespace.get("empty") == b""
    assert await namespace.get("missing") is None
    assert await namespace.get_with_metadata("missing") is None


async def test_text_is_stored_as_utf8(net):
    namespace = await net.create_namespace("settings")
    await namespace.put("greeting", "olá")
    assert await namespace.get("greeting") == "olá".encode()


@pytest.mark.parametrize("key", ["a/b", "a%2Fb", "%41", "a+b c", "?x=1#y", "é😀", "\x01", "..a"])
async def test_any_key_arrives_exactly_once_decoded(net, store, key):
    namespace = await net.create_namespace("settings")
    await namespace.put(key, b"value")
    assert list(next(iter(store.pairs.values()))) == [key]
    assert await namespace.get(key) == b"value"
    assert [listed.name async for listed in namespace.list()] == [key]
    await namespace.delete(key)
    assert await namespace.get(key) is None


@pytest.mark.parametrize("metadata", [{"a": [1, "ü"]}, 0, "", False, [], "text"])
async def test_metadata_travels_with_the_value_and_tells_its_origin(net, metadata):
    namespace = await net.create_namespace("settings")
    version = await namespace.put("theme", b"dark", metadata=metadata, expiration=4_000_000_000)
    assert await namespace.get_with_metadata("theme") == Value(
        value=b"dark", metadata=metadata, expires_at=4_000_000_000, version=version, pop="nrt", staleness_ms=500
    )


async def test_ttl_and_expiration_go_into_the_query(net, edges):
    namespace = await net.create_namespace("settings")
    await namespace.put("theme", b"dark", ttl=60, expiration=4_000_000_000)
    assert edges["nrt"].requests[-1][1].endswith("/values/theme?expiration=4000000000&expiration_ttl=60")


async def test_torn_read_of_value_and_metadata_is_repeated(net, store, edges):
    namespace = await net.create_namespace("settings")
    await namespace.put("theme", b"dark", metadata=1)
    original = edges["nrt"]._pair
    changes = [(b"light", 2, None, 9)]

    async def changed_in_between(request, method, id_, what, key):
        if what == "metadata" and changes:
            store.pairs[id_][key] = changes.pop()
        return await original(request, method, id_, what, key)

    edges["nrt"]._pair = changed_in_between
    read = await namespace.get_with_metadata("theme")
    assert not changes
    assert (read.value, read.metadata, read.version) == (b"light", 2, Version(1, 9))


async def test_at_least_asks_the_edge_to_wait_for_a_version(net, edges):
    namespace = await net.create_namespace("settings")
    version = await namespace.put("theme", b"dark")
    edges["nrt"].headers_seen.clear()
    await net.namespace("settings").get("theme", at_least=version)
    waited_for = [headers.get("KV-At-Least") for headers in edges["nrt"].headers_seen]
    assert waited_for == ["1-2", "1-2"], "the namespace may be as new as the value"


@pytest.mark.parametrize(("limit", "expected"), [(None, 2003), (0, 0), (3, 3), (1000, 1000), (1500, 1500)])
async def test_listing_walks_pages_and_ends_at_the_limit(net, store, limit, expected):
    namespace = await net.create_namespace("settings")
    id_ = next(iter(store.pairs))
    store.pairs[id_] = {f"k{i:05}": (b"", None, None, 1) for i in range(2003)} | {"other": (b"", None, None, 1)}
    names = [key.name async for key in namespace.list(prefix="k", limit=limit)]
    assert names == [f"k{i:05}" for i in range(expected)]


async def test_namespace_is_found_by_title_and_by_id(net, store):
    id_ = store.create("settings")
    await net.namespace("settings").put("theme", b"dark")
    assert await net.namespace(id_).get("theme") == b"dark"
    assert [(found.id, found.title) for found in await net.namespaces()] == [(id_, "settings")]


@pytest.mark.parametrize("name", ["no such", "0" * 32])
async def test_unknown_namespace_names_the_cure(net, name):
    with pytest.raises(RequestError, match=r"create it with `kvnet namespace create ('no such'|0{32})`") as caught:
        await net.namespace(name).get("theme")
    assert (caught.value.status, caught.value.code) == (404, 10013)


async def test_title_is_looked_up_again_after_its_namespace_was_replaced(net, store):
    store.create("settings")
    namespace = net.namespace("settings")
    assert await namespace.get("theme") is None
    await net.namespace("settings").drop()
    replacement = store.create("settings")
    await namespace.put("theme", b"dark")
    assert list(store.pairs[replacement]) == ["theme"]


async def test_renamed_namespace_keeps_its_pairs(net):
    namespace = await net.create_namespace("settings")
    await namespace.put("theme", b"dark")
    await namespace.rename("preferences")
    assert await net.namespace("preferences").get("theme") == b"dark"
    assert (await namespace.info()).title == "preferences"


async def test_refusal_has_the_apis_code_and_message(net):
    await net.create_namespace("settings")
    with pytest.raises(RequestError, match="already exists") as caught:
        await net.create_namespace("settings")
    assert (caught.value.status, caught.value.code, caught.value.definite) == (400, 10014, True)
