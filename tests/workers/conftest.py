from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.environments import Node, find_node, have, npm_environment
from tests.support import network as networks
from tests.support.network import Network
from tests.workers.dev import Dev

HERE = Path(__file__).parent
INSTALL_S = 600


def pytest_collection_modifyitems(items):
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.timeout(INSTALL_S))  # the first test installs the runtime


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.failed:
        report.sections += [(f"network in {net.folder.path}", net.logs()) for net in networks.running]
    return report


@pytest.fixture(scope="session")
def network(tmp_path_factory) -> Iterator[Network]:
    """Three PoPs over the real distances between them."""
    with Network(tmp_path_factory.mktemp("network")) as network:
        network.up("--pops", 3)
        yield network


@pytest.fixture(scope="session")
def node() -> Node:
    return have("Node", find_node)


@pytest.fixture(scope="session")
def packages(node) -> Path:
    """`node_modules` with wrangler, and with the workerd that belongs to it."""
    return have("npm packages", lambda: npm_environment(node)) / "node_modules"


@pytest.fixture(scope="session")
def workerd(packages) -> Path:
    return packages / ".bin" / "workerd"


@pytest.fixture
def namespace(network, request) -> str:
    """The title of a namespace of the test's own."""
    title = request.node.name
    network.kvnet("namespace", "create", title)
    return title


@pytest.fixture
def write(tmp_path) -> Callable[[str, str], Path]:
    """Write a file into the test's own folder, and return its path."""

    def write(name: str, text: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    return write


@pytest.fixture
def dev(network, workerd, tmp_path) -> Iterator[Callable[..., Dev]]:
    """Start `kvnet workers dev`; whatever a test has started ends with it."""
    started: list[Dev] = []

    def dev(*arguments: Any, **variables: str) -> Dev:
        environment = {**os.environ, "KVNET_WORKERD": str(workerd), **variables}
        log = tmp_path / f"dev-{len(started)}.log"
        one = Dev([*arguments, "--data", network.folder.path], tmp_path, environment, log)
        started.append(one)
        return one

    yield dev
    for one in started:
        one.close()
