"""A few seeds of the swarm in each mode; many more by `kvnet sim --swarm` (docs/simulator.md)."""

from __future__ import annotations

import pytest

from kvnet.simulator.run import run_seed
from kvnet.simulator.swarm import Mode
from kvnet.topology.load import load
from tests.simulation.conftest import SEEDS

FOUND_SOMETHING = [
    (Mode.SAFETY, 16),  # all edges on an abandoned history agreed, and none gave way to the coordinator
    (Mode.SAFETY, 25),  # beacons of a later epoch were taken by who stood at a higher seq of an earlier one
    (Mode.LIVENESS, 38),  # replicas that had started over took the abandoned history again
    (Mode.LIVENESS, 45),  # the only one who could serve was barred
    (Mode.LIVENESS, 55),  # a nearer parent made a beacon younger
    (Mode.TORTURE, 4),  # chunks of values that had been replaced were waited for by all, and kept by nobody
    (Mode.SAFETY, 105),  # a coordinator with an old disk asked each of 57 members in turn for frames they hadn't
    (Mode.SAFETY, 111),  # a chunk was waited for from whoever sent others, and hadn't got this one
    (Mode.SAFETY, 36),  # what a frozen process had under way went on long after it did
]
"""Modes and seeds that failed once; what they run into may have changed with the draw since."""
NUMBERS = range(1, 3 * SEEDS + 1)


@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize("number", NUMBERS)
def test_every_property_holds_in_a_swarm(mode: Mode, number: int) -> None:
    outcome = run_seed(load("world-2018"), number, mode)
    assert not outcome.failed, f"{outcome.failed}: kvnet sim --swarm --seed {number} --mode {mode}"
    assert outcome.faults, "nothing broke"
    assert outcome.ledger["in time"] > 0


@pytest.mark.parametrize(("mode", "number"), [found for found in FOUND_SOMETHING if found[1] not in NUMBERS])
def test_what_failed_once_holds(mode: Mode, number: int) -> None:
    outcome = run_seed(load("world-2018"), number, mode)
    assert not outcome.failed, f"{outcome.failed}: kvnet sim --swarm --seed {number} --mode {mode}"
