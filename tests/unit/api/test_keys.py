"""Listing keys."""

from __future__ import annotations

from itertools import chain
from urllib.parse import quote, quote_plus

import pytest

from tests.support.backends import NOW_S


async def walk(api, path: str, query: str = "") -> list[list[str]]:
    """Return the pages' names, as a client's pager sees them: it sends everything again and adds the cursor."""
    pages: list[list[str]] = []
    cursor = ""
    while True:
        separator = "&" if query else ""
        answer = await api("GET", f"{path}/keys?{query}{separator}cursor={cursor}")
        pages.append([entry["name"] for entry in answer.result])
        info = answer.json["result_info"]
        assert info["count"] == len(pages[-1])
        cursor = info["cursor"]
        assert info["cursors"] == {"after": cursor}
        if not cursor:
            return pages


@pytest.mark.parametrize(
    ("keys", "sizes"), [(0, [0]), (1, [1]), (1000, [1000]), (1001, [1000, 1]), (2000, [1000, 1000])]
)
async def test_pages_are_full_until_the_last_and_none_but_the_first_is_empty(api, ns, keys, sizes):
    names = [f"{number:05}" for number in range(keys)]
    if keys:
        api.node.put_many(bytes.fromhex(ns[1:]), [name.encode() for name in names])
    pages = await walk(api, ns)
    assert [len(page) for page in pages] == sizes
    assert [*chain.from_iterable(pages)] == names


async def test_order_is_that_of_the_bytes(api, ns):
    names = ["", "B", "a", "é", "z", "\uffee", "\U0001f600", "\x7f", "a\x00", "a\x01" * 300][1:]
    api.node.put_many(bytes.fromhex(ns[1:]), [name.encode() for name in names])
    assert await walk(api, ns) == [sorted(names, key=str.encode)]


async def test_prefix_filters_and_is_form_decoded(api, ns):
    names = ["a b/1", "a b/2", "a+b", "c", "é1"]
    api.node.put_many(bytes.fromhex(ns[1:]), [name.encode() for name in names])
    for encoded in (quote("a b/", safe=""), quote_plus("a b/")):
        assert await walk(api, ns, f"prefix={encoded}") == [["a b/1", "a b/2"]]
    assert await walk(api, ns, "prefix=a%2Bb") == [["a+b"]]
    assert await walk(api, ns, "prefix=%C3%A9") == [["é1"]]
    assert await walk(api, ns, "prefix=") == [names]
    assert await walk(api, ns, f"prefix={'x' * 2049}") == [[]]


async def test_long_keys_are_listed_across_pages(api, ns):
    names = [f"{'p' * 2040}{number:08}" for number in range(25)]
    api.node.put_many(bytes.fromhex(ns[1:]), [name.encode() for name in names])
    pages = await walk(api, ns, f"limit=10&prefix={'%70' * 2040}")
    assert [len(page) for page in pages] == [10, 10, 5]
    assert [*chain.from_iterable(pages)] == names


async def test_expired_keys_are_neither_listed_nor_counted(api, ns):
    namespace = bytes.fromhex(ns[1:])
    api.node.put_many(namespace, [f"a{number:02}".encode() for number in range(30)], expires_at=int(NOW_S))
    api.node.put_many(namespace, [f"b{number:02}".encode() for number in range(10)])
    pages = await walk(api, ns, "limit=10")
    assert [len(page) for page in pages] == [10]
    assert pages[0][0] == "b00"


async def test_entry_has_expiration_and_metadata_only_when_set(api, ns):
    form = (
        b'--b\r\nContent-Disposition: form-data; name="value"\r\n\r\nv\r\n'
        b'--b\r\nContent-Disposition: form-data; name="metadata"\r\n\r\n[1.50, null]\r\n--b--'
    )
    await api("PUT", f"{ns}/values/a?expiration_ttl=60", form, Content_Type="multipart/form-data; boundary=b")
    await api("PUT", f"{ns}/values/b", b"v")
    assert (await api("GET", f"{ns}/keys")).result == [
        {"name": "a", "expiration": int(NOW_S) + 60, "metadata": [1.5, None]},
        {"name": "b"},
    ]


@pytest.mark.parametrize(
    ("limit", "message"),
    [
        ("9", "Invalid key_count_limit of 9. Please specify an integer of at least 10."),
        ("0", "Invalid key_count_limit of 0. Please specify an integer of at least 10."),
        ("-1", "Invalid key_count_limit of -1. Please specify an integer of at least 10."),
        ("ten", "Invalid key_count_limit of ten. Please specify an integer of at least 10."),
        ("1001", "Invalid key_count_limit of 1001. Please specify an integer of at most 1000."),
    ],
)
async def test_limit_outside_its_range_is_refused(api, ns, limit, message):
    assert (await api("GET", f"{ns}/keys?limit={limit}")).error == (400, 10001, message)


async def test_cursor_of_another_listing_or_of_none_is_refused(api, ns):
    namespace = bytes.fromhex(ns[1:])
    api.node.put_many(namespace, [f"a{number:02}".encode() for number in range(20)])
    cursor = (await api("GET", f"{ns}/keys?limit=10&prefix=a")).json["result_info"]["cursor"]
    assert quote(cursor, safe="") == cursor
    other = "/" + api.node.create_namespace("other").hex()
    for path in (
        f"{ns}/keys?limit=10&prefix=a0&cursor={cursor}",
        f"{ns}/keys?limit=10&cursor={cursor}",
        f"{other}/keys?prefix=a&cursor={cursor}",
        f"{ns}/keys?prefix=a&cursor={cursor[:-1]}",
        f"{ns}/keys?cursor=x",
        f"{ns}/keys?cursor=%C3%A9",
        f"{ns}/keys?cursor={'A' * 4000}",
    ):
        assert (await api("GET", path)).error == (400, 10001, "Invalid cursor")
    assert len((await api("GET", f"{ns}/keys?limit=1000&prefix=a&cursor={cursor}")).result) == 10


async def test_query_that_cannot_be_decoded_is_refused(api, ns):
    for query in ("prefix=%FF", "&".join(f"a{number}=1" for number in range(65))):
        expected = "query: not a form-encoded string of UTF-8, or more than 64 fields"
        assert (await api("GET", f"{ns}/keys?{query}")).error == (400, 10001, expected)


async def test_unknown_namespace_is_named_by_the_listing(api):
    assert (await api("GET", f"/{'5' * 32}/keys")).error == (404, 10013, "list keys: 'namespace not found'")
    assert (await api("GET", f"/{'0' * 32}/keys")).error == (404, 10013, "list keys: 'namespace not found'")
