"""What a replica's namespace gives: types, metadata, listings, expiry by replica time, large values."""

from __future__ import annotations

import pytest

from kvnet.errors import RequestError, StorageDamaged
from kvnet.reader import open_replica
from kvnet.values import ListedKey

LONG = "long" * 400


@pytest.fixture
def replica(node, folder):
    node.put("a", ("text", "grün"), ("json", '{"n": [1, 2.5, null]}'), ("empty", ""), (LONG, "l"))
    with open_replica(folder) as replica:
        yield replica


@pytest.fixture
def a(replica):
    return replica.namespace("a")


def test_a_value_is_given_as_what_it_is_asked_for(a):
    assert (a.get("text"), a.get("empty"), a.get(LONG)) == ("grün", "", "l")
    assert a.get("text", "bytes") == a.get("text", "arrayBuffer") == "grün".encode()
    assert a.get("json", "json") == {"n": [1, 2.5, None]}
    assert a.get("text", type="text", cache_ttl=30) == "grün"
    assert a.get("missing") is a.get("missing", "json") is a.get("missing", "bytes") is None


def test_bytes_that_are_no_text_are_told_apart_in_one(node, a):
    node.do(r"[maker.put(namespaces['a'], b'raw', b'\xffx'), store.apply([maker.cut()])][0] and None")
    assert a.get("raw", "bytes") == b"\xffx"
    assert a.get("raw") == a.get(["raw"])["raw"] == "\ufffdx"


def test_several_keys_are_given_at_once(a):
    assert a.get(["text", "missing", LONG]) == {"text": "grün", "missing": None, LONG: "l"}
    assert a.get(("json",), "json") == {"json": {"n": [1, 2.5, None]}}
    found = a.get_with_metadata(["text", "missing"])
    assert {key: each.value for key, each in found.items()} == {"text": "grün", "missing": None}


def test_a_value_comes_with_all_that_belongs_to_it(node, replica, a):
    node.do("put('a', [('k', '1')], metadata=b'{\"by\":\"ada\"}', expires_at=4_000_000_000)")
    found = a.get_with_metadata("k", "json")
    assert (found.value, found.metadata, found.metadata_json) == (1, {"by": "ada"}, b'{"by":"ada"}')
    assert (found.expires_at, found.version, found.pop) == (4_000_000_000, replica.position, "fra")
    assert found.staleness_ms == pytest.approx(replica.staleness_ms(), abs=60_000)
    assert a.getWithMetadata("text").metadata is None
    missing = a.get_with_metadata("missing")
    assert (missing.value, missing.metadata, missing.version, missing.cache_status) == (None, None, None, None)


@pytest.mark.parametrize("key", ["k", "long" * 400])
def test_what_expires_is_hidden_exactly_at_its_second(node, a, key):
    node.do(f"put('a', [({key!r}, 'v')], expires_at=2_000_000_000)")
    node.do("page.tell_time(0.0, 1_999_999_999_999.0)")
    assert a.get(key) == a.get([key])[key] == a.get_with_metadata(key).value == "v"
    assert key in {each.name for each in a.list().keys}
    node.do("page.tell_time(0.0, 2_000_000_000_000.0)")
    assert a.get(key) is a.get([key])[key] is a.get_with_metadata(key).value is None
    assert key not in {each.name for each in a.list().keys}


def test_time_goes_on_with_the_hosts_clock_and_never_back(node, replica):
    node.do("page.tell_time(2e12 - time.monotonic() * 1000, 0.0)")
    first = replica.now_s()
    assert first == pytest.approx(2e9, abs=60)
    node.do("page.tell_time(1e12 - time.monotonic() * 1000, 0.0)")
    assert replica.now_s() >= first


def test_staleness_is_reckoned_as_the_node_does(node, replica):
    beacon = "BeaconSeen(time.monotonic() * 1000 - 5000, time.time() * 1000 - 5000, 20.0, 40.0)"
    node.do(f"page.tell_view(BeaconView(1, 3, store.stamp, 1, 7, {beacon}))")
    assert 5100 <= replica.staleness_ms() < 65_000
    node.kill()
    before = replica.staleness_ms()
    assert before > 5100
    assert replica.staleness_ms() > before


def test_pages_of_keys_follow_each_other_in_the_order_of_their_bytes(node, a):
    node.put("b", *((f"k{number:02}", "v") for number in range(25)), ("z", "v"))
    b = a._replica.namespace("b")
    pages = [b.list(prefix="k", limit=10)]
    while not pages[-1].list_complete:
        pages.append(b.list(prefix="k", limit=10, cursor=pages[-1].cursor))
    assert [len(page.keys) for page in pages] == [10, 10, 5]
    assert [page.cursor is None for page in pages] == [False, False, True]
    assert [each.name for page in pages for each in page.keys] == [f"k{number:02}" for number in range(25)]
    assert [each.name for each in b.keys(prefix="k", limit=12)] == [f"k{number:02}" for number in range(12)]
    assert len(list(b.keys())) == 26
    assert list(b.keys(limit=0)) == []
    exact = b.list(prefix="k", limit=25)
    assert (len(exact.keys), exact.list_complete) == (25, True)


def test_listed_keys_have_their_expiry_and_metadata(node, a):
    node.do("put('a', [('k', '1')], metadata=b'[1]', expires_at=4_000_000_000)")
    assert a.list(prefix="k").keys == [ListedKey(name="k", expiration=4_000_000_000, metadata=[1])]
    assert a.list(prefix="text").keys == [ListedKey(name="text")]


def test_a_large_value_is_read_whole(node, a):
    node.do(
        "(value := large_value(3)) and store.put_chunks(named(value)) or "
        "maker.put_large(namespaces['a'], b'large', value.manifest.pack()) and store.apply([maker.cut()]) and None"
    )
    data = a.get("large", "bytes")
    assert len(data) == 3 * 256 * 1024
    assert data.startswith(b"0.0 ...")
    assert a.get_with_metadata("large", "bytes").value == data
    assert a.get(["large"])["large"] == data.decode()


def test_a_large_value_without_a_chunk_is_told(node, a):
    node.do(
        "(value := large_value(2)) and store.put_chunks(named(value)) or "
        "maker.put_large(namespaces['a'], b'large', value.manifest.pack()) and store.apply([maker.cut()]) and None"
    )
    node.do("lose(store, large_value(2).manifest.chunks[1])")
    with pytest.raises(StorageDamaged, match="of a large value is gone: this replica must be made anew"):
        a.get("large", "bytes")


def test_a_flipped_bit_is_told(node, a):
    node.do("flip(store, namespaces['a'], b'text')")
    with pytest.raises(StorageDamaged, match="isn't what was written: this replica must be made anew"):
        a.get("text")


@pytest.mark.parametrize(
    ("ask", "error", "told"),
    [
        (lambda a: a.get(""), ValueError, "Key name cannot be empty."),
        (lambda a: a.get("."), ValueError, '"." is not allowed as a key name.'),
        (lambda a: a.get_with_metadata(".."), ValueError, '".." is not allowed as a key name.'),
        (lambda a: a.get(b"k"), TypeError, "a key is a str, or several in a list, not bytes"),
        (lambda a: a.get(None), TypeError, "a key is a str, or several in a list, not NoneType"),
        (lambda a: a.get(["text", 1]), TypeError, "a key is a str, not int"),
        (lambda a: a.get("text", "blob"), TypeError, "Unknown response type 'blob'"),
        (lambda a: a.get("missing", "blob"), TypeError, "Unknown response type 'blob'"),
        (lambda a: a.get("text", "stream"), TypeError, "Unknown response type 'stream'"),
        (lambda a: a.get(["text"], "bytes"), TypeError, '"bytes" is not a valid type for several keys'),
        (lambda a: a.get([]), ValueError, "0 keys at once: ask for 1 to 100"),
        (lambda a: a.get(["k"] * 101), ValueError, "101 keys at once: ask for 1 to 100"),
        (lambda a: a.get("text", "json"), ValueError, "the value is not JSON"),
        (
            lambda a: a.get("text", cache_ttl=29),
            ValueError,
            "Invalid cache_ttl of 29. Cache TTL must be at least 30.",
        ),
        (lambda a: a.list(limit=0), ValueError, "Invalid key_count_limit of 0"),
        (lambda a: a.list(limit=1001), ValueError, "Invalid key_count_limit of 1001"),
        (lambda a: a.list(cursor="é"), ValueError, "Invalid cursor"),
        (lambda a: a._replica.namespace("other").get("k"), RequestError, "no namespace 'other'"),
        (lambda a: a._replica.namespace("other").get(""), RequestError, "no namespace 'other'"),
    ],
)
def test_what_cant_be_asked_is_told(a, ask, error, told):
    with pytest.raises(error) as raised:
        ask(a)
    assert told in str(raised.value)
