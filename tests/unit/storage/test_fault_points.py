"""A process killed at every step of a write, a page, a replay, a swap, a compaction, a start and a stop."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from kvnet.core.versions import GENESIS
from kvnet.storage.store import Durability, Store
from tests.support.lives import History
from tests.support.stores import assert_holds, assert_is_fold, open_store

POINTS = {
    "open: marked",
    "open: open",
    "apply: begin",
    "apply: written",
    "apply: committed",
    "successor: marked",
    "successor: begun",
    "page: stored",
    "page: committed",
    "tail: appended",
    "tail: committed",
    "replay: applied",
    "replay: committed",
    "replay: done",
    "replay: verified",
    "adopt: marked",
    "adopt: removed",
    "compaction: copied",
    "compaction: caught up",
    "close: begin",
    "close: closed",
}
OF = {
    Durability.COMMIT: POINTS | {"adopt: synced"},
    Durability.NONE: POINTS | {"close: marked"},
}


@pytest.fixture(scope="module")
def history():
    return History()


def in_a_process_of_its_own(work: Callable[[Callable[[bytes], None]], None]) -> tuple[int, list[bytes]]:
    """Return how it ended, and the lines that it wrote."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        code = 1
        try:
            work(lambda line: os.write(writing, line + b"\n") and None)
            code = 0
        finally:
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        lines = pipe.read().splitlines()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), lines


def live(folder: Path, durability: Durability, history: History, step: Callable[[str], None], tell) -> None:
    store = open_store(folder, durability=durability, refillable=True, step=step, journal_bytes_max=4000)
    history.live(store, lambda position: tell(b"%d" % position.seq))
    store.close()


@pytest.mark.parametrize("durability", Durability)
def test_a_process_killed_at_any_step_leaves_the_old_or_the_new_whole(tmp_path, history, durability):
    def tell_steps(tell):
        live(tmp_path / "whole", durability, history, lambda name: tell(name.encode()), lambda _: None)

    code, steps = in_a_process_of_its_own(tell_steps)
    assert code == 0
    counts = Counter(name.decode() for name in steps)
    assert set(counts) == OF[durability]
    for name, count in sorted(counts.items()):
        for nth in sorted({1, (count + 1) // 2, count}):
            folder = tmp_path / f"{name} {nth}".replace(": ", "-").replace(" ", "-")
            assert_survives(folder, durability, history, name, nth)


def assert_survives(folder: Path, durability: Durability, history: History, name: str, nth: int) -> None:
    seen: Counter[str] = Counter()

    def kill(step: str) -> None:
        seen[step] += 1
        if step == name and seen[step] == nth:
            os.kill(os.getpid(), signal.SIGKILL)

    code, acknowledged = in_a_process_of_its_own(lambda tell: live(folder, durability, history, kill, tell))
    where = f"killed at {name!r} for the {nth}. time"
    assert code == -signal.SIGKILL, where
    store = open_store(folder, durability=durability, refillable=True, journal_bytes_max=4000)
    try:
        assert not store.discarded, where
        assert store.position.seq >= max(map(int, acknowledged), default=0), where
        assert_holds(store, history.maker)
        assert_no_leftovers(folder, store)
        history.live(store)
        assert_is_fold(store, history.maker)
        assert store.verified
        assert_no_leftovers(folder, store)
    finally:
        store.close()


def assert_no_leftovers(folder: Path, store: Store) -> None:
    environments = 1 + (store.bootstrap is not None)
    assert len(list(folder.glob("replica*"))) == environments, "something was left"
    files = {path.name for path in folder.iterdir() if not path.name.startswith("replica")}
    assert files <= {"lock", "mark.json", "clock"}


@pytest.mark.parametrize(
    ("durability", "name"),
    [
        (Durability.COMMIT, "adopt: synced"),
        *((durability, name) for durability in Durability for name in ("adopt: marked", "adopt: removed")),
    ],
)
def test_a_process_killed_while_it_resets_leaves_the_old_or_an_empty_replica(tmp_path, history, durability, name):
    folder = tmp_path / "store"

    def reset(_) -> None:
        store = open_store(folder, durability=durability, step=kill)
        store.apply(history.maker.frames)
        store.reset()

    def kill(step: str) -> None:
        if step == name:
            os.kill(os.getpid(), signal.SIGKILL)

    code, _ = in_a_process_of_its_own(reset)
    assert code == -signal.SIGKILL
    store = open_store(folder, durability=durability)
    assert store.position == (history.maker.position if name == "adopt: synced" else GENESIS)
    assert_holds(store, history.maker)
    assert_no_leftovers(folder, store)
    store.close()
