from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from kvnet.errors import ConfigError, KvnetError
from kvnet.workers.running import WorkerFolder, find_running

POPS = {"nrt": "http://127.0.0.1:26200"}


def test_what_runs_is_found_until_it_ends(tmp_path):
    folder = WorkerFolder(tmp_path, "app")
    with folder.claimed():
        assert find_running_names(tmp_path) == []
        folder.tell(POPS)
        running = find_running(tmp_path, None)
        assert (running.name, running.pid, running.pops) == ("app", os.getpid(), POPS)
        assert json.loads(folder.running.read_text()) == {"name": "app", "pid": os.getpid(), "pops": POPS}
    assert not folder.running.exists()
    with pytest.raises(KvnetError, match="kvnet workers dev"):
        find_running(tmp_path, None)


def find_running_names(data):
    try:
        return [find_running(data, None).name]
    except KvnetError:
        return []


def test_one_that_has_gone_without_a_word_is_not_running(tmp_path):
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    folder = WorkerFolder(tmp_path, "app")
    folder.make()
    folder.running.write_text(json.dumps({"name": "app", "pid": int(gone.stdout), "pops": POPS}))
    assert find_running_names(tmp_path) == []


def test_one_whose_pid_is_another_processs_now_is_not_running(tmp_path):
    """Killed, it leaves its file; and the system gives pids again."""
    folder = WorkerFolder(tmp_path, "app")
    with folder.claimed():
        folder.tell(POPS)
        left = folder.running.read_bytes()
    folder.running.write_bytes(left)
    os.kill(json.loads(left)["pid"], 0)  # which somebody has
    assert find_running_names(tmp_path) == []
    with folder.claimed():
        folder.tell(POPS)
        assert find_running_names(tmp_path) == ["app"]


def test_looking_takes_no_lock_and_gives_none_up(tmp_path):
    folder = WorkerFolder(tmp_path, "app")
    with folder.claimed():
        folder.tell(POPS)
        assert find_running_names(tmp_path) == ["app"]
        with pytest.raises(ConfigError), WorkerFolder(tmp_path, "app").claimed():
            pass
        assert find_running_names(tmp_path) == ["app"]
    with folder.claimed():
        pass


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"name": "app", "pid": "x", "pops": {}}'])
def test_a_file_that_is_not_whole_tells_of_nothing(tmp_path, text):
    folder = WorkerFolder(tmp_path, "app")
    folder.make()
    folder.running.write_text(text)
    assert find_running_names(tmp_path) == []


def test_of_several_one_has_to_be_chosen(tmp_path):
    with WorkerFolder(tmp_path, "a").claimed(), WorkerFolder(tmp_path, "b").claimed():
        WorkerFolder(tmp_path, "a").tell(POPS)
        WorkerFolder(tmp_path, "b").tell(POPS)
        assert find_running(tmp_path, "b").name == "b"
        with pytest.raises(ConfigError, match=r"--worker \(a, b\)"):
            find_running(tmp_path, None)
        with pytest.raises(KvnetError, match=r"'c'.*a, b"):
            find_running(tmp_path, "c")


def test_a_name_is_kept_by_one_at_a_time(tmp_path):
    with WorkerFolder(tmp_path, "app").claimed():
        WorkerFolder(tmp_path, "app").tell(POPS)
        with (
            pytest.raises(ConfigError, match=f"pid {os.getpid()}.*--name"),
            WorkerFolder(tmp_path, "app").claimed(),
        ):
            pass
        assert find_running(tmp_path, None).name == "app"  # whoever was refused took nothing away
    with WorkerFolder(tmp_path, "app").claimed():
        pass


def test_its_files_are_their_owners_alone(tmp_path):
    folder = WorkerFolder(tmp_path, "app")
    with folder.claimed():
        folder.tell(POPS)
        assert folder.path.stat().st_mode & 0o077 == 0
        assert folder.running.stat().st_mode & 0o077 == 0
