from __future__ import annotations

import resource
import threading

import msgpack
import pytest

from kvnet.core.catalog import Cluster, Member, Namespace, Scope, Token, key_of, value_of
from kvnet.core.entries import SYSTEM_NAMESPACE, Epoch, Put, record_hash
from kvnet.core.frames import HEADER_BYTES, Frame, cut_frame, read_frame
from kvnet.core.versions import GENESIS, Position, Version
from kvnet.errors import BeyondHorizon, Divergence, ProtocolError, StorageError, StorageFull
from kvnet.storage import verification
from tests.support.frames import FrameMaker
from tests.support.stores import assert_is_fold, open_store

PLACEHOLDER = Epoch(1, bytes(16))


@pytest.fixture
def namespace(store, maker) -> bytes:
    namespace = maker.create_namespace("a")
    maker.put(namespace, b"key", b"value")
    store.apply([maker.cut()])
    return namespace


def with_body(frame: Frame, body: bytes) -> Frame:
    return read_frame(frame.data[:HEADER_BYTES] + body)


def raw_frame(store, entries, *, epoch: int = 1, digest: int | None = None) -> Frame:
    """A frame of whatever entries, at the store's position; the digest is the store's own unless given."""
    return cut_frame(
        epoch=epoch,
        first_seq=store.position.seq + 1,
        stamp=1,
        chain_before=store.position.chain,
        digest_after=(store.digest if digest is None else digest).to_bytes(16, "big"),
        entries=entries,
    )


def assert_refused(store, maker, error, frames, match=None):
    """The frames raise `error`, and nothing at all has changed."""
    generation = store.catalogue_generation
    with pytest.raises(error, match=match):
        store.apply(frames)
    assert store.catalogue_generation == generation
    assert_is_fold(store, maker)


# What apply does


def test_a_put_replaces_the_whole_record(store, maker, namespace):
    maker.put(namespace, b"key", b"1", metadata=b'{"a":1}', expires_at=7)
    version = maker.put(namespace, b"key", b"2")
    frame = maker.cut()
    assert store.apply([frame]) == frame.position == store.position
    stored = store.get(namespace, b"key")
    assert stored == (b"2", b"", 0, *version, record_hash(namespace, b"key", b"2", b"", 0, *version), False)
    assert stored.version == version
    assert store.stamp == frame.stamp
    assert_is_fold(store, maker)


def test_frames_applied_together_and_one_by_one_lead_to_the_same(tmp_path, maker):
    namespace = maker.create_namespace("a")
    for number in range(30):
        maker.put(namespace, b"%d" % (number % 7), b"%d" % number)
        maker.cut()
    for name, at_once in (("together", 30), ("one by one", 1)):
        store = open_store(tmp_path / name)
        for start in range(0, 30, at_once):
            store.apply(maker.frames[start : start + at_once])
        assert_is_fold(store, maker)
        store.close()


def test_what_does_not_exist_reads_as_none(store, maker, namespace):
    assert store.get(namespace, b"other") is None
    assert store.get(namespace, b"k" * 2048) is None
    assert store.get(bytes(15) + b"x", b"key") is None
    assert store.list_keys(bytes(15) + b"x", b"", None, 10, 0) == ([], False)


# What apply refuses


def test_a_wrong_digest_is_a_divergence_and_nothing_of_the_batch_stays(store, maker, namespace):
    version = Version(1, store.position.seq + 1)
    put = Put(namespace, b"other", b"v", b"", 0, record_hash(namespace, b"other", b"v", b"", 0, *version))
    first = raw_frame(store, [put], digest=(store.digest + int.from_bytes(put.hash, "big")) % (1 << 128))
    second = cut_frame(
        epoch=1,
        first_seq=first.last_seq + 1,
        stamp=1,
        chain_before=first.chain_after,
        digest_after=bytes(16),
        entries=[put],
    )
    assert_refused(store, maker, Divergence, [first, second], "not the coordinator's")
    assert store.get(namespace, b"other") is None
    store.apply([first])
    assert store.get(namespace, b"other").value == b"v"


@pytest.mark.parametrize("kind", ["put", "delete"])
def test_writing_into_an_unknown_namespace_is_a_divergence(store, maker, namespace, kind):
    unknown = b"u" * 16
    body = [[0, unknown, b"k", b"v", b"", 0, bytes(16)]] if kind == "put" else [[1, unknown, b"k"]]
    frame = with_body(raw_frame(store, [PLACEHOLDER]), msgpack.packb(body))
    assert_refused(store, maker, Divergence, [frame], "which doesn't exist here")


@pytest.mark.parametrize("after", ["deletion", "deletion in the same frame"])
def test_writing_into_a_deleted_namespace_is_a_divergence(store, maker, namespace, after):
    digest = maker.digest
    maker.delete_namespace(namespace)
    deletion = maker.cut()
    put = [0, namespace, b"k", b"v", b"", 0, bytes(16)]
    if after == "deletion":
        store.apply([deletion])
        frame = with_body(raw_frame(store, [PLACEHOLDER]), msgpack.packb([put]))
        assert_refused(store, maker, Divergence, [frame], "which doesn't exist here")
    else:
        item = [1, SYSTEM_NAMESPACE, key_of(Namespace(namespace, "", 0))]
        frame = with_body(raw_frame(store, [PLACEHOLDER] * 2), msgpack.packb([item, put]))
        with pytest.raises(Divergence, match="which doesn't exist here"):
            store.apply([frame])
        assert store.digest == digest
        assert namespace in store.namespaces


GOOD = [0, b"", b"k", b"v", b"", 0, bytes(16)]


def broken(place: int, value: object) -> list[object]:
    return [*GOOD[:place], value, *GOOD[place + 1 :]]


@pytest.mark.parametrize(
    "entry",
    [
        *(broken(place, value) for place in (2, 3, 4) for value in ("text", 1, None, [b"x"], {})),
        *(broken(5, value) for value in (-1, "1", None, b"1", 1.5)),
        *(broken(6, value) for value in (bytes(15), bytes(17), "0123456789abcdef", None, 7, [0] * 16)),
        *(broken(1, value) for value in ([], {}, [b""])),
        *(broken(0, value) for value in (3, -1, None, "0", [])),
        [],
        GOOD[:6],
        [*GOOD, 0],
        [1, b""],
        [1, b"", "k"],
        [1, b"", b"k", 0],
        [2, 1, bytes(16)],
        7,
        None,
        b"entry",
        "entry",
        {},
        msgpack.ExtType(1, b"x"),
    ],
    ids=repr,
)
def test_a_malformed_entry_is_an_error_and_nothing_changes(store, maker, namespace, entry):
    if isinstance(entry, list) and len(entry) > 1 and entry[1] == b"":
        entry = [entry[0], namespace, *entry[2:]]
    good = [0, namespace, b"k", b"v", b"", 0, bytes(16)]
    frame = with_body(raw_frame(store, [PLACEHOLDER] * 2), msgpack.packb([good, entry]))
    assert_refused(store, maker, ProtocolError, [frame], "can't be read")


@pytest.mark.parametrize(
    "body",
    [
        b"\xc1",
        b"",
        b"\x91" * 5000,
        b"\xdd\xff\xff\xff\xff",
        msgpack.packb([]),
        msgpack.packb([GOOD] * 2),
        msgpack.packb({1: 2}),
        msgpack.packb(b"x"),
        msgpack.packb([GOOD])[:-1],
        msgpack.packb([GOOD]) + b"\0",
    ],
    ids=repr,
)
def test_a_malformed_body_is_an_error_and_nothing_changes(store, maker, namespace, body):
    frame = raw_frame(store, [PLACEHOLDER])
    assert_refused(store, maker, ProtocolError, [Frame(frame.data[:HEADER_BYTES] + body, *fields(frame))])


def fields(frame: Frame) -> tuple:
    return (
        frame.epoch,
        frame.first_seq,
        frame.last_seq,
        frame.stamp,
        frame.chain_before,
        frame.digest_after,
        frame.chain_after,
    )


def put_of(item, key: bytes | None = None, value: bytes | None = None) -> Put:
    return Put(SYSTEM_NAMESPACE, key or key_of(item), value or value_of(item), b"", 0, bytes(16))


A_NAMESPACE = Namespace(b"\xab" * 16, "b", 0)


@pytest.mark.parametrize(
    "put",
    [
        put_of(A_NAMESPACE, key=b"namespace/" + b"AB" * 16),
        put_of(A_NAMESPACE, key=b"namespace/ab"),
        put_of(A_NAMESPACE, key=b"namespace/" + b"00" * 16),
        put_of(A_NAMESPACE, key=b"other/1"),
        put_of(A_NAMESPACE, value=b"\xc1"),
    ],
    ids=lambda put: repr(put.key),
)
def test_a_malformed_catalogue_record_is_an_error_and_nothing_changes(store, maker, namespace, put):
    assert_refused(store, maker, ProtocolError, [raw_frame(store, [put])])


@pytest.mark.parametrize(
    ("epoch", "entries"),
    [
        (1, [Epoch(1, bytes(16))]),
        (1, [Epoch(2, bytes(16))]),
        (2, [Epoch(3, bytes(16))]),
        (2, [Put(SYSTEM_NAMESPACE, b"member/a", b"", b"", 0, bytes(16))]),
        (2, [Epoch(2, bytes(16)), Epoch(2, bytes(16))]),
    ],
)
def test_an_epoch_begins_with_its_entry_and_nowhere_else(store, maker, namespace, epoch, entries):
    assert_refused(store, maker, ProtocolError, [raw_frame(store, entries, epoch=epoch)], "can't be read")


def test_a_frame_out_of_its_place_is_a_broken_invariant(store, maker, namespace):
    maker.put(namespace, b"key", b"1")
    first = maker.cut()
    maker.put(namespace, b"key", b"2")
    second = maker.cut()
    for frames in ([second], [maker.frames[0]], [first, first]):
        with pytest.raises(AssertionError, match="applied at"):
            store.apply(frames)
    store.apply([first, second])
    assert_is_fold(store, maker)


def test_a_frame_of_another_history_is_a_broken_invariant(store, maker, namespace):
    position = store.position._replace(chain=b"x" * 16)
    frame = cut_frame(
        epoch=1,
        first_seq=position.seq + 1,
        stamp=1,
        chain_before=position.chain,
        digest_after=store.digest.to_bytes(16, "big"),
        entries=[PLACEHOLDER],
    )
    assert_refused(store, maker, AssertionError, [frame], "another history")


def test_a_newer_record_is_never_replaced(store, maker, namespace):
    with store.environment.write() as txn:
        place = store._tallies[namespace].prefix + b"key"
        stored = txn.get(place)
        txn.put(place, stored[:5] + (99).to_bytes(8, "big") + stored[13:])
    for entries in ([Put(namespace, b"key", b"v", b"", 0, bytes(16))], None):
        frame = raw_frame(store, entries or [PLACEHOLDER])
        if entries is None:
            frame = with_body(frame, msgpack.packb([[1, namespace, b"key"]]))
        with pytest.raises(AssertionError, match="the newer 99"):
            store.apply([frame])


def test_there_is_no_empty_batch(store):
    with pytest.raises(AssertionError):
        store.apply([])


# The catalogue


def test_the_catalogue_follows_its_records(folder, maker):
    store = open_store(folder)
    namespace = maker.create_namespace("a")
    cluster = Cluster("f" * 32, b"c" * 16, 1)
    token = Token("t1", "deploy", Scope.WRITE, b"h" * 32)
    member = Member("fra", 5)
    for item in (cluster, token, member):
        maker.put_item(item)
    store.apply([maker.cut()])
    generation = store.catalogue_generation
    for _ in range(2):
        assert store.cluster == cluster
        assert store.tokens == {b"h" * 32: token}
        assert store.members == {"fra": member}
        assert store.titles["a"].id == namespace
        assert list(store.namespaces) == [namespace]
        store.close()
        store = open_store(folder)
    maker.put_item(Namespace(namespace, "renamed", 1))
    maker.put_item(Token("t1", "deploy", Scope.WRITE, b"i" * 32))
    maker.delete_item(member)
    maker.put(namespace, b"key", b"value")
    before = store.catalogue
    store.apply([maker.cut()])
    assert store.catalogue_generation > before.generation
    assert list(store.titles) == ["renamed"]
    assert list(store.tokens) == [b"i" * 32]
    assert not store.members
    assert list(before.titles) == ["a"], "a reader's catalogue never changes under it"
    generation = store.catalogue_generation
    maker.put(namespace, b"key", b"other")
    store.apply([maker.cut()])
    assert store.catalogue_generation == generation
    assert_is_fold(store, maker)
    store.close()


def test_a_namespace_created_and_deleted_in_one_batch_leaves_nothing(store, maker, namespace):
    short_lived = maker.create_namespace("b")
    maker.put(short_lived, b"k" * 2000, b"v")
    maker.cut()
    maker.delete_namespace(short_lived)
    maker.cut()
    store.apply(maker.frames[1:])
    assert_is_fold(store, maker)
    while store.erase_some(1):
        pass
    with store.environment.view() as txn:
        assert txn.stat(store._records)["entries"] == 2


def test_a_deleted_namespace_is_gone_at_once_and_erased_later_even_after_a_restart(folder, maker):
    store = open_store(folder)
    gone, kept = maker.create_namespace("gone"), maker.create_namespace("kept")
    for number in range(20):
        for namespace in (gone, kept):
            maker.put(namespace, b"%d" % number * (1 if number % 2 else 600), b"v")
    store.apply([maker.cut()])
    assert not store.erase_some()
    maker.delete_namespace(gone)
    store.apply([maker.cut()])
    assert store.get(gone, b"1") is None
    assert store.list_keys(gone, b"", None, 10, 0) == ([], False)
    assert_is_fold(store, maker)
    rounds = 0
    while store.erase_some(7):
        rounds += 1
        assert_is_fold(store, maker)
        store.close()
        store = open_store(folder)
    assert rounds > 3
    with store.environment.view() as txn:
        pointers = sum(1 if number < 10 else 2 for number in range(0, 20, 2))
        assert txn.stat(store._records)["entries"] == 1 + 20 + pointers
    assert_is_fold(store, maker)
    store.close()


# Listings


def listed(store, namespace, prefix=b"", after=None, limit=1000, now_s=0):
    keys, more = store.list_keys(namespace, prefix, after, limit, now_s)
    return [each.key for each in keys], more


def test_listings_go_on_where_they_ended_at_any_length(store, maker):
    namespace, other = maker.create_namespace("a"), maker.create_namespace("b")
    lengths = (1, 501, 502, 503, 1004, 1005, 2047, 2048)
    keys = sorted(stem * length for stem in (b"\0", b"a", b"\xff") for length in lengths)
    for key in keys:
        maker.put(namespace, key, b"v")
        maker.put(other, key + b"x", b"v")
    store.apply([maker.cut()])
    for limit in (1, 5, len(keys)):
        seen: list[bytes] = []
        more = True
        while more:
            some, more = listed(store, namespace, after=seen[-1] if seen else None, limit=limit)
            assert len(some) == limit or not more
            seen += some
        assert seen == keys
    for prefix in (b"a", b"a" * 502, b"a" * 503, b"a" * 2048, b"\xff" * 2048, b"b", b"\0" * 600):
        matching = [key for key in keys if key.startswith(prefix)]
        assert listed(store, namespace, prefix) == (matching, False)
        for after in (b"", b"a", b"a" * 1004, b"\xff" * 2048, b"zz", prefix, prefix + b"\xff"):
            left = [key for key in matching if key > after]
            assert listed(store, namespace, prefix, after) == (left, False)
            assert listed(store, namespace, prefix, after, 2) == (left[:2], len(left) > 2)


def test_listings_skip_what_has_expired(store, maker, namespace):
    for number in range(2500):
        maker.put(namespace, b"%04d" % number, b"v", metadata=b'{"n":1}', expires_at=number)
    store.apply([maker.cut()])
    keys, more = listed(store, namespace, now_s=2496)
    assert keys == [b"0000", b"2497", b"2498", b"2499", b"key"]
    assert not more
    assert listed(store, namespace, now_s=2498, limit=2) == ([b"0000", b"2499"], True)
    assert store.list_keys(namespace, b"2499", None, 1, 0) == ([(b"2499", b'{"n":1}', 2499)], False)
    assert store.get(namespace, b"0001").expires_at == 1, "expiry is its reader's business"


# The journal


def journal_of(maker, namespace, count: int) -> list[Frame]:
    for number in range(count):
        maker.put(namespace, b"%d" % (number % 10), b"v" * 1000)
        maker.cut()
    return maker.frames


def test_frames_are_read_back_as_they_were_cut(store, maker, namespace):
    frames = journal_of(maker, namespace, 20)
    store.apply(frames[1:])
    assert store.frames_after(0, 1 << 30) == frames
    for number in (0, 7, 20):
        seq = frames[number].first_seq - 1
        size = sum(len(frame.data) for frame in frames[number : number + 3])
        assert store.frames_after(seq, size) == frames[number : number + 3]
        assert store.frames_after(seq, size - 1) == frames[number : number + 2][: max(1, 20 - number)]
        assert store.frames_after(seq, 0) == [frames[number]]
    assert store.frames_after(store.position.seq, 1 << 30) == []
    assert store.frames_after(store.position.seq + 5, 1 << 30) == []
    with pytest.raises(BeyondHorizon):
        store.frames_after(1, 1 << 30)  # in the middle of the first frame


def test_a_store_proves_its_own_history_and_no_other(store, maker, namespace):
    frames = journal_of(maker, namespace, 5)
    store.apply(frames[1:])
    for position in (GENESIS, *(frame.position for frame in frames)):
        assert store.holds(position)
        assert not store.holds(position._replace(chain=b"x" * 16))
        assert not store.holds(position._replace(epoch=position.epoch + 1))
    assert not store.holds(Position(1, 1, frames[0].chain_after))
    assert not store.holds(Position(1, 1000, frames[-1].chain_after))


def test_the_journal_forgets_its_oldest_frames_and_knows_where_it_starts(folder, maker):
    bytes_max = 20_000
    store = open_store(folder, journal_bytes_max=bytes_max)
    namespace = maker.create_namespace("a")
    for frame in journal_of(maker, namespace, 100):
        store.apply([frame])
        assert store.stats()["journal_bytes"] <= bytes_max * 9 / 8
    assert store.horizon_seq > 0
    for _ in range(2):
        tail = [frame for frame in maker.frames if frame.first_seq > store.horizon_seq]
        assert store.frames_after(store.horizon_seq, 1 << 30) == tail
        stats = store.stats()
        assert (stats["journal_frames"], stats["horizon_seq"]) == (len(tail), store.horizon_seq)
        assert stats["journal_bytes"] == sum(len(frame.data) for frame in tail) > bytes_max / 2
        with pytest.raises(BeyondHorizon):
            store.frames_after(store.horizon_seq - 1, 1 << 30)
        for frame in maker.frames:
            assert store.holds(frame.position) == (frame.last_seq >= store.horizon_seq)
        assert not store.holds(GENESIS)
        store.close()
        store = open_store(folder, journal_bytes_max=bytes_max)
    assert_is_fold(store, maker)
    store.close()


def test_the_last_frame_stays_however_large(folder, maker):
    store = open_store(folder, journal_bytes_max=1000)
    namespace = maker.create_namespace("a")
    store.apply([maker.cut()])
    maker.put(namespace, b"key", b"v" * 100_000)
    frame = maker.cut()
    store.apply([frame])
    assert store.frames_after(store.horizon_seq, 0) == [frame]
    store.close()


# Request ids


def test_requests_are_remembered_for_ten_minutes_and_then_forgotten_bit_by_bit(folder, maker):
    store = open_store(folder)
    maker.create_namespace("a")
    old = [(b"old %d" % number, Version(1, number), 1000 + number) for number in range(100)]
    store.apply([maker.cut()], old)
    store.close()
    store = open_store(folder)
    assert all(store.request_outcome(name) == version for name, version, _ in old)
    assert store.request_outcome(b"unknown") is None
    store.apply([], [(b"in time", Version(1, 500), 600_000)])
    assert store.request_outcome(b"old 0") == Version(1, 0)
    store.apply([], [(b"late" * 500, Version(1, 501), 601_050)])
    left = [name for name, *_ in old if store.request_outcome(name)]
    assert left == [name for name, *_ in old[16:]]
    for number in range(10):
        store.apply([], [(b"new %d" % number, Version(2, number), 601_050)])
    left = [name for name, *_ in old if store.request_outcome(name)]
    assert left == [name for name, *_ in old[50:]]
    assert store.request_outcome(b"late" * 500) == Version(1, 501)
    store.close()


def test_a_request_remembered_again_is_forgotten_by_its_last_time(store, maker, namespace):
    store.apply([], [(b"id", Version(1, 1), 0)])
    store.apply([], [(b"id", Version(1, 2), 500_000)])
    store.apply([], [(b"other", Version(1, 3), 700_000)])
    assert store.request_outcome(b"id") == Version(1, 2)
    store.apply([], [(b"another", Version(1, 4), 1_200_000)])
    assert store.request_outcome(b"id") is None


# Full, emptied, verified


def fill(store, maker, namespace) -> None:
    for number in range(1000):
        maker.put(namespace, b"%d" % number, b"v" * 10_000)
        store.apply([maker.cut()])


def test_a_full_map_refuses_writes_and_goes_on_reading(folder, maker):
    store = open_store(folder, map_size_bytes=1 << 20)
    namespace = maker.create_namespace("a")
    store.apply([maker.cut()])
    with pytest.raises(StorageFull, match=r"the map of .* is full: .* reads go on"):
        fill(store, maker, namespace)
    refused = maker.frames[-1]
    assert store.position == maker.frames[-2].position
    assert store.get(namespace, b"0").value == b"v" * 10_000
    assert store.get(namespace, b"%d" % (refused.first_seq - 3)) is None
    assert store.recompute().good
    store.close()
    store = open_store(folder, map_size_bytes=2 << 20)
    store.apply([refused])
    assert_is_fold(store, maker)
    store.close()


def test_a_full_disk_refuses_writes_and_goes_on_reading(store, maker, namespace):
    """The limit on a file's size stands for the disk: LMDB meets it in the middle of a commit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    try:
        with pytest.raises(StorageError, match=r"no space left|can't be used"):
            fill(store, maker, namespace)
        refused = maker.frames[-1]
        assert store.position == maker.frames[-2].position
        assert store.get(namespace, b"0").value == b"v" * 10_000
        assert store.recompute().good
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    store.apply([refused])
    assert_is_fold(store, maker)


def test_reset_leaves_an_empty_store_that_can_take_another_history(folder, maker):
    store = open_store(folder, journal_bytes_max=1000)
    namespace = maker.create_namespace("a")
    maker.put(namespace, b"k" * 2000, b"v" * 5000)
    store.apply([maker.cut()], [(b"id", Version(1, 1), 0)])
    maker.delete_namespace(maker.create_namespace("b"))
    store.apply([maker.cut()])
    generation = store.catalogue_generation
    store.reset()
    other = FrameMaker(epoch=7)
    for _ in range(2):
        assert_is_fold(store, FrameMaker())
        assert (store.stamp, store.horizon_seq, store.request_outcome(b"id")) == (0, 0, None)
        assert store.get(namespace, b"k" * 2000) is None
        assert not store.titles
        assert store.stats()["journal_bytes"] == 0
        with store.environment.view() as txn:
            assert txn.stat(store._erasing)["entries"] == 0
        store.close()
        store = open_store(folder)
    assert generation > 0
    other.open_epoch()
    other.put(other.create_namespace("a"), b"k" * 2000, b"other")
    store.apply([other.cut()])
    assert_is_fold(store, other)
    store.close()


def test_verified_outlives_a_restart_and_not_a_reset(folder, maker):
    """A wiped or emptied replica once served what it had halfway through its refill."""
    maker.create_namespace("a")
    store = open_store(folder)
    store.apply([maker.cut()])
    assert not store.verified
    store.mark_verified()
    store.close()
    store = open_store(folder)
    assert store.verified
    store.reset()
    assert not store.verified
    store.close()
    store = open_store(folder)
    assert not store.verified
    store.close()


def test_reset_changes_the_catalogues_generation(store, maker, namespace):
    generation = store.catalogue_generation
    store.reset()
    assert store.catalogue_generation > generation


def test_verification_finds_a_flipped_bit_and_a_missing_record(store, maker, namespace):
    maker.put(namespace, b"long" * 500, b"value")
    maker.put(namespace, b"zero", b"\0" * 10)
    store.apply([maker.cut()])
    assert store.recompute() == (store.position, store.digest, store.digest, [], [])
    with store.environment.write() as txn:
        place = store._tallies[namespace].prefix + b"zero"
        stored = txn.get(place)
        txn.put(place, stored[:-1] + b"\1")
    found = store.recompute()
    assert not found.good
    assert found.differing == [(namespace, b"zero")]
    assert found.digest_recomputed != found.digest_stored == store.digest
    with store.environment.write() as txn:
        txn.delete(place)
    found = store.recompute()
    assert not found.good
    assert (found.differing, found.namespaces_differing) == ([], [namespace])


@pytest.mark.parametrize("moves", [1, 100])
def test_verification_is_of_one_position_while_the_replica_moves_on(store, maker, namespace, monkeypatch, moves):
    for number in range(20):
        maker.put(namespace, b"%d" % number, b"v")
    store.apply([maker.cut()])
    views = []
    view = store.environment.view

    def view_and_move():
        views.append(None)
        if len(views) > 1 and len(views) <= moves + 1:
            maker.put(namespace, b"%d" % (len(views) % 20), b"%d" % len(views))
            store.apply([maker.cut()])
        return view()

    monkeypatch.setattr(verification, "SLICE_RECORDS", 5)
    monkeypatch.setattr(store.environment, "view", view_and_move)
    found = store.recompute()
    assert len(views) > 2
    assert found.good
    assert found.position == store.position


def test_a_reader_on_another_thread_never_sees_a_later_write_without_an_earlier_one(store, maker, namespace):
    frames = []
    for number in range(300):
        maker.put(namespace, b"a", b"%d" % number)
        maker.put(namespace, b"b" * 600, b"%d" % number)
        frames.append(maker.cut())
    writer = threading.Thread(target=lambda: [store.apply([frame]) for frame in frames])
    writer.start()
    seen = set()
    last = 0
    while writer.is_alive() or last < frames[-1].last_seq:
        later = store.get(namespace, b"b" * 600)
        earlier = store.get(namespace, b"a")
        if later is not None:
            assert int(earlier.value) >= int(later.value)
            assert later.version.seq >= last
            last = later.version.seq
            seen.add(last)
    writer.join()
    assert_is_fold(store, maker)
