from __future__ import annotations

import pytest

from tests.support.peers import Peers


@pytest.fixture
async def peers():
    made = Peers()
    yield made
    await made.close()
