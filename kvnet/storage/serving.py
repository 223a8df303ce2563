"""The serving page: what an edge tells other processes of its host that read its replica.

One file beside the environments, mapped into memory by the node, which alone writes it, and by every reader:

    word u64 | layout 8 | boot 16 | start id 16 | pid u64 | pid's start u64 | refusal u64 | replica u64
    | token generation u64 | applied seq u64 | clock offset f64 | clock floor f64 | changes u64 | verified u64
    | two views

The word is raised with every change of what a reader may remember: which environment is the replica, whether it
may be read, which namespaces there are. It is odd while such a change is under way; a reader then remembers
nothing. A node that is killed in between leaves it odd, and its readers go on, slower. Everything the word speaks
of is true in the mark and in the environment itself: the page says only when to look there again.

The changes are a second word, for readers that remember answers: raised before and after every commit, and odd
meanwhile, so that no answer that was remembered is given once another reader may have seen what came after it.
They are raised as well when the replica becomes another one, or may be read no more: whoever looks at them alone
misses nothing.

Each field is stored and read with one load or store of eight bytes. A view is longer: it has a count and a
checksum, and is written into the two places in turn, so that one of them is whole at every moment. Clock fields
only grow within one boot. Monotonic times are those of the host; after a restart of the machine nothing here is
true.
"""

from __future__ import annotations

import mmap
import os
import struct
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import Final, NamedTuple, Self
from zlib import crc32

from kvnet.core.freshness import BeaconSeen

LAYOUT: Final = int.from_bytes(b"kvserve\x01", "little")
"""Its last byte is raised with every change of what another kvnet would misread; the word stays where it is."""
PAGE_BYTES: Final = 4096
NAME: Final = "serving"
TORN_READS_MAX: Final = 8

WORD: Final = 0
_LAYOUT_AT: Final = 1
_BOOT_AT: Final = slice(16, 32)
_START_AT: Final = slice(32, 48)
_PID: Final = 6
_PID_STARTED: Final = 7
_REFUSAL: Final = 8
_REPLICA: Final = 9
_TOKENS: Final = 10
_APPLIED: Final = 11
OFFSET: Final = 12
FLOOR: Final = 13
_VERIFIED: Final = 15
CHANGES: Final = 14
_VIEWS_AT: Final = (128, 256)

NO_OFFSET: Final = float("-inf")
"""No beacon has told the time."""

_VIEW: Final = struct.Struct("<QIQQIQBdddd")
_CHECKSUM: Final = struct.Struct("<I")


class BeaconView(NamedTuple):
    """What a replica's staleness is reckoned from, all of one moment."""

    epoch: int
    seq: int
    """Of the replica's position."""
    stamp: int
    """Of the last applied frame."""
    beacon_epoch: int
    beacon_number: int
    beacon: BeaconSeen | None
    """The last one whose head was applied; None before the first."""


class SeenPage:
    """A serving page as its readers see it."""

    def __init__(self, path: Path, *, writable: bool = False) -> None:
        """Map it.

        Raises:
            FileNotFoundError: there is none.
            OSError: it can't be read.
            ValueError: it is no serving page, or one of another layout.
        """
        access = os.O_RDWR if writable else os.O_RDONLY
        file = os.open(path, access | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            found = os.fstat(file)
            if found.st_size != PAGE_BYTES:
                raise ValueError("not a serving page")
            mapped = mmap.mmap(file, PAGE_BYTES, access=mmap.ACCESS_WRITE if writable else mmap.ACCESS_READ)
        finally:
            os.close(file)
        self.file = found.st_dev, found.st_ino
        """Which file it is: another one may be put in its place."""
        self._bytes = memoryview(mapped)
        self.numbers = self._bytes.cast("Q")
        """The fields that are whole numbers; `numbers[WORD]` is what a reader looks at each time."""
        self.times = self._bytes.cast("d")
        """The same bytes as times in milliseconds: OFFSET and FLOOR."""
        self._last: tuple[int, BeaconView | None] = (0, None)
        """The newest whole view that was read, by its count."""
        if self.numbers[_LAYOUT_AT] != LAYOUT:
            raise ValueError("a serving page of another layout")

    @property
    def changes(self) -> memoryview:
        """The count of changes, as its first and only element."""
        return self.numbers[CHANGES : CHANGES + 1]

    @property
    def boot(self) -> bytes:
        """The mark of the boot in which it was written; of an earlier one nothing is true."""
        return bytes(self._bytes[_BOOT_AT])

    @property
    def start_id(self) -> bytes:
        """Drawn by the node when it started; zeros while it starts."""
        return bytes(self._bytes[_START_AT])

    @property
    def running(self) -> bool:
        """Whether the process that wrote it is still there."""
        pid = self.numbers[_PID]
        return pid != 0 and process_started(pid) == self.numbers[_PID_STARTED]

    @property
    def refused(self) -> bool:
        """Whether the node has found its replica damaged or diverged, and hasn't yet begun another one."""
        return self.numbers[_REFUSAL] != 0

    @property
    def serving(self) -> bool:
        """Whether the node answers from its replica: it is verified, and neither damaged nor diverged."""
        return self.running and self.numbers[_VERIFIED] != 0 and not self.refused

    @property
    def replica(self) -> int:
        """The number of the environment that is the replica."""
        return self.numbers[_REPLICA]

    @property
    def token_generation(self) -> int:
        """Raised when a token was made, rolled or revoked; verdicts of an older one don't hold."""
        return self.numbers[_TOKENS]

    @property
    def applied_seq(self) -> int:
        """The replica's position, a moment behind the environment; answers kept from an older one don't hold."""
        return self.numbers[_APPLIED]

    @property
    def offset_ms(self) -> float:
        """Replica time minus the monotonic clock, as beacons gave it; NO_OFFSET before the first."""
        return self.times[OFFSET]

    def now_ms(self, monotonic_ms: float) -> float:
        """Return replica time, as the node reckons it: never behind what it has acted upon."""
        return max(self.times[FLOOR], self.times[OFFSET] + monotonic_ms)

    def view(self) -> BeaconView | None:
        """Return the newest view; None before the first."""
        for _ in range(TORN_READS_MAX):
            first, second = (self.numbers[at // 8] for at in _VIEWS_AT)
            count, view = self._last
            if max(first, second) == count:
                return view
            newer, older = _VIEWS_AT if first > second else _VIEWS_AT[::-1]
            found = self._read(newer)
            if found is not None:
                self._last = found
                return found[1]
            # It is being written, or was when the node ended: the one before is whole, until that is written.
            found = self._read(older)
            if found is not None:
                return found[1]
        return None

    def _read(self, at: int) -> tuple[int, BeaconView] | None:
        """Return a view and its count; None for none, or one that isn't whole."""
        packed = bytes(self._bytes[at : at + _VIEW.size + _CHECKSUM.size])
        body = packed[: _VIEW.size]
        if crc32(body) != _CHECKSUM.unpack(packed[_VIEW.size :])[0]:
            return None
        count, epoch, seq, stamp, beacon_epoch, number, seen, *fields = _VIEW.unpack(body)
        if not count:
            return None
        return count, BeaconView(epoch, seq, stamp, beacon_epoch, number, BeaconSeen(*fields) if seen else None)


class ServingPage(SeenPage):
    """The page of one node, open for it alone."""

    @classmethod
    def open(cls, path: Path, boot_id: str) -> Self | None:
        """Open or make it, with a change under way; None where the disk has no room: then nobody else reads.

        The clock goes on where it was, as long as the machine is up.
        """
        page = None
        with suppress(OSError, ValueError):
            page = cls(path, writable=True)
        if page is None:
            with suppress(OSError):
                page = cls._make(path)
        if page is None:
            return None
        page.begin_start(boot_mark(boot_id))
        return page

    @classmethod
    def _make(cls, path: Path) -> Self:
        """Put a new page in the place of what isn't one of this layout."""
        _disown(path)
        fresh = path.with_name(f".{path.name}.{os.getpid()}")
        file = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(file, 0, PAGE_BYTES)  # writing into a hole of a full disk would be a SIGBUS
            os.pwrite(file, struct.pack("<QQ", 1, LAYOUT), 0)
            fresh.replace(path)
        except OSError:
            fresh.unlink(missing_ok=True)
            raise
        finally:
            os.close(file)
        return cls(path, writable=True)

    def begin_start(self, boot: bytes) -> None:
        """This process is the node from here on; what an earlier boot has told is forgotten."""
        self.begin()
        numbers = self.numbers
        if self.boot != boot:
            self.times[OFFSET], self.times[FLOOR] = NO_OFFSET, 0.0
            for at in _VIEWS_AT:
                self._bytes[at : at + _VIEW.size + _CHECKSUM.size] = bytes(_VIEW.size + _CHECKSUM.size)
        numbers[CHANGES] += 2 - numbers[CHANGES] % 2  # an earlier process may have died in a commit
        self._bytes[_BOOT_AT] = boot
        self._bytes[_START_AT] = bytes(16)
        numbers[_VERIFIED] = 0
        numbers[_PID] = 0
        numbers[_PID_STARTED] = process_started(os.getpid()) or 0
        numbers[_PID] = os.getpid()
        self._count = max((found[0] for at in _VIEWS_AT if (found := self._read(at)) is not None), default=0)

    def begin(self) -> None:
        """A change of what readers remember is under way."""
        word = self.numbers[WORD]
        if not word & 1:
            self.numbers[WORD] = word + 1

    def end(self) -> None:
        """It is done, or given up; readers look once and remember again."""
        word = self.numbers[WORD]
        if word & 1:
            self.numbers[WORD] = word + 1

    def settle(self, replica: str, *, verified: bool) -> None:
        """This environment is the replica, and what it says of itself is true."""
        self.begin()
        self.numbers[_REPLICA] = int(replica.rpartition("-")[2])
        self.numbers[_REFUSAL] = 0
        self.numbers[_VERIFIED] = verified
        self.end()
        self.numbers[CHANGES] += 2

    def refuse(self) -> None:
        """Nobody may read this replica any more, until there is another one."""
        self.begin()
        self.numbers[_REFUSAL] = 1
        self.end()
        self.numbers[CHANGES] += 2

    def tokens_changed(self) -> None:
        self.numbers[_TOKENS] += 1

    def tell_start(self, start_id: bytes) -> None:
        self._bytes[_START_AT] = start_id.ljust(16, b"\0")[:16]

    def tell_time(self, offset_ms: float, floor_ms: float) -> None:
        """Replica time is at least this; neither goes back."""
        self.times[FLOOR] = max(self.times[FLOOR], floor_ms)
        self.times[OFFSET] = max(self.times[OFFSET], offset_ms)

    def tell_view(self, view: BeaconView) -> None:
        self.numbers[_APPLIED] = view.seq
        self._count += 1
        seen = view.beacon is not None
        body = _VIEW.pack(self._count, *view[:5], seen, *(view.beacon or (0.0, 0.0, 0.0, 0.0)))
        at = _VIEWS_AT[self._count % 2]
        self._bytes[at : at + _VIEW.size + _CHECKSUM.size] = body + _CHECKSUM.pack(crc32(body))

    def stop(self) -> None:
        """No process writes it any more, and nothing of it is half done."""
        self.numbers[_PID] = 0
        self.begin()
        self.end()


def boot_mark(boot_id: str) -> bytes:
    """Return what a page says of the boot in which it is written."""
    return blake2b(boot_id.encode(), digest_size=16).digest()


def process_started(pid: int) -> int | None:
    """Return when a process was started, in the kernel's ticks; None if there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123 - read for each start of 150 nodes
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    return None if fields[0] in {b"Z", b"X"} else int(fields[19])


def _disown(path: Path) -> None:
    """Whoever has mapped what lies here looks for another page; the word is where it is in every layout."""
    with suppress(OSError):
        file = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            os.pwrite(file, struct.pack("<Q", 1), 0)
        finally:
            os.close(file)
