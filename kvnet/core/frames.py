"""Frames: contiguous runs of entries of one epoch, cut once at group commit and from then on only bytes.

    magic u8 | epoch u32 | first seq u64 | last seq u64 | stamp u64 | chain before 16 | digest after 16 | body

The body is a msgpack array of entries (entries.py). `chain after = blake2b(chain before ‖ frame)`, so a
position proves the whole history up to it.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from hashlib import blake2b
from typing import Final

import msgpack
from msgspec import Struct

from kvnet.core import entries as entry_codec
from kvnet.core.entries import Entry
from kvnet.core.versions import CHAIN_BYTES, Position
from kvnet.errors import ProtocolError

MAGIC: Final = 0xF1
EPOCH_MAX: Final = (1 << 32) - 1
"""A frame has 32 bits for it, and the coordinator opens the next one."""
FRAME_BYTES_TARGET: Final = 65_536
"""A frame is cut at this size, header and all; a single larger entry makes a frame of its own."""
FRAME_BYTES_MAX: Final = 32 * 1024 * 1024
"""Nothing larger is accepted from a peer."""
_HEADER = struct.Struct(f">BIQQQ{CHAIN_BYTES}s16s")
_SPAN = struct.Struct(">BIQQ")
"""The header's beginning."""
HEADER_BYTES: Final = _HEADER.size


class Frame(Struct, frozen=True, gc=False):
    """One frame and where it leads; `data` is exactly what the coordinator cut."""

    data: bytes
    epoch: int
    first_seq: int
    last_seq: int
    stamp: int
    """Hybrid logical clock at the cut: milliseconds since 1970 << 16 | counter."""
    chain_before: bytes
    digest_after: bytes
    chain_after: bytes

    @property
    def position(self) -> Position:
        """The position of whoever has taken this frame."""
        return Position(self.epoch, self.last_seq, self.chain_after)

    def entries(self) -> list[Entry]:
        """Decode the body.

        Raises:
            ProtocolError: the body is not what the header says.
        """
        try:
            body = msgpack.unpackb(memoryview(self.data)[HEADER_BYTES:], use_list=True, strict_map_key=True)
        except (ValueError, msgpack.UnpackException) as error:
            raise ProtocolError(f"a frame's body can't be read: {error}") from None
        if not isinstance(body, list) or len(body) != self.last_seq - self.first_seq + 1:
            raise ProtocolError("a frame's body doesn't hold the entries its header counts")
        return [entry_codec.from_wire(fields) for fields in body]


def cut_frame(
    *,
    epoch: int,
    first_seq: int,
    stamp: int,
    chain_before: bytes,
    digest_after: bytes,
    entries: Sequence[Entry],
) -> Frame:
    """Return the frame of these entries; `first_seq` is the first entry's."""
    assert entries, "a frame is never empty"
    last_seq = first_seq + len(entries) - 1
    header = _HEADER.pack(MAGIC, epoch, first_seq, last_seq, stamp, chain_before, digest_after)
    data = header + msgpack.packb([entry_codec.to_wire(entry) for entry in entries])
    return Frame(data, epoch, first_seq, last_seq, stamp, chain_before, digest_after, chain_of(chain_before, data))


def chain_of(chain_before: bytes, data: bytes) -> bytes:
    digest = blake2b(chain_before, digest_size=CHAIN_BYTES)
    digest.update(data)
    return digest.digest()


def read_span(data: bytes) -> tuple[int, int]:
    """Return the first and last seq of a frame, hashing nothing: enough to drop a repeated one.

    Raises:
        ProtocolError: not a frame.
    """
    if not HEADER_BYTES < len(data) <= FRAME_BYTES_MAX:
        raise ProtocolError(f"a frame of {len(data)} bytes")
    magic, epoch, first, last = _SPAN.unpack_from(data)
    if magic != MAGIC or not 1 <= first <= last or not 1 <= epoch < EPOCH_MAX:
        raise ProtocolError("not a frame")
    return first, last


def read_frame(data: bytes, *, chain_after: bytes | None = None) -> Frame:
    """Read a frame's header from its bytes; the body is decoded only when it is applied.

    `chain_after` is given by a journal that kept it; without it the frame is hashed.

    Raises:
        ProtocolError: not a frame.
    """
    read_span(data)
    _, epoch, first, last, stamp, before, after = _HEADER.unpack_from(data)
    if chain_after is None:
        chain_after = chain_of(before, data)
    return Frame(data, epoch, first, last, stamp, before, after, chain_after)
