from __future__ import annotations

import json
import re
import stat
from pathlib import Path

import pytest

from kvnet.errors import ConfigError
from kvnet.topology.load import load
from kvnet.topology.schema import Topology
from kvnet.workers.running import WorkerFolder
from nodes.cluster import FolderInUse, RunFolder


@pytest.fixture
def topology() -> Topology:
    return load("world-2018").with_pops(3)


@pytest.fixture
def folder(tmp_path) -> RunFolder:
    return RunFolder(tmp_path / "run")


def test_cluster_json_has_what_clients_read(folder, topology):
    identity = folder.claim(topology, {"iad": 77})
    cluster = json.loads(folder.cluster_file.read_bytes())
    assert re.fullmatch(r"[0-9a-f]{32}", cluster["account_id"])
    assert cluster["tokens"] == dict(identity.tokens)
    assert {scope: token.split("_")[1] for scope, token in cluster["tokens"].items()} == {
        "admin": "admin",
        "write": "write",
        "read": "read",
    }
    assert cluster["limits"] == topology.limits.resolve().as_dict()
    assert cluster["coordinator"] == {"name": "coordinator", "url": "http://127.0.0.1:21000", "pid": None}
    assert cluster["monitor"] == {"url": "http://127.0.0.1:21001", "pid": None}
    assert cluster["pops"]["iad"] == {
        "url": "http://127.0.0.1:21010",
        "pid": 77,
        "city": "Ashburn",
        "country": "US",
        "lat": 38.9475,
        "lon": -77.4599,
    }
    assert list(cluster["pops"]) == [pop.code for pop in topology.pops]


def test_secrets_are_for_their_owner_alone(folder, topology):
    folder.claim(topology, {})
    for file in (folder.cluster_file, folder.secret_file, folder.topology_file):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.path.stat().st_mode) == 0o700


def test_identity_survives_the_next_start_on_other_ports(folder, topology):
    first, secret = folder.claim(topology, {}), folder.secret()
    again = folder.claim(topology.with_port_base(23_000), {})
    assert (again, folder.secret()) == (first, secret)
    assert folder.cluster()["coordinator"]["url"] == "http://127.0.0.1:23000"
    assert folder.topology() == topology.with_port_base(23_000)


def test_another_networks_folder_is_refused_and_untouched(folder, topology):
    folder.claim(topology, {})
    before = folder.cluster_file.read_bytes()
    with pytest.raises(ConfigError, match="--wipe"):
        folder.claim(load("world-2018").with_pops(4), {})
    assert folder.cluster_file.read_bytes() == before


def test_secret_may_lie_elsewhere(tmp_path, topology):
    elsewhere = tmp_path / "secret-of-all-hosts"
    elsewhere.write_text("correct horse battery staple\n")
    folder = RunFolder(tmp_path / "run", elsewhere)
    folder.claim(topology, {})
    assert folder.secret() == b"correct horse battery staple"
    assert not (folder.path / "secret").exists()


@pytest.mark.parametrize("content", [b"", b"short\n"])
def test_secret_that_is_none_is_refused(tmp_path, content):
    file = tmp_path / "secret"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match="at least 16"):
        RunFolder(tmp_path / "run", file).secret()


def test_missing_secret_names_the_cure(folder):
    with pytest.raises(ConfigError, match="KVNET_SECRET_FILE"):
        folder.secret()


def test_folder_without_a_network_names_the_cure(folder):
    with pytest.raises(ConfigError, match="kvnet up"):
        folder.cluster()
    with pytest.raises(ConfigError, match="kvnet up"):
        folder.topology()


def test_damaged_cluster_json_is_one_line(folder, topology):
    folder.claim(topology, {})
    whole = json.loads(folder.cluster_file.read_bytes())
    lacking = [
        json.dumps({name: value for name, value in whole.items() if name != left_out}) for left_out in whole
    ]
    halves = [
        json.dumps(whole | half) for half in ({"tokens": {}}, {"pops": []}, {"pops": {"iad": {}}}, {"monitor": 1})
    ]
    for content in ('{"account_id":', "{}", "[]", "7", *lacking, *halves):
        folder.cluster_file.write_text(content)
        with pytest.raises(ConfigError, match="--wipe"):
            folder.cluster()
        with pytest.raises(ConfigError, match="--wipe"):
            folder.identity()


@pytest.mark.parametrize("damaged", ["cluster.json", "topology.yaml"])
def test_wipe_cures_a_damaged_folder(folder, topology, damaged):
    """The errors above name --wipe, which read the same file and failed like them."""
    folder.claim(topology, {})
    folder.log_of("iad").parent.mkdir()
    (folder.path / damaged).write_text("{")
    folder.wipe()
    assert list(folder.path.iterdir()) == []


def test_single_pids_are_recorded_beside_each_other(folder, topology):
    folder.claim(topology, {})
    folder.record_pid("iad", 5)
    folder.record_pid("coordinator", 6)
    folder.record_pid("monitor", 7)
    folder.record_pid("iad", None)
    pids = folder.pids()
    assert (pids["coordinator"], pids["monitor"], pids["iad"]) == (6, 7, None)


def test_wipe_deletes_the_network_and_nothing_else(folder, topology):
    folder.claim(topology, {})
    for file in (folder.log_of("iad"), folder.log_of("coordinator"), folder.path / "runs" / "a.json"):
        file.parent.mkdir()
        file.write_text("x")
    folder.history_file.write_text("a wiped coordinator has lost nothing")
    mine = folder.path / "notes.txt"
    mine.write_text("keep me")
    folder.wipe()
    assert sorted(path.name for path in folder.path.iterdir()) == ["notes.txt", "runs"]


def test_wipe_deletes_what_workers_were_started_with(folder, topology):
    """Their configuration holds a token of the network that is gone."""
    folder.claim(topology, {})
    worker = WorkerFolder(folder.path, "app")
    with worker.claimed():
        worker.configuration.write_text(folder.identity().tokens["write"])
    folder.wipe()
    assert list(folder.path.iterdir()) == []


def test_wipe_leaves_a_folder_that_is_not_ours_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    (tmp_path / "secret").write_text("diary")
    with pytest.raises(ConfigError, match="nothing was deleted"):
        RunFolder(tmp_path).wipe()
    assert len(list(tmp_path.iterdir())) == 2


def test_wipe_of_what_is_not_there_is_no_error(folder):
    folder.wipe()
    with folder.locked():
        folder.wipe()


def test_second_launcher_is_told_who_has_the_folder(folder):
    other = RunFolder(folder.path)
    with folder.locked(), pytest.raises(FolderInUse, match=r"pid \d+.*kvnet down"), other.locked():
        pass
    with other.locked():
        assert Path(other.lock_file).exists()
