"""What nodes write they can read; what anybody else writes is a ProtocolError and nothing worse."""

from __future__ import annotations

import contextlib
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvnet.core import entries, messages, operations
from kvnet.core.catalog import Scope
from kvnet.core.entries import Delete, Entry, Epoch, Put
from kvnet.core.frames import FRAME_BYTES_MAX, HEADER_BYTES, Frame, chain_of, cut_frame, read_frame, read_span
from kvnet.core.messages import (
    PATH_HOPS_MAX,
    Advert,
    Ask,
    Beacon,
    BeaconId,
    Frames,
    Message,
    Move,
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
)
from kvnet.core.versions import Position
from kvnet.errors import ProtocolError

U32 = st.integers(0, (1 << 32) - 1)
U64 = st.integers(0, (1 << 64) - 1)
TENTHS = st.integers(-10, 1 << 40).map(lambda tenths: tenths / 10)
NAMES = st.text(st.characters(codec="utf-8"), max_size=12)
HASHES = st.binary(min_size=16, max_size=16)
POSITIONS = st.builds(Position, U32, U64, HASHES)
BEACONS = st.builds(BeaconId, U32, U64)
PATHS = st.lists(NAMES, max_size=5).map(tuple)

MESSAGES = st.one_of(
    st.builds(Frames, st.lists(st.binary(max_size=50), max_size=4).map(tuple)),
    st.builds(Beacon, BEACONS, U64, TENTHS, U32, TENTHS, TENTHS, PATHS),
    st.builds(
        Advert, POSITIONS, BEACONS, TENTHS, PATHS, U32, st.booleans(), TENTHS, TENTHS, TENTHS, st.booleans()
    ),
    st.builds(Ask, U32, U64, BEACONS, st.booleans()),
    st.builds(Subscribe, POSITIONS, st.booleans()),
    st.builds(Unsubscribe),
    st.builds(Refused, st.sampled_from(Reason), POSITIONS),
    st.builds(Move),
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
    st.builds(CreateToken, NAMES, NAMES, st.sampled_from(list(map(str, Scope))), st.binary()),
    st.builds(RevokeToken, NAMES),
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
        st.tuples(st.integers(0, 9), st.lists(inner, max_size=14)).map(lambda pair: [pair[0], *pair[1]]),
        st.dictionaries(NAMES, inner, max_size=3),
    ),
    max_leaves=40,
)
BYTES = st.one_of(st.binary(), STRUCTURES.map(msgpack.packb), st.lists(STRUCTURES).map(msgpack.packb))


@given(st.lists(MESSAGES, max_size=5))
def test_messages_read_what_they_write(sent: list[Message]) -> None:
    assert messages.decode(messages.encode(sent)) == sent


@given(BYTES)
def test_bytes_that_are_no_messages_are_the_peers_fault(data: bytes) -> None:
    with contextlib.suppress(ProtocolError):
        messages.decode(data)


@given(MESSAGES, st.data())
def test_messages_with_one_field_spoilt_are_the_peers_fault(message: Message, data: st.DataObject) -> None:
    [fields] = msgpack.unpackb(messages.encode([message]))
    fields[data.draw(st.integers(0, len(fields) - 1))] = data.draw(STRUCTURES)
    with contextlib.suppress(ProtocolError):
        messages.decode(msgpack.packb([fields]))


@pytest.mark.parametrize("at", [4, 6, 7])
@pytest.mark.parametrize("tenths", [-(1 << 63), (1 << 53) + 1, (1 << 64) - 1])
def test_a_time_that_could_not_be_passed_on_is_the_peers_fault(at: int, tenths: int) -> None:
    """Such a beacon stopped whoever took it: with its own latency added it fitted no integer any more."""
    fields: list[Any] = [1, 1, 1, 0, 0, 500, 0, 0, []]
    assert messages.decode(msgpack.packb([fields]))
    fields[at] = tenths
    with pytest.raises(ProtocolError, match="time"):
        messages.decode(msgpack.packb([fields]))


@pytest.mark.parametrize(
    "body",
    [
        7,
        [7],
        [[]],
        [[99]],
        [[7, 1]],
        [[4, 1, 1, bytes(15), True]],
        [[4, -1, 1, bytes(16), True]],
        [[4, 1, 1, bytes(16), 1]],
        [[6, 4, 1, 1, bytes(16)]],
        [[0, "text"]],
        [[1, 1, 1, 1, 1, 1, 1, 1, ["x"] * (PATH_HOPS_MAX + 1)]],
        [[1, 1, 1, 1, 1, 1, 1, 1, [b"x"]]],
    ],
)
def test_these_are_no_messages(body: Any) -> None:
    with pytest.raises(ProtocolError):
        messages.decode(msgpack.packb(body))


@given(
    st.lists(ENTRIES, min_size=1, max_size=6),
    st.integers(1, 1 << 31),
    st.integers(1, 1 << 62),
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


@pytest.mark.parametrize("spoilt", ["", "short", "magic", "epoch", "span", "large"])
def test_these_are_no_frames(spoilt: str) -> None:
    data = bytearray(make_frame().data)
    match spoilt:
        case "":
            data = bytearray()
        case "short":
            data = data[:HEADER_BYTES]
        case "magic":
            data[0] ^= 1
        case "epoch":
            data[1:5] = bytes(4)
        case "span":
            data[5:13] = (99).to_bytes(8, "big")
        case "large":
            data += bytes(FRAME_BYTES_MAX)
    with pytest.raises(ProtocolError):
        read_span(bytes(data))


@given(st.integers(0, 7), st.integers(0, 200))
def test_any_flipped_bit_changes_the_chain(bit: int, at: int) -> None:
    frame = make_frame()
    data = bytearray(frame.data)
    data[at % len(data)] ^= 1 << bit
    assert chain_of(bytes(16), bytes(data)) != frame.chain_after


def make_frame() -> Frame:
    entry = Delete(bytes(16), b"key")
    return cut_frame(
        epoch=1, first_seq=1, stamp=0, chain_before=bytes(16), digest_after=bytes(16), entries=[entry]
    )


@given(OPERATIONS)
def test_operations_read_what_they_write(operation: Operation) -> None:
    assert operations.from_wire(msgpack.unpackb(msgpack.packb(operations.to_wire(operation)))) == operation


@given(STRUCTURES)
def test_what_is_no_operation_or_entry_is_the_peers_fault(fields: Any) -> None:
    for codec in (operations, entries):
        with contextlib.suppress(ProtocolError):
            codec.from_wire(fields)
