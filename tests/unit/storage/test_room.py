"""A full map and a full disk: nothing is half done, reads go on, and it is over when there is room."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from kvnet.errors import StorageFull
from kvnet.storage.store import Durability
from tests.support.lives import History
from tests.support.stores import assert_holds, assert_is_fold, bootstrap, open_store, pages_of


def fill(store, maker, namespace) -> None:
    for number in range(1000):
        maker.put(namespace, b"%d" % number, b"v" * 10_000)
        store.apply([maker.cut()])


def test_a_full_map_refuses_writes_and_goes_on_reading(folder, maker):
    store = open_store(folder, map_size_bytes=1 << 20)
    namespace = maker.create_namespace("a")
    store.apply([maker.cut()])
    with pytest.raises(StorageFull, match=r"the map of .* is full: .* reads go on"):
        fill(store, maker, namespace)
    refused = maker.frames[-1]
    assert store.position == maker.frames[-2].position
    assert store.get(namespace, b"0").value == b"v" * 10_000
    assert store.get(namespace, b"%d" % (refused.first_seq - 3)) is None
    assert store.recompute().good
    store.close()
    store = open_store(folder, map_size_bytes=2 << 20)
    store.apply([refused])
    assert_is_fold(store, maker)
    store.close()


def test_a_full_disk_refuses_writes_and_goes_on_reading(store, maker, namespace):
    """The limit on a file's size stands for the disk: LMDB meets it in the middle of a commit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    try:
        with pytest.raises(StorageFull, match="no space left"):
            fill(store, maker, namespace)
        refused = maker.frames[-1]
        assert store.position == maker.frames[-2].position
        assert store.get(namespace, b"0").value == b"v" * 10_000
        assert store.recompute().good
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    store.apply([refused])
    assert_is_fold(store, maker)


@pytest.fixture
def donor(tmp_path):
    donor = open_store(tmp_path / "donor")
    yield donor
    donor.close()


def test_a_full_map_stops_the_successor_and_not_the_readers(folder, donor, maker):
    namespace = maker.create_namespace("a")
    donor.apply([maker.cut()])
    for number in range(300):
        maker.put(namespace, b"%d" % number, bytes(1000))
    donor.apply([maker.cut()])
    store = open_store(folder, map_size_bytes=200_000)
    store.apply(maker.frames[:1])
    pages = list(pages_of(donor, 20_000))
    store.begin_successor(pages[0].position)
    for page in pages:
        before = store.bootstrap
        try:
            store.store_page(page)
        except StorageFull as full:
            assert "larger map" in str(full)  # noqa: PT017 - which page it is depends on LMDB
            break
    else:
        pytest.fail("the map was never full")
    assert store.bootstrap == before
    assert_holds(store, maker)
    store.close()
    store = open_store(folder, map_size_bytes=64 << 20)
    assert store.bootstrap == before, "nothing half done, and it goes on with a larger map"
    bootstrap(store, [page for page in pages if page.after >= before.until], [])
    assert_is_fold(store, maker)
    store.close()


def live_without_room(folder: str, bytes_max: int) -> None:
    """Run in a process of its own: no file may grow beyond this, until it was told so; and then go on."""
    history = History()
    store = open_store(Path(folder), durability=Durability.COMMIT)
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_max, resource.RLIM_INFINITY))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    told = 0
    try:
        history.live(store)
    except StorageFull:
        told = 1
        before = store.position, store.bootstrap
        assert_holds(store, history.maker)
        for _ in range(3):
            try:
                history.live(store)
            except StorageFull:
                told += 1
        assert store.position.seq >= before[0].seq
        assert_holds(store, history.maker)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    history.live(store)
    assert_is_fold(store, history.maker)
    store.close()
    sys.stdout.write(f"{told}")


@pytest.mark.parametrize("bytes_max", [0, 100, 60_000, 90_000, 120_000, 150_000])
def test_a_full_disk_is_told_at_any_moment_and_is_over_when_there_is_room(folder, bytes_max):
    program = (
        "import sys; from tests.unit.storage.test_room import live_without_room; "
        "live_without_room(sys.argv[1], int(sys.argv[2]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, folder, str(bytes_max)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[3],
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 0, "the disk was never full"
