"""One suite for two disks: the host's, whose process is killed, and one that loses what wasn't synced."""

from __future__ import annotations

import gc
from collections import Counter
from pathlib import Path

import pytest

from kvnet.core.versions import GENESIS
from kvnet.storage.disk import HostDisk
from kvnet.storage.store import Durability
from tests.support.lives import History
from tests.support.lossy_disk import LossyDisk
from tests.support.stores import assert_holds, assert_is_fold, open_store

SEEDS = range(7)


class Host(HostDisk):
    """A process that ends leaves everything to the kernel."""

    lost = 0

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def power_cut(self, folder: Path) -> None:
        """Only the process is gone."""


class Gone(BaseException):
    """The process ends here; nothing that catches errors may see it."""


DISKS = pytest.mark.parametrize("disk_type", [Host, LossyDisk])


@pytest.fixture(scope="module")
def history():
    return History()


@pytest.fixture(scope="module")
def steps(tmp_path_factory, history) -> dict[Durability, Counter[str]]:
    """How often each step is taken when nothing happens."""
    counts: dict[Durability, Counter[str]] = {}
    for durability in Durability:
        counts[durability] = Counter()
        folder = tmp_path_factory.mktemp("whole") / "store"
        live_until(folder, durability, history, Host(0), None, 0, counts[durability])
    return counts


def live_until(folder, durability, history, disk, name, nth, counts) -> int:
    """Live until this step is taken for the nth time; return the highest seq that was acknowledged."""
    acknowledged = [0]

    def step(taken: str) -> None:
        counts[taken] += 1
        if taken == name and counts[taken] == nth:
            raise Gone

    store = None
    try:
        store = open_store(folder, durability=durability, disk=disk, step=step, refillable=True)
        history.live(store, lambda position: acknowledged.append(position.seq))
        store.close()
    except Gone:
        if store is not None:
            counts.clear()  # the close takes steps as well
            store.close(clean=False)
    return max(acknowledged)


@DISKS
@pytest.mark.parametrize("seed", SEEDS)
def test_what_a_synced_store_acknowledged_is_there_after_the_power_was_gone(
    tmp_path, history, steps, disk_type, seed
):
    """Whatever the moment, what comes back is the old or the new replica, whole, and goes on to the end."""
    lost = 0
    for name, count in sorted(steps[Durability.COMMIT].items()):
        if name.startswith(("open", "close")):
            continue
        # The first ones each, and then at equal distances.
        nth = min(count, seed + 1) if seed < 3 else 1 + (seed - 3) * (count - 1) // (len(SEEDS) - 4)
        folder = tmp_path / f"{name}".replace(": ", "-").replace(" ", "-")
        disk = disk_type(seed)
        acknowledged = live_until(folder, Durability.COMMIT, history, disk, name, nth, Counter())
        gc.collect()
        disk.power_cut(folder)
        lost += disk.lost
        store = open_store(folder, durability=Durability.COMMIT, disk=disk)
        where = f"at {name!r} for the {nth}. time"
        assert store.position.seq >= acknowledged, where
        assert_holds(store, history.maker)
        assert len(list(folder.glob("replica*"))) == 1 + (store.bootstrap is not None), where
        history.live(store)
        assert_is_fold(store, history.maker)
        store.close()
    assert (lost > 0) is (disk_type is LossyDisk), "the cuts took something, or there were none"


@DISKS
@pytest.mark.parametrize("name", ["apply: committed", "page: committed", "adopt: marked", "compaction: copied"])
def test_an_unsynced_store_outlives_its_process_and_not_the_machine(tmp_path, history, disk_type, name):
    folder, disk = tmp_path / "store", disk_type(1)
    acknowledged = live_until(folder, Durability.NONE, history, disk, name, 1, Counter())
    gc.collect()
    for environment in folder.glob("replica*"):
        if disk_type is LossyDisk:  # whoever opened it would be told so
            (environment / "data.mdb").write_bytes(b"torn" * 4096)
    disk.power_cut(folder)
    store = open_store(folder, durability=Durability.NONE, disk=disk)
    if disk_type is LossyDisk:
        assert "without a clean stop" in store.discarded
        assert (store.position, store.bootstrap) == (GENESIS, None)
    else:
        assert not store.discarded
        assert store.position.seq >= acknowledged
    history.live(store)
    assert_is_fold(store, history.maker)
    store.close()


@DISKS
def test_a_clean_stop_of_an_unsynced_store_loses_nothing_and_keeps_a_successor(tmp_path, history, disk_type):
    folder, disk = tmp_path / "store", disk_type(2)
    store = open_store(folder, disk=disk)
    store.apply(history.maker.frames[:2])
    store.begin_successor(history.start)
    store.store_page(history.pages[0])
    before = store.position, store.bootstrap
    store.close()
    disk.power_cut(folder)
    store = open_store(folder, disk=disk)
    assert not store.discarded
    assert (store.position, store.bootstrap) == before
    history.live(store)
    assert_is_fold(store, history.maker)
    store.close()


@DISKS
@pytest.mark.parametrize("seed", SEEDS)
def test_a_store_that_is_cut_at_its_start_and_stop_loses_nothing(tmp_path, history, disk_type, seed):
    folder, disk = tmp_path / "store", disk_type(seed)
    acknowledged = 0
    for name in ("open: marked", "open: open", "close: begin", "close: closed") * 2:
        acknowledged = max(acknowledged, live_until(folder, Durability.COMMIT, history, disk, name, 1, Counter()))
        gc.collect()
        disk.power_cut(folder)
        store = open_store(folder, durability=Durability.COMMIT, disk=disk)
        assert store.position.seq >= acknowledged
        assert_holds(store, history.maker)
        store.close(clean=False)
        disk.power_cut(folder)
