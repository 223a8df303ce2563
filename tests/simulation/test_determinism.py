"""The same seed gives the same trace, byte for byte."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from kvnet.simulator.run import run_seed
from kvnet.simulator.swarm import Mode
from kvnet.simulator.world import ROOT
from kvnet.topology.load import load
from tests.support.worlds import make_world, settle, start, write_for


def trace_of(seed: int) -> str:
    """Run through loss, crashes, a cut and a restart; return the hash of all that happened."""
    digest = hashlib.sha256()
    world = make_world(16, seed, loss=0.1, trace=lambda line: digest.update(line.encode() + b"\n"))
    start(world)
    write_for(world, 1000)
    victims = random.Random(seed).sample([name for name in world.nodes if name != ROOT], 3)
    for name in victims:
        world.crash(name, silent=True)
    world.wan.isolate("africa")
    world.wan_changed()
    write_for(world, 3000)
    world.crash(ROOT)
    world.wan.heal_all()
    world.wan_changed()
    for name in (*victims, ROOT):
        world.start(name)
    settle(world)
    return digest.hexdigest()


def swarm_trace_of(seed: int) -> str:
    """Run the swarm in each of its modes; return the hash of all that happened."""
    digest = hashlib.sha256()
    for mode in Mode:
        outcome = run_seed(load("world-2018"), seed, mode, write=lambda line: digest.update(line.encode() + b"\n"))
        digest.update(repr(outcome).encode())
    return digest.hexdigest()


@pytest.mark.parametrize("traces_of", [trace_of, swarm_trace_of])
def test_the_same_seed_gives_the_same_trace_under_any_hash_seed(traces_of: Callable[[int], str]) -> None:
    name = traces_of.__name__
    code = f"from tests.simulation.test_determinism import {name}; print({name}(7))"
    root = Path(__file__).parents[2]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(root)},
            cwd=root,
            stdout=subprocess.PIPE,
            text=True,
        )
        for hash_seed in ("0", "1", "4242")
    ]
    told = [process.communicate()[0].strip() for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert set(told) == {traces_of(7)}


def test_another_seed_gives_another_trace() -> None:
    assert trace_of(7) != trace_of(8)
