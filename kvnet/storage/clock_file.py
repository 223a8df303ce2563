"""The highest time by which anything was found expired, kept over restarts: an expired record never comes back.

A file of two slots, mapped into memory:

    milliseconds since 1970 u64 | crc32 u32, twice

Written for each whole second, the slots in turn, so that one is whole whenever the process is killed. The kernel
keeps what a killed process wrote; a power cut may lose or tear it, and then the last applied stamp must do.
"""

from __future__ import annotations

import mmap
import os
import struct
from contextlib import suppress
from pathlib import Path
from typing import Final
from zlib import crc32

_SLOT: Final = struct.Struct("<QI")
_TIME: Final = struct.Struct("<Q")
SLOTS: Final = 2
FILE_BYTES: Final = SLOTS * _SLOT.size
TIME_MS_MAX: Final = 1 << 53
"""Later ones aren't exact as floats, and nobody has told them."""


class ClockFile:
    """A clock's file, open for its one writer; without room for it on the disk, only memory."""

    def __init__(self, path: Path) -> None:
        """Open it, making it when it isn't there."""
        self.reached_ms = 0
        """The highest second noted, before and since it was opened; 0 if there is none, or it was damaged."""
        self._next_s = 0
        self._slot = 0
        self._map: mmap.mmap | None = None
        with suppress(OSError):  # a full disk doesn't keep a node from starting
            self._open(path)

    def _open(self, path: Path) -> None:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            if os.fstat(file).st_size != FILE_BYTES:
                os.ftruncate(file, FILE_BYTES)
            os.posix_fallocate(file, 0, FILE_BYTES)  # writing into a hole of a full disk would be a SIGBUS
            self._map = mmap.mmap(file, FILE_BYTES)
        finally:
            os.close(file)
        for slot in range(SLOTS):
            time_ms = _read(self._map, slot)
            if time_ms > self.reached_ms:
                self.reached_ms, self._slot = time_ms, slot
        self._next_s = self.reached_ms // 1000 + 1 if self.reached_ms else 0

    def note(self, now_s: float) -> None:
        """Whatever expired by `now_s` is known to have, also to the next process; costs no system call."""
        if now_s < self._next_s or now_s < 1:
            return
        second = int(now_s)
        self._next_s = second + 1
        self.reached_ms = second * 1000
        if self._map is not None:
            self._slot = (self._slot + 1) % SLOTS
            packed = _TIME.pack(self.reached_ms)
            _SLOT.pack_into(self._map, self._slot * _SLOT.size, self.reached_ms, crc32(packed))

    def close(self) -> None:
        """What was noted is on the disk."""
        mapped, self._map = self._map, None
        if mapped is not None:
            with suppress(OSError):
                mapped.flush()
            mapped.close()


def read_reached_ms(path: Path) -> int:
    """Return the highest second that a file notes, for who isn't its writer; 0 if there is none."""
    try:
        content = path.read_bytes()
    except OSError:
        return 0
    return max((_read(content, slot) for slot in range(len(content) // _SLOT.size)), default=0)


def _read(slots: mmap.mmap | bytes, slot: int) -> int:
    packed = slots[slot * _SLOT.size : (slot + 1) * _SLOT.size]
    time_ms, checksum = _SLOT.unpack(packed)
    whole = checksum == crc32(packed[: _TIME.size]) and time_ms <= TIME_MS_MAX
    return time_ms if whole else 0
