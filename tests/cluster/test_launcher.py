"""The launcher over real processes: fake nodes that only listen, say so, and misbehave on request."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kvnet.errors import ConfigError, KvnetError
from kvnet.topology.load import load
from nodes.alone import run_alone
from nodes.cluster import RunFolder
from nodes.control import ControlClient
from nodes.launcher import stop
from nodes.preflight import PortBlock
from tests.support.fake_nodes import MAINS

DEADLINE_S = 30.0
ROOT = Path(__file__).parents[2]
TOPOLOGY = load("world-2018").with_pops(3)
EDGES = [pop.code for pop in TOPOLOGY.pops]


class Launched:
    """A launcher in a process of its own."""

    def __init__(self, folder: RunFolder, *options: str) -> None:
        self.folder = folder
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.launched", str(folder.path), *options],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def until_formed(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            if "formed_ms" in json.loads(line):
                return
        raise AssertionError(f"never formed: {self.process.stderr.read()}")

    def ended(self) -> tuple[int, str]:
        """Wait for its end; return its exit code and what it said on stderr."""
        _, errors = self.process.communicate(timeout=DEADLINE_S)
        return self.process.returncode, errors

    def nodes(self) -> dict[str, dict[str, Any]]:
        with ControlClient(self.folder.control_socket) as launcher:
            return {node["name"]: node for node in launcher.ask("status")["nodes"]}


@pytest.fixture
def folder(tmp_path) -> Iterator[RunFolder]:
    folder = RunFolder(tmp_path / "run")
    yield folder
    stop(folder, wipe=False)


@pytest.fixture
def network(folder) -> Iterator[Launched]:
    launched = Launched(folder)
    launched.until_formed()
    yield launched
    launched.process.kill()
    launched.process.communicate()


def wait_until(condition: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + DEADLINE_S
    while not (result := condition()):
        assert time.monotonic() < deadline, f"never happened: {what}"
        time.sleep(0.02)
    return result


def is_alive(pid: int) -> bool:
    """Whether the process runs; one that waits to be reaped doesn't."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def pids_of(folder: RunFolder) -> dict[str, int]:
    return {name: pid for name, pid in folder.pids().items() if pid}


def starts_of(folder: RunFolder, name: str) -> list[int]:
    return [int(line) for line in (folder.node_folder(name) / "starts").read_text().split()]


def misbehave(folder: RunFolder, name: str, mode: str) -> None:
    folder.node_folder(name).mkdir(parents=True, exist_ok=True)
    (folder.node_folder(name) / "mode").write_text(mode)


def truth(folder: RunFolder) -> dict[str, float | None]:
    return {code: pop["up_since_ms"] for code, pop in json.loads(folder.truth_file.read_bytes())["pops"].items()}


def test_formed_network_tells_its_pids_and_who_is_up(network, folder):
    pids = pids_of(folder)
    assert set(pids) == {"coordinator", "monitor", *EDGES}
    assert all(map(is_alive, pids.values()))
    assert Path(f"/proc/{pids['iad']}/cmdline").read_bytes().startswith(b"kvnet: iad")
    assert all(truth(folder).values())


def test_nodes_share_nothing_but_what_they_were_given(network, folder):
    """Pipes of other nodes, the zygote's commands, the launcher's socket: none of it is open in a node."""
    open_files = {}
    for name, pid in pids_of(folder).items():
        links = [str(entry.readlink()) for entry in Path(f"/proc/{pid}/fd").iterdir()]
        open_files[name] = {link for link in links if link.startswith("pipe:")}
    assert all(len(pipes) == 1 for pipes in open_files.values())
    assert len(set.union(*open_files.values())) == len(open_files)


def test_killed_node_comes_back_with_its_data_and_its_pid_is_kept_true(network, folder):
    before = pids_of(folder)["iad"]
    os.kill(before, signal.SIGKILL)
    after = wait_until(lambda: (pid := pids_of(folder).get("iad")) != before and pid, "a new pid")
    wait_until(lambda: truth(folder)["iad"], "iad is up again")
    assert starts_of(folder, "iad") == [before, after]
    assert network.nodes()["iad"]["restarts"] == 1


def test_killed_zygote_brings_all_nodes_back(network, folder):
    before = pids_of(folder)
    zygote = int(Path(f"/proc/{before['iad']}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(zygote, signal.SIGKILL)
    after = wait_until(
        lambda: (pids := pids_of(folder)).keys() == before.keys() and not pids.items() & before.items() and pids,
        "every node has another pid",
    )
    wait_until(lambda: all(truth(folder).values()), "all are up again")
    assert not any(map(is_alive, before.values()))
    assert all(map(is_alive, after.values()))


def test_killed_launcher_leaves_no_orphans_and_the_folder_free(network, folder):
    pids = pids_of(folder)
    network.process.kill()
    network.process.wait()
    wait_until(lambda: not any(map(is_alive, pids.values())), "all nodes have ended")
    again = Launched(folder)
    again.until_formed()
    assert [len(starts_of(folder, code)) for code in EDGES] == [2, 2, 2]
    assert stop(folder, wipe=False)
    assert again.ended() == (0, "")


def test_orders_stop_and_start_one_node(network, folder):
    with ControlClient(folder.control_socket) as launcher:
        assert launcher.ask("stop", node="IAD")["phase"] == "stopped"
        wait_until(lambda: truth(folder)["iad"] is None, "iad is down")
        wait_until(lambda: "iad" not in pids_of(folder), "its pid is gone too")
        assert launcher.ask("start", node="iad")["phase"] == "ready"
        first = pids_of(folder)
        assert launcher.ask("restart", node="iad")["pid"] not in first.values()
        with pytest.raises(ConfigError, match=r"no node is called 'ida'.*iad"):
            launcher.ask("stop", node="ida")
        with pytest.raises(ConfigError, match="unknown flag"):
            launcher.ask("start", node="iad", flags=["fast"])
    assert len(starts_of(folder, "iad")) == 3


def test_node_that_cannot_start_again_is_given_up_and_reported(network, folder):
    misbehave(folder, "iad", "refuse")
    with ControlClient(folder.control_socket) as launcher:
        with pytest.raises(KvnetError, match="it will not: mend its mode"):
            launcher.ask("restart", node="iad")
        wait_until(lambda: network.nodes()["iad"]["phase"] == "given up", "iad is given up")
        (folder.node_folder("iad") / "mode").unlink()
        assert launcher.ask("start", node="iad")["phase"] == "ready"
    assert folder.log_of("iad").read_text().count("kvnet: it will not") == 5


def test_down_stops_everything_in_order_and_keeps_the_data(network, folder):
    pids = pids_of(folder)
    assert stop(folder, wipe=False)
    assert network.ended() == (0, "")
    assert not any(map(is_alive, pids.values()))
    assert pids_of(folder) == {}
    assert not folder.control_socket.exists()
    assert all("stopped" in folder.log_of(name).read_text() for name in pids)
    assert not stop(folder, wipe=True)
    assert [path.name for path in folder.path.iterdir()] == [folder.lock_file.name]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_stop_the_network(network, folder, number):
    pids = pids_of(folder)
    network.process.send_signal(number)
    assert network.ended() == (0, "")
    assert not any(map(is_alive, pids.values()))


def test_node_that_ignores_its_end_is_killed_when_asked_twice(folder):
    misbehave(folder, "iad", "stubborn")
    launched = Launched(folder)
    launched.until_formed()
    pids = pids_of(folder)
    launched.process.send_signal(signal.SIGINT)
    wait_until(lambda: not is_alive(pids[EDGES[1]]), "the others have ended")
    assert is_alive(pids["iad"])
    launched.process.send_signal(signal.SIGINT)
    assert launched.ended()[0] == 0
    assert not is_alive(pids["iad"])


@pytest.mark.parametrize(
    ("mode", "code", "told"),
    [
        ("refuse", 2, "iad: it will not: mend its mode"),
        ("crash", 1, "iad: crashed with ZeroDivisionError: a bug"),
        ("die", 1, "iad can't be started: killed by SIGKILL"),
    ],
)
def test_network_that_cannot_form_leaves_nothing_behind(folder, mode, code, told):
    misbehave(folder, "iad", mode)
    launched = Launched(folder)
    exit_code, errors = launched.ended()
    assert exit_code == code
    assert errors.startswith(f"kvnet: {told}")
    assert errors.count("\n") == 1
    started = [pid for name in ("coordinator", "monitor", *EDGES) for pid in started_of(folder, name)]
    assert started
    assert not any(map(is_alive, started))


def started_of(folder: RunFolder, name: str) -> list[int]:
    return starts_of(folder, name) if (folder.node_folder(name) / "starts").exists() else []


def test_network_with_a_mute_edge_is_not_formed_and_can_be_interrupted(folder):
    misbehave(folder, "iad", "mute")
    launched = Launched(folder)
    wait_until(lambda: folder.truth_file.exists() and all(truth(folder).values()), "all are up")
    with ControlClient(folder.control_socket) as launcher:
        assert launcher.ask("status")["formed_ms"] is None
    launched.process.send_signal(signal.SIGINT)
    assert launched.ended() == (0, "")


def test_taken_port_is_one_line_that_names_the_holder(folder):
    block = PortBlock.next_free(TOPOLOGY.with_port_base(25_000))
    block.release()
    port = block.topology.port_of("monitor")
    with socket.socket() as ear:
        ear.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        ear.bind(("127.0.0.1", port))
        ear.listen()
        code, errors = Launched(folder, "--port-base", str(block.topology.listen.port_base)).ended()
    assert code == 2
    assert f"port {port} is taken by pid {os.getpid()}" in errors
    assert errors.count("\n") == 1
    assert not folder.cluster_file.exists()


def test_second_network_in_one_folder_is_refused(network, folder):
    code, errors = Launched(folder).ended()
    assert code == 2
    assert "kvnet down" in errors
    assert errors.count("\n") == 1


def test_second_network_elsewhere_takes_the_next_ports(network, folder, tmp_path):
    other = RunFolder(tmp_path / "other")
    launched = Launched(other)
    launched.until_formed()
    urls = {folder.cluster()["coordinator"]["url"], other.cluster()["coordinator"]["url"]}
    assert stop(other, wipe=False)
    assert launched.ended() == (0, "")
    assert len(urls) == 2


def test_folder_of_another_network_is_refused_until_wiped(network, folder):
    account = folder.identity().account_id
    stop(folder, wipe=False)
    code, errors = Launched(folder, "--pops", "2").ended()
    assert code == 2
    assert "--wipe" in errors
    assert errors.count("\n") == 1
    launched = Launched(folder, "--pops", "2", "--wipe")
    launched.until_formed()
    assert folder.identity().account_id != account
    assert stop(folder, wipe=False)
    assert launched.ended() == (0, "")


def test_restarted_network_keeps_its_urls(network, folder):
    before = folder.cluster()["pops"]["iad"]["url"]
    stop(folder, wipe=False)
    launched = Launched(folder)
    launched.until_formed()
    assert folder.cluster()["pops"]["iad"]["url"] == before
    stop(folder, wipe=False)
    assert launched.ended() == (0, "")


def test_detached_network_outlives_its_starter(folder):
    launched = Launched(folder, "--detach")
    launched.until_formed()
    assert launched.ended() == (0, "")
    pids = pids_of(folder)
    assert all(map(is_alive, pids.values()))
    assert len(launched.nodes()) == len(pids)
    assert "formed after" in folder.launcher_log.read_text()
    assert stop(folder, wipe=False)
    assert not any(map(is_alive, pids.values()))


def test_detached_network_that_cannot_form_is_one_line_too(folder):
    misbehave(folder, "iad", "refuse")
    launched = Launched(folder, "--detach")
    assert launched.ended() == (2, "kvnet: iad: it will not: mend its mode\n")
    assert not stop(folder, wipe=False)


def test_interrupted_starter_takes_its_network_with_it(folder):
    misbehave(folder, "iad", "mute")
    launched = Launched(folder, "--detach")
    wait_until(lambda: folder.truth_file.exists() and all(truth(folder).values()), "all are up")
    pids = pids_of(folder)
    launched.process.send_signal(signal.SIGINT)
    launched.ended()
    assert not any(map(is_alive, pids.values()))


def test_edge_alone_needs_the_secret(folder):
    with pytest.raises(ConfigError, match="KVNET_SECRET_FILE"):
        run_alone("iad", TOPOLOGY, folder, mains=MAINS)
    assert not folder.path.exists()


def test_nodes_started_one_by_one_share_a_folder(folder):
    block = PortBlock.next_free(TOPOLOGY.with_port_base(26_000))
    block.release()
    program = (
        "import sys; from pathlib import Path;"
        "from kvnet.topology.load import load; from nodes.alone import run_alone;"
        "from nodes.cluster import RunFolder; from tests.support.fake_nodes import MAINS;"
        "topology = load('world-2018').with_pops(3).with_port_base(int(sys.argv[3]));"
        "raise SystemExit(run_alone(sys.argv[1], topology, RunFolder(Path(sys.argv[2])), mains=MAINS))"
    )
    base = str(block.topology.listen.port_base)
    processes = {}
    try:
        for name in ("coordinator", "iad"):
            processes[name] = subprocess.Popen(
                [sys.executable, "-c", program, name, str(folder.path), base], cwd=ROOT
            )
            wait_until(lambda name=name: pids_of(folder).get(name), f"{name} has started")
        assert pids_of(folder) == {name: process.pid for name, process in processes.items()}
        wait_until(lambda: listens(block.topology.port_of("iad")), "iad listens")
    finally:
        for process in processes.values():
            process.terminate()
    assert [process.wait(DEADLINE_S) for process in processes.values()] == [0, 0]
    assert pids_of(folder) == {}


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
