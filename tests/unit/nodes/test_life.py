from __future__ import annotations

import signal

import pytest

from kvnet.core.versions import Version
from nodes.life import RESTART_DELAY_MAX_S, RESTART_DELAY_MIN_S, SETTLED_S, STARTS_MAX, NodeLife, Phase

KILLED = int(signal.SIGKILL)
EXIT_1 = 1 << 8


@pytest.fixture
def life() -> NodeLife:
    life = NodeLife("fra")
    life.ordered()
    life.forked(42)
    return life


def get_ready(life: NodeLife, now_s: float = 0.0) -> None:
    life.said("ready", now_s=now_s, now_ms=1000 * now_s)


def test_node_is_up_from_the_moment_it_listens(life):
    assert life.up_since_ms is None
    get_ready(life, 7.0)
    assert (life.phase, life.pid, life.up_since_ms) == (Phase.READY, 42, 7000.0)


def test_node_tells_where_it_takes_part(life):
    life.said("formed 2-17", now_s=0, now_ms=0)
    assert life.formed == Version(2, 17)


def test_words_that_mean_nothing_change_nothing(life):
    before = life.as_dict()
    for line in ("formed soon", "hello", "", "ready steady"):
        life.said(line, now_s=0, now_ms=0)
    assert life.as_dict() == before
    assert life.formed is None


def test_killed_node_is_started_again_at_once_and_is_not_up_meanwhile(life):
    get_ready(life)
    assert life.exited(KILLED, now_s=SETTLED_S) == RESTART_DELAY_MIN_S
    assert (life.phase, life.pid, life.up_since_ms) == (Phase.WAITING, None, None)
    assert life.problem == "killed by SIGKILL"
    life.restarted()
    assert (life.phase, life.restarts) == (Phase.STARTING, 1)


def test_delays_double_while_lives_are_short_and_end_at_the_longest(life):
    delays = []
    for _ in range(8):
        get_ready(life)
        delays.append(life.exited(KILLED, now_s=0.1))
        life.restarted()
    assert delays[:3] == [RESTART_DELAY_MIN_S, 2 * RESTART_DELAY_MIN_S, 4 * RESTART_DELAY_MIN_S]
    assert delays[-1] == RESTART_DELAY_MAX_S


def test_settled_life_is_forgiven(life):
    for lived_s in (0.1, 0.1, 0.1, SETTLED_S, 0.1):
        get_ready(life)
        delay = life.exited(KILLED, now_s=lived_s)
        life.restarted()
    assert delay == RESTART_DELAY_MIN_S


def test_node_that_never_gets_ready_is_given_up_with_its_own_words(life):
    for _ in range(STARTS_MAX - 1):
        life.said("failed no disk", now_s=0, now_ms=0)
        assert life.exited(EXIT_1, now_s=0) is not None
        life.restarted()
    life.said("failed no disk", now_s=0, now_ms=0)
    assert life.exited(EXIT_1, now_s=0) is None
    assert (life.phase, life.problem) == (Phase.GIVEN_UP, "no disk")


def test_node_that_gets_ready_between_failures_is_never_given_up(life):
    for _ in range(3 * STARTS_MAX):
        life.exited(EXIT_1, now_s=0)
        life.restarted()
        get_ready(life)
        assert life.exited(KILLED, now_s=0) is not None
        life.restarted()


def test_order_brings_a_given_up_node_back(life):
    for _ in range(STARTS_MAX):
        life.exited(EXIT_1, now_s=0)
        life.restarted()
    life.exited(EXIT_1, now_s=0)
    assert life.phase is Phase.GIVEN_UP
    life.ordered()
    assert life.exited(EXIT_1, now_s=0) == RESTART_DELAY_MIN_S


def test_node_stopped_by_order_stays_stopped(life):
    get_ready(life)
    life.stopping()
    assert life.exited(0, now_s=1) is None
    assert (life.phase, life.problem) == (Phase.STOPPED, None)


def test_node_that_waits_for_its_next_start_stops_without_a_process(life):
    life.exited(KILLED, now_s=0)
    life.stopping()
    assert life.phase is Phase.STOPPED


def test_clean_end_without_an_order_is_a_failure_too(life):
    get_ready(life)
    assert life.exited(0, now_s=SETTLED_S) == RESTART_DELAY_MIN_S
    assert life.problem == "ended with exit code 0"
