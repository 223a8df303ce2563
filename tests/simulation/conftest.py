"""Every simulation runs for some seeds; a failure says which, and how to see it again."""

from __future__ import annotations

import os
from collections.abc import Generator

import pytest

SEEDS = int(os.environ.get("KVNET_SIMULATION_SEEDS", "2"))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "seed" in metafunc.fixturenames:
        metafunc.parametrize("seed", range(1, SEEDS + 1))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed and hasattr(item, "callspec") and "seed" in item.callspec.params:
        seed = item.callspec.params["seed"]
        command = f"KVNET_SIMULATION_SEEDS={max(seed, SEEDS)} python -m pytest '{item.nodeid}'"
        report.sections.append(("replay", f"seed {seed}: {command}"))
    return report
