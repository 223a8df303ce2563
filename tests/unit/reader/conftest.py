from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.store_process import StoreProcess


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "run" / "fra" / "store"


@pytest.fixture
def node(folder: Path) -> Iterator[StoreProcess]:
    with StoreProcess(folder) as node:
        yield node
