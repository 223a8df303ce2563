"""A replica read by another process than its node's: what it follows, and when it refuses."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from kvnet.errors import ForeignEnvironment, RequestError, StorageError
from kvnet.reader import open_replica, watch
from kvnet.reader import replica as replica_module
from kvnet.storage.disk import HOST
from tests.support.store_process import ACCOUNT, StoreProcess


def until(condition, what, deadline_s=30.0):
    give_up = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < give_up, f"never happened: {what}"
        time.sleep(0.01)


@pytest.fixture
def watched_closely(monkeypatch):
    """The folder is looked at a hundred times a second."""
    replica_module._watch.pause()
    monkeypatch.setattr(watch, "LOOK_INTERVAL_S", 0.01)
    yield
    replica_module._watch.pause()


def test_what_the_node_writes_is_read_at_once(node, folder):
    node.put("a", ("k", "1"))
    with open_replica(folder.parent) as replica:
        a = replica.namespace("a")
        assert (replica.pop, replica.running, list(replica.namespaces())) == ("fra", True, ["a"])
        assert a.get("k") == "1"
        before = replica.position
        node.put("a", ("k", "2"))
        assert a.get("k") == "2"
        assert replica.position > before


def test_the_folder_of_the_store_is_taken_as_well(node, folder):
    node.put("a", ("k", "1"))
    assert open_replica(folder).namespace("a").get("k") == "1"


def test_two_of_one_replica_share_what_lmdb_lets_be_open_once(node, folder):
    node.put("a", ("k", "1"))
    with open_replica(folder) as one, open_replica(folder.parent) as other:
        assert one.namespace("a").get("k") == other.namespace("a").get("k") == "1"
    with open_replica(folder) as again:
        assert again.namespace("a").get("k") == "1"


def test_a_namespace_is_gone_with_its_deletion_and_another_of_its_title_is_another(node, folder):
    node.put("a", ("k", "1"))
    node.put("b", ("k", "b"))
    with open_replica(folder) as replica:
        a, b = replica.namespace("a"), replica.namespace("b")
        assert (a.get("k"), b.get("k")) == ("1", "b")
        node.do("drop('a')")
        for read in (lambda: a.get("k"), lambda: a.get_with_metadata("k"), a.list, lambda: a.get(["k"])):
            with pytest.raises(RequestError, match="no namespace 'a'"):
                read()
        assert b.get("k") == "b"
        node.put("a", ("other", "2"))
        assert (a.get("k"), a.get("other")) == (None, "2")


def test_a_namespace_is_found_by_its_id(node, folder):
    node.put("a", ("k", "1"))
    with open_replica(folder) as replica:
        assert replica.namespace(replica.namespaces()["a"]).get("k") == "1"


def test_readers_follow_a_swap_without_an_unserved_moment_or_a_step_back(node, folder):
    """Five swaps and twenty writes under three threads of readers: values only grow."""
    node.put("a", ("k", "0"))
    replica = open_replica(folder)
    stop, failures, reads = threading.Event(), [], [0] * 3

    def read(number: int) -> None:
        try:
            last, a = (0, replica.position), replica.namespace("a")
            while not stop.is_set():
                position = replica.position
                now = int(a.get("k") or "-1"), position
                assert now >= last, f"{now} behind {last}"
                assert len(a.list().keys) == 1
                last = now
                reads[number] += 1
        except BaseException as error:  # noqa: BLE001 - the test's own thread raises it
            failures.append(error)

    readers = [threading.Thread(target=read, args=(number,)) for number in range(3)]
    for reader in readers:
        reader.start()
    try:
        number = 0
        for _ in range(5):
            for _ in range(4):
                number += 1
                node.put("a", ("k", str(number)))
            seen = list(reads)
            node.do("swap()")
            until(lambda seen=seen: failures or all(map(int.__lt__, seen, reads)), "all read on")
    finally:
        stop.set()
        for reader in readers:
            reader.join()
    assert failures == []
    assert replica.namespace("a").get("k") == "20"
    assert [each.name for each in folder.glob("replica*")] == ["replica-6"]


def test_a_killed_node_leaves_a_replica_that_is_read_on(node, folder):
    node.put("a", ("k", "1"))
    with open_replica(folder) as replica:
        a = replica.namespace("a")
        assert a.get("k") == "1"
        node.kill()
        assert a.get("k") == "1"
        assert not replica.running
        assert open_replica(folder).namespace("a").get("k") == "1"
        with StoreProcess(folder) as again:
            again.do("None")
            assert replica.running
            assert a.get("k") == "1"


def test_a_stopped_node_leaves_one_as_well(node, folder):
    node.put("a", ("k", "1"))
    node.stop()
    with open_replica(folder) as replica:
        assert (replica.running, replica.namespace("a").get("k")) == (False, "1")


@pytest.mark.parametrize("step", ["adopt: marked", "adopt: removed", "successor: marked", "open: marked"])
def test_a_node_killed_within_a_swap_leaves_one_of_the_two(node, folder, step):
    node.put("a", ("k", "1"))
    with open_replica(folder) as replica:
        a = replica.namespace("a")
        assert a.get("k") == "1"
        killing = f"lambda name: os.kill(os.getpid(), 9) if name == {step!r} else None"
        node.do(f"setattr(store._folder, 'step', {killing}) or setattr(store, '_step', store._folder.step)")
        with pytest.raises(AssertionError, match="it ended over"):
            node.do("swap() or os.kill(os.getpid(), 9)")
        assert a.get("k") == "1"
        assert open_replica(folder).namespace("a").get("k") == "1"


def test_a_node_killed_while_namespaces_change_leaves_readers_that_see_the_truth(node, folder):
    """The page says forever that a change is under way: each read then looks for itself."""
    node.put("a", ("k", "1"))
    with open_replica(folder) as replica:
        a = replica.namespace("a")
        assert a.get("k") == "1"
        node.do("setattr(store, '_publish', lambda *_: os.kill(os.getpid(), 9))")
        with pytest.raises(AssertionError, match="it ended over"):
            node.do("drop('a')")
        for _ in range(2):
            with pytest.raises(RequestError, match="no namespace 'a'"):
                a.get("k")


def test_a_replica_that_is_emptied_is_refused_until_it_is_whole_again(node, folder):
    node.put("a", ("k", "1"))
    with open_replica(folder) as replica:
        a = replica.namespace("a")
        assert a.get("k") == "1"
        node.do("store.reset()")
        with pytest.raises(StorageError, match="isn't whole yet: its node fills it"):
            a.get("k")
        with pytest.raises(StorageError, match="isn't whole yet"):
            open_replica(folder)
        node.do("swap()")
        assert a.get("k") == "1"


def test_a_replica_that_diverged_is_refused_from_the_moment_it_is_noticed(node, folder):
    node.put("a", ("k", "1"))
    with open_replica(folder) as replica:
        a = replica.namespace("a")
        assert a.get("k") == "1"
        node.do("setattr(maker, 'digest', maker.digest + 1)")
        with pytest.raises(AssertionError, match="Divergence"):
            node.put("a", ("k", "2"))
        with pytest.raises(StorageError, match="is damaged or diverged: its node makes it anew, try again when"):
            a.get("k")
        node.kill()
        with pytest.raises(StorageError, match="is damaged or diverged: start its node, which makes it anew"):
            a.get("k")


def test_a_replica_on_its_way_to_being_level_is_refused(node, folder):
    """It has the catalogue, and a part of the rest."""
    node.put("a", ("k", "1"))
    node.do("store.reset() or store.apply(maker.frames) and None")
    with pytest.raises(StorageError, match="isn't whole yet: its node fills it"):
        open_replica(folder)
    node.do("store.mark_verified()")
    assert open_replica(folder).namespace("a").get("k") == "1"


def test_nothing_is_remembered_while_a_change_is_under_way(node, folder):
    """As after a node that was killed within one: its successor begins with the word as it is."""
    node.put("a", ("k", "1"))
    with open_replica(folder) as replica:
        a = replica.namespace("a")
        node.do("page.begin()")
        assert a.get("k") == "1"
        node.do("setattr(store, '_publish', lambda *_: None) or drop('a')")
        with pytest.raises(RequestError, match="no namespace 'a'"):
            a.get("k")


def test_a_read_under_way_keeps_nobody_from_looking_again(node, folder):
    """Whoever still holds what LMDB lets be open once shares it with whoever opens it next."""
    node.put("a", ("k", "1"))
    with open_replica(folder) as replica:
        a = replica.namespace("a")
        assert a.get("k") == "1"
        reading = replica.look().opened.begin()
        replica.forget()
        assert a.get("k") == "1"
        reading.abort()


def test_a_replica_that_was_never_level_is_refused(folder):
    with StoreProcess(folder) as node:
        node.do("store.reset()")
        with pytest.raises(StorageError, match="isn't whole yet: its node fills it"):
            open_replica(folder)
    with pytest.raises(StorageError, match="isn't whole yet: start its node, which fills it"):
        open_replica(folder)


def test_a_folder_deleted_under_its_readers_is_told(node, folder, watched_closely):
    node.put("a", ("k", "1"))
    with open_replica(folder.parent) as replica:
        a = replica.namespace("a")
        assert a.get("k") == "1"
        node.kill()
        shutil.rmtree(folder.parent)
        told = []

        def is_told() -> bool:
            try:
                a.get("k")
            except StorageError as error:
                told.append(str(error))
            return bool(told)

        until(is_told, "it is told")
        assert re.fullmatch(
            r"there is no replica in .*: name the folder of an edge, .*`kvnet ps` names them", told[0]
        )


def test_a_folder_made_anew_under_its_readers_is_followed(node, folder, watched_closely):
    node.put("a", ("k", "1"))
    with open_replica(folder.parent) as replica:
        a = replica.namespace("a")
        assert a.get("k") == "1"
        node.kill()
        shutil.rmtree(folder.parent)
        with StoreProcess(folder) as again:
            again.put("a", ("k", "new"))
            until(lambda: a.get("k") == "new", "the new one is read")


def holds(folder, name) -> bool:
    return f"{folder}/{name}/data.mdb" in Path("/proc/self/maps").read_text()


def test_a_replica_that_was_replaced_takes_no_room_though_nobody_reads(node, folder, watched_closely):
    node.put("a", ("k", "1"))
    with open_replica(folder) as replica:
        a = replica.namespace("a")
        assert a.get("k") == "1"
        assert holds(folder, "replica-1")
        node.do("swap()")
        until(lambda: not holds(folder, "replica-1"), "the old one is let go of")
        assert a.get("k") == "1"


def test_a_namespace_that_isnt_read_any_more_holds_no_old_replica(node, folder, monkeypatch):
    replica_module._watch.pause()
    monkeypatch.setattr(watch, "LOOK_INTERVAL_S", 1e6)
    node.put("a", ("k", "1"))
    with open_replica(folder) as replica:
        a, other = replica.namespace("a"), replica.namespace("a")
        assert a.get("k") == other.get("k") == "1"
        node.do("swap()")
        assert a.get("k") == "1"
        assert (holds(folder, "replica-1"), holds(folder, "replica-2")) == (False, True)
        assert other.get("k") == "1"
    replica_module._watch.pause()


def test_no_folder_is_told(tmp_path):
    with pytest.raises(StorageError, match="no replica in"):
        open_replica(tmp_path / "nowhere")


def test_a_run_folder_is_told(tmp_path):
    (tmp_path / "cluster.json").write_text("{}")
    with pytest.raises(StorageError, match="is a run folder: open the folder of an edge in it"):
        open_replica(tmp_path)


def test_the_coordinators_folder_is_told(tmp_path):
    with StoreProcess(tmp_path / "coordinator" / "store", node="coordinator", shared=False) as node:
        node.do("None")
        with pytest.raises(StorageError, match="is the coordinator's: open the folder of an edge"):
            open_replica(tmp_path / "coordinator")


def test_a_folder_whose_node_tells_nothing_is_told(tmp_path):
    with StoreProcess(tmp_path / "store", shared=False) as node:
        node.do("None")
        with pytest.raises(StorageError, match="start its node once with this kvnet"):
            open_replica(tmp_path)


def test_another_format_is_told(node, folder):
    node.stop()
    mark = json.loads((folder / "mark.json").read_text())
    (folder / "mark.json").write_text(json.dumps(mark | {"format": 99}))
    with pytest.raises(ForeignEnvironment, match="has format 99, this kvnet reads 3: upgrade kvnet"):
        open_replica(folder)


def test_a_page_of_another_layout_is_told(node, folder):
    node.stop()
    with (folder / "serving").open("r+b") as page:
        page.seek(15)
        page.write(b"\x7f")
    with pytest.raises(StorageError, match="start its node once with this kvnet"):
        open_replica(folder)
    with StoreProcess(folder) as again:
        again.do("None")
        assert open_replica(folder).running


def test_another_networks_replica_in_this_run_folder_is_told(node, folder):
    node.do("None")
    run = folder.parent.parent
    (run / "cluster.json").write_text(json.dumps({"account_id": ACCOUNT}))
    open_replica(folder.parent).close()
    (run / "cluster.json").write_text(json.dumps({"account_id": "b" * 32}))
    with pytest.raises(ForeignEnvironment, match="belongs to another network than the run folder"):
        open_replica(folder.parent)


def test_another_nodes_environment_under_this_mark_is_told(node, folder):
    node.stop()
    mark = json.loads((folder / "mark.json").read_text())
    (folder / "mark.json").write_text(json.dumps(mark | {"node": "ams"}))
    with pytest.raises(ForeignEnvironment, match="belongs to node fra, not to ams"):
        open_replica(folder)


@pytest.fixture
def forbidden(folder):
    """Only its owner may read the folder; who is root becomes somebody else for once."""
    own = os.geteuid()
    if own == 0:
        os.seteuid(65534)
    else:
        folder.chmod(0)
    yield
    os.seteuid(own)
    folder.chmod(0o700)


def test_a_folder_that_may_not_be_read_is_told(node, folder, request):
    node.stop()
    request.getfixturevalue("forbidden")
    with pytest.raises(StorageError, match="can't be read: run this as the user who runs the node"):
        open_replica(folder)
    with pytest.raises(StorageError, match="can't be read: run this as the user who runs the node"):
        open_replica(folder.parent)


def test_a_damaged_mark_is_told(node, folder):
    node.stop()
    (folder / "mark.json").write_text("{")
    with pytest.raises(StorageError, match="can't be read: start its node, which mends it"):
        open_replica(folder)


def test_an_environment_that_was_cut_is_told(node, folder):
    node.stop()
    with (folder / "replica-1" / "data.mdb").open("r+b") as file:
        file.truncate(8192)
    with pytest.raises(StorageError, match="was cut: 8192 of"):
        open_replica(folder)


def test_after_a_crash_of_the_machine_an_unsynced_replica_is_refused(node, folder, monkeypatch):
    node.put("a", ("k", "1"))
    node.kill()
    monkeypatch.setattr(type(HOST), "boot_id", lambda _: "another boot")
    with pytest.raises(StorageError, match="wasn't synced: start its node, which makes it anew"):
        open_replica(folder)


def test_after_a_clean_restart_of_the_machine_it_is_read_at_the_time_it_had(node, folder, monkeypatch):
    """Nothing on the page is true then: neither that it was refused, nor what time it is."""
    node.do("page.tell_time(1e15, 1e15)")
    node.put("a", ("k", "1"))
    node.stop()
    monkeypatch.setattr(type(HOST), "boot_id", lambda _: "another boot")
    with open_replica(folder) as replica:
        assert replica.namespace("a").get("k") == "1"
        assert replica.now_s() == pytest.approx(1_522_540_800, abs=60)
        assert replica.staleness_ms() > 1e10


def test_a_closed_replica_says_so(node, folder):
    node.put("a", ("k", "1"))
    replica = open_replica(folder)
    a = replica.namespace("a")
    assert a.get("k") == "1"
    replica.close()
    for read in (lambda: a.get("k"), lambda: replica.position, replica.staleness_ms):
        with pytest.raises(StorageError, match="was closed: open it again"):
            read()


def test_both_sides_of_a_fork_read_on(node, folder):
    node.put("a", ("k", "1"))
    with open_replica(folder) as replica:
        a = replica.namespace("a")
        assert a.get("k") == "1"
        child = os.fork()
        if child == 0:
            os._exit(0 if [a.get("k") for _ in range(3)] == ["1"] * 3 and replica.position.seq else 1)
        assert a.get("k") == "1"
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        node.put("a", ("k", "2"))
        assert a.get("k") == "2"


def test_a_fork_finds_no_thread_of_ours(node, folder):
    """Python warns of threads in a process that forks, and is right: they may hold any lock."""
    node.put("a", ("k", "1"))
    with open_replica(folder) as replica:
        assert replica.namespace("a").get("k") == "1"
        assert "kvnet replica watch" in {thread.name for thread in threading.enumerate()}
        child = os.fork()
        if child == 0:
            os._exit(0)
        os.waitpid(child, 0)
        assert "kvnet replica watch" not in {thread.name for thread in threading.enumerate()}
        assert replica.namespace("a").get("k") == "1"
        assert "kvnet replica watch" in {thread.name for thread in threading.enumerate()}


FORKS = """
import os, sys, threading
from kvnet.reader import open_replica

replica = open_replica(sys.argv[1])
a = replica.namespace("a")

def fork_often():
    for _ in range(60):
        child = os.fork()
        if child == 0:
            os._exit(a.get("k") != "1")
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

threads = [threading.Thread(target=fork_often, daemon=True) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert a.get("k") == "1"
"""


def test_threads_that_fork_at_once_all_go_on(node, folder):
    """Each of them once took the other's list of what is to be let go of, and a lock stayed held."""
    node.put("a", ("k", "1"))
    subprocess.run([sys.executable, "-W", "ignore", "-c", FORKS, str(folder)], timeout=60, check=True)


def test_no_transaction_is_left_open(node, folder):
    """Pages that a reader might still see are never used again: the file would grow with every write."""
    node.put("a", ("k", "x" * 1000))
    with open_replica(folder) as replica:
        a = replica.namespace("a")
        before, written = 0, "x" * 1000
        for number in range(300):
            assert a.get_with_metadata("k").value == a.get(["k"])["k"] == a.get("k") == written
            written = f"{number:01000}"
            node.put("a", ("k", written))
            if number == 100:
                before = (folder / "replica-1" / "data.mdb").stat().st_size
        assert before > 0
        # 300 kB of journal, and nothing else, was written since
        assert (folder / "replica-1" / "data.mdb").stat().st_size < before + 600_000


def test_the_node_clears_what_a_reader_left_that_was_killed_within_a_read(node, folder):
    node.put("a", ("k", "1"))
    script = (
        "import sys, kvnet\n"
        "reading = kvnet.open_replica(sys.argv[1]).look().opened.begin()\n"
        "print('reads', flush=True)\n"
        "sys.stdin.read()\n"
    )
    reader = subprocess.Popen(
        [sys.executable, "-c", script, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with reader:
        assert reader.stdout.readline() == "reads\n"
        assert node.do("store.environment.tidy()") == 0
        reader.kill()
        reader.wait(30)
        assert node.do("store.environment.tidy()") >= 1


def test_what_is_imported_needs_no_network():
    """A reader is started often, and next to an application: aiohttp alone takes a quarter of a second."""
    script = "import sys, kvnet; kvnet.open_replica; print('aiohttp' in sys.modules, 'asyncio' in sys.modules)"
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ended.stdout.split() == ["False", "False"]
