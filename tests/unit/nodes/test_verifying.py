"""`kvnet verify` between real stores: what differs is named, and whoever finds itself damaged says so."""

from __future__ import annotations

import json

import pytest

from kvnet.cli.differences import Differences, Finding, Told, judge
from kvnet.core.manifest import Manifest, hash_chunk, split
from kvnet.errors import RequestError, StorageDamaged
from nodes.verifying import Verifying
from tests.support.frames import FrameMaker
from tests.support.stores import open_store


class Replica:
    def __init__(self, store):
        self.store = store
        self.damages = []
        self.waited = []
        self.verifying = Verifying(store, wait_for=self.wait_for, damaged=self.damages.append, cure="it is healed")

    async def wait_for(self, version, timeout_ms):
        self.waited.append(version)
        return True

    async def ask(self, **query):
        return json.loads((await self.verifying.answer(query)).text)

    def place(self, namespace, key):
        return self.store.tallies[namespace].prefix + key

    def alter(self, namespace, key, change):
        with self.store.environment.write() as txn:
            place = self.place(namespace, key)
            stored = change(txn.get(place))
            if stored is None:
                txn.delete(place)
            else:
                txn.put(place, stored)


def flip(stored):
    return stored[:-6] + bytes([stored[-6] ^ 1]) + stored[-5:]


@pytest.fixture
def maker():
    maker = FrameMaker()
    maker.open_epoch()
    return maker


@pytest.fixture
def network(tmp_path, maker):
    """A coordinator and an edge, and a namespace of 3,000 keys."""
    namespace = maker.create_namespace("settings")
    for number in range(3000):
        maker.put(namespace, b"key-%04d" % number, b"value")
    maker.cut()
    stores = [open_store(tmp_path / name, node=name) for name in ("coordinator", "fra")]
    for store in stores:
        store.apply(maker.frames)
    yield {"coordinator": Replica(stores[0]), "fra": Replica(stores[1])}, namespace
    for store in stores:
        store.close()


async def verify(replicas):
    async def ask_node(name, **query):
        return await replicas[name].ask(**query)

    first = await ask_node("coordinator")
    differences = Differences(ask_node, first)
    answer = await ask_node("fra", **({"at": first["position"]} if "position" in first else {}))
    return [*differences.of_coordinator(), *await differences.of("fra", answer)]


async def test_equal_replicas_have_nothing_to_be_told(network):
    replicas, _ = network
    assert await verify(replicas) == []
    fra = replicas["fra"]
    assert fra.waited == [fra.store.position.version]
    assert fra.damages == []


async def test_a_flipped_bit_is_named_and_its_replica_stops_serving(network):
    replicas, namespace = network
    fra = replicas["fra"]
    fra.alter(namespace, b"key-0007", flip)
    assert await verify(replicas) == [Finding("fra", "flipped bits", namespace.hex(), "settings", "key-0007")]
    [damage] = fra.damages
    assert isinstance(damage, StorageDamaged)
    assert "it is healed" in str(damage)


async def test_missing_and_extra_keys_are_found_range_by_range(network):
    replicas, namespace = network
    replicas["fra"].alter(namespace, b"key-2999", lambda _: None)
    replicas["fra"].alter(namespace, b"key-0000", lambda _: None)
    found = {(finding.key, finding.what) for finding in await verify(replicas)}
    assert found == {("key-0000", "missing"), ("key-2999", "missing")}
    assert replicas["fra"].damages


async def test_what_was_found_can_still_be_named_after_the_replica_was_emptied(network):
    replicas, namespace = network
    fra = replicas["fra"]
    fra.alter(namespace, b"key-1234", lambda _: None)
    fra.verifying._damaged = lambda damage: fra.store.reset()
    assert [(finding.key, finding.what) for finding in await verify(replicas)] == [("key-1234", "missing")]
    assert fra.store.position.seq == 0
    with pytest.raises(RequestError, match="no longer there"):
        await fra.ask(namespace=namespace.hex(), evidence="another")


async def test_writes_that_come_meanwhile_are_no_differences(network, maker):
    replicas, namespace = network
    fra = replicas["fra"]
    fra.alter(namespace, b"key-0500", lambda _: None)
    maker.delete(namespace, b"key-0501")
    maker.put(namespace, b"key-0502", b"new")
    maker.put(namespace, b"new", b"new")
    replicas["coordinator"].store.apply([maker.cut()])  # the edge is as far as it was
    assert [(finding.key, finding.what) for finding in await verify(replicas)] == [("key-0500", "missing")]


async def test_a_chunk_that_is_not_what_was_written_names_its_value(network, maker):
    replicas, namespace = network
    data = [bytes(chunk) for chunk in split(b"large" * 100_000)]
    manifest = Manifest(500_000, tuple(map(hash_chunk, data)))
    maker.put_large(namespace, b"large", manifest.pack())
    frame = maker.cut()
    for replica in replicas.values():
        replica.store.put_chunks([(hash_chunk(chunk), chunk) for chunk in data])
        replica.store.apply([frame])
    assert await verify(replicas) == []
    with replicas["fra"].store.environment.write() as txn:
        txn.put(manifest.chunks[1], data[1][:-1], db=replicas["fra"].store.environment.chunk_databases.data)
    assert [(finding.key, finding.what) for finding in await verify(replicas)] == [("large", "flipped bits")]
    assert replicas["fra"].damages


async def test_a_damaged_coordinator_is_named_and_judges_nobody(network):
    replicas, namespace = network
    replicas["coordinator"].alter(namespace, b"key-0007", flip)
    assert [(finding.node, finding.key) for finding in await verify(replicas)] == [("coordinator", "key-0007")]
    assert replicas["coordinator"].damages
    assert not replicas["fra"].damages


async def test_a_replica_of_another_history_is_named_where_the_journal_can_tell(network, tmp_path):
    replicas, _ = network
    other = FrameMaker()
    other.open_epoch()
    namespace = other.create_namespace("another")
    for number in range(3000):
        other.put(namespace, b"%d" % number, b"v")
    other.cut()
    fra = open_store(tmp_path / "fork", node="fra")
    fra.apply(other.frames)
    found = await verify({**replicas, "fra": Replica(fra)})
    fra.close()
    assert {finding.node for finding in found} == {"fra"}
    assert {finding.what for finding in found} == {"missing", "extra"}


async def test_digests_come_from_the_journal(network, maker):
    replicas, namespace = network
    coordinator = replicas["coordinator"]
    position, digest = maker.position, maker.digest
    maker.put(namespace, b"more", b"1")
    coordinator.store.apply([maker.cut()])
    told = await coordinator.ask(digest_at=str(position.seq))
    assert told == {"position": "1-3002", "chain": position.chain.hex(), "digest": f"{digest:032x}"}
    assert await coordinator.ask(digest_at="17") == {}


@pytest.mark.parametrize("query", [{"at": "now"}, {"namespace": "zz"}, {"namespace": "00"}, {"digest_at": "x"}])
async def test_what_is_no_question_is_refused(network, query):
    with pytest.raises(RequestError) as refused:
        await network[0]["fra"].ask(**query)
    assert refused.value.status == 400


OLD, NEW, BAD = Told(5, "a"), Told(9, "b"), Told(0, "?")


@pytest.mark.parametrize(
    ("ours", "at", "theirs", "theirs_at", "what"),
    [
        (OLD, 10, OLD, 10, None),
        (OLD, 10, NEW, 10, "older"),
        (OLD, 8, NEW, 10, None),
        (NEW, 10, OLD, 8, None),
        (Told(5, "x"), 10, OLD, 20, "flipped bits"),
        (BAD, 10, OLD, 10, "flipped bits"),
        (BAD, 10, None, 10, "flipped bits"),
        (OLD, 10, BAD, 10, None),
        (None, 10, OLD, 10, "missing"),
        (None, 8, NEW, 10, None),
        (None, 12, OLD, 10, None),
        (OLD, 10, None, 10, "extra"),
        (OLD, 10, None, 12, None),
        (NEW, 10, None, 8, None),
    ],
)
def test_only_what_a_write_in_between_cannot_explain_is_a_difference(ours, at, theirs, theirs_at, what):
    assert judge(ours, at, theirs, theirs_at) == what
