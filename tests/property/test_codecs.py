"""What nodes write they can read; what anybody else writes is a ProtocolError and nothing worse."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zlib import crc32

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvnet.core import entries, messages, operations
from kvnet.core.catalog import Scope
from kvnet.core.entries import CHUNK_HASH_BYTES, DIGEST_MODULUS, Delete, Entry, Epoch, Put
from kvnet.core.frames import HEADER_BYTES, Frame, chain_of, cut_frame, read_frame, read_span
from kvnet.core.manifest import CHUNK_BYTES, Manifest
from kvnet.core.messages import (
    CHECKSUM_BYTES,
    EPOCH_MAX,
    PAGES_CREDIT_MAX,
    PATH_HOPS_MAX,
    PLACE_BYTES_MAX,
    Ack,
    Acks,
    Advert,
    Ask,
    Beacon,
    BeaconId,
    Chunk,
    ChunkMissing,
    ChunksWanted,
    Frames,
    Holds,
    Message,
    Move,
    Offer,
    Page,
    PagesCredit,
    PagesRefused,
    PagesWanted,
    Reason,
    Refused,
    Subscribe,
    Unsubscribe,
)
from kvnet.core.operations import (
    CreateNamespace,
    CreateToken,
    DeleteNamespace,
    DeleteValue,
    Operation,
    PutValue,
    RenameNamespace,
    RevokeToken,
    RollToken,
)
from kvnet.core.versions import Position, Version
from kvnet.errors import Divergence, ProtocolError, StorageDamaged
from kvnet.storage.keys import ROOT_BYTES
from kvnet.storage.records import (
    Replaced,
    is_whole,
    pack_record,
    read_hash,
    read_listed,
    read_record,
    read_replaced,
)
from kvnet.storage.state import State, Tally
from kvnet.storage.store import Store
from tests.support.frames import FrameMaker
from tests.support.stores import fields_of, open_store

U32 = st.integers(0, (1 << 32) - 1)
U64 = st.integers(0, (1 << 64) - 1)
TENTHS = st.integers(-(1 << 50), 1 << 50).map(lambda tenths: tenths / 10)
"""Every tenth that a float tells from its neighbours: 3,500 years each way."""
NAMES = st.text(st.characters(codec="utf-8"), max_size=12)
HASHES = st.binary(min_size=16, max_size=16)
POSITIONS = st.builds(Position, st.integers(0, EPOCH_MAX - 1), U64, HASHES)
BEACONS = st.builds(BeaconId, st.integers(0, EPOCH_MAX - 1), U64)
ACKS = st.builds(
    Ack,
    st.text(st.characters(codec="utf-8"), min_size=1, max_size=12),
    BEACONS,
    st.builds(Version, st.integers(0, EPOCH_MAX - 1), U64),
)
PATHS = (st.lists(NAMES, max_size=5) | st.just(["name"] * PATH_HOPS_MAX)).map(tuple)
PLACES = (
    st.just(b"")
    | st.binary(min_size=16, max_size=40)
    | st.binary(min_size=PLACE_BYTES_MAX, max_size=PLACE_BYTES_MAX)
)
CREDITS = st.integers(1, PAGES_CREDIT_MAX)
CHUNK_NAMES = st.binary(min_size=CHUNK_HASH_BYTES, max_size=CHUNK_HASH_BYTES)
NAMES_OF_CHUNKS = st.lists(CHUNK_NAMES, min_size=1, max_size=5).map(tuple)

MESSAGES = st.one_of(
    st.builds(Frames, st.lists(st.binary(max_size=50), max_size=4).map(tuple)),
    st.builds(Beacon, BEACONS, U64, TENTHS, U32, TENTHS, TENTHS, PATHS, st.booleans()),
    st.builds(
        Advert, POSITIONS, BEACONS, TENTHS, PATHS, U32, st.booleans(), TENTHS, TENTHS, TENTHS, st.booleans()
    ),
    st.builds(Ask, U32, U64, BEACONS, st.booleans()),
    st.builds(Subscribe, POSITIONS, st.booleans()),
    st.builds(Unsubscribe),
    st.builds(Refused, st.sampled_from(Reason), POSITIONS, st.integers(0, EPOCH_MAX - 1)),
    st.builds(Move),
    st.builds(Offer, HASHES, NAMES_OF_CHUNKS),
    st.builds(Holds, HASHES),
    st.builds(Acks, st.lists(ACKS, max_size=5).map(tuple)),
    st.builds(PagesWanted, PLACES, CREDITS),
    st.builds(PagesCredit, CREDITS),
    st.builds(
        lambda position, digest, ends, body: Page(position, digest, *ends, body),
        POSITIONS,
        HASHES,
        st.tuples(PLACES, PLACES).map(lambda ends: ends if ends[0] < ends[1] else (ends[0], b"")),
        st.binary(max_size=50),
    ),
    st.builds(PagesRefused, POSITIONS),
    st.builds(ChunksWanted, NAMES_OF_CHUNKS),
    st.builds(Chunk, CHUNK_NAMES, st.binary(max_size=50)),
    st.builds(ChunkMissing, CHUNK_NAMES),
)
ENTRIES = st.one_of(
    st.builds(Put, HASHES, st.binary(), st.binary(), st.binary(), U64, HASHES),
    st.builds(Delete, HASHES, st.binary()),
    st.builds(Epoch, U32, st.binary()),
)
OPERATIONS = st.one_of(
    st.builds(PutValue, HASHES, st.binary(), st.binary(), st.binary(), U64, U64),
    st.builds(DeleteValue, HASHES, st.binary()),
    st.builds(CreateNamespace, HASHES, NAMES),
    st.builds(RenameNamespace, HASHES, NAMES),
    st.builds(DeleteNamespace, HASHES),
    st.builds(
        CreateToken,
        NAMES,
        NAMES,
        st.sampled_from(list(map(str, Scope))),
        st.binary(),
        st.lists(st.binary(min_size=16, max_size=16), max_size=3).map(tuple),
        st.integers(0, 2**40),
    ),
    st.builds(RevokeToken, NAMES),
    st.builds(RollToken, NAMES, st.binary()),
)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(1 << 63), (1 << 64) - 1),
    st.floats(),
    NAMES,
    st.binary(max_size=20),
    HASHES,
)
STRUCTURES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=16),
        st.tuples(st.integers(0, 16), st.lists(inner, max_size=14)).map(lambda pair: [pair[0], *pair[1]]),
        st.dictionaries(NAMES, inner, max_size=3),
    ),
    max_leaves=40,
)
BYTES = st.one_of(st.binary(), STRUCTURES.map(msgpack.packb), st.lists(STRUCTURES).map(msgpack.packb))


@given(st.lists(MESSAGES, max_size=5))
def test_messages_read_what_they_write(sent: list[Message]) -> None:
    assert messages.decode(messages.encode(sent)) == sent


@given(BYTES, st.booleans())
def test_bytes_that_are_no_messages_are_the_peers_fault(data: bytes, checked: bool) -> None:
    with contextlib.suppress(ProtocolError):
        assert_can_be_written(messages.decode(with_checksum(data) if checked else data))


def with_checksum(packed: bytes) -> bytes:
    """As a message that arrived as it was sent, whatever that was."""
    return crc32(packed).to_bytes(CHECKSUM_BYTES, "big") + packed


def assert_can_be_written(read: list[Message]) -> None:
    """Whatever was read can be passed on, and is read again; of absurd times the last tenth may change."""
    again = messages.decode(messages.encode(read))
    assert [type(message) for message in again] == [type(message) for message in read]


@given(MESSAGES, st.data())
def test_messages_with_one_field_spoilt_are_the_peers_fault(message: Message, data: st.DataObject) -> None:
    [fields] = msgpack.unpackb(messages.encode([message])[CHECKSUM_BYTES:])
    fields[data.draw(st.integers(0, len(fields) - 1))] = data.draw(STRUCTURES)
    with contextlib.suppress(ProtocolError):
        assert_can_be_written(messages.decode(with_checksum(msgpack.packb([fields]))))


@given(st.lists(MESSAGES, min_size=1, max_size=3), st.data())
def test_messages_cut_short_or_with_one_byte_spoilt_are_the_peers_fault(
    sent: list[Message], data: st.DataObject
) -> None:
    whole = messages.encode(sent)
    at = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(ProtocolError):
        messages.decode(whole[:at])
    with pytest.raises(ProtocolError):
        messages.decode(whole + whole[: at + 1])
    spoilt = whole[:at] + bytes([whole[at] ^ data.draw(st.integers(1, 255))]) + whole[at + 1 :]
    with pytest.raises(ProtocolError):
        messages.decode(spoilt)
    with contextlib.suppress(ProtocolError):
        messages.decode(with_checksum(spoilt[CHECKSUM_BYTES:]))


@given(
    st.lists(ENTRIES, min_size=1, max_size=6),
    st.integers(1, EPOCH_MAX - 1),
    st.integers(1, (1 << 64) - 10),
    U64,
    HASHES,
    HASHES,
)
def test_frames_read_what_they_write(
    body: list[Entry], epoch: int, first: int, stamp: int, before: bytes, digest: bytes
) -> None:
    frame = cut_frame(
        epoch=epoch, first_seq=first, stamp=stamp, chain_before=before, digest_after=digest, entries=body
    )
    assert read_frame(frame.data) == frame
    assert read_span(frame.data) == (first, first + len(body) - 1)
    assert frame.entries() == body
    assert frame.position == (epoch, frame.last_seq, chain_of(before, frame.data))
    assert read_frame(frame.data, chain_after=frame.chain_after) == frame
    whereabouts: list[Message] = [Subscribe(frame.position, late=True), Frames((frame.data,))]
    assert messages.decode(messages.encode(whereabouts)) == whereabouts, "who has taken it can say so"


@given(st.one_of(BYTES, st.binary(min_size=HEADER_BYTES, max_size=HEADER_BYTES + 20).map(lambda b: b"\xf1" + b)))
def test_bytes_that_are_no_frame_are_the_peers_fault(data: bytes) -> None:
    with contextlib.suppress(ProtocolError):
        read_frame(data).entries()


@given(STRUCTURES, st.integers(1, 3))
def test_a_body_that_holds_no_entries_is_the_peers_fault(body: Any, count: int) -> None:
    frame = make_frame()
    spoilt = Frame(
        frame.data[:HEADER_BYTES] + msgpack.packb(body), 1, 1, count, 0, bytes(16), bytes(16), bytes(16)
    )
    with contextlib.suppress(ProtocolError):
        spoilt.entries()


@given(st.integers(0, 7), st.integers(0, 200))
def test_any_flipped_bit_changes_the_chain(bit: int, at: int) -> None:
    frame = make_frame()
    data = bytearray(frame.data)
    data[at % len(data)] ^= 1 << bit
    assert chain_of(bytes(16), bytes(data)) != frame.chain_after


def make_frame(*, first_seq: int = 1, chain_before: bytes = bytes(16), digest: int = 0) -> Frame:
    return cut_frame(
        epoch=1,
        first_seq=first_seq,
        stamp=0,
        chain_before=chain_before,
        digest_after=digest.to_bytes(16, "big"),
        entries=[Delete(bytes(16), b"key")],
    )


@given(OPERATIONS)
def test_operations_read_what_they_write(operation: Operation) -> None:
    assert operations.from_wire(msgpack.unpackb(msgpack.packb(operations.to_wire(operation)))) == operation


@given(STRUCTURES)
def test_what_is_no_operation_or_entry_is_the_peers_fault(fields: Any) -> None:
    for codec in (operations, entries):
        with contextlib.suppress(ProtocolError):
            codec.from_wire(fields)


@given(st.lists(STRUCTURES, max_size=4))
def test_what_reads_as_an_operation_or_entry_is_written_as_it_came(fields: list[Any]) -> None:
    for codec in (operations, entries):
        with contextlib.suppress(ProtocolError):
            read = codec.from_wire(fields)
            assert codec.from_wire(codec.to_wire(read)) == read


# -- on the disk


@given(st.binary(), st.binary(), st.binary(), U64, st.builds(Version, U32, U64), HASHES)
def test_a_stored_record_reads_what_was_written(
    key: bytes, value: bytes, metadata: bytes, expires_at: int, version: Version, digest: bytes
) -> None:
    stored = pack_record(key, value, metadata, expires_at, *version, digest)
    assert is_whole(key, stored)
    record = read_record(key, stored)
    assert fields_of(record) == (value, metadata, expires_at, *version, digest, False)
    assert record.version == version
    assert read_listed(key, memoryview(stored)) == (expires_at, metadata)
    number = int.from_bytes(digest, "big")
    assert read_hash(stored) == number
    assert read_replaced(key, stored) == Replaced(version.seq, number, len(metadata) + len(value), expires_at, b"")


@given(st.binary(), st.binary(), st.binary(max_size=20), U64, st.data())
def test_a_stored_record_with_a_flipped_bit_or_another_key_is_never_read(
    key: bytes, value: bytes, metadata: bytes, expires_at: int, data: st.DataObject
) -> None:
    stored = pack_record(key, value, metadata, expires_at, 1, 2, bytes(16))
    flipped = bytearray(stored)
    flipped[data.draw(st.integers(0, len(stored) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    other = data.draw(st.binary().filter(lambda name: name != key and len(name) == len(key)) | st.just(key + b"x"))
    for name, damaged in ((key, bytes(flipped)), (other, stored), (key, stored[: data.draw(st.integers(0, 20))])):
        with pytest.raises(StorageDamaged, match="isn't what was written"):
            read_record(name, damaged)
        with pytest.raises(StorageDamaged, match="isn't what was written"):
            read_listed(name, memoryview(damaged))
        assert not is_whole(name, damaged)


@given(st.binary(max_size=80), st.binary(max_size=8))
def test_any_bytes_in_a_records_place_are_damage(key: bytes, stored: bytes) -> None:
    with pytest.raises(StorageDamaged):
        read_record(key, stored)


@given(st.binary(max_size=16), st.integers(1, 4 * CHUNK_BYTES), st.data())
def test_a_large_record_keeps_its_manifest_and_tells_the_values_size(
    key: bytes, size: int, data: st.DataObject
) -> None:
    count = -(-size // CHUNK_BYTES)
    names = data.draw(st.lists(st.binary(min_size=32, max_size=32), min_size=count, max_size=count))
    packed = Manifest(size, tuple(names)).pack()
    assert Manifest.unpack(packed) == (size, tuple(names))
    stored = pack_record(key, packed, b"{}", 5, 1, 2, bytes(16), large=True)
    assert fields_of(read_record(key, stored)) == (packed, b"{}", 5, 1, 2, bytes(16), True)
    assert read_replaced(key, stored) == Replaced(2, 0, size + 2, 5, packed)
    with pytest.raises(ProtocolError, match="manifest"):
        Manifest.unpack(packed + bytes(32))


DIGESTS = st.integers(0, DIGEST_MODULUS - 1)
ENDS = st.builds(Position, U32, U64, HASHES)


@given(st.builds(State, ENDS, DIGESTS, U64, ENDS, U64, U64, U64, U32))
def test_a_stored_state_reads_what_was_written(state: State) -> None:
    assert State.unpack(memoryview(state.pack())) == state


@given(st.builds(Tally, st.binary(min_size=ROOT_BYTES, max_size=ROOT_BYTES), U64, U64, DIGESTS))
def test_a_stored_tally_reads_what_was_written(tally: Tally) -> None:
    assert Tally.unpack(memoryview(tally.pack())) == tally


def first_frame() -> Frame:
    maker = FrameMaker()
    maker.open_epoch()
    maker.create_namespace("n")
    return maker.cut()


FIRST = first_frame()


@pytest.fixture(scope="module")
def store() -> Iterator[Store]:
    folder = Path(tempfile.mkdtemp())
    store = open_store(folder)
    yield store
    store.close()
    shutil.rmtree(folder)


@given(st.data())
@settings(deadline=None)
def test_a_frame_of_any_body_is_taken_whole_or_not_at_all(store: Store, data: st.DataObject) -> None:
    """A store meets bodies that the core never looked into: they are the peer's fault, and nothing of them stays.

    (The hash in a PUT is the coordinator's word, and no replica computes it again: here it may be a lie.)
    """
    store.reset()
    store.apply([FIRST])
    before, digest = store.position, store.digest
    [namespace] = store.namespaces
    body: list[Any] = []
    for number in range(data.draw(st.integers(1, 3))):
        entry = data.draw(ENTRIES)
        if not isinstance(entry, Epoch) and data.draw(st.booleans()):
            entry = entry._replace(namespace=namespace)
        body.append(entries.to_wire(entry))
        if data.draw(st.booleans()):
            body[number][data.draw(st.integers(0, len(body[number]) - 1))] = data.draw(STRUCTURES)
    spoilt: Any = data.draw(st.just(body) | STRUCTURES)
    packed = msgpack.packb(spoilt)
    header = bytearray(
        make_frame(first_seq=before.seq + 1, chain_before=before.chain, digest=digest).data[:HEADER_BYTES]
    )
    header[13:21] = (before.seq + len(body)).to_bytes(8, "big")
    frame = read_frame(bytes(header) + packed)
    try:
        store.apply([frame])
    except (ProtocolError, Divergence):
        assert (store.position, store.digest) == (before, digest)
    else:
        assert store.position == frame.position
        assert store.digest == digest, "what the frame itself says it comes to"
