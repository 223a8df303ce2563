"""Environments are made once, whole, and anew when what belongs into them changes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from tests.conformance import environments
from tests.conformance.environments import ClientUnavailable, keep


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.setattr(environments, "KEPT_IN", tmp_path / "kept")


def test_environment_that_several_ask_for_at_once_is_made_once():
    made = []
    all_there = Barrier(4)

    def make(folder):
        folder.mkdir()
        made.append(folder)

    def ask(_):
        all_there.wait(timeout=30)
        return keep("client", "1.0", make)

    with ThreadPoolExecutor(4) as pool:
        folders = set(pool.map(ask, range(4)))
    assert folders == set(made)
    assert len(made) == 1


def test_environment_is_made_anew_when_its_contents_change():
    def make(folder):
        folder.mkdir()
        (folder / "file").write_text("")

    folder = keep("client", "1.0", make)
    (folder / "left over").write_text("")
    assert keep("client", "1.0", make) == folder
    assert (folder / "left over").exists()
    keep("client", "1.1", make)
    assert not (folder / "left over").exists()


def test_environment_that_could_not_be_made_is_not_kept():
    def fail(folder):
        folder.mkdir()
        raise ClientUnavailable("no network")

    made = []

    def make(folder):
        folder.mkdir()
        made.append(folder)

    with pytest.raises(ClientUnavailable):
        keep("client", "1.0", fail)
    assert keep("client", "1.0", make) == made[0]
