"""What is no message and no frame, case by case; the laws of the codecs stand in tests/property/test_codecs.py."""

from __future__ import annotations

from typing import Any
from zlib import crc32

import msgpack
import pytest

from kvnet.core import messages
from kvnet.core.entries import Delete
from kvnet.core.frames import EPOCH_MAX, FRAME_BYTES_MAX, HEADER_BYTES, cut_frame, read_span
from kvnet.core.messages import (
    CHECKSUM_BYTES,
    CHUNKS_OFFERED_MAX,
    CHUNKS_WANTED_MAX,
    MEMBER_CHARACTERS_MAX,
    PAGES_CREDIT_MAX,
    PATH_HOPS_MAX,
    PLACE_BYTES_MAX,
    Message,
)
from kvnet.errors import ProtocolError


def decode(body: Any) -> list[Message]:
    packed = msgpack.packb(body)
    return messages.decode(crc32(packed).to_bytes(CHECKSUM_BYTES, "big") + packed)


@pytest.mark.parametrize("at", [4, 6, 7])
@pytest.mark.parametrize("tenths", [-(1 << 63), (1 << 53) + 1, (1 << 64) - 1])
def test_a_time_that_could_not_be_passed_on_is_the_peers_fault(at: int, tenths: int) -> None:
    """Such a beacon stopped whoever took it: with its own latency added it fitted no integer any more."""
    fields: list[Any] = [1, 1, 1, 0, 0, 500, 0, 0, [], False]
    assert decode([fields])
    fields[at] = tenths
    with pytest.raises(ProtocolError, match="time"):
        decode([fields])


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
        [[6, 4, 1, 1, bytes(16), 1]],
        [[6, 1, 1, 1, bytes(16), -1]],
        [[0, "text"]],
        [[1, 1, 1, 1, 1, 1, 1, 1, ["x"] * (PATH_HOPS_MAX + 1), True]],
        [[1, 1, 1, 1, 1, 1, 1, 1, [b"x"], True]],
        [[1, 1, 1, 1, 1, 1, 1, 1, [], 1]],
        [[1, 1, 1, 1, 1, 1, 1, 1, []]],
        [[1, 1, 1, -1, 1, 1, 1, 1, [], True]],
        [[8, bytes(15), bytes(32)]],
        [[8, bytes(16)]],
        [[8, bytes(16), bytes(31)]],
        [[8, bytes(16), *[bytes(32)] * (CHUNKS_OFFERED_MAX + 1)]],
        [[9, bytes(17)]],
        [[10, b"", 0]],
        [[10, b"", PAGES_CREDIT_MAX + 1]],
        [[10, bytes(15), 1]],
        [[10, bytes(PLACE_BYTES_MAX + 1), 1]],
        [[11, -1]],
        [[11, PAGES_CREDIT_MAX + 1]],
        [[12, 1, 1, bytes(16), bytes(15), b"", b"", b"body"]],
        [[12, 1, 1, bytes(16), bytes(16), b"b" * 16, b"a" * 16, b"body"]],
        [[12, 1, 1, bytes(16), bytes(16), b"a" * 16, b"a" * 16, b"body"]],
        [[12, 1, 1, bytes(16), bytes(16), b"", b"short", b"body"]],
        [[12, 1, -1, bytes(16), bytes(16), b"", b"", b"body"]],
        [[13, 1, 1, bytes(15)]],
        [[14]],
        [[14, "text"]],
        [[14, *[bytes(32)] * (CHUNKS_WANTED_MAX + 1)]],
        [[17, "fra"]],
        [[17, ["fra", 1, 1, 1]]],
        [[17, ["", 1, 1, 1, 1]]],
        [[17, ["x" * (MEMBER_CHARACTERS_MAX + 1), 1, 1, 1, 1]]],
        [[17, [b"fra", 1, 1, 1, 1]]],
        [[17, ["fra", 1, -1, 1, 1]]],
        [[17, ["fra", EPOCH_MAX, 1, 1, 1]]],
        [[17, ["fra", 1, 1, EPOCH_MAX, 1]]],
        [[17, ["fra", 1, 1, 1, -1]]],
        [[15, bytes(31), b""]],
        [[15, bytes(32), "text"]],
        [[16, b""]],
    ],
)
def test_these_are_no_messages(body: Any) -> None:
    with pytest.raises(ProtocolError):
        decode(body)


@pytest.mark.parametrize("spoilt", ["", "short", "magic", "epoch", "span", "large"])
def test_these_are_no_frames(spoilt: str) -> None:
    data = bytearray(
        cut_frame(
            epoch=1,
            first_seq=1,
            stamp=0,
            chain_before=bytes(16),
            digest_after=bytes(16),
            entries=[Delete(bytes(16), b"key")],
        ).data
    )
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
