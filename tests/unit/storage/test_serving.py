"""The serving page: what a store says of itself to other processes, and that it is never half said."""

from __future__ import annotations

import os
import struct
import threading

import pytest

from kvnet.core.catalog import Scope, Token
from kvnet.core.freshness import BeaconSeen
from kvnet.errors import Divergence, StorageFull
from kvnet.storage.serving import NO_OFFSET, WORD, BeaconView, SeenPage, ServingPage
from tests.support.stores import bootstrap, open_store, pages_of

BEACON = BeaconSeen(1.0, 2.0, 3.0, 4.0)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "serving"


@pytest.fixture
def page(path):
    page = ServingPage.open(path, "boot 1")
    assert page is not None
    return page


@pytest.fixture
def shared(folder):
    store = open_store(folder, shared=True)
    yield store
    store.close()


@pytest.fixture
def seen(shared, folder):
    return SeenPage(folder / "serving")


class Words:
    """Whether the word was raised since it was last asked for."""

    def __init__(self, seen) -> None:
        self._seen = seen
        self._last = seen.numbers[WORD]

    def raised(self) -> bool:
        before, self._last = self._last, self._seen.numbers[WORD]
        assert not self._last & 1, "a change is under way"
        assert self._last >= before
        return self._last > before


def view(seq: int) -> BeaconView:
    return BeaconView(1, seq, seq << 16, 1, seq, BeaconSeen(float(seq), float(seq), float(seq), float(seq)))


def test_a_start_is_a_change_under_way_until_the_replica_is_known(page, path):
    seen = SeenPage(path)
    assert seen.numbers[WORD] & 1
    page.settle("replica-7", verified=True)
    assert (seen.numbers[WORD] & 1, seen.replica, seen.refused, seen.running) == (0, 7, False, True)
    page.tell_start(b"12345678")
    assert seen.start_id == b"12345678" + bytes(8)
    assert seen.serving
    assert not ServingPage.open(path, "boot 1").serving, "not before the replica is known again"


def test_another_process_with_this_id_isnt_the_node(page, path):
    page.settle("replica-1", verified=True)
    seen = SeenPage(path)
    page.numbers[7] += 1
    assert not seen.running
    page.numbers[6] = 0
    assert not seen.running


def test_time_goes_on_over_a_restart_and_not_over_a_boot(page, path):
    page.tell_time(1000.0, 5000.0)
    page.tell_time(900.0, 4000.0)
    again = ServingPage.open(path, "boot 1")
    assert (again.offset_ms, again.now_ms(0.0), again.now_ms(4500.0)) == (1000.0, 5000.0, 5500.0)
    page.tell_view(view(3))
    rebooted = ServingPage.open(path, "boot 2")
    assert (rebooted.offset_ms, rebooted.now_ms(1e9), rebooted.view()) == (NO_OFFSET, 0.0, None)


def test_views_go_on_over_a_restart(page, path):
    for seq in range(1, 4):
        page.tell_view(view(seq))
    again = ServingPage.open(path, "boot 1")
    assert again.view() == view(3)
    again.tell_view(view(4))
    assert SeenPage(path).view() == view(4)
    assert SeenPage(path).applied_seq == 4


def test_a_view_without_a_beacon_says_so(page, path):
    assert SeenPage(path).view() is None
    page.tell_view(view(3)._replace(beacon=None))
    assert SeenPage(path).view().beacon is None


@pytest.mark.parametrize("torn", range(128, 256, 9))
def test_a_torn_view_is_never_seen(page, path, torn):
    """Killed within a write, the newer of the two is what it was half of: the other one is seen."""
    page.tell_view(view(1))
    page.tell_view(view(2))
    newest = 256 if page._count % 2 else 128
    page._bytes[torn - 128 + newest] ^= 0xFF
    assert SeenPage(path).view() in {view(1), view(2)}
    again = ServingPage.open(path, "boot 1")
    again.tell_view(view(3))
    assert SeenPage(path).view() == view(3)


def test_readers_see_views_in_their_order_while_they_are_written(page, path):
    stop, failures, reads = threading.Event(), [], [0]

    def read() -> None:
        seen, last = SeenPage(path), 0
        while not stop.is_set():
            found = seen.view()
            if found is not None and (found != view(found.seq) or found.seq < last):
                failures.append(found)
            last = 0 if found is None else found.seq
            reads[0] += 1

    reader = threading.Thread(target=read)
    reader.start()
    seq = 0
    while reads[0] < 2000:
        seq += 1
        page.tell_view(view(seq))
    stop.set()
    reader.join()
    assert failures == []


@pytest.mark.parametrize("content", [b"", b"x" * 100, bytes(4096), struct.pack("<QQ", 4, 99).ljust(4096)])
def test_what_is_no_page_of_ours_is_replaced_and_its_readers_look_elsewhere(path, content):
    path.write_bytes(content)
    with pytest.raises(ValueError, match="serving page"):
        SeenPage(path)
    with path.open("rb") as old:
        page = ServingPage.open(path, "boot 1")
        page.settle("replica-1", verified=True)
        assert SeenPage(path).replica == 1
        assert old.read(1) == b"\x01", "odd: whoever has mapped it remembers nothing"


def test_a_full_disk_keeps_nobody_from_starting(path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    assert ServingPage.open(path, "boot 1") is None
    assert list(path.parent.iterdir()) == []


def test_a_store_that_isnt_shared_has_none(store, folder):
    assert store.serving is None
    assert not (folder / "serving").exists()


def test_the_word_is_raised_by_what_readers_remember_and_by_nothing_else(shared, seen, maker):
    words = Words(seen)
    namespace = maker.create_namespace("a")
    shared.apply([maker.cut()])
    assert words.raised(), "a namespace is new"
    maker.put(namespace, b"k", b"v")
    shared.apply([maker.cut()])
    assert not words.raised(), "a pair is new"
    assert not seen.serving
    shared.mark_verified()
    assert (words.raised(), seen.serving) == (True, True), "it may be read"
    maker.delete_namespace(namespace)
    shared.apply([maker.cut()])
    assert words.raised(), "a namespace is gone"
    shared.close()
    assert (words.raised(), seen.running) == (True, False)


def test_a_change_that_a_killed_node_was_in_is_over_when_the_next_one_starts(page, path):
    page.changes[0] += 1
    before = page.changes[0]
    assert before & 1
    again = ServingPage.open(path, "boot 1")
    assert (again.changes[0] & 1, again.changes[0] > before) == (0, True)


def test_tokens_have_a_count_of_their_own(shared, seen, maker):
    before = seen.token_generation
    maker.create_namespace("a")
    shared.apply([maker.cut()])
    assert seen.token_generation == before
    token = Token("t", "t", Scope.READ, bytes(32))
    maker.put_item(token)
    shared.apply([maker.cut()])
    assert seen.token_generation == before + 1
    maker.delete_item(token)
    shared.apply([maker.cut()])
    assert seen.token_generation == before + 2


def test_the_word_is_odd_before_the_change_is_committed(folder, maker):
    """A reader that sees what was committed sees that something has changed, wherever the node is killed."""
    words: list[tuple[str, int]] = []
    page = None
    store = open_store(
        folder, shared=True, step=lambda name: words.append((name, page[WORD] & 1) if page else name)
    )
    page = store.serving.numbers
    words.clear()
    maker.create_namespace("a")
    store.apply([maker.cut()])
    assert words == [("apply: begin", 0), ("apply: written", 1), ("apply: committed", 1)]
    page = None
    store.close()


def test_a_write_that_fails_leaves_no_change_under_way(shared, seen, maker, monkeypatch):
    def fail(name):
        if name == "apply: written":
            raise MemoryError

    monkeypatch.setattr(shared, "_step", fail)
    maker.create_namespace("a")
    with pytest.raises(MemoryError):
        shared.apply([maker.cut()])
    assert not seen.numbers[WORD] & 1


def test_a_divergence_and_a_reset_are_told_and_a_new_replica_as_well(shared, seen, maker, tmp_path):
    words = Words(seen)
    namespace = maker.create_namespace("a")
    shared.apply([maker.cut()])
    assert words.raised()
    maker.digest += 1
    maker.put(namespace, b"k", b"v")
    with pytest.raises(Divergence):
        shared.apply([maker.cut()])
    assert (words.raised(), seen.refused, seen.serving, seen.replica) == (True, True, False, 1)
    shared.reset()
    assert (words.raised(), seen.refused, seen.serving, seen.replica) == (True, False, False, 2)


def test_a_replica_that_cant_be_emptied_is_refused_all_the_same(shared, seen, monkeypatch):
    def full(_):
        raise StorageFull("no space left")

    monkeypatch.setattr(shared._folder, "open_unnamed", full)
    with pytest.raises(StorageFull):
        shared.reset()
    assert (seen.refused, seen.numbers[WORD] & 1) == (True, 0)


def test_the_word_is_odd_while_a_replica_takes_anothers_place(folder, maker):
    words: list[tuple[str, int]] = []
    page = None
    store = open_store(
        folder, shared=True, step=lambda name: words.append((name, page[WORD] & 1)) if page else None
    )
    page = store.serving.numbers
    store.reset()
    assert [odd for name, odd in words if name.startswith("adopt")] == [1, 1]
    assert page[WORD] & 1 == 0
    page = None
    store.close()


def test_a_swap_is_told(shared, seen, maker, tmp_path):
    maker.create_namespace("a")
    frame = maker.cut()
    shared.apply([frame])
    donor = open_store(tmp_path / "donor")
    donor.apply([frame])
    words, tokens = Words(seen), seen.token_generation
    bootstrap(shared, pages_of(donor), [])
    donor.close()
    assert (words.raised(), seen.replica) == (True, 2)
    assert seen.token_generation > tokens
