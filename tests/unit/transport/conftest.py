from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
import uvloop

from tests.support.peers import Peers


@pytest.fixture
async def peers():
    made = Peers()
    yield made
    await made.close()


@pytest.hookimpl(optionalhook=True)
def pytest_asyncio_loop_factories(item: pytest.Item) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Sockets are tested on both loops: each has transports of its own."""
    if item.path.name == "test_sockets.py":
        return {"asyncio": asyncio.SelectorEventLoop, "uvloop": uvloop.new_event_loop}
    return {"asyncio": asyncio.new_event_loop}
