from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.frames import FrameMaker
from tests.support.stores import open_store


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "node"


@pytest.fixture
def store(folder):
    store = open_store(folder)
    yield store
    store.close()


@pytest.fixture
def maker():
    maker = FrameMaker()
    maker.open_epoch()
    return maker


@pytest.fixture
def namespace(store, maker) -> bytes:
    namespace = maker.create_namespace("a")
    maker.put(namespace, b"key", b"value")
    store.apply([maker.cut()])
    return namespace
