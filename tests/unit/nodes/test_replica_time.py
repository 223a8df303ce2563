"""The time by which a node's reads find records expired: never back, whatever the clocks and the process do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest

from kvnet.core.freshness import ReplicaClock
from kvnet.core.state import NEVER
from kvnet.storage.clock_file import ClockFile
from nodes import coordinator as coordinators
from nodes import node as nodes
from nodes.coordinator import Coordinator
from nodes.edge import Edge

WALL_S = 1_522_540_800.0
STAMP = int(WALL_S * 1000) << 16

READING = """
import sys
from pathlib import Path
from tests.unit.nodes.test_replica_time import WALL_S, Clocks, edge

clocks = Clocks()
started = edge(Path(sys.argv[1]), clocks)
for second in range(100):
    clocks.beacon(started, WALL_S + second)
    sys.stdout.write(f"{started.now_s()}\\n")
    sys.stdout.flush()
sys.stdin.read()
"""


class Clocks:
    """A host's wall and monotonic clock, which the test sets."""

    def __init__(self) -> None:
        self.wall_s = WALL_S
        self.monotonic_ms = 0.0

    def pass_by(self, seconds: float) -> None:
        self.wall_s += seconds
        self.monotonic_ms += 1000 * seconds

    def beacon(self, node, wall_s: float) -> None:
        node.core.state.beacon_time_ms, node.core.state.beacon_at = wall_s * 1000, self.monotonic_ms


def start(role, path, clocks, stamp=STAMP):
    """A node's clock as `_serve` makes it: a whole node has a port and a store."""
    node = role.__new__(role)
    node.core = SimpleNamespace(state=SimpleNamespace(beacon_at=NEVER, beacon_time_ms=0.0))
    node._clock_file = ClockFile(path)
    node.clock = ReplicaClock(stamp, node._clock_file.reached_ms)
    for module in (nodes, coordinators):
        module.monotonic_ms = lambda: clocks.monotonic_ms
    coordinators.time = SimpleNamespace(time=lambda: clocks.wall_s, time_ns=lambda: int(clocks.wall_s * 1e9))
    return node


def edge(path, clocks, stamp=STAMP):
    return start(Edge, path, clocks, stamp)


@pytest.fixture(autouse=True)
def as_before(monkeypatch):
    for module in (nodes, coordinators):
        monkeypatch.setattr(module, "monotonic_ms", None)
    monkeypatch.setattr(coordinators, "time", None)


@pytest.fixture
def clocks():
    return Clocks()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "clock"


def test_an_edge_doesnt_believe_its_own_wall(path, clocks):
    started = edge(path, clocks)
    clocks.wall_s += 1e6
    assert started.now_s() == WALL_S
    clocks.beacon(started, WALL_S + 10)
    clocks.pass_by(2)
    assert started.now_s() == WALL_S + 12


def test_an_edge_that_is_alone_after_a_restart_finds_expired_what_it_did_before(path, clocks):
    started = edge(path, clocks)
    clocks.beacon(started, WALL_S + 100)
    clocks.pass_by(30.5)
    assert started.now_s() == WALL_S + 130.5
    alone = edge(path, Clocks())
    assert alone.now_s() == WALL_S + 130


def test_an_edge_that_was_killed_finds_expired_what_it_did_before(path, clocks):
    process = subprocess.Popen(
        [sys.executable, "-c", READING, str(path)], stdout=subprocess.PIPE, stdin=subprocess.PIPE
    )
    told = [float(process.stdout.readline()) for _ in range(100)]
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert told[-1] == WALL_S + 99
    assert edge(path, clocks).now_s() >= told[-1]


@pytest.mark.parametrize("damage", [None, b"", b"?" * 24])
def test_an_edge_without_its_file_has_the_last_applied_stamp(path, clocks, damage):
    started = edge(path, clocks)
    clocks.beacon(started, WALL_S + 100)
    started.now_s()
    started._clock_file.close()
    if damage is None:
        path.unlink()
    else:
        path.write_bytes(damage)
    assert edge(path, clocks).now_s() == WALL_S


def test_a_coordinators_time_is_its_walls_and_doesnt_go_back_with_it(path, clocks):
    root = start(Coordinator, path, clocks, stamp=0)
    assert root.now_s() == WALL_S
    clocks.pass_by(10)
    assert root.now_s() == WALL_S + 10
    clocks.wall_s -= 3600
    assert root.now_s() == WALL_S + 10
    clocks.pass_by(5)
    assert root.now_s() == WALL_S + 15


def test_a_coordinators_time_isnt_before_its_stamps_nor_what_it_told_before(path, clocks):
    root = start(Coordinator, path, clocks, stamp=int((WALL_S + 50) * 1000) << 16)
    assert root.now_s() == WALL_S + 50
    clocks.wall_s += 100
    assert root.now_s() == WALL_S + 100
    restarted = start(Coordinator, path, Clocks())
    assert restarted.now_s() == WALL_S + 100


def test_a_coordinator_whose_wall_was_set_back_goes_on_after_a_restart(path, clocks):
    """Standing still, it would make what lives for a minute expire at once at edges, whose time goes on."""
    clocks.wall_s += 3600
    assert start(Coordinator, path, clocks).now_s() == WALL_S + 3600
    back = Clocks()
    restarted = start(Coordinator, path, back)
    restarted.clock.go_on(back.monotonic_ms)
    back.pass_by(20)
    assert restarted.now_s() == WALL_S + 3620
