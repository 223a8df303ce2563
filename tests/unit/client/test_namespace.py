from __future__ import annotations

from io import BytesIO, StringIO

import pytest

import kvnet
from kvnet.client import NewPair, Value
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
    assert await namespace.get("theme", "bytes") == await namespace.get("theme", "arrayBuffer") == b"\x00dark\xff"


async def test_empty_value_is_a_value_and_a_missing_one_is_none(net):
    namespace = await net.create_namespace("settings")
    await namespace.put("empty", b"")
    assert await namespace.get("empty") == ""
    for type_ in ("text", "json", "bytes", "stream"):
        assert await namespace.get("missing", type_) is None
    missing = await namespace.get_with_metadata("missing")
    assert (missing.value, missing.metadata, missing.version, missing.pop) == (None, None, None, "nrt")


async def test_a_value_is_given_as_what_it_is_asked_for(net):
    namespace = await net.create_namespace("settings")
    await namespace.put("theme", '{"dark": true}')
    assert await namespace.get("theme") == '{"dark": true}'
    assert await namespace.get("theme", "json") == await namespace.get("theme", type="json") == {"dark": True}
    assert (await namespace.get_with_metadata("theme", "json")).value == {"dark": True}
    await namespace.put("raw", b"\xffx")
    assert await namespace.get("raw") == "\ufffdx"
    with pytest.raises(ValueError, match="the value is not JSON"):
        await namespace.get("raw", "json")


async def test_a_large_value_comes_as_a_stream(net, store):
    namespace = await net.create_namespace("settings")
    value = b"0123456789abcdef" * 60_000
    await namespace.put("large", value)
    chunks = [chunk async for chunk in await namespace.get("large", "stream")]
    assert len(chunks) > 1
    assert b"".join(chunks) == value
    stream = await namespace.get("large", "stream")
    assert value.startswith(await anext(stream))
    await stream.aclose()


async def test_a_stream_that_ends_early_is_told(net, store, edges):
    namespace = await net.create_namespace("settings")
    await namespace.put("large", b"0123456789abcdef" * 60_000)
    edges["nrt"].cuts_values = True
    stream = await namespace.get("large", "stream")
    with pytest.raises(RequestError, match="ended early"):
        [chunk async for chunk in stream]


async def test_several_keys_are_asked_for_at_once(net, edges):
    namespace = await net.create_namespace("settings")
    await namespace.put("a", "1", metadata={"by": "ada"})
    await namespace.put("b", "2", expiration=4_000_000_000)
    before = len(edges["nrt"].requests)
    assert await namespace.get(["a", "b", "missing"]) == {"a": "1", "b": "2", "missing": None}
    assert await namespace.get(("a", "b"), "json") == {"a": 1, "b": 2}
    found = await namespace.get_with_metadata(["a", "b", "missing"])
    assert {key: each.value for key, each in found.items()} == {"a": "1", "b": "2", "missing": None}
    assert (found["a"].metadata, found["b"].expires_at, found["a"].pop) == ({"by": "ada"}, 4_000_000_000, "nrt")
    assert len(edges["nrt"].requests) == before + 3


async def test_several_keys_may_be_waited_for(net, edges):
    namespace = await net.create_namespace("settings")
    version = await namespace.put("a", "1")
    await namespace.get(["a"], at_least=version)
    assert edges["nrt"].headers_seen[-1]["KV-At-Least"] == str(version)


async def gathered():
    for chunk in (b"da", bytearray(b"r"), memoryview(b"k")):
        yield chunk


@pytest.mark.parametrize(
    "value",
    ["dark", b"dark", bytearray(b"dark"), memoryview(b"dark"), BytesIO(b"dark"), StringIO("dark"), gathered()],
    ids=lambda value: type(value).__name__,
)
async def test_what_holds_bytes_may_be_put(net, value):
    namespace = await net.create_namespace("settings")
    await namespace.put("theme", value)
    assert await namespace.get("theme") == "dark"


async def test_code_of_a_worker_runs_as_it_is(net, edges):
    """Options as an object or by name, spelled as JavaScript does."""
    namespace = await net.create_namespace("settings")
    await namespace.put("theme", "[1]", {"expirationTtl": 60, "metadata": {"a": 1}})
    assert edges["nrt"].requests[-1][1].endswith("/values/theme?expiration_ttl=60")
    await namespace.put("theme", "[1]", expirationTtl=61)
    assert edges["nrt"].requests[-1][1].endswith("/values/theme?expiration_ttl=61")
    await namespace.put("theme", "[1]", metadata={"a": 1})
    assert await namespace.get("theme", {"type": "json", "cacheTtl": 60}) == [1]
    assert await namespace.get("theme", {"cacheTtl": 60}) == "[1]"
    assert await namespace.get("theme", type="json", cacheTtl=60) == [1]
    found = await namespace.getWithMetadata("theme", "json")
    assert (found.value, found.metadata, found.cacheStatus) == ([1], {"a": 1}, None)
    page = await namespace.list({"prefix": "th", "limit": 10})
    assert ([key.name for key in [*page.keys]], page.list_complete, page.cursor) == (["theme"], True, None)
    assert page.cacheStatus is None


@pytest.mark.parametrize("limit", [1, 3, 9, 10, 12])
async def test_pages_are_as_long_as_they_are_asked_to_be(net, store, limit):
    """The API gives no fewer than ten: what it gives too much comes with the next page."""
    namespace = await net.create_namespace("settings")
    await namespace.put_many([NewPair(key=f"k{i:02}", value=b"v") for i in range(25)])
    await namespace.put("other", "v")
    names, cursor, pages = [], None, 0
    while True:
        page = await namespace.list(prefix="k", limit=limit, cursor=cursor)
        assert len(page.keys) <= limit
        names += [key.name for key in page.keys]
        pages += 1
        assert pages < 60
        if page.list_complete:
            break
        cursor = page.cursor
    assert names == [f"k{i:02}" for i in range(25)]


async def test_a_page_without_a_limit_is_the_longest_there_is(net, store):
    namespace = await net.create_namespace("settings")
    await namespace.put_many([NewPair(key=f"k{i:04}", value=b"v") for i in range(1001)])
    for limit in (None, 0, -1):
        page = await namespace.list(limit=limit)
        assert (len(page.keys), page.list_complete) == (1000, False)


@pytest.mark.parametrize(
    ("ask", "error", "told"),
    [
        (lambda ns: ns.get(""), ValueError, "Key name cannot be empty."),
        (lambda ns: ns.get("."), ValueError, '"." is not allowed as a key name.'),
        (lambda ns: ns.put("..", "v"), ValueError, '".." is not allowed as a key name.'),
        (lambda ns: ns.delete(""), ValueError, "Key name cannot be empty."),
        (lambda ns: ns.get_with_metadata(["k", ""]), ValueError, "Key name cannot be empty."),
        (lambda ns: ns.get(b"k"), TypeError, "a key is a str, or several in a list, not bytes"),
        (lambda ns: ns.get("k", "blob"), TypeError, "Unknown response type 'blob'. Possible types are"),
        (lambda ns: ns.get_with_metadata("k", "stream"), TypeError, "Unknown response type 'stream'"),
        (lambda ns: ns.get(["k"], "stream"), TypeError, '"stream" is not a valid type for several keys'),
        (lambda ns: ns.get("k", cache_ttl=29), ValueError, "Cache TTL must be at least 30."),
        (lambda ns: ns.get("k", {"cacheTtl": 29}), ValueError, "Invalid cache_ttl of 29."),
        (lambda ns: ns.get("k", cachettl=30), TypeError, "there is no option 'cachettl'"),
        (lambda ns: ns.put("k", "v", ttl=60), TypeError, "there is no option 'ttl': it may be expiration, exp"),
        (lambda ns: ns.put("k", 5), TypeError, "a value is text, bytes, a file or an async iterator"),
        (lambda ns: ns.list(after="k"), TypeError, "there is no option 'after'"),
        (lambda ns: ns.list(cursor="~!"), ValueError, "Invalid cursor"),
    ],
)
async def test_what_cant_be_asked_is_told_before_anybody_is_asked(net, edges, ask, error, told):
    namespace = await net.create_namespace("settings")
    before = len(edges["nrt"].requests)
    with pytest.raises(error) as raised:
        await ask(namespace)
    assert told in str(raised.value)
    assert len(edges["nrt"].requests) == before


async def test_text_is_stored_as_utf8(net):
    namespace = await net.create_namespace("settings")
    await namespace.put("greeting", "olá")
    assert await namespace.get("greeting", "bytes") == "olá".encode()
    assert await namespace.get("greeting") == "olá"


@pytest.mark.parametrize("key", ["a/b", "a%2Fb", "%41", "a+b c", "?x=1#y", "é😀", "\x01", "..a"])
async def test_any_key_arrives_exactly_once_decoded(net, store, key):
    namespace = await net.create_namespace("settings")
    await namespace.put(key, b"value")
    assert list(next(iter(store.pairs.values()))) == [key]
    assert await namespace.get(key) == "value"
    assert [listed.name async for listed in namespace.keys()] == [key]  # noqa: SIM118 - no dict
    await namespace.delete(key)
    assert await namespace.get(key) is None


@pytest.mark.parametrize("metadata", [{"a": [1, "ü"]}, 0, "", False, [], "text"])
async def test_metadata_travels_with_the_value_and_tells_its_origin(net, metadata):
    namespace = await net.create_namespace("settings")
    version = await namespace.put("theme", b"dark", metadata=metadata, expiration=4_000_000_000)
    assert await namespace.get_with_metadata("theme", "bytes") == Value(
        value=b"dark", metadata=metadata, expires_at=4_000_000_000, version=version, pop="nrt", staleness_ms=500
    )


async def test_ttl_and_expiration_go_into_the_query(net, edges):
    namespace = await net.create_namespace("settings")
    await namespace.put("theme", b"dark", expiration_ttl=60, expiration=4_000_000_000)
    assert edges["nrt"].requests[-1][1].endswith("/values/theme?expiration=4000000000&expiration_ttl=60")


async def test_torn_read_of_value_and_metadata_is_repeated(net, store, edges):
    namespace = await net.create_namespace("settings")
    await namespace.put("theme", b"dark", metadata=1)
    original = edges["nrt"]._pair
    changes = [(b"light", 2, None, 9)]

    async def changed_in_between(request, method, id_, what, key):
        if what == "metadata" and changes:
            store.seq = 9
            store.pairs[id_][key] = changes.pop()
        return await original(request, method, id_, what, key)

    edges["nrt"]._pair = changed_in_between
    read = await namespace.get_with_metadata("theme")
    assert not changes
    assert (read.value, read.metadata, read.version) == ("light", 2, Version(1, 9))


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
    names = [key.name async for key in namespace.keys(prefix="k", limit=limit)]
    assert names == [f"k{i:05}" for i in range(expected)]


async def test_namespace_is_found_by_title_and_by_id(net, store):
    id_ = store.create("settings")
    await net.namespace("settings").put("theme", b"dark")
    assert await net.namespace(id_).get("theme") == "dark"
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
    assert await net.namespace("preferences").get("theme") == "dark"
    assert (await namespace.info()).title == "preferences"


async def test_refusal_has_the_apis_code_and_message(net):
    await net.create_namespace("settings")
    with pytest.raises(RequestError, match="already exists") as caught:
        await net.create_namespace("settings")
    assert (caught.value.status, caught.value.code, caught.value.definite) == (400, 10014, True)
