from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvnet.core.entries import INLINE_VALUE_BYTES_MAX
from kvnet.core.manifest import CHUNK_BYTES, Manifest, hash_chunk
from kvnet.core.operations import PutLargeValue, from_wire, to_wire
from kvnet.core.pieces import LargeRoom, LargeValue, Pieces, take_apart
from kvnet.errors import ProtocolError, RequestError

SIZES = [0, 1, INLINE_VALUE_BYTES_MAX, INLINE_VALUE_BYTES_MAX + 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES]


def content(size: int) -> bytes:
    return bytes(range(251)) * (size // 251) + bytes(size % 251)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("step", [1000, CHUNK_BYTES, CHUNK_BYTES + 7, 10 * CHUNK_BYTES])
def test_a_value_is_cut_the_same_however_it_comes(size: int, step: int) -> None:
    value = content(size)
    pieces = Pieces()
    for at in range(0, size, step):
        pieces.add(value[at : at + step])
    cut = pieces.end()
    assert cut == take_apart(bytearray(b"before" + value + b"behind"), 6, 6 + size)
    if size <= INLINE_VALUE_BYTES_MAX:
        assert cut == value
        return
    assert isinstance(cut, LargeValue)
    assert b"".join(cut.chunks) == value
    assert cut.manifest == Manifest(size, tuple(map(hash_chunk, cut.chunks)))
    assert Manifest.unpack(cut.manifest.pack()) == cut.manifest
    assert all(len(chunk) == CHUNK_BYTES for chunk in cut.chunks[:-1])


@given(st.binary(max_size=200), st.integers(0, 1 << 40))
def test_bytes_that_are_no_manifest_are_refused(rest: bytes, size: int) -> None:
    packed = size.to_bytes(8, "big") + rest
    try:
        manifest = Manifest.unpack(packed)
    except ProtocolError:
        return
    assert manifest.pack() == packed
    assert len(manifest.chunks) == -(-size // CHUNK_BYTES) > 0


def test_an_operation_travels_without_its_chunks() -> None:
    manifest = Manifest(CHUNK_BYTES + 1, (bytes(32), bytes(32)))
    operation = PutLargeValue(b"n" * 16, b"k", manifest.pack(), b"{}", 7, 0, [b"chunk", b"chunk"])
    assert from_wire(to_wire(operation)) == operation._replace(chunks=[])
    with pytest.raises(ProtocolError):
        from_wire(to_wire(operation._replace(manifest=b"no manifest")))


def test_room_is_given_back_whatever_happens() -> None:
    room = LargeRoom(1)

    def fail() -> None:
        with room.taken():
            with pytest.raises(RequestError) as raised, room.taken():
                raise AssertionError("there was room for two")
            assert (raised.value.status, raised.value.headers) == (503, {"Retry-After": "1"})
            raise ZeroDivisionError

    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            fail()
