"""WebSocket frames (RFC 6455), as far as nodes use them: one whole binary message in each, and control frames.

No socket and no loop here. A frame in this file is the RFC's, not the journal's. Fragments, text, extensions and
lengths in more bytes than they need are violations: no node sends them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from enum import IntEnum
from struct import Struct, iter_unpack
from typing import Final

from kvnet.errors import ProtocolError

_mask_in_place: Callable[[bytes, bytearray], None] | None
try:  # aiohttp's own, in C and private: 0.2 µs for a small message and 3 µs for 64 KiB, where ours takes 80
    from aiohttp._websocket.helpers import websocket_mask
except ImportError:  # pragma: no cover - another aiohttp has it elsewhere
    _mask_in_place = None
else:
    _mask_in_place = websocket_mask

CONTROL_BYTES_MAX: Final = 125
KEY_BYTES: Final = 4
KEYS_DRAWN: Final = 64
"""Masking keys drawn at once: the system call costs more than the masking."""

_HEADER_BYTES: Final = 2
"""Opcode and length, if that is short; the rest follows."""
_OPCODE_BITS: Final = 0x0F
_LENGTH_16: Final = 126
_LENGTH_64: Final = 127
_LENGTH_16_MAX: Final = 0xFFFF
_MASKED: Final = 0x80
_FINAL: Final = 0x80

_short_header: Final = Struct("!BB").pack
_medium_header: Final = Struct("!BBH").pack
_long_header: Final = Struct("!BBQ").pack


class Opcode(IntEnum):
    """What a frame is."""

    TEXT = 1
    BINARY = 2
    CLOSE = 8
    PING = 9
    PONG = 10


class CloseCode(IntEnum):
    """Why a connection is closed."""

    NORMAL = 1000
    PROTOCOL_ERROR = 1002
    UNSUPPORTED = 1003
    """Text."""
    UNPROVEN = 1008
    """It talks on before it has proven itself."""
    TOO_LARGE = 1009


_BINARY: Final = _FINAL | Opcode.BINARY
_CONTROL: Final = {int(_FINAL | opcode): opcode for opcode in (Opcode.CLOSE, Opcode.PING, Opcode.PONG)}


class Violation(ProtocolError):
    """The peer sent what no node sends; the connection must be closed with `code`."""

    def __init__(self, code: CloseCode, why: str) -> None:
        super().__init__(why)
        self.code = code


def header(opcode: int, size: int, key: bytes | None = None) -> bytes:
    """Return all of a frame that precedes its payload of `size` bytes; `key` masks it (the dialler's must be)."""
    masked = 0 if key is None else _MASKED
    if size < _LENGTH_16:
        packed = _short_header(_FINAL | opcode, masked | size)
    elif size <= _LENGTH_16_MAX:
        packed = _medium_header(_FINAL | opcode, masked | _LENGTH_16, size)
    else:
        packed = _long_header(_FINAL | opcode, masked | _LENGTH_64, size)
    return packed if key is None else packed + key


def mask_keys() -> Iterator[bytes]:
    """Yield masking keys without end, each as random as the system's source.

    A process that forks must not go on with one in both halves.
    """
    while True:
        for (key,) in iter_unpack(f"{KEY_BYTES}s", os.urandom(KEY_BYTES * KEYS_DRAWN)):
            yield key


def mask(key: bytes, data: bytes) -> bytes:
    """Return `data` masked, or unmasked: the same."""
    if _mask_in_place is None:  # pragma: no cover - as above
        return mask_slowly(key, data)
    masked = bytearray(data)
    _mask_in_place(key, masked)
    return bytes(masked)


def mask_slowly(key: bytes, data: bytes) -> bytes:
    """Return what `mask` does, in Python alone."""
    size = len(data)
    keys = (key * (size // KEY_BYTES + 1))[:size]
    return (int.from_bytes(data, "little") ^ int.from_bytes(keys, "little")).to_bytes(size, "little")


class FrameReader:
    """Bytes in, as they come; whole messages out, in order."""

    __slots__ = ("_chunks", "_have", "_mask_bit", "_needs", "_on_control", "_over", "message_bytes_max")

    def __init__(
        self, on_control: Callable[[Opcode, bytes], None], *, masked: bool, message_bytes_max: int
    ) -> None:
        """`masked` is what the peer's frames must be: True where it dialled. `on_control` gets control frames."""
        self.message_bytes_max = message_bytes_max
        """A frame that announces more is a violation, before its payload has come."""
        self._on_control = on_control
        self._mask_bit = _MASKED if masked else 0
        self._chunks: list[bytes] = []  # of a frame that isn't whole yet
        self._have = 0
        self._needs = 0  # bytes of it, as far as known
        self._over = False

    def feed(self, data: bytes, on_message: Callable[[bytes], None]) -> None:
        """Call `on_message` with each message that `data` completes; after a close or a violation, with none.

        Raises:
            Violation: by the peer, once; the messages before it have been passed on.
        """
        if self._over:
            return
        if self._chunks:
            self._chunks.append(data)
            self._have += len(data)
            if self._have < self._needs:
                return
            data = b"".join(self._chunks)
            self._chunks.clear()
        try:
            rest = self._read_frames(data, on_message)
        except Violation:
            self._over = True
            raise
        if rest < len(data) and not self._over:
            self._chunks.append(data[rest:] if rest else data)
            self._have = len(data) - rest

    def _read_frames(self, data: bytes, on_message: Callable[[bytes], None]) -> int:
        """Pass on all whole frames; return where the first that isn't whole begins."""
        mask_bit = self._mask_bit
        start, end = 0, len(data)
        while end - start >= _HEADER_BYTES:
            first = data[start]
            size = data[start + 1] ^ mask_bit
            begin = start + _HEADER_BYTES
            if size >= _LENGTH_16 or first != _BINARY:
                _check(first, size)
                if size >= _LENGTH_16:
                    begin += 2 if size == _LENGTH_16 else 8
                    if begin > end:
                        self._needs = begin - start
                        return start
                    size = _long_size(data[start + _HEADER_BYTES : begin])
            if size > self.message_bytes_max:
                raise Violation(CloseCode.TOO_LARGE, f"a message of {size} bytes")
            if mask_bit:
                begin += KEY_BYTES
            stop = begin + size
            if stop > end:
                self._needs = stop - start
                return start
            payload = data[begin:stop]
            if mask_bit:
                payload = mask(data[begin - KEY_BYTES : begin], payload)
            start = stop
            if first == _BINARY:
                on_message(payload)
                continue
            opcode = _CONTROL[first]
            self._over = opcode is Opcode.CLOSE
            self._on_control(opcode, payload)
            if self._over:
                return start
        self._needs = _HEADER_BYTES
        return start


def _check(first: int, size: int) -> None:
    """Check a header's first byte, and the length in its second, whose mask bit has been taken off.

    Raises:
        Violation: no node sends such a frame.
    """
    if size > _LENGTH_64:
        raise Violation(CloseCode.PROTOCOL_ERROR, "a frame that is masked and mustn't be, or the other way round")
    if first == _BINARY:
        return
    if first not in _CONTROL:
        if first & _OPCODE_BITS == Opcode.TEXT:
            raise Violation(CloseCode.UNSUPPORTED, "text")
        raise Violation(CloseCode.PROTOCOL_ERROR, f"a frame that begins with {first:#04x}")
    if size > CONTROL_BYTES_MAX:
        raise Violation(CloseCode.PROTOCOL_ERROR, "a control frame that is too long")


def _long_size(length: bytes) -> int:
    """Return the length that follows a header's first two bytes.

    Raises:
        Violation: it would have fit into fewer bytes.
    """
    size = int.from_bytes(length, "big")
    if size < _LENGTH_16 or (size <= _LENGTH_16_MAX and len(length) > 2):
        raise Violation(CloseCode.PROTOCOL_ERROR, "a length in more bytes than it needs")
    return size
