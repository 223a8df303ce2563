from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kvnet.transport import websocket
from kvnet.transport.websocket import (
    CloseCode,
    FrameReader,
    Opcode,
    Violation,
    header,
    mask,
    mask_keys,
    mask_slowly,
)

KEY = b"\x01\xfe\x80\x7f"
SIZES = st.sampled_from([0, 1, 125, 126, 127, 65_535, 65_536, 70_000])
FRAMES = st.lists(
    st.one_of(
        st.tuples(st.just(Opcode.BINARY), st.binary(max_size=200) | SIZES.map(bytes)),
        st.tuples(st.sampled_from([Opcode.PING, Opcode.PONG]), st.binary(max_size=125)),
    ),
    max_size=8,
)


def frame(opcode: int, payload: bytes, key: bytes | None = None) -> bytes:
    return header(opcode, len(payload), key) + (payload if key is None else mask(key, payload))


class Reader:
    """A reader of frames, and all that it passed on."""

    def __init__(self, *, masked: bool = False, message_bytes_max: int = 100_000) -> None:
        self.heard: list[tuple[Opcode, bytes]] = []
        self.violation: CloseCode | None = None
        self._reader = FrameReader(
            lambda opcode, payload: self.heard.append((opcode, payload)),
            masked=masked,
            message_bytes_max=message_bytes_max,
        )

    def feed(self, *pieces: bytes) -> Reader:
        for piece in pieces:
            try:
                self._reader.feed(piece, lambda message: self.heard.append((Opcode.BINARY, message)))
            except Violation as violation:
                assert self.violation is None, "a violation is told once"
                self.violation = violation.code
        return self


def pieces(stream: bytes, cuts: list[float]) -> list[bytes]:
    """The stream, cut at these fractions of its length; no piece is empty, as none that a socket gives is."""
    at = sorted({round(cut * len(stream)) for cut in cuts} | {0, len(stream)})
    return [stream[a:b] for a, b in pairwise(at)]


CUTS = st.lists(st.floats(0, 1), max_size=12)


@given(FRAMES, CUTS, st.booleans())
def test_any_split_of_any_frames_gives_the_same_messages(frames, cuts, masked):
    stream = b"".join(frame(opcode, payload, KEY if masked else None) for opcode, payload in frames)
    assert Reader(masked=masked).feed(*pieces(stream, cuts)).heard == frames


@given(FRAMES, st.booleans())
def test_frames_that_come_byte_by_byte_are_read(frames, masked):
    small = [(opcode, payload[:300]) for opcode, payload in frames]
    stream = b"".join(frame(opcode, payload, KEY if masked else None) for opcode, payload in small)
    assert Reader(masked=masked).feed(*(bytes([byte]) for byte in stream)).heard == small


@given(st.binary(max_size=400), CUTS, st.booleans())
@example(stream=b"\x82\x7f" + (126).to_bytes(8, "big"), cuts=[0.5], masked=False)
def test_any_bytes_are_read_or_refused_alike_however_they_are_split(stream, cuts, masked):
    whole, split = Reader(masked=masked).feed(stream), Reader(masked=masked).feed(*pieces(stream, cuts))
    assert (whole.heard, whole.violation) == (split.heard, split.violation)


@pytest.mark.parametrize(
    ("malformed", "code"),
    [
        (b"\x02\x01x", CloseCode.PROTOCOL_ERROR),  # the first fragment of several
        (b"\x80\x01x", CloseCode.PROTOCOL_ERROR),  # a fragment that goes on
        (b"\x81\x01x", CloseCode.UNSUPPORTED),  # text
        (b"\xc2\x01x", CloseCode.PROTOCOL_ERROR),  # a reserved bit: compressed
        (b"\x83\x01x", CloseCode.PROTOCOL_ERROR),  # an opcode that doesn't exist
        (b"\x09\x01x", CloseCode.PROTOCOL_ERROR),  # a fragment of a ping
        (b"\x89\x7e\x00\x80" + bytes(128), CloseCode.PROTOCOL_ERROR),  # a long ping
        (b"\x82\x81" + KEY + b"x", CloseCode.PROTOCOL_ERROR),  # masked
        (b"\x82\x7e\x00\x7d" + bytes(125), CloseCode.PROTOCOL_ERROR),  # a short length in 16 bits
        (b"\x82\x7f" + (65_535).to_bytes(8, "big"), CloseCode.PROTOCOL_ERROR),  # a medium one in 64
        (b"\x82\x7f" + (100_001).to_bytes(8, "big"), CloseCode.TOO_LARGE),  # before its payload has come
        (b"\x82\x7f" + (2**64 - 1).to_bytes(8, "big"), CloseCode.TOO_LARGE),
    ],
)
def test_what_no_node_sends_is_refused_after_the_messages_before_it(malformed, code):
    reader = Reader().feed(frame(Opcode.BINARY, b"before") + malformed + frame(Opcode.BINARY, b"after"))
    assert reader.heard == [(Opcode.BINARY, b"before")]
    assert reader.violation is code
    reader.feed(frame(Opcode.BINARY, b"later"))
    assert len(reader.heard) == 1


def test_an_unmasked_frame_of_a_dialler_is_refused():
    assert Reader(masked=True).feed(frame(Opcode.BINARY, b"x")).violation is CloseCode.PROTOCOL_ERROR


def test_nothing_is_read_after_a_close():
    reader = Reader().feed(frame(Opcode.CLOSE, b"\x03\xe8") + frame(Opcode.BINARY, b"after"), b"more")
    assert reader.heard == [(Opcode.CLOSE, b"\x03\xe8")]
    assert reader.violation is None


def test_a_message_as_long_as_allowed_is_read():
    message = bytes(100_000)
    assert Reader().feed(frame(Opcode.BINARY, message)).heard == [(Opcode.BINARY, message)]


@given(st.binary(max_size=1000), st.binary(min_size=4, max_size=4))
def test_masking_is_the_rfcs_with_and_without_aiohttps_help(data, key):
    by_the_book = bytes(byte ^ key[i % 4] for i, byte in enumerate(data))
    assert mask(key, data) == mask_slowly(key, data) == by_the_book
    assert mask(key, by_the_book) == data


def test_the_quick_mask_is_there():
    """Should an aiohttp come that has it elsewhere, this says so; large messages would be slow meanwhile."""
    assert websocket._mask_in_place is not None


def test_every_frame_gets_a_key_of_its_own():
    keys = mask_keys()
    drawn = [next(keys) for _ in range(3 * websocket.KEYS_DRAWN)]
    assert all(len(key) == websocket.KEY_BYTES for key in drawn)
    assert len(set(drawn)) > len(drawn) - 3, "keys repeat"
