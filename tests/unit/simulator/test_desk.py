from __future__ import annotations

import pytest

from kvnet.core.manifest import Manifest, hash_chunk
from kvnet.core.operations import DeleteValue, PutLargeValue, PutValue
from kvnet.core.writer import Ticket
from kvnet.errors import RequestError
from kvnet.limits import profile
from kvnet.simulator.desk import FULL_REST_MS, NAMESPACE, CrashPoint, Desk
from kvnet.simulator.world import ROOT, World
from tests.support.worlds import make_world, settle, start


class Counter:
    """A small world that runs, and those who stand at its coordinator's desk."""

    def __init__(self, *, fsync_ms: float = 0.0, seed: int = 1) -> None:
        self.world: World = make_world(3, seed)
        start(self.world)
        self.world.run_until(self.world.now + 100)
        self.desk.fsync_ms = lambda: fsync_ms
        self.began = self.world.now
        self.heard: list[tuple[str, bool, float]] = []

    @property
    def desk(self) -> Desk:
        return self.world.desk

    @property
    def seq(self) -> int:
        """What is durable at the coordinator."""
        return self.world.root.disk.position.seq

    def put(self, key: str, value: str = "v", *, request_id: bytes | None = None) -> Ticket:
        operation = PutValue(NAMESPACE, key.encode(), value.encode(), b"", 0, 0)
        return self.hand_in(key, operation, request_id)

    def delete(self, key: str) -> Ticket:
        return self.hand_in(key, DeleteValue(NAMESPACE, key.encode()), None)

    def hand_in(self, key: str, operation: object, request_id: bytes | None) -> Ticket:
        ticket = self.desk.submit(
            [operation], request_id, lambda ok: self.heard.append((key, ok, self.world.now - self.began))
        )
        self.desk.commit_soon()
        return ticket

    def at(self, ms: float) -> None:
        self.world.run_until(self.began + ms)

    def edges_have(self, seq: int) -> list[str]:
        return [node.name for node in self.world.edges() if node.disk.position.seq >= seq]


def test_a_write_that_finds_the_disk_idle_is_committed_at_once() -> None:
    counter = Counter()
    before = counter.seq
    ticket = counter.put("a")
    assert counter.seq == before + 1 == ticket.durable_at
    assert counter.heard == [("a", True, 0.0)]


def test_writes_that_come_during_an_fsync_share_the_next() -> None:
    counter = Counter(fsync_ms=10)
    counter.put("a")
    counter.at(3)
    counter.put("b")
    counter.at(9)
    counter.put("c")
    assert counter.heard == []
    frames = len(counter.world.root.journal.frames)
    counter.at(10)
    assert [key for key, _, _ in counter.heard] == ["a"]
    counter.at(100)
    assert counter.heard == [("a", True, 10.0), ("b", True, 25.0), ("c", True, 25.0)], (
        "5 ms after the first commit"
    )
    assert len(counter.world.root.journal.frames) == frames + 2


def test_writes_soon_after_a_commit_wait_for_each_other() -> None:
    counter = Counter()
    frames = len(counter.world.root.journal.frames)
    for ms in (0, 1, 2, 4):
        counter.at(ms)
        counter.put(f"at {ms}")
    counter.at(100)
    assert [at for _, _, at in counter.heard] == [0.0, 5.0, 5.0, 5.0]
    assert len(counter.world.root.journal.frames) == frames + 2


def test_nothing_is_sent_or_shown_before_the_fsync_is_done() -> None:
    counter = Counter(fsync_ms=500)
    before = counter.seq
    ticket = counter.put("a")
    counter.at(499)
    assert counter.seq == before
    assert counter.world.root.disk.get(NAMESPACE, b"a") is None
    assert counter.edges_have(ticket.durable_at) == []
    counter.at(2000)
    assert len(counter.edges_have(ticket.durable_at)) == 3
    assert counter.world.history.frames[counter.world.root.disk.position.chain].at_ms == counter.began + 500


def test_a_write_of_what_is_there_already_is_answered_once_that_is_durable() -> None:
    counter = Counter(fsync_ms=10)
    first = counter.put("a")
    counter.at(5)
    assert counter.put("a") == first
    counter.at(20)
    assert counter.heard == [("a", True, 10.0), ("a", True, 10.0)]


def test_a_request_id_is_remembered_over_a_restart() -> None:
    counter = Counter()
    first = counter.put("a", request_id=b"id")
    counter.world.crash(ROOT)
    counter.world.start(ROOT)
    assert counter.world.run_while(lambda: not counter.world.is_open, 5000)
    again = counter.put("a", "another value", request_id=b"id")
    assert again.version == first.version
    assert counter.world.root.disk.get(NAMESPACE, b"a").value == b"v"
    assert [ok for _, ok, _ in counter.heard] == [True, True]


def test_what_the_writer_refuses_is_not_sequenced() -> None:
    counter = Counter()
    before = counter.seq
    with pytest.raises(RequestError) as refused:
        counter.put("x" * 3000)
    assert refused.value.status == 414
    assert counter.seq == before
    assert not counter.desk.writer.has_pending


# -- crashes -------------------------------------------------------------------------------------------------


def crashed(point: CrashPoint, seed: int = 1) -> tuple[Counter, Ticket]:
    counter = Counter(fsync_ms=10, seed=seed)
    counter.desk.crash_at = point
    ticket = counter.put("a")
    counter.put("b")
    counter.at(50)
    assert counter.world.root.core is None
    assert not counter.desk.is_open
    assert counter.heard == [], "nobody was told"
    assert counter.edges_have(ticket.durable_at) == []
    return counter, ticket


def test_a_coordinator_killed_before_it_writes_leaves_nothing() -> None:
    counter, ticket = crashed(CrashPoint.APPEND)
    assert counter.seq == ticket.durable_at - 1


def test_a_coordinator_killed_in_its_fsync_leaves_all_or_nothing_as_it_happens() -> None:
    left = set()
    for seed in range(12):
        counter, ticket = crashed(CrashPoint.FSYNC, seed)
        left.add(counter.seq - ticket.durable_at)
        known = counter.world.history.knows(counter.world.root.disk.position.chain)
        assert known, "what is there counts as durable"
    assert left == {-1, 0}


def test_a_coordinator_killed_after_its_fsync_has_what_nobody_knows_of() -> None:
    counter, ticket = crashed(CrashPoint.SEND)
    assert counter.seq == ticket.durable_at
    counter.world.start(ROOT)
    assert counter.world.run_while(lambda: not counter.world.is_open, 5000)
    settle(counter.world)
    assert counter.world.root.disk.get(NAMESPACE, b"a").version == ticket.version
    assert len(counter.edges_have(ticket.durable_at)) == 3


def test_a_desk_of_a_coordinator_that_is_gone_does_nothing_more() -> None:
    counter = Counter(fsync_ms=10)
    counter.put("a")
    old = counter.desk
    counter.world.crash(ROOT)
    before = counter.seq
    old.commit_soon()
    counter.at(1000)
    assert counter.seq == before
    assert counter.heard == []


# -- full and slow -------------------------------------------------------------------------------------------


def test_a_full_disk_answers_no_and_recovers() -> None:
    counter = Counter()
    before = counter.seq
    counter.world.root.disk.is_full = True
    lost = counter.put("a")
    assert counter.heard == [("a", False, 0.0)]
    assert counter.seq == before
    counter.world.root.disk.is_full = False
    counter.at(10)
    again = counter.put("b")
    assert again.version == lost.version, "its seq is given out again"
    counter.at(2 * FULL_REST_MS)
    assert counter.heard[1:] == [("b", True, FULL_REST_MS + 5)]
    assert counter.world.root.disk.get(NAMESPACE, b"a") is None
    settle(counter.world)


def test_a_full_disk_is_left_alone_for_a_while() -> None:
    counter = Counter()
    counter.world.root.disk.is_full = True
    for ms in range(0, 1000, 10):
        counter.at(ms)
        counter.put(f"{ms}")
    counter.at(2000)
    assert all(not ok for _, ok, _ in counter.heard)
    assert len(counter.heard) == 100
    assert len({at for _, _, at in counter.heard}) <= 1000 / FULL_REST_MS + 2


def test_an_epoch_is_opened_as_soon_as_there_is_room() -> None:
    counter = Counter()
    counter.world.crash(ROOT)
    counter.world.root.disk.is_full = True
    counter.world.start(ROOT)
    counter.at(5000)
    assert not counter.world.is_open
    assert counter.world.root.disk.position.epoch == 1
    counter.world.root.disk.is_full = False
    counter.at(5000 + 2 * FULL_REST_MS)
    assert counter.world.is_open
    assert counter.world.root.disk.position.epoch == 2


def test_a_delete_of_nothing_is_answered_also_after_the_disk_was_full() -> None:
    """It needs no commit; and none came, so that it was never answered."""
    counter = Counter()
    counter.world.root.disk.is_full = True
    counter.put("a")
    counter.world.root.disk.is_full = False
    counter.at(10)
    counter.delete("never written")
    counter.at(1000)
    assert [(key, ok) for key, ok, _ in counter.heard] == [("a", False), ("never written", True)]


def test_a_coordinator_that_stands_still_finishes_its_fsync_when_it_goes_on() -> None:
    counter = Counter(fsync_ms=10)
    ticket = counter.put("a")
    counter.world.root.stalled_until = counter.began + 500
    counter.at(499)
    assert counter.heard == []
    counter.at(501)
    assert counter.heard == [("a", True, 500.0)]
    assert counter.seq == ticket.durable_at


def test_frames_of_one_commit_are_cut_at_their_size_and_made_durable_together() -> None:
    counter = Counter(fsync_ms=10)
    counter.put("first")
    for number in range(6):
        counter.put(f"{number}", "x" * 30_000)
    frames = len(counter.world.root.journal.frames)
    counter.at(100)
    times = [at for _, _, at in counter.heard]
    assert times == [10.0] + [25.0] * 6
    assert len(counter.world.root.journal.frames) - frames == 4


def test_a_large_value_whose_chunks_were_collected_before_its_entry_ends_the_process_which_starts_again() -> None:
    """The wall was set forward by as long as chunks are kept."""
    counter = Counter()
    world, desk = counter.world, counter.desk
    data = bytes(70_000)
    name = hash_chunk(data)
    operation = PutLargeValue(NAMESPACE, b"large", Manifest(len(data), (name,)).pack(), b"", 0, 0, [data])
    desk.writer._limits = profile("workers-kv")
    for edge in world.edges():
        edge.stalled_until = world.now + 60_000  # nobody says that it holds it: the entry comes after six seconds
    desk.submit_large(operation, b"an id", lambda version: None, lambda ok: None)
    del world.root.disk.chunks.data[name]
    assert world.run_while(lambda: world.root.core is not None, 10_000)
    assert world.run_while(lambda: world.root.core is None, 2000)
