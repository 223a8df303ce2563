"""What a journal adds up to, in the simplest words there are; and a coordinator that writes journals with it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, assert_never

from kvnet.core.catalog import NAMESPACE_PREFIX, CatalogItem, Namespace, Token, read_item
from kvnet.core.entries import DIGEST_MODULUS, SYSTEM_NAMESPACE, Delete, Epoch, Put, record_hash
from kvnet.core.frames import Frame
from kvnet.core.operations import CreateNamespace, DeleteNamespace, DeleteValue, Operation, PutValue
from kvnet.core.versions import GENESIS, Position, Version
from kvnet.core.writer import Writer
from kvnet.limits import Limits
from kvnet.storage.store import Store
from tests.support.stores import fields_of

Place = tuple[bytes, bytes]
"""Namespace and key."""
WALL_MS = 1_700_000_000_000


class Held(NamedTuple):
    """As a StoredRecord, to which it compares."""

    value: bytes
    metadata: bytes
    expires_at: int
    epoch: int
    seq: int
    hash: bytes
    large: bool = False

    @property
    def version(self) -> Version:
        return Version(self.epoch, self.seq)


class Fold:
    """A dict that the frames of one history were folded into, oldest first.

    It is the state a `Writer` reads (writer.StatePort) as well, so a history needs no disk to be written.
    """

    def __init__(self, frames: Iterable[Frame] = ()) -> None:
        self.records: dict[Place, Held] = {}
        self.position: Position = GENESIS
        self.stamp = 0
        for frame in frames:
            self.take(frame)

    def take(self, frame: Frame) -> None:
        for seq, entry in enumerate(frame.entries(), frame.first_seq):
            match entry:
                case Put(namespace, key, value, metadata, expires_at, _):
                    version = Version(frame.epoch, seq)
                    digest = record_hash(namespace, key, value, metadata, expires_at, *version)
                    self.records[namespace, key] = Held(value, metadata, expires_at, *version, digest)
                case Delete(namespace, key):
                    self.records.pop((namespace, key), None)
                    for place in [place for place in self.records if place[0] == namespace_of(entry)]:
                        del self.records[place]
                case Epoch():
                    pass
                case _:
                    assert_never(entry)
        self.position, self.stamp = frame.position, frame.stamp

    @property
    def digest(self) -> int:
        return sum(int.from_bytes(held.hash, "big") for held in self.records.values()) % DIGEST_MODULUS

    @property
    def namespaces(self) -> Mapping[bytes, Namespace]:
        return {item.id: item for item in self._items() if isinstance(item, Namespace)}

    @property
    def tokens(self) -> Mapping[bytes, Token]:
        return {item.hash: item for item in self._items() if isinstance(item, Token)}

    def _items(self) -> list[CatalogItem]:
        return [read_item(key, held.value) for (ns, key), held in self.records.items() if ns == SYSTEM_NAMESPACE]

    def namespace_digest(self, namespace: bytes) -> int:
        hashes = [held.hash for (ns, _), held in self.records.items() if ns == namespace]
        return sum(int.from_bytes(each, "big") for each in hashes) % DIGEST_MODULUS

    def get(self, namespace: bytes, key: bytes) -> Held | None:
        return self.records.get((namespace, key))

    def request_outcome(self, request_id: bytes) -> None:
        del request_id


def namespace_of(entry: Delete) -> bytes | None:
    """The namespace that goes with this catalogue record; None if it is any other."""
    if entry.namespace != SYSTEM_NAMESPACE or not entry.key.startswith(NAMESPACE_PREFIX):
        return None
    return bytes.fromhex(entry.key.removeprefix(NAMESPACE_PREFIX).decode())


def last_writes(frames: Iterable[Frame]) -> dict[Place, bytes | None]:
    """Return what the highest version says of every key ever written: its value, or None for deleted.

    The frames may come in any order. The second opinion beside `Fold`: it knows versions and nothing of order.
    """
    writes: dict[Place, tuple[int, bytes | None]] = {}
    removed: dict[bytes, int] = {}
    for frame in frames:
        for seq, entry in enumerate(frame.entries(), frame.first_seq):
            if isinstance(entry, Put | Delete):
                place = entry.namespace, entry.key
                value = entry.value if isinstance(entry, Put) else None
                writes[place] = max(writes.get(place, (0, None)), (seq, value), key=lambda write: write[0])
            if isinstance(entry, Delete) and (namespace := namespace_of(entry)) is not None:
                removed[namespace] = max(removed.get(namespace, 0), seq)
    return {place: None if seq < removed.get(place[0], 0) else value for place, (seq, value) in writes.items()}


class Author:
    """A coordinator without disk and network: a real writer over a fold, and every frame it cut."""

    def __init__(self, frames: Sequence[Frame] = ()) -> None:
        """Write on where `frames` end, as a coordinator does that was started from a disk with them."""
        self.frames = list(frames)
        self.fold = Fold(frames)
        self.writer = Writer(self.fold, Limits(write_interval_ms=0))
        self._wall_ms = WALL_MS

    @property
    def ends(self) -> dict[Position, int]:
        """Every position of this history, and how many frames lead there."""
        return {GENESIS: 0} | {frame.position: count for count, frame in enumerate(self.frames, 1)}

    @property
    def head(self) -> Position:
        return self.fold.position

    def open_epoch(self, epoch: int, mark: int = 0) -> None:
        """Begin an epoch; another `mark` begins another history."""
        self.writer.open_epoch(epoch, mark.to_bytes(16, "big"))
        self.cut()

    def create_namespace(self, mark: int) -> bytes:
        """Return the id of a new namespace, a different one for each `mark`."""
        namespace = mark.to_bytes(16, "big")
        self.write(CreateNamespace(namespace, f"title {mark}"))
        return namespace

    def delete_namespace(self, namespace: bytes) -> None:
        self.write(DeleteNamespace(namespace))

    def put(self, namespace: bytes, key: bytes, value: bytes) -> None:
        self.write(PutValue(namespace, key, value, b"", 0, 0))

    def delete(self, namespace: bytes, key: bytes) -> None:
        self.write(DeleteValue(namespace, key))

    def write(self, operation: Operation) -> None:
        self._wall_ms += 1
        self.writer.submit([operation], None, 0.0, self._wall_ms)

    def cut(self) -> list[Frame]:
        """Return the frames of everything written since the last cut; none if that changed nothing."""
        cut = self.writer.cut(self._wall_ms)
        for frame in cut.frames:
            self.fold.take(frame)
            assert self.fold.digest == int.from_bytes(frame.digest_after, "big"), "the writer's digest is wrong"
        self.writer.committed(cut)
        self.frames += cut.frames
        return cut.frames


def assert_store_is(store: Store, fold: Fold) -> None:
    """The store stands where the fold stands and its readers see that and nothing else."""
    assert store.position == fold.position
    assert store.digest == fold.digest
    assert set(store.namespaces) == set(fold.namespaces)
    for namespace in (SYSTEM_NAMESPACE, *fold.namespaces):
        keys = sorted(key for ns, key in fold.records if ns == namespace)
        listed, more = store.list_keys(namespace, b"", None, len(keys) + 1, now_s=0)
        assert ([each.key for each in listed], more) == (keys, False)
    for place, held in fold.records.items():
        assert fields_of(store.get(*place)) == held
