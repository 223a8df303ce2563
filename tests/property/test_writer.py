"""What the writer sequences is what a real store becomes: every frame is applied and its digest compared."""

from __future__ import annotations

import copy
import shutil
import tempfile
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from kvnet.core.frames import FRAME_BYTES_TARGET
from kvnet.core.operations import CreateNamespace, DeleteNamespace, DeleteValue, PutValue, RenameNamespace
from kvnet.core.versions import Version
from kvnet.core.writer import Cut, Ticket, Writer
from kvnet.errors import RequestError
from kvnet.limits import Limits
from tests.support.stores import open_store

LIMITS = Limits(write_interval_ms=0, value_bytes_max=200_000)
WALL_MS = 1_700_000_000_000
KEYS = st.sampled_from([b"a", b"b", b"c", b"longer than a slice" * 30])
SIZES = st.sampled_from([0, 1, 2, 100_000])
PICK = st.integers(0, 99)
NOBODYS = b"nobody's-idxxxxx"


class Held(NamedTuple):
    value: bytes
    metadata: bytes
    expires_at: int
    version: Version


class Model(NamedTuple):
    """What a reader sees, and which requests are answered without being done again."""

    records: dict[bytes, dict[bytes, Held]]
    titles: dict[bytes, str]
    requests: dict[bytes, Version]


class WriterLeadsAStore(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.store = open_store(self.folder, tracks_expiries=True)
        self.epoch = 0
        self.now = 0
        self.made = 0
        self.stamp = 0
        self.model = Model({}, {}, {})
        self.durable = copy.deepcopy(self.model)
        self.cut: tuple[Cut, Model] | None = None

    @initialize()
    def begin(self) -> None:
        self.open()
        self.create(b"request-of-the-first")

    def open(self) -> None:
        self.epoch += 1
        self.writer = Writer(self.store, LIMITS)
        self.writer.open_epoch(self.epoch, self.epoch.to_bytes(16, "big"))

    @property
    def wall_ms(self) -> int:
        return WALL_MS + self.now

    def submit(self, *operations: object, request_id: bytes | None = None) -> Ticket:
        ticket = self.writer.submit(operations, request_id, float(self.now), self.wall_ms)
        if request_id is not None:
            self.model.requests[request_id] = ticket.version
        return ticket

    def pick_namespace(self, pick: int) -> bytes | None:
        namespaces = list(self.model.records)
        return namespaces[pick % len(namespaces)] if namespaces else None

    def expect_put(self, namespace: bytes, key: bytes, held: Held) -> None:
        before = self.model.records[namespace].get(key)
        if before is not None and before[:3] == held[:3]:
            held = before
        self.model.records[namespace][key] = held

    # -- writes

    @rule(pick=PICK, key=KEYS, size=SIZES, metadata=st.sampled_from([b"", b"{}"]), at=st.sampled_from([0, 9]))
    def put(self, pick: int, key: bytes, size: int, metadata: bytes, at: int) -> None:
        value = bytes(size)
        namespace = self.pick_namespace(pick)
        if namespace is None:
            return
        before = self.model.records[namespace].get(key)
        ticket = self.submit(PutValue(namespace, key, value, metadata, at, 0))
        if before is not None and before[:3] == (value, metadata, at):
            assert ticket.version == before.version, "what changes nothing isn't written"
            assert ticket.durable_at == before.version.seq
        else:
            assert ticket.version.seq == ticket.durable_at
            self.model.records[namespace][key] = Held(value, metadata, at, ticket.version)

    @rule(pick=PICK, key=KEYS, ttl_s=st.sampled_from([60, 61]))
    def put_for_a_while(self, pick: int, key: bytes, ttl_s: int) -> None:
        namespace = self.pick_namespace(pick)
        if namespace is not None:
            ticket = self.submit(PutValue(namespace, key, b"x", b"", 5, ttl_s))
            self.expect_put(namespace, key, Held(b"x", b"", self.wall_ms // 1000 + ttl_s, ticket.version))

    @rule(pick=PICK, key=KEYS)
    def delete(self, pick: int, key: bytes) -> None:
        namespace = self.pick_namespace(pick)
        if namespace is not None:
            self.submit(DeleteValue(namespace, key))
            self.model.records[namespace].pop(key, None)

    @rule(pick=PICK, sizes=st.lists(st.tuples(KEYS, SIZES), min_size=1, max_size=4), spoilt=st.booleans())
    def put_several(self, pick: int, sizes: list[tuple[bytes, int]], *, spoilt: bool) -> None:
        namespace = self.pick_namespace(pick)
        if namespace is None:
            return
        operations = [PutValue(namespace, key, bytes(size), b"", 0, 0) for key, size in sizes]
        if spoilt:
            with pytest.raises(RequestError):
                self.submit(*operations, DeleteValue(NOBODYS, b"key"))
            return
        seq = self.writer._seq
        ticket = self.submit(*operations)
        for operation in operations:
            before = self.model.records[namespace].get(operation.key)
            if before is None or before[:3] != (operation.value, b"", 0):
                seq += 1
                held = Held(operation.value, b"", 0, Version(self.epoch, seq))
                self.model.records[namespace][operation.key] = held
        assert seq == self.writer._seq
        assert ticket.version == max(self.model.records[namespace][o.key].version for o in operations)

    @rule(pick=PICK, key=KEYS, size=SIZES)
    def retry_a_request(self, pick: int, key: bytes, size: int) -> None:
        requests = list(self.model.requests)
        namespace = self.pick_namespace(pick)
        if namespace is None or not requests:
            return
        request_id = requests[pick % len(requests)]
        ticket = self.submit(PutValue(namespace, key, bytes(size), b"", 0, 0), request_id=request_id)
        assert ticket.version == self.model.requests[request_id], "answered, not done again"

    @rule(request_id=st.binary(min_size=1, max_size=4))
    def create(self, request_id: bytes) -> None:
        if request_id in self.model.requests:
            return
        self.made += 1
        namespace = self.made.to_bytes(16, "big")
        title = f"title {self.made}"
        if title in self.model.titles.values():  # an earlier namespace was renamed so
            with pytest.raises(RequestError):
                self.submit(CreateNamespace(namespace, title), request_id=request_id)
            return
        self.submit(CreateNamespace(namespace, title), request_id=request_id)
        self.model.records[namespace] = {}
        self.model.titles[namespace] = title

    @rule(pick=PICK)
    def create_again(self, pick: int) -> None:
        """An id of a deleted namespace is free as soon as the deletion is durable."""
        made = [number.to_bytes(16, "big") for number in range(1, self.made + 1)]
        free = [namespace for namespace in made if namespace not in self.model.records]
        title = f"again {pick}"
        if not free or title in self.model.titles.values():
            return
        namespace = free[pick % len(free)]
        if namespace in self.store.namespaces:
            with pytest.raises(RequestError):
                self.submit(CreateNamespace(namespace, title))
            return
        self.submit(CreateNamespace(namespace, title))
        self.model.records[namespace] = {}
        self.model.titles[namespace] = title

    @rule(pick=PICK, to=PICK)
    def rename(self, pick: int, to: int) -> None:
        namespace = self.pick_namespace(pick)
        if namespace is None:
            return
        title = f"title {to}"
        if self.model.titles.get(namespace) != title and title in self.model.titles.values():
            with pytest.raises(RequestError):
                self.submit(RenameNamespace(namespace, title))
            return
        self.submit(RenameNamespace(namespace, title))
        self.model.titles[namespace] = title

    @rule(pick=PICK)
    def delete_namespace(self, pick: int) -> None:
        namespace = self.pick_namespace(pick)
        if namespace is not None:
            self.submit(DeleteNamespace(namespace))
            del self.model.records[namespace], self.model.titles[namespace]
            with pytest.raises(RequestError):
                self.submit(PutValue(namespace, b"a", b"", b"", 0, 0))

    @rule(later=st.booleans(), limit=st.integers(1, 5))
    def expire(self, limit: int, *, later: bool) -> None:
        now_s = self.wall_ms // 1000 + 100 if later else 9
        rows = self.store.due(now_s, limit)
        self.writer.expire(rows, now_s)
        for row in rows:
            records = self.model.records.get(row.namespace, {})
            if row.key in records and records[row.key].expires_at == row.expires_at:
                del records[row.key]

    # -- commits

    @precondition(lambda self: self.cut is None)
    @rule()
    def begin_commit(self) -> None:
        if not self.writer.has_pending:
            return
        cut = self.writer.cut(self.wall_ms)
        for frame in cut.frames:
            assert len(frame.data) <= FRAME_BYTES_TARGET or frame.first_seq == frame.last_seq
            assert frame.stamp > self.stamp
            self.stamp = frame.stamp
        self.cut = cut, copy.deepcopy(self.model)

    @precondition(lambda self: self.cut is not None)
    @rule()
    def end_commit(self) -> None:
        cut, self.durable = self.cut
        self.cut = None
        self.store.apply(cut.frames, cut.requests, cut.stale)
        self.writer.committed(cut)
        self.compare()

    @precondition(lambda self: self.cut is not None)
    @rule()
    def reject_commit(self) -> None:
        self.cut = None
        self.writer.rejected()
        self.model = copy.deepcopy(self.durable)
        self.compare()

    @rule(clean=st.booleans())
    def reopen(self, *, clean: bool) -> None:
        self.cut = None
        self.store.close(clean=clean)
        self.store = open_store(self.folder, tracks_expiries=True)
        self.model = copy.deepcopy(self.durable)
        self.epoch = self.store.position.epoch
        self.stamp = self.store.stamp
        self.open()
        self.compare()

    @rule(ms=st.integers(-1000, 1000))
    def let_time_pass(self, ms: int) -> None:
        self.now += ms

    def compare(self) -> None:
        records, titles, requests = self.durable
        assert {id_: item.title for id_, item in self.store.namespaces.items()} == titles
        indexed = {(row.namespace, row.key, row.expires_at) for row in self.store.due(1 << 62, 1000)}
        for namespace, held in records.items():
            assert {(namespace, key, each.expires_at) for key, each in held.items() if each.expires_at} <= indexed
            listed, _ = self.store.list_keys(namespace, b"", None, 100, now_s=0)
            assert {key.key for key in listed} == set(held)
            for key, expected in held.items():
                found = self.store.get(namespace, key)
                assert (found.value, found.metadata, found.expires_at, found.version) == expected
        for request_id, version in requests.items():
            assert self.store.request_outcome(request_id) == version

    def teardown(self) -> None:
        if self.cut is not None:
            self.end_commit()
        self.begin_commit()
        if self.cut is not None:
            self.end_commit()
        assert self.store.recompute().good
        self.store.close()
        shutil.rmtree(self.folder)


TestWriterLeadsAStore = WriterLeadsAStore.TestCase
TestWriterLeadsAStore.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
