from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.support import network as networks
from tests.support.network import Client, Network, open_session


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.failed:
        report.sections += [(f"network in {net.folder.path}", net.logs()) for net in networks.running]
    return report


@pytest.fixture(scope="module")
def network(tmp_path_factory) -> Iterator[Network]:
    """Eight PoPs over the real distances between them, for all tests of a file; each leaves it whole."""
    with Network(tmp_path_factory.mktemp("network")) as network:
        network.up("--pops", 8)
        yield network


@pytest.fixture
async def client(network, request) -> AsyncIterator[Client]:
    """A namespace of its own for each test, known at every PoP."""
    async with open_session() as session:
        client = Client(network, session, request.node.name)
        await client.create_namespace()
        yield client
