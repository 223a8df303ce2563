"""The writer, rule by rule; that a store becomes what it says is proven by tests/property/test_writer.py."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest

from kvnet.core.catalog import Cluster, Member
from kvnet.core.clock import stamp_ms
from kvnet.core.entries import SYSTEM_NAMESPACE, Delete, Epoch, Put, PutLarge
from kvnet.core.frames import FRAME_BYTES_TARGET
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
from kvnet.core.writer import PENDING_BYTES_MAX, Cut, Ticket, Writer
from kvnet.errors import RequestError
from kvnet.limits import Limits, profile
from kvnet.storage.store import Store
from tests.support.large import large_value, named
from tests.support.stores import open_store

WALL_MS = 1_700_000_000_000
NAMESPACE = b"n" * 16
FOUNDING = [Cluster("a" * 32, b"c" * 16, WALL_MS), Member("fra", WALL_MS)]


class Desk:
    """A writer and its store, with a clock that the test sets."""

    def __init__(self, folder: Path, limits: Limits | None = None) -> None:
        self.store: Store = open_store(folder)
        self.limits = limits or Limits()
        self.writer = Writer(self.store, self.limits)
        self.now = 10_000.0
        self.writer.open_epoch(1, b"e" * 16, FOUNDING)
        self.write(CreateNamespace(NAMESPACE, "n"))
        self.commit()

    def write(self, *operations: Operation, request_id: bytes | None = None) -> Ticket:
        return self.writer.submit(operations, request_id, self.now, WALL_MS + int(self.now))

    def refused(self, operation: Operation) -> tuple[int, int]:
        """Return (status, code) of what refuses this."""
        with pytest.raises(RequestError) as raised:
            self.write(operation)
        return raised.value.status, raised.value.code

    def put(self, key: bytes, value: bytes = b"v", **more: int) -> Ticket:
        return self.write(put(key, value, **more))

    def commit(self) -> Cut:
        cut = self.writer.cut(WALL_MS + int(self.now))
        self.store.apply(cut.frames, cut.requests)
        self.writer.committed(cut)
        return cut


def put(key: bytes, value: bytes = b"v", *, expires_at: int = 0, ttl_s: int = 0) -> PutValue:
    return PutValue(NAMESPACE, key, value, b"", expires_at, ttl_s)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def refusal(desk: Desk, *operations: Operation) -> RequestError:
    seq = desk.writer._seq
    with pytest.raises(RequestError) as raised:
        desk.write(*operations)
    assert desk.writer._seq == seq, "refused and yet sequenced"
    return raised.value


# -- epochs


def test_an_epoch_begins_with_its_entry_and_a_new_clusters_records(desk: Desk) -> None:
    [first, *_] = desk.store.frames_after(0, 1 << 20)
    kinds = [type(entry) for entry in first.entries()]
    assert kinds[:3] == [Epoch, Put, Put]
    assert desk.store.cluster == FOUNDING[0]


def test_a_rejected_epoch_is_offered_again_before_anything_else(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    writer = Writer(store, Limits())
    writer.open_epoch(1, b"e" * 16, FOUNDING)
    rejected = writer.cut(WALL_MS)
    writer.rejected()
    again = writer.cut(WALL_MS)
    assert again.frames[0].entries() == rejected.frames[0].entries()
    assert again.frames[0].stamp > rejected.frames[0].stamp, "the clock doesn't go back"
    store.apply(again.frames)
    assert store.cluster == FOUNDING[0]


# -- writes that change nothing


def test_an_equal_put_is_answered_with_the_version_that_stands(desk: Desk) -> None:
    first = desk.put(b"k")
    assert desk.put(b"k") == first, "pending"
    cut = desk.writer.cut(WALL_MS)
    assert desk.put(b"k") == first, "on its way to the disk"
    desk.store.apply(cut.frames)
    desk.writer.committed(cut)
    assert desk.put(b"k") == first, "durable"
    assert not desk.writer.has_pending


def test_deleting_nothing_writes_nothing(desk: Desk) -> None:
    desk.put(b"k")
    version = desk.put(b"k2").version
    assert desk.write(DeleteValue(NAMESPACE, b"other")) == Ticket(version, version.seq), (
        "what stands, once durable"
    )
    assert len(desk.commit().frames[0].entries()) == 2


# -- one write a second


def test_a_second_write_within_a_second_is_refused(desk: Desk) -> None:
    desk.put(b"k")
    desk.now += 999
    error = refusal(desk, put(b"k", b"other"))
    assert (error.status, error.headers) == (429, {"Retry-After": "1"})
    refusal(desk, DeleteValue(NAMESPACE, b"k"))
    desk.put(b"another key")
    desk.now += 1
    desk.put(b"k", b"other")


def test_what_changes_nothing_is_accepted_and_does_not_count(desk: Desk) -> None:
    desk.put(b"k")
    desk.now += 900
    desk.put(b"k")
    desk.now += 100
    desk.put(b"k", b"other")
    desk.write(DeleteValue(NAMESPACE, b"nothing"))
    desk.put(b"nothing")


def test_a_relative_time_to_live_that_comes_to_the_same_second_changes_nothing(desk: Desk) -> None:
    first = desk.put(b"k", ttl_s=60)
    assert desk.put(b"k", ttl_s=60) == first
    desk.commit()
    assert desk.store.get(NAMESPACE, b"k").expires_at == (WALL_MS + int(desk.now)) // 1000 + 60
    desk.now += 1000
    assert desk.put(b"k", ttl_s=60).version > first.version


def test_a_time_to_live_outranks_an_expiration(desk: Desk) -> None:
    desk.put(b"k", expires_at=5, ttl_s=60)
    desk.commit()
    assert desk.store.get(NAMESPACE, b"k").expires_at == (WALL_MS + int(desk.now)) // 1000 + 60


def test_a_batch_with_one_key_too_early_is_refused_whole(desk: Desk) -> None:
    desk.put(b"k")
    refusal(desk, put(b"a"), put(b"k", b"other"), put(b"b"))
    assert desk.put(b"a")


def test_in_a_batch_the_last_of_two_for_one_key_wins(desk: Desk) -> None:
    desk.write(put(b"k", b"1"), put(b"k", b"2"))
    desk.commit()
    assert desk.store.get(NAMESPACE, b"k").value == b"2"


def test_the_limit_can_be_off_and_forgets_what_it_no_longer_needs(tmp_path: Path) -> None:
    free = Desk(tmp_path / "free", Limits(write_interval_ms=0))
    free.put(b"k")
    free.put(b"k", b"other")
    desk = Desk(tmp_path / "bound")
    for number in range(100):
        desk.put(b"%d" % number)
    desk.now += 1000
    desk.put(b"k")
    assert len(desk.writer._written_at) == len(desk.writer._written_order) == 1


# -- refusals


@pytest.mark.parametrize(
    ("operation", "status", "code"),
    [
        (PutValue(b"x" * 16, b"k", b"", b"", 0, 0), 404, 10013),
        (DeleteValue(b"x" * 16, b"k"), 404, 10013),
        (PutValue(SYSTEM_NAMESPACE, b"cluster", b"", b"", 0, 0), 404, 10013),
        (put(b""), 414, 10001),
        (put(b"k" * 2049), 414, 10001),
        (put(b"k", bytes(65_537)), 413, 10001),
        (CreateNamespace(b"m" * 16, "n"), 400, 10014),
        (CreateNamespace(NAMESPACE, "m"), 400, 20033),
        (CreateNamespace(SYSTEM_NAMESPACE, "m"), 400, 20033),
        (RenameNamespace(b"m" * 16, "m"), 404, 10013),
        (DeleteNamespace(b"m" * 16), 404, 10013),
    ],
)
def test_these_are_refused(desk: Desk, operation: Operation, status: int, code: int) -> None:
    error = refusal(desk, operation)
    assert (error.status, error.code) == (status, code)


def test_only_values_come_several_at_once(desk: Desk) -> None:
    """Each operation is checked before the first is applied: a namespace deleted and then written in one batch
    would have made every replica diverge.
    """
    refusal(desk, DeleteNamespace(NAMESPACE), put(b"k"))
    refusal(desk, CreateNamespace(b"m" * 16, "m"), CreateNamespace(b"o" * 16, "m"))
    refusal(desk)


def test_writers_are_told_when_the_disk_is_behind(desk: Desk) -> None:
    value = bytes(65_536)
    for number in range(PENDING_BYTES_MAX // len(value)):  # each counts a little more than its value
        desk.put(b"%d" % number, value)
        if desk.writer.pending_bytes > PENDING_BYTES_MAX:
            break
    assert refusal(desk, put(b"k")).status == 503
    cut = desk.writer.cut(WALL_MS)
    assert refusal(desk, put(b"k")).status == 503, "what is on its way to the disk counts too"
    desk.writer.committed(cut)
    desk.put(b"k")


# -- requests


def test_a_retried_request_is_answered_and_not_repeated(desk: Desk) -> None:
    first = desk.write(put(b"k"), request_id=b"r")
    assert desk.write(put(b"k", b"other"), request_id=b"r") == first
    cut = desk.writer.cut(WALL_MS)
    assert desk.write(put(b"k", b"other"), request_id=b"r") == first
    desk.store.apply(cut.frames, cut.requests)
    desk.writer.committed(cut)
    assert desk.write(put(b"k", b"other"), request_id=b"r") == Ticket(first.version, 0)
    assert not desk.writer.has_pending
    restarted = Writer(desk.store, desk.limits)
    assert restarted.submit([put(b"k", b"other")], b"r", 0.0, WALL_MS) == Ticket(first.version, 0)


def test_a_request_that_changes_nothing_is_remembered_too(desk: Desk) -> None:
    first = desk.put(b"k")
    desk.commit()
    assert desk.write(put(b"k"), request_id=b"r") == first
    assert desk.commit().frames == []
    desk.now += 2000
    desk.put(b"k", b"other")
    assert desk.write(put(b"k"), request_id=b"r").version == first.version


def test_a_rejected_request_is_done_when_it_comes_again(desk: Desk) -> None:
    first = desk.write(put(b"k"), request_id=b"r")
    desk.writer.cut(WALL_MS)
    desk.writer.rejected()
    assert not desk.writer.has_pending
    assert desk.write(put(b"k"), request_id=b"r") == first, "its seq is given out again: nobody saw it"
    desk.commit()
    assert desk.store.get(NAMESPACE, b"k").version == first.version


# -- tokens and frames


def token(
    name: str, scope: str = "read", *, namespaces: tuple[bytes, ...] = (), expires_at: int = 0
) -> CreateToken:
    return CreateToken(name, name, scope, name.encode() * 4, namespaces, expires_at)


def test_tokens_come_change_their_secret_and_go(desk: Desk) -> None:
    desk.write(token("root", "admin"))
    desk.write(token("t", namespaces=(NAMESPACE,), expires_at=2_000_000_000))
    desk.commit()
    made = desk.store.tokens[b"tttt"]
    assert (made.name, made.scope, made.namespaces, made.expires_at) == ("t", "read", (NAMESPACE,), 2_000_000_000)
    assert made.created_ms > 0
    desk.write(RollToken("t", b"new"))
    desk.commit()
    assert set(desk.store.tokens) == {b"root" * 4, b"new"}
    assert desk.store.tokens[b"new"] == replace(made, hash=b"new")
    desk.write(RevokeToken("t"))
    desk.commit()
    assert set(desk.store.tokens) == {b"root" * 4}


def test_a_token_that_is_not_there_can_not_be_rolled_or_revoked(desk: Desk) -> None:
    desk.write(token("root", "admin"))
    desk.write(token("t"))
    desk.write(RevokeToken("t"))  # pending still
    for operation in (RevokeToken("t"), RollToken("t", b"new"), RevokeToken("unknown")):
        assert desk.refused(operation) == (404, 20030)


def test_a_token_is_not_made_twice(desk: Desk) -> None:
    desk.write(token("t"))
    assert desk.refused(token("t")._replace(hash=b"other", scope="admin")) == (400, 20032)


def test_a_token_for_a_namespace_that_is_not_there_is_refused(desk: Desk) -> None:
    assert desk.refused(token("t", namespaces=(NAMESPACE, b"?" * 16))) == (404, 10013)


def test_the_last_that_may_administer_for_ever_stays(desk: Desk) -> None:
    desk.write(token("one", "admin"))
    desk.write(token("writer", "write"))
    desk.write(token("later", "admin", expires_at=2_000_000_000))
    assert desk.refused(RevokeToken("one")) == (400, 20031)
    assert desk.refused(RollToken("one", b"new")) == (400, 20031)
    desk.write(token("two", "admin"))
    desk.write(RevokeToken("one"))
    assert desk.refused(RevokeToken("two")) == (400, 20031)
    desk.write(RevokeToken("writer"))
    desk.commit()
    assert {each.name for each in desk.store.tokens.values()} == {"later", "two"}


def test_frames_are_cut_at_64_kib_and_a_larger_entry_stands_alone(tmp_path: Path) -> None:
    desk = Desk(tmp_path, Limits(value_bytes_max=1 << 20))
    sizes = [100, 30_000, 30_000, 30_000, 200_000, 100, 100]
    for number, size in enumerate(sizes):
        desk.put(b"%d" % number, bytes(size))
    frames = desk.commit().frames
    assert [len(frame.entries()) for frame in frames] == [3, 1, 1, 2]
    assert all(len(frame.data) <= FRAME_BYTES_TARGET or len(frame.entries()) == 1 for frame in frames)
    assert [frame.first_seq for frame in frames[1:]] == [frame.last_seq + 1 for frame in frames[:-1]]


def test_a_frame_of_many_small_entries_is_64_kib_at_most(desk: Desk) -> None:
    for number in range(3000):
        desk.put(b"%d" % number, b"")
    frames = desk.commit().frames
    assert len(frames) > 1
    assert max(len(frame.data) for frame in frames) <= FRAME_BYTES_TARGET


def test_stamps_do_not_go_back_with_the_wall_or_a_restart(desk: Desk) -> None:
    before = desk.store.stamp
    desk.now -= 5000
    desk.put(b"k")
    [frame] = desk.commit().frames
    assert frame.stamp == before + 1
    assert desk.writer.clock_ahead_ms(WALL_MS + int(desk.now)) == 5000
    restarted = Writer(desk.store, desk.limits)
    restarted.open_epoch(2, b"f" * 16)
    assert restarted.cut(0).frames[0].stamp > frame.stamp
    assert stamp_ms(frame.stamp) == WALL_MS + 10_000


# Large values: what is compared, stored and hashed of them is their manifest.

VALUE = large_value(2, last=1000)


def put_large(*, expires_at: int = 0, ttl_s: int = 0) -> PutLargeValue:
    return PutLargeValue(NAMESPACE, b"k", VALUE.manifest.pack(), b"", expires_at, ttl_s, [])


@pytest.fixture
def large_desk(tmp_path: Path) -> Desk:
    desk = Desk(tmp_path, replace(profile("workers-kv"), write_interval_ms=0))
    desk.store.put_chunks(named(VALUE))
    return desk


def check(desk: Desk, operation: PutLargeValue, request_id: bytes | None = None) -> Ticket | None:
    return desk.writer.check(operation, request_id, desk.now, WALL_MS + int(desk.now))


def test_a_large_value_becomes_a_small_entry_that_names_its_chunks(large_desk: Desk) -> None:
    assert check(large_desk, put_large()) is None
    ticket = large_desk.write(put_large(ttl_s=60))
    [entry] = large_desk.commit().frames[0].entries()
    assert isinstance(entry, PutLarge)
    stored = large_desk.store.get(NAMESPACE, b"k")
    assert (stored.version, stored.large, stored.value) == (ticket.version, True, VALUE.manifest.pack())
    assert stored.expires_at == (WALL_MS + int(large_desk.now)) // 1000 + 60


def test_the_check_answers_a_large_value_that_changes_nothing_whether_it_is_durable_or_not(
    large_desk: Desk,
) -> None:
    ticket = large_desk.write(put_large())
    assert check(large_desk, put_large()) == ticket
    large_desk.commit()
    assert check(large_desk, put_large()) == ticket
    assert large_desk.write(put_large()) == ticket
    assert check(large_desk, put_large(expires_at=9)) is None


def test_the_check_knows_requests_and_sequences_nothing(large_desk: Desk) -> None:
    assert check(large_desk, put_large(), b"id") is None
    assert not large_desk.writer.has_pending
    ticket = large_desk.write(put_large(), request_id=b"id")
    large_desk.write(put(b"k"))
    assert check(large_desk, put_large(), b"id") == ticket


def test_bytes_that_look_like_a_manifest_are_another_value_than_what_it_names(large_desk: Desk) -> None:
    first = large_desk.write(put_large())
    second = large_desk.put(b"k", VALUE.manifest.pack())
    third = large_desk.write(put_large())
    assert first.version < second.version < third.version
    large_desk.commit()
    assert large_desk.store.recompute().good


def test_a_large_value_one_byte_over_is_refused_by_the_size_in_its_manifest(large_desk: Desk) -> None:
    over = Manifest(26_214_401, (bytes(32),) * 101).pack()
    error = refusal(large_desk, put_large()._replace(manifest=over))
    assert (error.status, error.message) == (413, "Value length of 26214401 exceeds limit of 26214400.")


def test_a_large_value_is_one_write_of_its_key(tmp_path: Path) -> None:
    desk = Desk(tmp_path, profile("workers-kv"))
    desk.write(put_large())
    assert refusal(desk, put_large(expires_at=9)).status == 429
    with pytest.raises(RequestError):
        check(desk, put_large(expires_at=9))


# -- expiry


class Row(NamedTuple):
    expires_at: int
    namespace: bytes
    key: bytes


def rows(*keys: bytes, expires_at: int = 100) -> list[Row]:
    return [Row(expires_at, NAMESPACE, key) for key in keys]


def removals(cut: Cut) -> list[bytes]:
    return [entry.key for frame in cut.frames for entry in frame.entries() if isinstance(entry, Delete)]


@pytest.mark.parametrize("durable", [True, False])
def test_what_has_expired_is_removed_in_its_second_and_not_before(desk: Desk, *, durable: bool) -> None:
    desk.put(b"k", expires_at=100)
    if durable:
        desk.commit()
    desk.writer.expire(rows(b"k"), 99.999)
    cut = desk.writer.cut(WALL_MS)
    assert removals(cut) == []
    if cut.frames:
        desk.store.apply(cut.frames)
    desk.writer.committed(cut)
    desk.writer.expire(rows(b"k"), 100)
    assert removals(desk.commit()) == [b"k"]
    assert desk.store.get(NAMESPACE, b"k") is None


def test_a_record_that_was_written_again_is_not_removed_though_its_row_was_due(desk: Desk) -> None:
    for key in (b"longer", b"for ever", b"deleted", b"kept"):
        desk.put(key, expires_at=100)
    desk.commit()
    desk.now += 2000
    desk.put(b"longer", expires_at=101)
    desk.put(b"for ever")
    desk.write(DeleteValue(NAMESPACE, b"deleted"))
    due = rows(b"longer", b"for ever", b"deleted", b"kept", b"never there")
    desk.writer.expire(due, 1000)
    cut = desk.writer.cut(WALL_MS)
    assert removals(cut) == [b"deleted", b"kept"], "the client's and ours"
    assert [row.key for row in cut.stale] == [b"longer", b"for ever", b"deleted", b"never there"]


def test_rows_of_a_deleted_namespace_are_stale_also_before_that_is_durable(desk: Desk) -> None:
    desk.put(b"k", expires_at=100)
    desk.commit()
    desk.write(DeleteNamespace(NAMESPACE))
    desk.writer.expire(rows(b"k"), 1000)
    cut = desk.commit()
    assert [row.key for row in cut.stale] == [b"k"]
    assert removals(cut) == [b"namespace/" + NAMESPACE.hex().encode()]


def test_a_stale_row_alone_is_worth_a_cut_and_a_rejected_one_is_forgotten(desk: Desk) -> None:
    desk.writer.expire(rows(b"gone"), 1000)
    assert desk.writer.has_pending
    assert desk.writer.cut(WALL_MS) == Cut([], [], rows(b"gone"))
    desk.put(b"k", expires_at=100)
    desk.writer.expire(rows(b"k", b"gone"), 1000)
    desk.writer.rejected()
    assert not desk.writer.has_pending
    assert desk.writer.cut(WALL_MS) == Cut([], [], [])


def test_a_removal_is_no_write_of_its_key(tmp_path: Path) -> None:
    desk = Desk(tmp_path, Limits(write_interval_ms=1000))
    desk.put(b"k", expires_at=100)
    desk.now += 1000
    desk.writer.expire(rows(b"k"), 1000)
    assert desk.put(b"k", b"new").version.seq == desk.store.position.seq + 3


def test_a_record_may_be_removed_in_the_second_in_which_it_was_written(desk: Desk) -> None:
    desk.put(b"k", expires_at=100)
    desk.writer.expire(rows(b"k"), 1000)
    assert removals(desk.commit()) == [b"k"]


def test_nothing_is_removed_while_the_disk_is_behind(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.put(b"k", expires_at=100)
    monkeypatch.setattr("kvnet.core.writer.PENDING_BYTES_MAX", 10)
    desk.writer.expire(rows(b"k"), 1000)
    assert removals(desk.commit()) == []


def test_an_id_is_free_again_once_the_deletion_is_durable_and_comes_back_empty(desk: Desk) -> None:
    """Before that the store would have lent the new namespace the old one's records and digest."""
    desk.put(b"k", b"old")
    desk.commit()
    assert desk.refused(CreateNamespace(NAMESPACE, "again")) == (400, 20033)
    desk.write(DeleteNamespace(NAMESPACE))
    assert desk.refused(CreateNamespace(NAMESPACE, "again")) == (400, 20033)
    desk.commit()
    desk.write(CreateNamespace(NAMESPACE, "again"))
    desk.now += desk.limits.write_interval_ms
    desk.put(b"k", b"new")
    desk.commit()
    assert desk.store.get(NAMESPACE, b"k").value == b"new"
    assert desk.refused(CreateNamespace(SYSTEM_NAMESPACE, "system")) == (400, 20033)


def test_records_of_the_id_before_never_come_back(desk: Desk) -> None:
    desk.put(b"old")
    desk.write(DeleteNamespace(NAMESPACE))
    desk.commit()
    desk.write(CreateNamespace(NAMESPACE, "again"))
    desk.put(b"new")
    desk.commit()
    while desk.store.erase_some(1):
        pass
    keys, _ = desk.store.list_keys(NAMESPACE, b"", None, 10, 0)
    assert [each.key for each in keys] == [b"new"]
