"""Snapshot files: a replica's pages, and the frames that make them whole, in a file that proves it is complete.

    magic 16 | record, record, … | blake2b 32 of everything before

    record    length u32 | kind u8 | payload | crc32 u32 of length, kind and payload
    H         format, cluster id, node, start, created (ms), keys as far as known: the first one
    P         a page, and how many records it has (pages.py)
    F         a frame's bytes
    C         a chunk of a large value
    E         position, digest, and how many there are of each: the last one

No long read transaction is held while it is made, so each page is as of a position of its own. The frames from
one page's position to the next one's lie between the two, so whoever reads the file has at its end all that
happened from the first page to the last; the last page's position is where the snapshot stands. Chunks lie behind
what names them, and may come twice.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Final, NamedTuple
from zlib import crc32

import msgpack

from kvnet.core.entries import HASH_BYTES
from kvnet.core.frames import FRAME_BYTES_MAX, Frame, read_frame
from kvnet.core.manifest import CHUNK_BYTES
from kvnet.core.messages import Page
from kvnet.core.versions import CHAIN_BYTES, GENESIS, Position
from kvnet.errors import PageDamaged, ProtocolError, StorageError

MAGIC: Final = b"kvnet snapshot\r\n"
FORMAT: Final = 1
READ_BYTES: Final = 256 * 1024
SUM_BYTES: Final = 32
CLUSTER_ID_BYTES: Final = 16
_HEAD: Final = struct.Struct(">Ic")
_CRC: Final = struct.Struct(">I")
_OVERHEAD: Final = _HEAD.size + _CRC.size
PAYLOAD_BYTES_MAX: Final = FRAME_BYTES_MAX
HEADER, PAGE, FRAME, CHUNK, END = b"H", b"P", b"F", b"C", b"E"
KINDS: Final = frozenset((HEADER, PAGE, FRAME, CHUNK, END))
CURE: Final = "take another copy, or save it again"


class Header(NamedTuple):
    """Whose snapshot it is."""

    cluster_id: bytes
    node: str
    """Where it was saved."""
    start: Position
    """The first page's."""
    created_ms: int
    keys: int
    """How many there were at the beginning."""


class SavedPage(NamedTuple):
    page: Page
    records: int


class Chunk(NamedTuple):
    data: bytes


class End(NamedTuple):
    """What the whole of it comes to."""

    position: Position
    digest: bytes
    pages: int
    records: int
    frames: int
    chunks: int


Item = Header | SavedPage | Frame | Chunk | End


class Encoder:
    """Items as the bytes of a file, one after the other."""

    def __init__(self) -> None:
        self._sum = blake2b(digest_size=SUM_BYTES)
        self._last = End(GENESIS, bytes(HASH_BYTES), 0, 0, 0, 0)

    def begin(self, header: Header) -> bytes:
        self._last = self._last._replace(position=header.start)
        fields = (FORMAT, header.cluster_id, header.node, *header.start, header.created_ms, header.keys)
        return self._summed(MAGIC + _record(HEADER, msgpack.packb(fields)))

    def page(self, page: Page, records: int) -> bytes:
        last = self._last
        self._last = last._replace(
            position=page.position, digest=page.digest, pages=last.pages + 1, records=last.records + records
        )
        fields = (*page.position, page.digest, page.after, page.until, page.body, records)
        return self._summed(_record(PAGE, msgpack.packb(fields)))

    def frame(self, frame: Frame) -> bytes:
        self._last = self._last._replace(frames=self._last.frames + 1)
        return self._summed(_record(FRAME, frame.data))

    def chunk(self, data: bytes) -> bytes:
        self._last = self._last._replace(chunks=self._last.chunks + 1)
        return self._summed(_record(CHUNK, data))

    def end(self) -> bytes:
        last = self._last
        data = self._summed(_record(END, msgpack.packb((*last.position, *last[1:]))))
        return data + self._sum.digest()

    def _summed(self, data: bytes) -> bytes:
        self._sum.update(data)
        return data


def _record(kind: bytes, payload: bytes) -> bytes:
    head = _HEAD.pack(len(payload), kind)
    return b"".join((head, payload, _CRC.pack(crc32(payload, crc32(head)))))


class Parser:
    """Bytes of a file as items, in pieces of any length; each item is checked before it is given.

    That nothing is missing is known when `finish` returns.
    """

    def __init__(self, name: str) -> None:
        """`name` is what the file is called in errors."""
        self._name = name
        self._buffer = bytearray()
        self._at = 0
        """Where in the file the buffer begins."""
        self._sum = blake2b(digest_size=SUM_BYTES)
        self._begun = False
        self._order: _Order | None = None
        self._whole = False

    def feed(self, data: bytes) -> Iterator[Item]:
        """Yield the items that end in `data`.

        Raises:
            PageDamaged: it was altered, or isn't a snapshot.
            StorageError: a newer kvnet wrote it.
        """
        self._buffer += data
        if not self._begun:
            if not MAGIC.startswith(bytes(self._buffer[: len(MAGIC)])):
                raise PageDamaged(f"{self._name} is no snapshot of kvnet: `kvnet snapshot save` makes one")
            if len(self._buffer) < len(MAGIC):
                return
            self._begun = True
            self._take(len(MAGIC))
        while not self._is_ended and (record := self._next_record()) is not None:
            try:
                item = self._read(*record)
            except (ValueError, TypeError, LookupError, struct.error, msgpack.UnpackException, ProtocolError):
                raise self._altered() from None
            if item is None:
                raise self._altered()
            yield item
        if self._is_ended:
            self._read_sum()

    def finish(self) -> End:
        """Return what it came to.

        Raises:
            PageDamaged: the end is missing.
        """
        end = None if self._order is None else self._order.end
        if end is None or not self._whole:
            raise PageDamaged(f"{self._name} is cut off at byte {self._at + len(self._buffer):,}: {CURE}")
        return end

    @property
    def _is_ended(self) -> bool:
        return self._order is not None and self._order.end is not None

    def _altered(self) -> PageDamaged:
        return PageDamaged(f"{self._name} was altered near byte {self._at:,}: {CURE}")

    def _take(self, count: int) -> bytes:
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        self._sum.update(taken)
        self._at += count
        return taken

    def _next_record(self) -> tuple[bytes, bytes] | None:
        if len(self._buffer) < _HEAD.size:
            return None
        length, kind = _HEAD.unpack_from(self._buffer)
        if length > PAYLOAD_BYTES_MAX or kind not in KINDS:
            raise self._altered()
        if len(self._buffer) < length + _OVERHEAD:
            return None
        (told,) = _CRC.unpack_from(self._buffer, _HEAD.size + length)
        with memoryview(self._buffer) as view:
            found = crc32(view[: _HEAD.size + length])
        if told != found:
            raise self._altered()
        return kind, self._take(length + _OVERHEAD)[_HEAD.size : -_CRC.size]

    def _read(self, kind: bytes, payload: bytes) -> Item | None:
        """Return the item, None for one that can't stand here."""
        order = self._order
        if order is None:
            if kind != HEADER:
                return None
            header = self._read_header(payload)
            self._order = _Order(header)
            return header
        match kind:
            case b"P":
                fields = msgpack.unpackb(payload, use_list=False)
                saved = SavedPage(Page(_position(fields), *fields[3:7]), int(fields[7]))
                return saved if order.takes_page(saved) else None
            case b"F":
                frame = read_frame(payload)
                return frame if order.takes_frame(frame) else None
            case b"C":
                return Chunk(payload) if order.takes_chunk(payload) else None
            case b"E":
                fields = msgpack.unpackb(payload, use_list=False)
                end = End(_position(fields), *fields[3:])
                return end if order.takes_end(end) else None
            case _:
                return None

    def _read_header(self, payload: bytes) -> Header:
        fields = msgpack.unpackb(payload, use_list=False)
        if fields[0] != FORMAT:
            cure = "upgrade kvnet" if fields[0] > FORMAT else "save it again"
            raise StorageError(f"{self._name} has format {fields[0]}, this kvnet reads {FORMAT}: {cure}")
        cluster_id, node = fields[1:3]
        if len(cluster_id) != CLUSTER_ID_BYTES or not isinstance(node, str):
            raise ValueError("a header that isn't one")
        return Header(cluster_id, node, _position(fields[3:]), int(fields[6]), int(fields[7]))

    def _read_sum(self) -> None:
        if len(self._buffer) < SUM_BYTES and not self._whole:
            return
        if self._whole and not self._buffer:
            return
        if self._whole or self._buffer != self._sum.digest():
            raise self._altered()
        self._at += SUM_BYTES
        self._buffer.clear()
        self._whole = True


def _position(fields: tuple[object, ...]) -> Position:
    epoch, seq, chain = fields[:3]
    if not (isinstance(epoch, int) and isinstance(seq, int) and isinstance(chain, bytes)):
        raise TypeError("a position that isn't one")
    if len(chain) != CHAIN_BYTES:
        raise ValueError("a chain of another length")
    return Position(epoch, seq, chain)


class _Order:
    """What may follow what: pages in order, and behind each page the frames up to its position."""

    def __init__(self, header: Header) -> None:
        self.end: End | None = None
        self._until = b""
        self._is_whole = False
        self._frames_end = header.start
        self._sums = End(header.start, bytes(HASH_BYTES), 0, 0, 0, 0)

    @property
    def _is_level(self) -> bool:
        """Whether all frames up to the last page's position are there."""
        return self._frames_end == self._sums.position

    def takes_page(self, saved: SavedPage) -> bool:
        page = saved.page
        if self._is_whole or not self._is_level or page.after != self._until:
            return False
        if page.position != self._frames_end and page.position.seq <= self._frames_end.seq:
            return False
        if not self._sums.pages and page.position != self._frames_end:
            return False
        if page.until and page.until <= page.after:
            return False
        self._until = page.until
        self._is_whole = not page.until
        sums = self._sums
        self._sums = sums._replace(
            position=page.position,
            digest=page.digest,
            pages=sums.pages + 1,
            records=sums.records + saved.records,
        )
        return True

    def takes_frame(self, frame: Frame) -> bool:
        end = self._frames_end
        if frame.first_seq != end.seq + 1 or frame.chain_before != end.chain or frame.epoch < end.epoch:
            return False
        if frame.last_seq > self._sums.position.seq:
            return False
        self._frames_end = frame.position
        self._sums = self._sums._replace(frames=self._sums.frames + 1)
        return True

    def takes_chunk(self, data: bytes) -> bool:
        self._sums = self._sums._replace(chunks=self._sums.chunks + 1)
        return 0 < len(data) <= CHUNK_BYTES

    def takes_end(self, end: End) -> bool:
        if not self._is_whole or not self._is_level or end != self._sums:
            return False
        self.end = end
        return True


def read_items(path: Path, on_read: Callable[[int], None] | None = None) -> Iterator[Item]:
    """Yield every item of a file, the end last and only if nothing is missing; `on_read` hears of bytes read.

    Raises:
        PageDamaged: it was cut or altered, or isn't a snapshot.
        StorageError: it can't be read, or a newer kvnet wrote it.
    """
    parser = Parser(str(path))
    end: End | None = None
    try:
        with path.open("rb", buffering=0) as file:
            while data := file.read(READ_BYTES):
                for item in parser.feed(data):
                    if isinstance(item, End):
                        end = item
                    else:
                        yield item
                if on_read is not None:
                    on_read(len(data))
    except OSError as error:
        raise StorageError(f"{path} can't be read ({error.strerror}): name a snapshot that can") from None
    parser.finish()
    if end is not None:
        yield end


class Summary(NamedTuple):
    """A whole snapshot, in short."""

    header: Header
    end: End


def check_snapshot(path: Path, on_read: Callable[[int], None] | None = None) -> Summary:
    """Read all of a file and return what it is.

    Raises:
        PageDamaged: it was cut or altered, or isn't a snapshot.
        StorageError: it can't be read, or a newer kvnet wrote it.
    """
    header: Header | None = None
    end: End | None = None
    for item in read_items(path, on_read):
        if isinstance(item, Header):
            header = item
        elif isinstance(item, End):
            end = item
    assert header is not None, "the first item"
    assert end is not None, "the last item"
    return Summary(header, end)
