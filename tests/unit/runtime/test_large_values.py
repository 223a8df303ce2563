"""Large values at the coordinator, over a real store: chunks first, then the offer, then the entry."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace

import pytest

from kvnet.core.manifest import Manifest
from kvnet.core.operations import CreateNamespace, PutLargeValue, PutValue
from kvnet.core.writer import Writer
from kvnet.errors import RequestError, StorageError, StorageFull
from kvnet.limits import profile
from kvnet.runtime.group_commit import GroupCommit
from kvnet.runtime.large_values import BITE_CHUNKS, LargeValues
from kvnet.storage import chunks
from tests.support.large import large_value
from tests.support.peers import until
from tests.support.stores import open_store

NAMESPACE = b"n" * 16
VALUE = large_value(6, last=1000)


def put(key=b"k", value=VALUE, **more):
    fields = {"metadata": b"", "expires_at": 0, "ttl_s": 0} | more
    return PutLargeValue(NAMESPACE, key, value.manifest.pack(), *fields.values(), list(value.chunks))


class Desk:
    """A coordinator's store and writer, and all that large values tell of themselves."""

    def __init__(self, folder):
        self.store = open_store(folder)
        writer = Writer(self.store, replace(profile("workers-kv"), write_interval_ms=0))
        writer.open_epoch(1, bytes(16))
        self.cut = []
        self.broken = []
        self.offers = []
        self.bites = []
        self.problems = []
        self.hold = None
        """A bite waits for it."""
        self.commit = GroupCommit(
            writer,
            self.store,
            interval_ms=1,
            feed=self.cut.append,
            on_durable=lambda frames, wall_ms: None,
            broken=self.broken.append,
        )
        self.large = LargeValues(self.commit, self, feed=self.offers.append)

    def put_chunks(self, stored):
        self.bites.append(len(stored))
        if self.hold is not None:
            self.hold.wait(5)
        if self.problems:
            raise self.problems.pop()
        self.store.put_chunks(stored)

    def lacking_chunks(self, names):
        return self.store.lacking_chunks(names)

    def start(self, operation, request_id=None):
        return asyncio.ensure_future(self.large.write(operation, request_id))

    async def offered(self, count=1):
        await until(lambda: len(self.offers) >= count)
        return self.offers[count - 1]


@pytest.fixture
async def desk(tmp_path):
    desk = Desk(tmp_path)
    await desk.commit.write([CreateNamespace(NAMESPACE, "n")], None)
    desk.cut.clear()
    yield desk
    desk.large.close()
    await desk.commit.close()
    desk.store.close()


async def refused(writing) -> RequestError:
    with pytest.raises(RequestError) as raised:
        await writing
    return raised.value


async def test_chunks_are_durable_before_they_are_offered_and_held_by_all_before_the_entry_is_sequenced(desk):
    writing = desk.start(put())
    offer = await desk.offered()
    assert offer.chunks == VALUE.manifest.chunks
    assert desk.store.lacking_chunks(offer.chunks) == []
    assert desk.store.get(NAMESPACE, b"k") is None
    assert not desk.cut
    desk.large.settle(offer.id)
    version = await writing
    stored = desk.store.get(NAMESPACE, b"k")
    assert (stored.version, stored.large, Manifest.unpack(stored.value)) == (version, True, VALUE.manifest)


async def test_a_wall_that_is_set_forward_over_a_value_refuses_it_and_ends_nothing(desk):
    """Its chunks are collected before any record names them; the entry once ended the coordinator."""
    writing = desk.start(put())
    offer = await desk.offered()
    environment = desk.store.environment
    with environment.write() as txn:
        chunks.collect(txn, environment.chunk_databases, now_s=lambda: chunks.time() + 2 * chunks.UNREFERENCED_S)
    assert desk.store.lacking_chunks(offer.chunks)
    desk.large.settle(offer.id)
    assert (await refused(writing)).status == 503
    assert desk.store.get(NAMESPACE, b"k") is None
    assert not desk.broken
    again = desk.start(put())
    desk.large.settle((await desk.offered(2)).id)
    assert (await again).seq > 1


async def test_small_writes_go_on_between_the_bites(desk):
    desk.hold = threading.Event()
    writing = desk.start(put())
    await until(lambda: desk.bites)
    small = asyncio.ensure_future(desk.commit.write([PutValue(NAMESPACE, b"small", b"v", b"", 0, 0)], None))
    await asyncio.sleep(0.02)
    desk.hold.set()
    await small
    desk.large.settle((await desk.offered()).id)
    assert await small < await writing
    assert desk.bites == [BITE_CHUNKS, 2]


async def test_a_value_that_is_there_already_is_answered_without_any_chunk_travelling(desk):
    writing = desk.start(put())
    desk.large.settle((await desk.offered()).id)
    version = await writing
    desk.bites.clear()
    assert await desk.large.write(put(), None) == version
    assert (desk.bites, len(desk.offers)) == ([], 1)


async def test_a_value_with_other_metadata_is_another_state(desk):
    for metadata in (b"", b"1"):
        writing = desk.start(put(metadata=metadata))
        desk.large.settle((await desk.offered(len(desk.offers) + 1)).id)
        await writing
    assert len(desk.offers) == 2


async def test_what_would_be_refused_is_refused_before_any_chunk_is_stored(desk):
    unknown = put()._replace(namespace=b"u" * 16)
    assert (await refused(desk.large.write(unknown, None))).code == 10013
    over = Manifest(26_214_401, (bytes(32),) * 101)
    error = await refused(desk.large.write(put()._replace(manifest=over.pack()), None))
    assert (error.status, error.message) == (413, "Value length of 26214401 exceeds limit of 26214400.")
    assert desk.bites == []


async def test_a_retry_of_a_request_is_answered_and_not_done_again(desk):
    first, second = desk.start(put(), b"id"), desk.start(put(), b"id")
    for number in (1, 2):
        desk.large.settle((await desk.offered(number)).id)
    assert await first == await second
    assert await desk.large.write(put(), b"id") == await first
    assert len(desk.cut) == 1


async def test_chunks_that_are_not_those_of_the_manifest_are_refused(desk):
    short = put()._replace(chunks=VALUE.chunks[:-1])
    assert (await refused(desk.large.write(short, None))).status == 400
    swapped = put()._replace(chunks=[VALUE.chunks[1], VALUE.chunks[0], *VALUE.chunks[2:]])
    assert (await refused(desk.large.write(swapped, None))).status == 400
    assert desk.store.get(NAMESPACE, b"k") is None
    assert not desk.broken


async def test_a_full_disk_refuses_the_value_and_goes_on(desk):
    desk.problems.append(StorageFull("no space"))
    error = await refused(desk.large.write(put(), None))
    assert (error.status, error.code, error.definite) == (507, 20020, True)
    writing = desk.start(put())
    desk.large.settle((await desk.offered()).id)
    assert await writing
    assert not desk.broken


async def test_a_broken_disk_ends_the_node(desk):
    desk.problems.append(StorageError("gone"))
    assert (await refused(desk.large.write(put(), None))).status == 503
    assert desk.broken


async def test_a_coordinator_that_stops_leaves_nobody_waiting(desk):
    writing = desk.start(put())
    await desk.offered()
    desk.large.close()
    await desk.commit.close()
    error = await refused(writing)
    assert error.status == 503
    assert desk.store.get(NAMESPACE, b"k") is None
    assert (await refused(desk.large.write(put(), None))).status == 503


async def test_an_offer_that_settles_twice_or_was_never_made_changes_nothing(desk):
    desk.large.settle(b"unknown")
    writing = desk.start(put())
    id_ = (await desk.offered()).id
    desk.large.settle(id_)
    desk.large.settle(id_)
    await writing
    desk.large.settle(id_)
