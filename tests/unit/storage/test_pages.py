"""Pages: what a donor reads, and what whoever gets one believes."""

from __future__ import annotations

import random
from contextlib import suppress
from itertools import pairwise

import msgpack
import pytest
import zstandard

from kvnet.core.entries import SYSTEM_NAMESPACE
from kvnet.errors import PageDamaged, StorageDamaged
from kvnet.storage.pages import PAGE_RECORDS_MAX, UNPACKED_BYTES_MAX, pack, unpack
from tests.support.stores import pages_of


@pytest.fixture
def namespace(store, maker):
    namespace = maker.create_namespace("a")
    maker.put(namespace, b"expired", b"", expires_at=1)
    for number in range(30):
        maker.put(namespace, b"%d" % number * (1 if number % 3 else 500), b"value" * number)
    store.apply([maker.cut()])
    return namespace


def records_of(pages):
    return [
        (namespace, key)
        for page in pages
        for namespace, keys, stored in unpack(page.body)
        for key, _ in zip(keys, stored, strict=True)
    ]


@pytest.mark.parametrize("bytes_max", [1, 500, 1 << 20])
def test_pages_hold_every_record_once_and_in_order(store, maker, namespace, bytes_max):
    pages = list(pages_of(store, bytes_max))
    assert len(pages) == {1: 33, 500: len(pages), 1 << 20: 1}[bytes_max]
    expected = [(each, key) for each in sorted(maker.records) for key in sorted(maker.records[each])]
    assert records_of(pages) == expected
    assert records_of(pages)[0][0] == SYSTEM_NAMESPACE
    for page in pages:
        assert (page.position, page.digest) == (store.position, store.digest.to_bytes(16, "big"))
    for page, following in pairwise(pages):
        assert page.until == following.after == b"".join(records_of([page])[-1])


def test_a_page_is_bounded_by_its_records_too(store, maker, namespace):
    for number in range(PAGE_RECORDS_MAX + 1):
        maker.put(namespace, b"small-%d" % number, b"")
    store.apply([maker.cut()])
    first, *_ = pages_of(store, 1 << 30)
    assert len(records_of([first])) == PAGE_RECORDS_MAX


def test_a_place_in_a_namespace_that_is_gone_goes_on_behind_it(store, maker, namespace):
    after = namespace + b"5"
    maker.delete_namespace(namespace)
    store.apply([maker.cut()])
    page = store.read_page(after)
    assert records_of([page]) == [
        (each, key) for each in maker.records for key in maker.records[each] if each > after
    ]
    assert page.until == b""


def test_a_donor_gives_nothing_of_a_damaged_record(store, namespace):
    place = store.tallies[namespace].prefix + b"4"
    with store.environment.write() as txn:
        stored = bytearray(txn.get(place))
        stored[-6] ^= 1
        txn.put(place, bytes(stored))
    with pytest.raises(StorageDamaged):
        list(pages_of(store, 500))


def test_an_altered_page_is_refused_wherever_it_was_altered(store, namespace):
    """Also behind the checksum of the page itself: whatever is in it is bound to a record's."""
    page = store.read_page(b"")
    packed = zstandard.ZstdDecompressor().decompress(page.body)
    store.begin_successor(page.position)
    for at in (*range(60), *range(60, len(packed), 17)):
        altered = bytearray(packed)
        altered[at] ^= 1 << at % 8
        with pytest.raises(PageDamaged):
            store.store_page(page._replace(body=zstandard.ZstdCompressor().compress(bytes(altered))))
    for at in range(4, len(page.body), 5):
        altered = bytearray(page.body)
        altered[at] ^= 1 << at % 8
        try:
            unchanged = unpack(bytes(altered)) == unpack(page.body)
        except PageDamaged:
            continue
        assert unchanged, "a bit that says nothing"
    store.store_page(page)


def test_hostile_bytes_are_refused_without_being_unpacked():
    bomb = zstandard.ZstdCompressor().compress(bytes(UNPACKED_BYTES_MAX + 1))
    claim = bytearray(zstandard.ZstdCompressor().compress(bytes(1 << 20)))
    size_at = 6 if claim[4] >> 6 == 2 and not claim[4] & 0x20 else 5
    claim[size_at : size_at + 4] = b"\xff\xff\xff\x7f"
    stream = zstandard.ZstdCompressor(write_content_size=False).compress(pack([]))
    for body in (bomb, bytes(claim), stream, b"", b"\0", pack([]) + b"more"):
        with pytest.raises(PageDamaged):
            unpack(body)


@pytest.mark.parametrize(
    "groups",
    [
        None,
        1,
        {b"a": 1},
        [1],
        [[]],
        [[b"n" * 16]],
        [[b"n" * 15, []]],
        [["n" * 16, []]],
        [[b"n" * 16, {}]],
        [[b"n" * 16, [b"key"]]],
        [[b"n" * 16, [b"key", 1]]],
        [[b"n" * 16, ["key", b"stored"]]],
        [{b"a": 1, b"b": 2}],
        ["ab"],
        [b"ab"],
        [[b"n" * 16, "ab"]],
        [[b"n" * 16, msgpack.Timestamp(1, 1)]],
    ],
)
def test_what_is_no_list_of_groups_is_refused(groups):
    with pytest.raises(PageDamaged):
        unpack(zstandard.ZstdCompressor().compress(msgpack.packb(groups)))


def test_random_bytes_never_do_more_than_be_refused(store, namespace):
    body = store.read_page(b"").body
    rng = random.Random(4)
    for _ in range(2000):
        altered = bytearray(body)
        for _ in range(rng.randrange(1, 8)):
            altered[rng.randrange(len(altered))] = rng.randrange(256)
        del altered[rng.choice((len(altered), rng.randrange(len(altered)))) :]
        with suppress(PageDamaged):
            unpack(bytes(altered))
