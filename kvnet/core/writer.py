"""The coordinator's part in writing: gives every accepted operation its place in the one journal.

Pure, as the rest of the core: it is told the time and reads the store through a port. What it sequences is
*pending* until `cut` makes frames of it, and *committing* until the driver says `committed` (durable) or
`rejected` (the disk would not; nothing of it was acknowledged or sent, so the seqs are given out again).

A write that equals the last sequenced state isn't replicated; it is answered with that state's version, once
that is durable.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple, Protocol, assert_never

from kvnet.core import catalog
from kvnet.core.catalog import CatalogItem, Cluster, Member, Namespace, Scope, Token
from kvnet.core.clock import HybridClock
from kvnet.core.entries import DIGEST_MODULUS, SYSTEM_NAMESPACE, Delete, Entry, Epoch, Put, PutLarge, record_hash
from kvnet.core.frames import FRAME_BYTES_TARGET, HEADER_BYTES, Frame, cut_frame
from kvnet.core.manifest import Manifest
from kvnet.core.operations import (
    CreateNamespace,
    CreateToken,
    DeleteNamespace,
    DeleteValue,
    Operation,
    PutLargeValue,
    PutValue,
    RenameNamespace,
    RevokeToken,
    RollToken,
)
from kvnet.core.versions import Position, Version
from kvnet.errors import RequestError
from kvnet.limits import Limits

ENTRY_OVERHEAD_BYTES: Final = 64
FRAME_OVERHEAD_BYTES: Final = HEADER_BYTES + 5
PENDING_BYTES_MAX: Final = 64 * 1024 * 1024
"""Sequenced and not yet durable; beyond it writers are told to come back."""

TOKEN_NOT_FOUND: Final = 20030
"""API code: no token has this id."""
TOKEN_LAST_ADMIN: Final = 20031
"""API code: without this token, or with a secret that got lost, nobody could administer."""
TOKEN_SECRET_LOST: Final = 20032
NAMESPACE_ID_TAKEN: Final = 20033
"""API code: a retried request, whose first try has made a token."""

_VALUES: Final = (PutValue, PutLargeValue, DeleteValue)


class SequencedRecord(Protocol):
    """A stored record, as far as the writer compares it."""

    @property
    def value(self) -> bytes: ...
    @property
    def metadata(self) -> bytes: ...
    @property
    def expires_at(self) -> int: ...
    @property
    def version(self) -> Version: ...
    @property
    def hash(self) -> bytes: ...
    @property
    def large(self) -> bool:
        """Whether the value is a manifest."""


class StatePort(Protocol):
    """What the writer reads of the store: the state as of the last commit."""

    @property
    def position(self) -> Position: ...
    @property
    def digest(self) -> int: ...
    @property
    def stamp(self) -> int: ...
    @property
    def namespaces(self) -> Mapping[bytes, Namespace]: ...
    @property
    def tokens(self) -> Mapping[bytes, Token]: ...
    def namespace_digest(self, namespace: bytes) -> int: ...
    def get(self, namespace: bytes, key: bytes) -> SequencedRecord | None: ...
    def request_outcome(self, request_id: bytes) -> Version | None: ...


class _Record(NamedTuple):
    """A record sequenced here and perhaps not durable yet."""

    value: bytes
    metadata: bytes
    expires_at: int
    version: Version
    hash: bytes
    large: bool


class _Sequenced(NamedTuple):
    """One pending entry and the digest after it."""

    entry: Entry
    digest: int
    size: int


@dataclass(frozen=True, slots=True)
class Ticket:
    """An accepted write: durable once the store's position reaches `durable_at`."""

    version: Version
    """What the client is told."""
    durable_at: int


class ExpiringRecord(Protocol):
    """A row of the index of what expires; the record may be gone or another one by now."""

    @property
    def expires_at(self) -> int:
        """Unix seconds."""

    @property
    def namespace(self) -> bytes: ...
    @property
    def key(self) -> bytes: ...


class Cut(NamedTuple):
    """What one group commit makes durable."""

    frames: list[Frame]
    requests: list[tuple[bytes, Version, int]]
    """(request id, version, wall time in ms), remembered in the same transaction."""
    stale: Sequence[ExpiringRecord] = ()
    """Rows of the index that speak of no record any more, dropped in the same transaction, before the frames."""


class Writer:
    """Sequences writes; one per cluster, at the coordinator, between an opened epoch and its end."""

    def __init__(self, store: StatePort, limits: Limits) -> None:
        self._store = store
        self._limits = limits
        self._clock = HybridClock(store.stamp)
        self._opening: tuple[int, bytes, Sequence[CatalogItem]] | None = None
        self._reload()

    def _reload(self) -> None:
        """Stand where the store stands, with nothing pending."""
        position = self._store.position
        self._epoch = position.epoch
        self._seq = position.seq
        self._chain = position.chain
        self._cut_seq = position.seq
        self._digest = self._store.digest
        self._namespaces = dict(self._store.namespaces)
        self._titles = {namespace.title: namespace.id for namespace in self._namespaces.values()}
        self._tokens = {token.id: token for token in self._store.tokens.values()}
        self._digests: dict[bytes, int] = {}
        """Per namespace touched since the start, the sum of its sequenced records' hashes."""
        self._overlay: dict[tuple[bytes, bytes], tuple[int, _Record | None]] = {}
        """What was sequenced and may not be durable: (seq, state), by namespace and key."""
        self._overlay_order: deque[tuple[int, tuple[bytes, bytes]]] = deque()
        self._pending: list[_Sequenced] = []
        self._pending_bytes = 0
        self._committing_bytes = 0
        self._requests: dict[bytes, Ticket] = {}
        self._request_order: list[tuple[bytes, Version, int]] = []
        self._stale: list[ExpiringRecord] = []
        self._written_at: dict[tuple[bytes, bytes], float] = {}
        self._written_order: deque[tuple[float, tuple[bytes, bytes]]] = deque()

    # -- sequencing ------------------------------------------------------------------------------------------

    @property
    def has_pending(self) -> bool:
        """Whether `cut` would have something to give."""
        return bool(self._pending or self._request_order or self._stale)

    @property
    def pending_bytes(self) -> int:
        return self._pending_bytes

    def open_epoch(self, epoch: int, nonce: bytes, founding: Sequence[CatalogItem] = ()) -> None:
        """Begin a history of our own: the next frame starts with it, and with a new cluster's first records.

        A disk that rejects that frame is offered it again before anything else.
        """
        assert not self._pending, "an epoch begins with a frame"
        assert epoch > self._epoch, "an epoch is opened once"
        self._opening = (epoch, nonce, founding)
        self._epoch = epoch
        self._sequence(Epoch(epoch, nonce), 0)
        for item in founding:
            self._put_item(item)

    def submit(
        self, operations: Sequence[Operation], request_id: bytes | None, now_ms: float, wall_ms: int
    ) -> Ticket:
        """Sequence all of these or none; the last of two for one key wins. Only values come several at once.

        Raises:
            RequestError: refused; nothing was sequenced.
        """
        known = self._known(request_id)
        if known is not None:
            return known
        if self._pending_bytes + self._committing_bytes > PENDING_BYTES_MAX:
            raise RequestError(
                503, 20021, "The coordinator's disk is behind; try again", headers={"Retry-After": "1"}
            )
        if len(operations) != 1 and not (operations and all(isinstance(o, _VALUES) for o in operations)):
            raise RequestError(400, 10012, "invalid request body: only values are written several at once")
        self._forget_written(now_ms)
        operations = [_absolute(operation, wall_ms) for operation in operations]
        for operation in operations:
            self._check(operation, now_ms)
        tickets = [self._apply(operation, now_ms, wall_ms) for operation in operations]
        ticket = Ticket(max(t.version for t in tickets), max(t.durable_at for t in tickets))
        if request_id is not None:
            self._requests[request_id] = ticket
            self._request_order.append((request_id, ticket.version, wall_ms))
        return ticket

    def expire(self, rows: Sequence[ExpiringRecord], now_s: float) -> None:
        """Sequence the removal of these records, as far as their time has come at `now_s`.

        Only a record whose last sequenced state still expires when its row says: one that was written again is
        another record. A row that speaks of none is dropped with the next cut. No removal counts as a client's
        write of its key.
        """
        if self._pending_bytes + self._committing_bytes > PENDING_BYTES_MAX:
            return
        for row in rows:
            if row.expires_at > now_s:
                continue
            known = row.namespace in self._namespaces  # a deleted one's records are in the store until the commit
            current = self._current(row.namespace, row.key) if known else None
            if current is not None and current.expires_at == row.expires_at:
                self._delete(row.namespace, row.key, None)
            else:
                self._stale.append(row)

    def _known(self, request_id: bytes | None) -> Ticket | None:
        """What this request was answered before."""
        if request_id is None:
            return None
        known = self._requests.get(request_id)
        if known is not None:
            return known
        outcome = self._store.request_outcome(request_id)
        return None if outcome is None else Ticket(outcome, 0)

    def check(
        self, operation: PutLargeValue, request_id: bytes | None, now_ms: float, wall_ms: int
    ) -> Ticket | None:
        """Return the answer to a write that needs no entry, None for one that does; nothing is sequenced.

        For large values, before their chunks travel; `submit` checks all of it again.

        Raises:
            RequestError: refused.
        """
        known = self._known(request_id)
        if known is not None:
            return known
        self._forget_written(now_ms)
        absolute = _absolute(operation, wall_ms)
        self._check(absolute, now_ms)
        assert isinstance(absolute, PutLargeValue)
        current = self._current(absolute.namespace, absolute.key)
        if current is None or not _is_same(current, absolute):
            return None
        return Ticket(current.version, current.version.seq)

    def _check(self, operation: Operation, now_ms: float) -> None:
        """Refuse what the limits or the catalogue forbid; edges have checked the same before."""
        limits = self._limits
        match operation:
            case PutValue() | PutLargeValue() | DeleteValue():
                if operation.namespace not in self._namespaces:
                    op = "remove key" if isinstance(operation, DeleteValue) else "put"
                    raise RequestError(404, 10013, f"{op}: 'namespace not found'")
                if not 0 < len(operation.key) <= limits.key_bytes_max:
                    raise RequestError(
                        414,
                        10001,
                        f"UTF-8 encoded length of {len(operation.key)} exceeds key length limit of "
                        f"{limits.key_bytes_max}.",
                    )
                size = _value_bytes(operation)
                if size > limits.value_bytes_max:
                    raise RequestError(
                        413, 10001, f"Value length of {size} exceeds limit of {limits.value_bytes_max}."
                    )
                self._check_rate(operation, now_ms)
            case CreateNamespace(namespace, title):
                if title in self._titles:
                    raise _taken("create namespace")
                # A deleted one's id is free once the store has forgotten it: until then it has its records, too.
                known = namespace in self._namespaces or namespace in self._store.namespaces
                if known or namespace == SYSTEM_NAMESPACE:
                    raise RequestError(
                        400, NAMESPACE_ID_TAKEN, "create namespace: 'there is a namespace with this id already'"
                    )
            case RenameNamespace(namespace, title):
                if namespace not in self._namespaces:
                    raise RequestError(404, 10013, "rename namespace: 'namespace not found'")
                if self._titles.get(title, namespace) != namespace:
                    raise _taken("rename namespace")
            case DeleteNamespace(namespace):
                if namespace not in self._namespaces:
                    raise RequestError(404, 10013, "remove namespace: 'namespace not found'")
            case CreateToken():
                if operation.id in self._tokens:
                    raise RequestError(
                        400,
                        TOKEN_SECRET_LOST,
                        "the first try of this request was made and its secret is lost: "
                        f"`kvnet token roll {operation.id}` makes another",
                    )
                if any(namespace not in self._namespaces for namespace in operation.namespaces):
                    raise RequestError(404, 10013, "create token: 'namespace not found'")
            case RollToken(token_id, _) | RevokeToken(token_id):
                self._require_token(token_id)
                if not any(token.id != token_id and _administers(token) for token in self._tokens.values()):
                    raise RequestError(
                        400,
                        TOKEN_LAST_ADMIN,
                        "the last admin token stays as it is: create another one first",
                    )
            case _:
                assert_never(operation)

    def _require_token(self, token_id: str) -> None:
        if token_id not in self._tokens:
            raise RequestError(
                404, TOKEN_NOT_FOUND, f"there is no token {token_id!r}: `kvnet token list` shows them"
            )

    def _check_rate(self, operation: PutValue | PutLargeValue | DeleteValue, now_ms: float) -> None:
        place = (operation.namespace, operation.key)
        written_at = self._written_at.get(place)
        if written_at is None or now_ms - written_at >= self._limits.write_interval_ms:
            return
        if self._changes_nothing(operation):
            return
        raise RequestError(
            429,
            10001,
            f"Too many writes of one key: at most one each {self._limits.write_interval_ms} ms is accepted",
            headers={"Retry-After": "1"},
        )

    def _changes_nothing(self, operation: PutValue | PutLargeValue | DeleteValue) -> bool:
        current = self._current(operation.namespace, operation.key)
        if isinstance(operation, DeleteValue):
            return current is None
        return current is not None and _is_same(current, operation)

    def _apply(self, operation: Operation, now_ms: float, wall_ms: int) -> Ticket:
        match operation:
            case PutValue() | PutLargeValue():
                return self._put(operation, now_ms)
            case DeleteValue(namespace, key):
                return self._delete(namespace, key, now_ms)
            case CreateNamespace(namespace, title):
                return self._put_item(Namespace(namespace, title, wall_ms))
            case RenameNamespace(namespace, title):
                return self._put_item(Namespace(namespace, title, self._namespaces[namespace].created_ms))
            case DeleteNamespace(namespace):
                return self._delete_namespace(namespace)
            case CreateToken(token_id, name, scope, digest, namespaces, expires_at):
                return self._put_item(Token(token_id, name, Scope(scope), digest, namespaces, wall_ms, expires_at))
            case RollToken(token_id, digest):
                return self._put_item(replace(self._tokens[token_id], hash=digest))
            case RevokeToken(token_id):
                del self._tokens[token_id]
                return self._delete(SYSTEM_NAMESPACE, catalog.TOKEN_PREFIX + token_id.encode(), None)
            case _:
                assert_never(operation)

    def _put(self, operation: PutValue | PutLargeValue, now_ms: float | None) -> Ticket:
        namespace, key, value, metadata, expires_at = operation[:5]
        current = self._current(namespace, key)
        if current is not None and _is_same(current, operation):
            return Ticket(current.version, current.version.seq)
        seq = self._seq + 1
        large = isinstance(operation, PutLargeValue)
        digest = record_hash(namespace, key, value, metadata, expires_at, self._epoch, seq, large=large)
        change = int.from_bytes(digest, "big") - (int.from_bytes(current.hash, "big") if current else 0)
        self._add(namespace, change)
        entry = (PutLarge if large else Put)(namespace, key, value, metadata, expires_at, digest)
        self._sequence(entry, len(key) + len(value) + len(metadata))
        version = Version(self._epoch, seq)
        self._remember(namespace, key, _Record(value, metadata, expires_at, version, digest, large), now_ms)
        return Ticket(version, seq)

    def _delete(self, namespace: bytes, key: bytes, now_ms: float | None) -> Ticket:
        current = self._current(namespace, key)
        if current is None:
            return Ticket(Version(self._epoch, self._seq), self._seq)
        seq = self._seq + 1
        self._add(namespace, -int.from_bytes(current.hash, "big"))
        self._sequence(Delete(namespace, key), len(key))
        self._remember(namespace, key, None, now_ms)
        return Ticket(Version(self._epoch, seq), seq)

    def _put_item(self, item: CatalogItem) -> Ticket:
        key, value = catalog.key_of(item), catalog.value_of(item)
        ticket = self._put(PutValue(SYSTEM_NAMESPACE, key, value, b"", 0, 0), None)
        match item:
            case Namespace():
                before = self._namespaces.get(item.id)
                if before is not None:
                    del self._titles[before.title]
                self._namespaces[item.id] = item
                self._titles[item.title] = item.id
            case Token():
                self._tokens[item.id] = item
            case Member() | Cluster():
                pass
            case _:
                assert_never(item)
        return ticket

    def _delete_namespace(self, namespace: bytes) -> Ticket:
        """Its records leave the digest at once; they are erased in the background, invisible."""
        item = self._namespaces.pop(namespace)
        del self._titles[item.title]
        digest = self._digests.pop(namespace, None)
        self._digest -= self._store.namespace_digest(namespace) if digest is None else digest
        for place in [place for place in self._overlay if place[0] == namespace]:
            del self._overlay[place]
        return self._delete(SYSTEM_NAMESPACE, catalog.key_of(item), None)

    def _current(self, namespace: bytes, key: bytes) -> SequencedRecord | None:
        """The last sequenced state of a key, durable or not."""
        place = (namespace, key)
        return self._overlay[place][1] if place in self._overlay else self._store.get(namespace, key)

    def _add(self, namespace: bytes, change: int) -> None:
        if namespace not in self._digests:
            self._digests[namespace] = self._store.namespace_digest(namespace)
        self._digests[namespace] = (self._digests[namespace] + change) % DIGEST_MODULUS
        self._digest += change

    def _sequence(self, entry: Entry, size: int) -> None:
        self._seq += 1
        self._digest %= DIGEST_MODULUS
        self._pending.append(_Sequenced(entry, self._digest, size + ENTRY_OVERHEAD_BYTES))
        self._pending_bytes += size + ENTRY_OVERHEAD_BYTES

    def _remember(self, namespace: bytes, key: bytes, record: _Record | None, now_ms: float | None) -> None:
        place = (namespace, key)
        self._overlay[place] = (self._seq, record)
        self._overlay_order.append((self._seq, place))
        if now_ms is not None and self._limits.write_interval_ms:
            self._written_at[place] = now_ms
            self._written_order.append((now_ms, place))

    def _forget_written(self, now_ms: float) -> None:
        order = self._written_order
        while order and now_ms - order[0][0] >= self._limits.write_interval_ms:
            written_at, place = order.popleft()
            if self._written_at.get(place) == written_at:
                del self._written_at[place]

    # -- committing ------------------------------------------------------------------------------------------

    def cut(self, wall_ms: int) -> Cut:
        """Make frames of everything pending, oldest first; from now on they are only bytes."""
        frames: list[Frame] = []
        start = 0
        while start < len(self._pending):
            size, end = FRAME_OVERHEAD_BYTES, start
            while end < len(self._pending) and (
                end == start or size + self._pending[end].size <= FRAME_BYTES_TARGET
            ):
                size += self._pending[end].size
                end += 1
            taken = self._pending[start:end]
            frame = cut_frame(
                epoch=self._epoch,
                first_seq=self._cut_seq + 1,
                stamp=self._clock.stamp(wall_ms),
                chain_before=self._chain,
                digest_after=taken[-1].digest.to_bytes(16, "big"),
                entries=[sequenced.entry for sequenced in taken],
            )
            self._chain, self._cut_seq = frame.chain_after, frame.last_seq
            frames.append(frame)
            start = end
        self._committing_bytes += self._pending_bytes
        self._pending, self._pending_bytes = [], 0
        requests, self._request_order = self._request_order, []
        stale, self._stale = self._stale, []
        return Cut(frames, requests, stale)

    def committed(self, cut: Cut) -> None:
        """Forget what is now durable: the store tells it from here on."""
        self._opening = None
        for request_id, _, _ in cut.requests:
            self._requests.pop(request_id, None)
        durable = self._store.position.seq
        self._committing_bytes = 0
        order = self._overlay_order
        while order and order[0][0] <= durable:
            _, place = order.popleft()
            if place in self._overlay and self._overlay[place][0] <= durable:
                del self._overlay[place]

    def rejected(self) -> None:
        """Stand where the store stands again: nothing since its position was acknowledged or sent."""
        self._reload()
        if self._opening is not None:
            self.open_epoch(*self._opening)

    def clock_ahead_ms(self, wall_ms: int) -> int:
        """How far our stamps are ahead of the wall; above clock.SKEW_ALARM_MS the wall was set back."""
        return self._clock.ahead_ms(wall_ms)


def _absolute(operation: Operation, wall_ms: int) -> Operation:
    """The same, with a relative time to live made absolute."""
    if isinstance(operation, (PutValue, PutLargeValue)) and operation.ttl_s:
        return operation._replace(expires_at=wall_ms // 1000 + operation.ttl_s, ttl_s=0)
    return operation


def _value_bytes(operation: PutValue | PutLargeValue | DeleteValue) -> int:
    match operation:
        case PutValue():
            return len(operation.value)
        case PutLargeValue():
            return Manifest.unpack(operation.manifest).size
        case DeleteValue():
            return 0


def _is_same(current: SequencedRecord, operation: PutValue | PutLargeValue) -> bool:
    """Whether a write says what is the case already."""
    large = isinstance(operation, PutLargeValue)
    return (
        current.large is large
        and current.value == operation[2]
        and current.metadata == operation.metadata
        and current.expires_at == operation.expires_at
    )


def _administers(token: Token) -> bool:
    """Whether this token can create others, as long as the cluster stands."""
    return token.scope is Scope.ADMIN and not token.expires_at


def _taken(op: str) -> RequestError:
    return RequestError(400, 10014, f"{op}: 'a namespace with this account ID and title already exists'")
