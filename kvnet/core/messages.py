"""What nodes say to each other over a link, and its bytes.

A WebSocket message is a checksum (CRC-32 of the rest, 4 bytes, big endian) and a msgpack array of these, each an
array that starts with its kind; all that is pending for a link leaves in one. The checksum is there because TCP's
own is 16 bits wide, and a changed beacon or frame would be believed. Links are ordered and lose nothing while they
live (TCP), so no message carries a number of its own. Times on the wire are tenths of a millisecond, as integers.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum
from typing import Any, Final, NamedTuple
from zlib import crc32

import msgpack

from kvnet.core.entries import CHUNK_HASH_BYTES, HASH_BYTES, KEY_BYTES_MAX, NAMESPACE_ID_BYTES
from kvnet.core.frames import EPOCH_MAX
from kvnet.core.versions import CHAIN_BYTES, Position, Version
from kvnet.errors import ProtocolError

MESSAGE_BYTES_MAX: Final = 33 * 1024 * 1024
CHECKSUM_BYTES: Final = 4
PATH_HOPS_MAX: Final = 64
TENTHS_MAX: Final = 1 << 53
"""Times beyond this, 28,000 years, can't be: what is added to them on their way must still fit an integer."""
NO_WAY_MS: Final = 1e9
"""The latency that a node tells which has no way from the root."""


class BeaconId(NamedTuple):
    """Which beacon: a later epoch's are newer, within one the number counts."""

    epoch: int
    number: int


class Advert(NamedTuple):
    """Where I am; over every link each 5 s, when a link comes up, and at once when asked. Our IHAVE.

    May be lost with its link or repeated: only the newest counts.
    """

    position: Position
    """Applied, so whoever subscribes can be served from it."""
    beacon: BeaconId
    latency_ms: float
    """One-way time from the root along my path when that beacon came; NO_WAY_MS without one."""
    path: tuple[str, ...]
    """The nodes from the root to my parent; empty at the root."""
    children: int
    full: bool
    """I'd rather not have another child."""
    sent_ms: float
    """The sender's own clock, to be echoed."""
    echo_ms: float
    """The receiver's last `sent_ms`, or -1: now − echo − hold is a round trip."""
    echo_hold_ms: float
    """How long the sender sat on that echo."""
    wants_echo: bool
    """Answer this one with an advert at once."""


class Ask(NamedTuple):
    """I am late: have you newer frames than `seq` or a newer beacon than `beacon`? Answered with an Advert."""

    epoch: int
    seq: int
    beacon: BeaconId
    ladder: bool
    """From outside the neighbourhood: answer at once or not at all."""


class Subscribe(NamedTuple):
    """Send me every frame after this position, and beacons, until I unsubscribe. Repeating it moves the cursor."""

    position: Position
    late: bool


class Unsubscribe(NamedTuple):
    """Send me no more frames and beacons."""


class Reason(IntEnum):
    """Why a subscription isn't taken."""

    FULL = 0
    MISMATCH = 1
    """Your position isn't on my history."""
    HORIZON = 2
    """My journal begins after your position."""
    BEHIND = 3
    """I have nothing for you: you serve me, or I am starting over."""


class Refused(NamedTuple):
    """Your subscription isn't (or no longer) served."""

    reason: Reason
    position: Position
    """Mine; on a mismatch my last frame end at or below yours, the same at all who share my history."""
    epoch: int
    """That of my newest entry: if it is above yours, your history is the one that was left."""


class Frames(NamedTuple):
    """Whole frames, oldest first, contiguous with what was sent before on this subscription."""

    frames: tuple[bytes, ...]


class Beacon(NamedTuple):
    """The root lives and its head is `head_seq`; follows its frames on every link."""

    beacon: BeaconId
    head_seq: int
    """Durable at the root when it was sent; the beacon counts once I have it."""
    time_ms: float
    """The root's wall clock, milliseconds since 1970."""
    interval_ms: int
    """When the next is due."""
    latency_ms: float
    """One-way time from the root to the sender."""
    held_ms: float
    """How long nodes on the path sat on it; next to nothing unless a subscription began after it came."""
    path: tuple[str, ...]
    """The nodes from the root to the sender, which is the last."""
    wants_receipts: bool = False
    """Somebody waits until members have a write: tell your parents what has come to be where."""


class Move(NamedTuple):
    """I serve too many: please find another parent if you can do so without harm."""


class Offer(NamedTuple):
    """A large value is on its way: fetch its chunks from me, over the bulk link, and offer them to your children.

    From a parent to its children. Repeating it is harmless; whoever misses it fetches when the entry comes.
    """

    id: bytes
    """16 random bytes, drawn by the coordinator."""
    chunks: tuple[bytes, ...]
    """Their hashes, in the value's order."""


class Holds(NamedTuple):
    """I and all my children that I offered it to hold what was offered; to whoever offered it, once."""

    id: bytes


class Ack(NamedTuple):
    """A member's readers see everything up to this: a cumulative acknowledgement."""

    member: str
    life: BeaconId
    """The first beacon that it took since it started, or started over: a later life's ack replaces an earlier
    one's, though it be of less."""
    version: Version


class Acks(NamedTuple):
    """What is new of me and of those behind me; to each parent, while receipts are wanted.

    Repeating it is harmless.
    """

    acks: tuple[Ack, ...]


# -- over the bulk link, a second connection between two nodes: pages and chunks never delay a frame --------------


class PagesWanted(NamedTuple):
    """Send me the records behind this place, page by page; replaces what I wanted before."""

    after: bytes
    """Namespace id ‖ key of the last record that I have; b"" to begin."""
    credit: int
    """Pages that may be sent before I say `PagesCredit`."""


class PagesCredit(NamedTuple):
    """So many pages more: those before are stored."""

    credit: int


class Page(NamedTuple):
    """All records of the places in (`after`, `until`], as of `position`; replaces whatever is there.

    Pages of one donor come in order. `until` b"" is the end of everything.
    """

    position: Position
    digest: bytes
    """The donor's, over all its records at that position."""
    after: bytes
    until: bytes
    body: bytes
    """As storage/pages.py packs it."""


class PagesRefused(NamedTuple):
    """I can't give you pages: not verified, damaged, or two others are taking some."""

    position: Position
    """Mine."""


class ChunksWanted(NamedTuple):
    """Send me these chunks, in this order, when you have room; each is answered by Chunk or ChunkMissing."""

    hashes: tuple[bytes, ...]


class Chunk(NamedTuple):
    """A piece of a large value; its hash is checked by whoever stores it."""

    hash: bytes
    data: bytes


class ChunkMissing(NamedTuple):
    """I don't have that one."""

    hash: bytes


BulkMessage = PagesWanted | PagesCredit | Page | PagesRefused | ChunksWanted | Chunk | ChunkMissing
Message = (
    Advert | Ask | Subscribe | Unsubscribe | Refused | Frames | Beacon | Move | Offer | Holds | Acks | BulkMessage
)

PAGES_CREDIT_MAX: Final = 256
PLACE_BYTES_MAX: Final = NAMESPACE_ID_BYTES + KEY_BYTES_MAX
CHUNKS_WANTED_MAX: Final = 128
CHUNKS_OFFERED_MAX: Final = 1024
OFFER_ID_BYTES: Final = 16
MEMBER_CHARACTERS_MAX: Final = 64


def _tenths(ms: float) -> int:
    return round(ms * 10)


def _to_wire(message: Message) -> list[Any]:
    match message:
        case Frames(frames):
            return [0, *frames]
        case Beacon(beacon, head, time_ms, interval, latency, held, path, wants):
            return [1, *beacon, head, _tenths(time_ms), interval, _tenths(latency), _tenths(held), path, wants]
        case Advert():
            return [
                2,
                *message.position,
                *message.beacon,
                _tenths(message.latency_ms),
                message.path,
                message.children,
                message.full,
                _tenths(message.sent_ms),
                _tenths(message.echo_ms),
                _tenths(message.echo_hold_ms),
                message.wants_echo,
            ]
        case Ask(epoch, seq, beacon, ladder):
            return [3, epoch, seq, *beacon, ladder]
        case Subscribe(position, late):
            return [4, *position, late]
        case Unsubscribe():
            return [5]
        case Refused(reason, position, epoch):
            return [6, int(reason), *position, epoch]
        case Move():
            return [7]
        case Offer(id_, chunks):
            return [8, id_, *chunks]
        case Holds(id_):
            return [9, id_]
        case PagesWanted(after, credit):
            return [10, after, credit]
        case PagesCredit(credit):
            return [11, credit]
        case Page(position, digest, after, until, body):
            return [12, *position, digest, after, until, body]
        case PagesRefused(position):
            return [13, *position]
        case ChunksWanted(hashes):
            return [14, *hashes]
        case Chunk(hash_, data):
            return [15, hash_, data]
        case ChunkMissing(hash_):
            return [16, hash_]
        case Acks(acks):
            return [17, *([member, *life, *version] for member, life, version in acks)]


def _ms(tenths: int) -> float:
    if abs(tenths) > TENTHS_MAX:
        raise ProtocolError("a time that can't be")
    return tenths / 10


def _beacon_id(epoch: int, number: int) -> BeaconId:
    if not 0 <= epoch < EPOCH_MAX or number < 0:
        raise ProtocolError("a beacon that can't be")
    return BeaconId(epoch, number)


def _position(epoch: int, seq: int, chain: bytes) -> Position:
    if not 0 <= epoch < EPOCH_MAX or seq < 0 or len(chain) != CHAIN_BYTES:
        raise ProtocolError("a position that can't be")
    return Position(epoch, seq, chain)


def _path(names: list[Any]) -> tuple[str, ...]:
    if len(names) > PATH_HOPS_MAX or not all(isinstance(name, str) for name in names):
        raise ProtocolError("a path that can't be")
    return tuple(names)


def _hashes(hashes: list[Any]) -> tuple[bytes, ...]:
    if not all(isinstance(each, bytes) and len(each) == CHUNK_HASH_BYTES for each in hashes):
        raise ProtocolError("a chunk's hash that can't be")
    return tuple(hashes)


def _ack(fields: Any) -> Ack:
    match fields:
        case [str() as member, int() as e, int() as n, int() as epoch, int() as seq] if (
            0 < len(member) <= MEMBER_CHARACTERS_MAX and 0 <= epoch < EPOCH_MAX and seq >= 0
        ):
            return Ack(member, _beacon_id(e, n), Version(epoch, seq))
        case _:
            raise ProtocolError("an ack that can't be")


def _place(place: bytes) -> bytes:
    if len(place) > PLACE_BYTES_MAX or 0 < len(place) < NAMESPACE_ID_BYTES:
        raise ProtocolError("a place that can't be")
    return place


def _from_wire(fields: Any) -> Message:
    match fields:
        case [0, *frames] if all(isinstance(frame, bytes) for frame in frames):
            return Frames(tuple(frames))
        case [
            1, int() as e, int() as n, int() as head, int() as at, int() as due, int() as lat, int() as held,
            list() as path, bool() as wants,
        ] if head >= 0:  # fmt: skip
            return Beacon(_beacon_id(e, n), head, _ms(at), due, _ms(lat), _ms(held), _path(path), wants)
        case [
            2, int() as epoch, int() as seq, bytes() as chain, int() as e, int() as n, int() as lat,
            list() as path, int() as children, bool() as full, int() as sent, int() as echo, int() as hold,
            bool() as wants,
        ]:  # fmt: skip
            return Advert(
                _position(epoch, seq, chain), _beacon_id(e, n), _ms(lat), _path(path), children, full,
                _ms(sent), _ms(echo), _ms(hold), wants,
            )  # fmt: skip
        case [3, int() as epoch, int() as seq, int() as e, int() as n, bool() as ladder]:
            return Ask(epoch, seq, _beacon_id(e, n), ladder)
        case [4, int() as epoch, int() as seq, bytes() as chain, bool() as late]:
            return Subscribe(_position(epoch, seq, chain), late)
        case [5]:
            return Unsubscribe()
        case [6, int() as reason, int() as epoch, int() as seq, bytes() as chain, int() as newest] if (
            0 <= reason <= max(Reason) and 0 <= newest < EPOCH_MAX
        ):
            return Refused(Reason(reason), _position(epoch, seq, chain), newest)
        case [7]:
            return Move()
        case [8, bytes() as id_, *chunks] if len(id_) == OFFER_ID_BYTES and 0 < len(chunks) <= CHUNKS_OFFERED_MAX:
            return Offer(id_, _hashes(chunks))
        case [9, bytes() as id_] if len(id_) == OFFER_ID_BYTES:
            return Holds(id_)
        case [10, bytes() as after, int() as credit] if 0 < credit <= PAGES_CREDIT_MAX:
            return PagesWanted(_place(after), credit)
        case [11, int() as credit] if 0 < credit <= PAGES_CREDIT_MAX:
            return PagesCredit(credit)
        case [
            12, int() as epoch, int() as seq, bytes() as chain, bytes() as digest, bytes() as after,
            bytes() as until, bytes() as body,
        ] if len(digest) == HASH_BYTES and (not until or after < until):  # fmt: skip
            return Page(_position(epoch, seq, chain), digest, _place(after), _place(until), body)
        case [13, int() as epoch, int() as seq, bytes() as chain]:
            return PagesRefused(_position(epoch, seq, chain))
        case [14, *hashes] if 0 < len(hashes) <= CHUNKS_WANTED_MAX:
            return ChunksWanted(_hashes(hashes))
        case [15, bytes() as hash_, bytes() as data] if len(hash_) == CHUNK_HASH_BYTES:
            return Chunk(hash_, data)
        case [16, bytes() as hash_] if len(hash_) == CHUNK_HASH_BYTES:
            return ChunkMissing(hash_)
        case [17, *acks]:
            return Acks(tuple(map(_ack, acks)))
        case _:
            raise ProtocolError("a message of an unknown kind or shape")


def encode(messages: Iterable[Message]) -> bytes:
    """Return the bytes of one WebSocket message."""
    packed: bytes = msgpack.packb([_to_wire(message) for message in messages])
    return crc32(packed).to_bytes(CHECKSUM_BYTES, "big") + packed


def decode(data: bytes) -> list[Message]:
    """Read one WebSocket message.

    Raises:
        ProtocolError: not messages of this protocol.
    """
    if len(data) > MESSAGE_BYTES_MAX:
        raise ProtocolError(f"a message of {len(data)} bytes")
    packed = memoryview(data)[CHECKSUM_BYTES:]
    if int.from_bytes(data[:CHECKSUM_BYTES], "big") != crc32(packed):
        raise ProtocolError("a message that was changed on its way")
    try:
        body = msgpack.unpackb(packed, use_list=True)
    except (ValueError, msgpack.UnpackException) as error:
        raise ProtocolError(f"a message that isn't msgpack: {error}") from None
    if not isinstance(body, list):
        raise ProtocolError("a message that is no array")
    return [_from_wire(fields) for fields in body]
