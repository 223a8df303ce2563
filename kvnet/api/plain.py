"""Plain reads, answered from the store at once: what the fast lane is fast at.

A plain read is a GET or HEAD of one value, by the REST API or by a Worker's binding, with a head that says who
asks and nothing else of weight. Its answer here is byte for byte the one that the service gives; whatever isn't
plain, or goes wrong, has no answer here.

Three things are remembered, each only as long as what it rests on: shapes, which are all of a request but its key,
until the catalogue or the environment is another one; a read transaction and whole answers, until anything is
committed; and the answers besides until the bound on staleness that they tell is none any more. Nothing that ends
by itself, a pair or a token, is answered from memory.

A shape is remembered when it comes for the second time: where a client puts another number into each of its heads,
as for tracing, each head is a shape that never comes again.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Callable
from time import monotonic
from typing import Any, Final
from zlib import crc32

import lmdb
from multidict import CIMultiDict

from kvnet.api import binding, codes, envelope
from kvnet.api.auth import identify, require
from kvnet.api.backend import Backend
from kvnet.api.freshness import AT_LEAST, STALENESS_STEP_MS, WAIT_MS_MAX, WAIT_TIMEOUT, freshness_headers
from kvnet.api.heads import END, read_block
from kvnet.api.hot import HotAnswers
from kvnet.api.query import read_integer
from kvnet.api.routes import API_PREFIX, Resource, decode_key, find_place
from kvnet.api.validation import check_namespace_id
from kvnet.core.catalog import Scope
from kvnet.core.versions import Version
from kvnet.errors import RequestError, StorageError
from kvnet.storage.keys import SLICE_BYTES, find
from kvnet.storage.reads import View
from kvnet.storage.records import PLAIN, PLAIN_VALUE, RESIDUE, read_record, read_version

SHAPES_MAX: Final = 1024
ONCE_MAX: Final = 1024
"""Hashes of shapes that came once."""
HEAD_BYTES_MAX: Final = 4096
"""A longer one isn't plain; and what aiohttp refuses is longer."""
TAILS_MAX: Final = 256
LOOK_S: Final = 0.05
"""How soon a replica that may not serve is looked at again."""
TICK_S: Final = 1.0
"""How long an unused read transaction may stay."""

_VERSION: Final = b"HTTP/1.1"
_DOT: Final = ord(".")
_METHODS: Final = frozenset({b"GET", b"HEAD"})
_BEFORE_KEY_BYTES: Final = len(f"{API_PREFIX}/accounts//storage/kv/namespaces//values/") + 2 * 32
"""Of a REST target: two ids of 32 hex digits."""
_BINDING_QUERY: Final = re.compile(rb"\?urlencoded=true(?:&cache_ttl=([0-9]{1,9}))?")
"""What stands behind a binding's key."""
_VALUES: Final = b"/values/"
_THEMSELVES: Final = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-._~!$&'()*+,;=:@/"
"""Bytes of a path that stand for themselves in a key."""
_SPELLED_SO: Final = bytes(byte if byte in _THEMSELVES else byte ^ 0x80 for byte in range(256))
"""Translating by it gives back the very same bytes if all of them do: every other one becomes another."""
_SPELLED_OR_ESCAPED: Final = bytes(byte if byte in _THEMSELVES + b"%" else byte ^ 0x80 for byte in range(256))
_WEIGHTY: Final = re.compile(r"content-|transfer-|if-|kv-|x-auth-|expect$|range$|te$|trailer$|upgrade$|http2-")
"""Fields that may change the answer, and with them the request isn't plain; the others nobody looks at."""

_TO_VERSION: Final = b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nKV-Version: "
_TO_ETAG: Final = b'\r\nETag: "'
_MISSING_HEAD: Final = b"HTTP/1.1 404 Not Found\r\nContent-Type: application/json\r\n"
_MISSING_BODY: Final = envelope.failed(codes.KEY_NOT_FOUND.error())


class Shape:
    """All of a plain read but its key: `begin` and `rest` are what stands before and behind it, byte for byte.

    Whoever has one may cut a key out of a request that begins and ends so, and have it read.
    """

    __slots__ = (
        "at_least",
        "begin",
        "bound",
        "conditional",
        "end",
        "expires_at",
        "hits",
        "namespace",
        "prefix",
        "reads",
        "rest",
        "start",
        "whole",
    )

    def __init__(
        self,
        begin: bytes,
        rest: bytes,
        namespace: bytes,
        prefix: bytes,
        *,
        bound: bool,
        whole: bool,
        expires_at: int,
        at_least: Version | None,
    ) -> None:
        self.begin = begin
        self.rest = rest
        self.start = len(begin)
        self.end = -len(rest)
        self.namespace = namespace
        self.prefix = prefix
        """Of the namespace's keys, in the environment."""
        self.bound = bound
        """Whether a binding asks."""
        self.whole = whole
        """Whether the value is asked for: GET, not HEAD."""
        self.expires_at = expires_at
        """Of the token; 0 for never."""
        self.at_least = at_least
        """The version that the view must have; None for any."""
        self.conditional = expires_at > 0 or at_least is not None
        """Whether it has to be asked each time if a request of this shape may be answered."""
        self.reads = 0
        """Looked up, and not counted yet."""
        self.hits = 0
        """Answered from memory, and not counted yet."""

    def end_it(self) -> None:
        """No request is of this shape any more."""
        self.begin = NOTHING


NOTHING: Final = b"\0"
"""No request begins so."""
NO_SHAPE: Final = Shape(NOTHING, NOTHING, b"", b"", bound=False, whole=False, expires_at=0, at_least=None)


class PlainReads:
    """Answers plain reads of one node."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self.changes = backend.store.changes
        """The store's count of changes, looked at with each request: odd while one is under way."""
        self.seen = -1
        """What it was when what is remembered was read; -1 to remember nothing."""
        self.until = 0.0
        """When everything has to be looked at anew, by the monotonic clock."""
        self._serves = False
        self._shapes: dict[tuple[bytes, bytes], Shape | None] = {}
        self._once: set[int] = set()
        """Hashes of what would have been a shape, and came once."""
        self.uncounted: list[Shape] = []
        """Every shape that has reads or hits, once or twice."""
        self._rests_on: tuple[Any, ...] = ()
        """Catalogue and environment of the shapes."""
        self._hot: HotAnswers[Shape] = HotAnswers()
        self.hot = self._hot.answers
        """Whole answers, by the exact bytes of their request."""
        self._hits = 0
        """Since it was last judged whether they pay."""
        self._noted_in = self._hot.noted_in
        self._turn = self._turn_before = 0
        self._view: View
        self._get: Callable[[bytes], bytes | None] | None = None
        """Of a read transaction that is kept; None where each read has its own."""
        self._ticks: asyncio.TimerHandle | None = None
        self._middle = b""
        self._tails: dict[int, bytes] = {}
        """What follows the version in a head, by the value's size."""

    def answer(self, request: bytes) -> bytes | None:
        """Return the answer to one whole request, None if it is for the service to give or isn't one."""
        shape, key = self.find(request)
        return None if shape is NO_SHAPE else self.read(shape, key, request)

    def find(self, request: bytes) -> tuple[Shape, bytes]:
        """Return shape and key of a request, as it is spelled; NO_SHAPE if it isn't plain or whole."""
        if self.changes[0] != self.seen or monotonic() >= self.until:
            self.renew()
        try:
            method, target, rest = request.split(b" ", 2)
        except ValueError:
            return NO_SHAPE, b""
        if not self._serves or method not in _METHODS:
            return NO_SHAPE, b""
        # What can't be of any shape is told apart here: remembered, it would push out what is one.
        at, end = 1, target.find(b"?")
        if end < 0:
            at, end = _BEFORE_KEY_BYTES, len(target)
            if not target.endswith(_VALUES, 0, at):
                return NO_SHAPE, b""
        elif not _BINDING_QUERY.fullmatch(target, end):
            return NO_SHAPE, b""
        begin, behind = b"%b %b" % (method, target[:at]), b"%b %b" % (target[end:], rest)
        try:
            shape = self._shapes[begin, behind]
        except KeyError:
            shape = self._make_shape(begin, behind, rest)
        return shape or NO_SHAPE, target[at:end]

    def read(self, shape: Shape, key: bytes, request: bytes) -> bytes | None:
        """Return the answer to a request of this shape, None if it is for the service to give.

        What is remembered must be fresh: `renew` before, if it isn't.
        """
        # Nothing here is called that can be written out: a call is a tenth of the whole.
        if key.translate(_SPELLED_SO) is not key:
            decoded = _decode(key)
            if decoded is None:
                return None
            name = decoded
        else:
            name = key
        if not 0 < len(name) <= self._key_bytes_max or (name[0] == _DOT and name in {b".", b".."}):
            return None
        if shape.conditional and not self._is_met(shape):
            return None
        try:
            get = self._get or self._begin()
            stored = get(shape.prefix + name) if len(name) <= SLICE_BYTES else find(get, shape.prefix, name)
            if stored is not None and crc32(stored, crc32(name)) == RESIDUE and stored[0] == PLAIN:
                value = stored[PLAIN_VALUE]
                version = b"%d-%d" % read_version(stored)
                tail = self._tails.get(len(value)) or self._tail(len(value))
                answer = b"".join((_TO_VERSION, version, _TO_ETAG, version, tail, value if shape.whole else b""))
            elif stored is None:
                answer = self._missing + _MISSING_BODY if shape.whole else self._missing
            else:
                rare = self._answer_rare(shape, name, stored)
                if rare is not None:
                    self._count_one(shape)
                return rare
        except (lmdb.Error, StorageError):  # the service will meet it as well, and knows what to do
            self.renew()
            return None
        self._turn += 1
        if not self._turn % self._noted_in and not shape.expires_at:
            self._note(request, answer, shape)
        if not shape.reads:
            self.uncounted.append(shape)
        shape.reads += 1
        return answer

    def renew(self) -> None:
        """Forget what may be no longer so, and look again."""
        backend = self._backend
        changes = self.changes[0]
        self.seen = -1 if changes & 1 else changes
        self._get = None
        self._hot.cool()
        self._view = view = backend.store.view
        serves = backend.ready() and view.catalogue.cluster is not None
        rests_on = (view.catalogue, view.environment)
        if self._rests_on != rests_on or not serves:
            self._rests_on = rests_on
            self._forget_shapes()
        self._serves = serves
        self._version = view.state.position.version
        self._key_bytes_max = backend.limits.key_bytes_max
        headers = freshness_headers(backend) | {"KV-Pop": backend.pop}
        self._middle = "".join(f"{name}: {value}\r\n" for name, value in headers.items()).encode()
        self._tails = {}
        self._missing = b"%b%bContent-Length: %d\r\n\r\n" % (_MISSING_HEAD, self._middle, len(_MISSING_BODY))
        self.until = monotonic() + (self._bound_lasts_s() if serves else LOOK_S)

    def count(self) -> None:
        """Tell the meter what was read here."""
        if not self.uncounted:
            return
        meter = self._backend.usage
        for shape in self.uncounted:
            meter.of(shape.namespace).reads += shape.reads + shape.hits
            self._hits += shape.hits
            shape.reads = shape.hits = 0
        self.uncounted = []

    def close(self) -> None:
        """Count what was read, and let go of the store."""
        self._forget_shapes()
        self._get = None
        if self._ticks is not None:
            self._ticks.cancel()

    def _forget_shapes(self) -> None:
        self._hot.cool()
        self.count()
        for shape in self._shapes.values():
            if shape is not None:
                shape.end_it()
        self._shapes = {}

    def _is_met(self, shape: Shape) -> bool:
        """Whether what a request of this shape rests on, or asks for, is so at this moment."""
        if shape.expires_at and shape.expires_at <= self._backend.now_s():
            return False
        at_least, here = shape.at_least, self._version
        return at_least is None or (at_least.seq <= here.seq and at_least.epoch <= here.epoch)

    def _bound_lasts_s(self) -> float:
        """Return how long the bound on staleness that is told now will be one."""
        staleness_ms = self._backend.staleness_ms()
        if not math.isfinite(staleness_ms) or staleness_ms <= 0:
            return STALENESS_STEP_MS / 1000
        return (math.ceil(staleness_ms / STALENESS_STEP_MS) * STALENESS_STEP_MS - staleness_ms) / 1000

    def _make_shape(self, begin: bytes, behind: bytes, rest: bytes) -> Shape | None:
        """Return the shape with this beginning and rest, None if no plain read has it.

        `rest` is the head from the version on, `behind` the same with what of the target stands behind the key.
        The first one is for this request alone; the second is remembered.
        """
        if len(rest) > HEAD_BYTES_MAX or not rest.endswith(END):
            return None
        shape = self._read_shape(begin, behind, rest)
        met = hash((begin, behind))
        if met not in self._once:
            if len(self.uncounted) >= SHAPES_MAX:  # each of these is one more
                self.count()
            if len(self._once) >= ONCE_MAX:
                self._once.clear()
            self._once.add(met)
            if shape is not None:
                shape.end_it()
            return shape
        if len(self._shapes) >= SHAPES_MAX:
            self._forget_shapes()
        self._shapes[begin, behind] = shape
        return shape

    def _read_shape(self, begin: bytes, behind: bytes, rest: bytes) -> Shape | None:
        fields = read_block(rest[len(_VERSION) :]) if rest.startswith(_VERSION) else None
        if (
            fields is None
            or "host" not in fields
            or fields.pop("connection", "keep-alive").lower() != "keep-alive"
        ):
            return None
        spelled = fields.pop(binding.HEADER.lower(), None)
        at_least = None
        if AT_LEAST.lower() in fields:
            at_least = _read_at_least(fields)
            if at_least is None:
                return None
        if any(_WEIGHTY.match(name) for name in fields):
            return None
        method, _, target = begin.partition(b" ")
        catalogue = self._view.catalogue
        try:
            token = identify(CIMultiDict(fields), catalogue.tokens, self._backend.now_s)
            require(token, Scope.READ)
            if spelled is None:
                place = find_place("GET", target.decode("ascii") + "k")
                if place.resource is not Resource.VALUE or place.key != "k" or not behind.startswith(b" "):
                    return None
                if catalogue.cluster is None or place.account != catalogue.cluster.account_id:
                    return None
                spelled = place.namespace
            else:
                query = _BINDING_QUERY.match(behind)
                if target != b"/" or query is None:
                    return None
                if query[1] is not None and int(query[1]) < binding.CACHE_TTL_S_MIN:
                    return None
            namespace = check_namespace_id(spelled)
        except (RequestError, UnicodeDecodeError):
            return None
        tally = self._view.tallies.get(namespace)
        if tally is None or namespace not in catalogue.namespaces or not token.reaches(namespace):
            return None
        return Shape(
            begin,
            behind,
            namespace,
            tally.prefix,
            bound=target == b"/",
            whole=method == b"GET",
            expires_at=token.expires_at,
            at_least=at_least,
        )

    def _begin(self) -> Callable[[bytes], bytes | None]:
        """Begin a read transaction, to be kept unless a change is under way."""
        get: Callable[[bytes], bytes | None] = self._view.begin(self._view.records).get
        if self.changes[0] == self.seen:
            self._get = get
            if self._ticks is None:
                self._ticks = asyncio.get_running_loop().call_later(TICK_S, self._tick)
        return get

    def _tick(self) -> None:
        """Count, and end a transaction that keeps old pages or isn't used."""
        self._ticks = None
        self.count()
        if self._turn == self._turn_before or self.changes[0] != self.seen:
            self._get = None
        if self._get is not None:
            self._turn_before = self._turn
            self._ticks = asyncio.get_running_loop().call_later(TICK_S, self._tick)

    def _answer_rare(self, shape: Shape, name: bytes, stored: bytes) -> bytes | None:
        """Answer with a record that has metadata or an expiry; None for a large value's.

        Raises:
            StorageDamaged: it isn't what was written.
        """
        record = read_record(name, stored)
        if record.large:
            return None
        if 0 < record.expires_at <= self._backend.now_s():
            return self._missing + _MISSING_BODY if shape.whole else self._missing
        version = b"%d-%d" % read_version(stored)
        more = _more(record.metadata, record.expires_at, bound=shape.bound)
        tail = b'"\r\n' + more + self._tail(len(record.value))[3:]
        value = record.value if shape.whole else b""
        return b"".join((_TO_VERSION, version, _TO_ETAG, version, tail, value))

    def _tail(self, size: int) -> bytes:
        """Return what stands behind the version in the head of a value of this size."""
        tail = b'"\r\n%bContent-Length: %d\r\n\r\n' % (self._middle, size)
        if len(self._tails) < TAILS_MAX:
            self._tails[size] = tail
        return tail

    def _note(self, request: bytes, answer: bytes, shape: Shape) -> None:
        """Remember this answer if it pays, unless a change is under way."""
        if self.changes[0] != self.seen:
            return
        hot = self._hot
        hot.note(request, answer, shape)
        if hot.is_due:
            self.count()
            hot.judge(self._hits)
            self._hits = 0
            self._noted_in = hot.noted_in

    def _count_one(self, shape: Shape) -> None:
        if not shape.reads:
            self.uncounted.append(shape)
        shape.reads += 1


def _decode(spelled: bytes) -> bytes | None:
    """Return the key that is spelled with percent signs, None if it is for the service to refuse."""
    if spelled.translate(_SPELLED_OR_ESCAPED) is not spelled:
        return None
    try:
        return decode_key(spelled.decode("ascii"))
    except RequestError:
        return None


def _more(metadata: bytes, expires_at: int, *, bound: bool) -> bytes:
    """Return the fields that tell of metadata and expiry."""
    if not bound:
        return b"expiration: %d\r\n" % expires_at if expires_at else b""
    told = b"%b: %b\r\n" % (binding.METADATA.encode(), metadata) if metadata else b""
    return told + b"CF-Expiration: %d\r\n" % expires_at if expires_at else told


def _read_at_least(fields: dict[str, str]) -> Version | None:
    """Take what tells of the version that is wanted out of the fields; None if the service refuses it."""
    wait_ms = fields.pop(WAIT_TIMEOUT.lower(), None)
    if wait_ms is not None:
        number = read_integer(wait_ms)
        if number is None or not 0 <= number <= WAIT_MS_MAX:
            return None
    try:
        return Version.parse(fields.pop(AT_LEAST.lower()))
    except ValueError:
        return None
