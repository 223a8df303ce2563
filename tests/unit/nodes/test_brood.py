"""A node's readers as processes: they are there, come back when they die, and end when they are to."""

from __future__ import annotations

import os
import signal
import time

import pytest

from nodes import brood as broods
from nodes.brood import Brood

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
"""The process that runs tests has threads; none of them is of any use to a child that only waits."""
DEADLINE_S = 20.0


class Keeper:
    """Keeps readers that do what a file says: wait for a signal, or end with a code."""

    def __init__(self) -> None:
        self.code: int | None = None
        self.told: list[tuple[str, list[int]]] = []
        self.brood = Brood(self._become, lambda name, pids: self.told.append((name, pids)))

    def _become(self, name: str, number: int):
        if self.code is not None:
            os._exit(self.code)
        while True:
            signal.pause()

    def reap(self) -> int:
        """Wait for one that ends, and return its pid."""
        pid, status = os.wait()
        assert self.brood.reaped(pid, status)
        return pid

    def until(self, condition) -> None:
        give_up = time.monotonic() + DEADLINE_S
        while not condition():
            assert time.monotonic() < give_up
            wait_s = self.brood.wait_s()
            assert wait_s is not None, "nothing will happen any more"
            time.sleep(min(wait_s, 0.05))
            self.brood.fork_due()


@pytest.fixture
def keeper(monkeypatch):
    monkeypatch.setattr(broods, "DELAY_MIN_S", 0.01)
    keeper = Keeper()
    yield keeper
    keeper.brood.end("fra")
    keeper.brood.end("nrt")


def test_each_node_has_as_many_as_it_wants_and_keeps_those_it_has(keeper):
    keeper.brood.ensure("fra", 2)
    before = keeper.brood.pids
    keeper.brood.ensure("nrt", 1)
    keeper.brood.ensure("fra", 2)
    assert len(before) == 2
    assert keeper.brood.pids[:2] == before
    assert len(keeper.brood.pids) == 3
    assert keeper.told[-1][0] == "nrt"


def test_one_that_is_killed_comes_back_with_a_delay(keeper):
    keeper.brood.ensure("fra", 2)
    victim, other = keeper.brood.pids
    os.kill(victim, signal.SIGKILL)
    assert keeper.reap() == victim
    assert keeper.told[-1] == ("fra", [other])
    keeper.until(lambda: len(keeper.brood.pids) == 2)
    assert victim not in keeper.brood.pids


def test_one_that_fails_again_and_again_is_started_less_often(keeper):
    keeper.code = 1
    keeper.brood.ensure("fra", 1)
    waits = []
    for _ in range(4):
        keeper.reap()
        waits.append(keeper.brood.wait_s())
        keeper.until(lambda: keeper.brood.pids)
    keeper.reap()
    assert waits == sorted(waits)
    assert waits[-1] > 2 * waits[0]


def test_one_that_was_told_to_end_isnt_started_before_its_node(keeper):
    keeper.code = 0
    keeper.brood.ensure("fra", 1)
    keeper.reap()
    assert (keeper.brood.pids, keeper.brood.wait_s()) == ([], None)
    keeper.code = None
    keeper.brood.ensure("fra", 1)
    assert len(keeper.brood.pids) == 1


def test_one_that_dies_while_its_node_ends_by_order_isnt_missed(keeper):
    keeper.brood.ensure("fra", 1)
    [pid] = keeper.brood.pids
    keeper.brood.keep_ended("fra")
    os.kill(pid, signal.SIGKILL)
    keeper.reap()
    assert keeper.brood.wait_s() is None


def test_after_the_end_of_a_node_none_is_left_of_its_own(keeper):
    keeper.brood.ensure("fra", 2)
    keeper.brood.ensure("nrt", 1)
    theirs = keeper.brood.pids[:2]
    keeper.brood.end("fra")
    assert len(keeper.brood.pids) == 1
    assert keeper.told[-1] == ("fra", [])
    for pid in theirs:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_a_process_that_isnt_one_is_nobodys(keeper):
    keeper.brood.ensure("fra", 1)
    assert not keeper.brood.reaped(1, 0)
