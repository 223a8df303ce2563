from __future__ import annotations

import threading

import msgpack
import pytest

from kvnet.core.catalog import Namespace, key_of, value_of
from kvnet.core.entries import SYSTEM_NAMESPACE, Epoch, Put, record_hash
from kvnet.core.frames import HEADER_BYTES, Frame, cut_frame, read_frame
from kvnet.core.versions import Version
from kvnet.errors import Divergence, ProtocolError
from tests.support.stores import assert_is_fold, fields_of, open_store

PLACEHOLDER = Epoch(1, bytes(16))


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
    assert fields_of(stored) == (
        b"2",
        b"",
        0,
        *version,
        record_hash(namespace, b"key", b"2", b"", 0, *version),
        False,
    )
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
        place = store.tallies[namespace].prefix + b"key"
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
