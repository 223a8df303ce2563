"""`kvnet snapshot` on the folders of nodes that don't run, and what is refused."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from kvnet.cli.snapshot import _furthest, app
from kvnet.errors import ConfigError, KvnetError, PageDamaged, StorageError
from kvnet.topology.load import load
from nodes.cluster import RunFolder
from nodes.stores import cluster_id_of, open_store
from tests.support.frames import FrameMaker
from tests.support.stores import assert_is_fold


@pytest.fixture
def maker():
    maker = FrameMaker()
    maker.open_epoch()
    namespace = maker.create_namespace("settings")
    for number in range(1500):
        maker.put(namespace, b"key-%04d" % number, b"value" * 10)
    maker.cut()
    return maker


def made_folder(path, maker=None):
    """The run folder of a network that doesn't run; its coordinator has what the maker wrote."""
    folder = RunFolder(path)
    folder.claim(load("world-2018").with_pops(3).with_port_base(31_900), {})
    if maker is not None:
        store = opened(folder, "coordinator")
        store.apply(maker.frames)
        store.mark_verified()
        store.close()
    return folder


def opened(folder, name):
    topology = folder.topology()
    folder.node_folder(name).mkdir(exist_ok=True)
    return open_store(topology, name, folder.node_folder(name), cluster_id_of(topology, folder.secret()))


@pytest.fixture
def folder(tmp_path, maker):
    return made_folder(tmp_path / "net", maker)


def kvnet(folder, *arguments):
    result = CliRunner().invoke(app, [*map(str, arguments), *(["--data", str(folder.path)] if folder else [])])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result


def test_a_stopped_coordinator_is_saved_and_restored_elsewhere(folder, tmp_path, maker):
    file = tmp_path / "copy.snapshot"
    assert "saved 1,501 records at 1-1502 from coordinator" in kvnet(folder, "save", file).stderr
    assert file.stat().st_mode & 0o077 == 0
    told = json.loads(kvnet(None, "show", file, "--json").stdout)
    assert (told["position"], told["records"], told["saved_from"]) == ("1-1502", 1501, "coordinator")
    assert "It is whole." in kvnet(None, "show", file).stdout
    kvnet(folder, "restore", file, "--node", "IAD")
    for name in ("coordinator", "iad"):
        store = opened(folder, name)
        assert store.verified
        assert_is_fold(store, maker)
        store.close()


def test_data_that_are_there_are_replaced_only_by_force(folder, tmp_path, maker):
    file = tmp_path / "copy.snapshot"
    kvnet(folder, "save", file, "--node", "coordinator")
    store = opened(folder, "coordinator")
    maker.put(next(iter(store.namespaces)), b"later", b"1")
    store.apply([maker.cut()])
    store.close()
    with pytest.raises(ConfigError, match="has data, up to 1-1503: --force"):
        kvnet(folder, "restore", file)
    assert "up to 1-1502" in kvnet(folder, "restore", file, "--force").stderr
    store = opened(folder, "coordinator")
    assert store.position.seq == 1502
    store.close()


def test_a_damaged_store_is_replaced_only_by_force(folder, tmp_path, maker):
    file = tmp_path / "copy.snapshot"
    kvnet(folder, "save", file)
    [data] = folder.node_folder("coordinator").glob("store/replica-*/data.mdb")
    data.write_bytes(b"x" * 100)
    with pytest.raises(StorageError, match="--force"):
        kvnet(folder, "restore", file)
    with pytest.raises(StorageError):
        kvnet(folder, "save", tmp_path / "another", "--node", "coordinator")
    assert not (tmp_path / "another").exists()
    kvnet(folder, "restore", file, "--force")
    store = opened(folder, "coordinator")
    assert_is_fold(store, maker)
    store.close()


@pytest.mark.parametrize("spoil", [lambda data: data[:-1], lambda data: data[:500] + b"?" + data[501:]])
def test_what_was_cut_or_altered_is_refused_and_changes_nothing(folder, tmp_path, spoil, maker):
    file = tmp_path / "copy.snapshot"
    kvnet(folder, "save", file)
    file.write_bytes(spoil(file.read_bytes()))
    for command in (["show", file], ["restore", file, "--force"], ["restore", file, "--node", "iad"]):
        with pytest.raises(PageDamaged, match="take another copy"):
            kvnet(folder if command[0] == "restore" else None, *command)
    assert not folder.node_folder("iad").exists()
    store = opened(folder, "coordinator")
    assert_is_fold(store, maker)
    store.close()


def test_another_clusters_snapshot_is_refused_naming_both(folder, tmp_path, maker):
    file = tmp_path / "copy.snapshot"
    kvnet(folder, "save", file)
    other = made_folder(tmp_path / "other")
    ids = [cluster_id_of(each.topology(), each.secret()).hex() for each in (folder, other)]
    with pytest.raises(KvnetError, match=f"{ids[0]}.*{ids[1]}"):
        kvnet(other, "restore", file)
    assert not other.node_folder("coordinator").exists()


def test_a_node_that_runs_is_neither_saved_nor_restored_by_its_folder(folder, tmp_path):
    file = tmp_path / "copy.snapshot"
    kvnet(folder, "save", file)
    store = opened(folder, "coordinator")
    for command in (["save", tmp_path / "another", "--node", "coordinator"], ["restore", file, "--force"]):
        with pytest.raises(StorageError, match="in use by process"):
            kvnet(folder, *command)
    assert not (tmp_path / "another").exists()
    store.close()


def test_an_older_copy_stays_when_a_save_fails(folder, tmp_path):
    file = tmp_path / "copy.snapshot"
    kvnet(folder, "save", file)
    before = file.read_bytes()
    store = opened(folder, "iad")
    store.close()
    with pytest.raises(StorageError, match="nothing whole"):
        kvnet(folder, "save", file, "--node", "iad")
    assert file.read_bytes() == before
    assert list(tmp_path.glob(".copy*")) == []


@pytest.mark.parametrize(
    ("arguments", "cure"),
    [
        (["save", "{file}", "--node", "fra", "--pop", "fra"], "one of them"),
        (["save", "{file}", "--node", "nowhere"], "nowhere"),
        (["save", "{file}", "--node", "lad"], "has no data"),
        (["save", "{file}", "--pop", "nowhere"], "kvnet status"),
        (["save", "/nowhere/file"], "can't be written"),
        (["restore", "{file}"], "can't be read"),
        (["show", "{file}"], "can't be read"),
    ],
)
def test_what_cannot_be_done_is_told_with_its_cure(folder, tmp_path, arguments, cure):
    arguments = [argument.replace("{file}", str(tmp_path / "file")) for argument in arguments]
    with pytest.raises(ConfigError, match=cure):
        kvnet(folder if arguments[0] != "show" else None, *arguments)


def test_the_pop_that_is_furthest_and_whole_is_saved_from():
    ready = {"ready": True, "bootstrap": None}
    answers = {
        "fra": ready | {"position": "1-9"},
        "nrt": ready | {"position": "1-10"},
        "akl": ready | {"position": "1-11", "ready": False},
        "per": ready | {"position": "1-12", "bootstrap": {}},
        "iad": ready | {"position": "1-13", "bootstrap": {"pages": 1}},
        "lad": "down",
    }
    assert _furthest(answers) == "per"
    assert _furthest({"lad": "down"}) is None
