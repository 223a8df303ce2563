from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys

import lmdb
import pytest

from kvnet.core.versions import GENESIS
from kvnet.errors import ForeignEnvironment, StorageDamaged, StorageError, StorageFull
from kvnet.storage import disk, environment, faults
from kvnet.storage import folder as data_folder
from kvnet.storage.store import Durability, Store
from tests.support.frames import FrameMaker
from tests.support.stores import CLUSTER_ID, assert_is_fold, open_store


def failure(what: str, code: int) -> lmdb.Error:
    error = lmdb.Error(what)
    error.code = code  # as the library's own code sets it
    return error


@pytest.fixture
def boot(tmp_path, monkeypatch):
    """Calling it restarts the machine."""

    def restart(boot_id: str) -> None:
        path.write_text(boot_id + "\n")

    path = tmp_path / "boot_id"
    monkeypatch.setattr(disk, "BOOT_ID_PATH", path)
    restart("first")
    return restart


def write_something(store, maker):
    namespace = maker.create_namespace("a")
    maker.put(namespace, b"key", b"value")
    store.apply([maker.cut()])


@pytest.mark.parametrize("clean", [True, False])
@pytest.mark.parametrize("durability", Durability)
def test_an_environment_outlives_its_process(folder, maker, durability, clean):
    store = open_store(folder, durability=durability)
    write_something(store, maker)
    store.close(clean=clean)
    store = open_store(folder, durability=durability)
    assert not store.discarded
    assert_is_fold(store, maker)
    store.close()


def test_an_unsynced_environment_is_discarded_after_a_machine_restart(folder, maker, boot):
    store = open_store(folder)
    write_something(store, maker)
    store.close(clean=False)
    boot("second")
    store = open_store(folder)
    assert store.discarded
    assert store.position.seq == 0
    assert not store.titles
    store.apply(maker.frames)
    assert_is_fold(store, maker)
    store.close()


def test_a_clean_stop_lets_an_unsynced_environment_outlive_the_machine(folder, maker, boot):
    store = open_store(folder)
    write_something(store, maker)
    store.close()
    boot("second")
    store = open_store(folder)
    assert not store.discarded
    assert_is_fold(store, maker)
    store.close(clean=False)
    boot("third")
    store = open_store(folder)
    assert store.discarded, "the clean stop was the one before"
    store.close()


def test_a_synced_environment_outlives_the_machine(folder, maker, boot):
    store = open_store(folder, durability=Durability.COMMIT)
    write_something(store, maker)
    store.close(clean=False)
    boot("second")
    for durability in (Durability.COMMIT, Durability.NONE):
        store = open_store(folder, durability=durability)
        assert not store.discarded
        assert_is_fold(store, maker)
        store.close(clean=False)


def test_becoming_durable_does_not_trust_what_was_not(folder, maker, boot):
    store = open_store(folder)
    write_something(store, maker)
    store.close(clean=False)
    boot("second")
    store = open_store(folder, durability=Durability.COMMIT)
    assert store.discarded
    store.close(clean=False)


def test_becoming_durable_syncs_what_is_there(folder, maker, boot):
    store = open_store(folder)
    write_something(store, maker)
    store.close(clean=False)
    store = open_store(folder, durability=Durability.COMMIT)
    store.close(clean=False)
    boot("second")
    store = open_store(folder, durability=Durability.COMMIT)
    assert not store.discarded
    assert_is_fold(store, maker)
    store.close()


def test_a_sync_that_fails_keeps_the_weaker_mark(folder, maker, boot, monkeypatch):
    """Else a crash right then would leave an unsynced environment that calls itself durable."""
    store = open_store(folder)
    write_something(store, maker)
    store.close(clean=False)

    class Unsynced:
        def __init__(self, *arguments, **options):
            self.real = lmdb.Environment(*arguments, **options)

        def __getattr__(self, name):
            return getattr(self.real, name)

        def sync(self, force):
            raise failure("mdb_env_sync", errno.EIO)

    with monkeypatch.context() as patch:
        patch.setattr(environment, "lmdb", type("Lmdb", (), vars(lmdb) | {"Environment": Unsynced}))
        with pytest.raises(StorageError, match="can't be used"):
            open_store(folder, durability=Durability.COMMIT)
    boot("second")
    store = open_store(folder, durability=Durability.COMMIT)
    assert store.discarded
    store.close()


def test_a_stop_whose_sync_fails_is_not_clean(folder, maker, boot):
    store = open_store(folder)
    write_something(store, maker)
    real = store.environment.lmdb

    class Unsynced:
        close = real.close

        def sync(self, force):
            raise failure("mdb_env_sync", errno.EIO)

    store.environment.lmdb = Unsynced()
    with pytest.raises(StorageError, match="can't be used"):
        store.close()
    boot("second")
    store = open_store(folder)
    assert store.discarded
    store.close()


def test_two_processes_cannot_share_a_folder(folder):
    program = (
        "import sys; from pathlib import Path; from tests.support.stores import open_store\n"
        "store = open_store(Path(sys.argv[1])); print('open', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout.readline() == b"open\n"
        with pytest.raises(StorageError, match=rf"in use by process {other.pid}: stop it or choose"):
            open_store(folder)
        other.stdin.close()
        other.wait()
    open_store(folder).close()


@pytest.mark.parametrize(
    ("node", "cluster_id", "says"),
    [
        ("gru", CLUSTER_ID, "belongs to node fra, not to gru"),
        ("fra", b"d" * 16, "another cluster: bring its secret"),
    ],
)
@pytest.mark.parametrize("known_by", ["mark", "environment"])
def test_a_foreign_environment_is_refused_and_left_alone(folder, maker, node, cluster_id, says, known_by):
    store = open_store(folder)
    write_something(store, maker)
    store.close()
    mark = folder / "mark.json"
    ours = mark.read_bytes()
    if known_by == "environment":
        mark.write_text(json.dumps(json.loads(ours) | {"node": node, "cluster_id": cluster_id.hex()}))
    with pytest.raises(ForeignEnvironment, match=says) as refusal:
        Store.open(folder, node=node, cluster_id=cluster_id, durability=Durability.COMMIT)
    assert "--wipe" in str(refusal.value)
    mark.write_bytes(ours)
    store = open_store(folder)
    assert_is_fold(store, maker)
    store.close()


@pytest.mark.parametrize("known_by", ["mark", "environment"])
def test_a_newer_format_is_refused(folder, monkeypatch, known_by):
    with monkeypatch.context() as newer:
        newer.setattr(environment, "FORMAT", 4)
        newer.setattr(data_folder, "FORMAT", 4)
        open_store(folder).close()
    mark = folder / "mark.json"
    fields = json.loads(mark.read_bytes())
    mark.write_text(json.dumps(fields | ({"later": 1} if known_by == "mark" else {"format": 3})))
    for refillable in (False, True):
        with pytest.raises(ForeignEnvironment, match="has format 4, this kvnet reads 3: upgrade"):
            open_store(folder, refillable=refillable)


def test_an_older_format_is_refused_and_the_text_says_how_to_take_the_data_along(folder):
    open_store(folder).close()
    mark = folder / "mark.json"
    mark.write_text(json.dumps({"format": 2, "cluster_id": CLUSTER_ID.hex()}))
    with pytest.raises(ForeignEnvironment, match="has format 2, this kvnet reads 3: export it"):
        open_store(folder)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'{"format": 3}', b'{"format": "1"}'])
def test_a_broken_mark_is_one_clear_error(folder, content):
    open_store(folder).close()
    (folder / "mark.json").write_bytes(content)
    with pytest.raises(StorageError, match="can't be read: bring back a snapshot"):
        open_store(folder)


def test_an_environment_without_its_mark_is_refused(folder):
    open_store(folder).close()
    (folder / "mark.json").unlink()
    with pytest.raises(StorageError, match="has lost its mark"):
        open_store(folder)


def test_a_damaged_environment_is_one_clear_error(folder):
    open_store(folder).close()
    (folder / "replica-1" / "data.mdb").write_bytes(b"not an environment" * 1000)
    with pytest.raises(StorageDamaged, match="no environment that this LMDB can read"):
        open_store(folder)


@pytest.mark.parametrize("left", [0.3, 0.6, 0.9])
def test_a_truncated_environment_is_one_clear_error(folder, maker, left):
    """LMDB itself would die of a bus error when it reads behind the end of its file."""
    _fill(folder, maker)
    _truncate(folder, left)
    with pytest.raises(StorageDamaged, match=r"was cut: .* bytes are left; bring back a snapshot"):
        open_store(folder)


@pytest.mark.parametrize("content", [None, b""])
def test_an_environment_that_is_gone_is_one_clear_error(folder, maker, content):
    """Else a coordinator would begin an empty history beside the mark of a full one."""
    _fill(folder, maker)
    file = folder / "replica-1" / "data.mdb"
    file.unlink()
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(StorageDamaged, match="is gone: bring back a snapshot"):
        open_store(folder)


@pytest.mark.parametrize("damage", ["mark lost", "mark broken", "no environment", "gone", "cut", "crash"])
def test_a_refillable_replica_that_is_damaged_begins_anew_and_says_why(folder, maker, damage):
    _fill(folder, maker)
    match damage:
        case "mark lost":
            (folder / "mark.json").unlink()
        case "mark broken":
            (folder / "mark.json").write_bytes(b"{")
        case "no environment":
            (folder / "replica-1" / "data.mdb").write_bytes(b"not an environment" * 1000)
        case "gone":
            (folder / "replica-1" / "data.mdb").unlink()
        case "cut":
            _truncate(folder, 0.5)
        case "crash":
            (folder / "crash").write_text("Fatal Python error: Bus error")
    store = open_store(folder, refillable=True)
    assert store.discarded
    assert store.position == GENESIS
    assert not store.verified
    another = FrameMaker()
    another.open_epoch()
    store.apply([another.cut()])
    store.close()
    again = open_store(folder, refillable=True)
    assert not again.discarded
    assert again.position.seq == 1
    again.close()
    assert [path.name for path in folder.glob("replica*")] == [f"replica-{1 if damage.startswith('mark') else 2}"]


@pytest.mark.parametrize("refillable", [True, False])
def test_a_replica_whose_opening_kills_two_processes_in_a_row_begins_anew(folder, maker, refillable):
    """As LMDB dies of a flipped bit in one of its own pages, before a crash file can be written."""
    _fill(folder, maker)
    program = (
        "import os, signal, sys; from pathlib import Path; from tests.support.stores import open_store\n"
        "def die(step):\n    if step == 'open: open': os.kill(os.getpid(), signal.SIGKILL)\n"
        "open_store(Path(sys.argv[1]), refillable=sys.argv[2] == 'True', step=die)"
    )
    for killed in range(1, 4):
        done = subprocess.run([sys.executable, "-c", program, folder, str(refillable)], check=False)
        assert done.returncode == -signal.SIGKILL
        if killed == 1:
            store = open_store(folder, refillable=refillable)
            assert not store.discarded, "once may have been anything"
            store.close()
    store = open_store(folder, refillable=refillable)
    assert bool(store.discarded) is refillable
    if not refillable:
        assert_is_fold(store, maker)
    store.close()
    again = open_store(folder, refillable=refillable)
    assert not again.discarded
    again.close()


def test_a_foreign_environment_is_never_thrown_away_even_without_its_mark(folder, maker):
    _fill(folder, maker)
    ours = (folder / "mark.json").read_bytes()
    (folder / "mark.json").unlink()
    with pytest.raises(ForeignEnvironment, match="belongs to node fra, not to gru"):
        open_store(folder, node="gru", refillable=True)
    (folder / "mark.json").write_bytes(ours)
    store = open_store(folder)
    assert_is_fold(store, maker)
    store.close()


def test_what_a_catalogue_says_that_cannot_be_read_is_damage(folder, maker):
    _fill(folder, maker)
    store = open_store(folder)
    with store.environment.write() as txn, txn.cursor() as cursor:
        cursor.first()
        cursor.put(cursor.key(), cursor.value()[:-1])
    store.close()
    with pytest.raises(StorageDamaged):
        open_store(folder)
    store = open_store(folder, refillable=True)
    assert store.discarded
    assert store.position == GENESIS
    store.close()


def test_leftovers_are_removed_at_the_start(folder, maker):
    _fill(folder, maker)
    (folder / "replica-7").mkdir()
    (folder / "replica-7" / "data.mdb").write_bytes(b"begun, and never named")
    store = open_store(folder)
    assert [path.name for path in folder.glob("replica*")] == ["replica-1"]
    assert_is_fold(store, maker)
    store.close()


def test_readers_that_died_are_cleared(folder, maker):
    _fill(folder, maker)
    store = open_store(folder)
    assert store.stats()["readers"] <= 2
    store.tidy()
    stats = store.stats()
    assert 0 <= stats["free_bytes"] < stats["map_bytes"] < stats["map_size_bytes"]
    store.close()


def _fill(folder, maker):
    store = open_store(folder)
    namespace = maker.create_namespace("a")
    for number in range(200):
        maker.put(namespace, b"key-%d" % number, bytes(1000))
    store.apply([maker.cut()])
    store.mark_verified()
    store.close()


def _truncate(folder, left):
    file = folder / "replica-1" / "data.mdb"
    os.truncate(file, int(file.stat().st_size * left) // 4096 * 4096)


def test_a_file_in_the_folders_place_is_one_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "node"):
        with pytest.raises(StorageError, match="not a folder: choose another"):
            open_store(folder)


@pytest.mark.parametrize(
    ("error", "kind", "says"),
    [
        (OSError(errno.EROFS, "read-only"), StorageError, "can't be written"),
        (PermissionError(errno.EACCES, "denied"), StorageError, "can't be written"),
        (failure("mdb_txn_commit", errno.ENOSPC), StorageFull, "no space left"),
        (lmdb.MapFullError("mdb_put"), StorageFull, "larger map"),
        (failure("mdb_txn_commit", errno.EIO), StorageError, "can't be used"),
    ],
)
def test_what_the_system_says_becomes_one_line_that_names_the_cure(tmp_path, error, kind, says):
    translated = faults.translated(error, tmp_path)
    assert type(translated) is kind
    assert says in str(translated)
    assert "\n" not in str(translated)


@pytest.mark.parametrize(("free_bytes", "kind"), [(0, StorageFull), (1 << 40, StorageError)])
def test_a_write_cut_short_is_a_full_disk_if_it_is_full(tmp_path, monkeypatch, free_bytes, kind):
    monkeypatch.setattr(faults, "_free_bytes", lambda _: free_bytes)
    assert type(faults.translated(failure("mdb_txn_commit", errno.EIO), tmp_path)) is kind


def test_a_second_close_does_nothing(folder):
    store = open_store(folder)
    store.close()
    other = open_store(folder)
    store.close()
    with pytest.raises(StorageError, match="in use"):
        open_store(folder)
    other.close()
