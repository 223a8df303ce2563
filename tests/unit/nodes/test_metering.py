"""A node's usage survives its process."""

from __future__ import annotations

import json

import pytest

from kvnet.core.usage import Usage
from nodes import metering
from nodes.metering import Metering
from tests.support.peers import until

NAMESPACE = b"n" * 16


def of_month(meter) -> Usage:
    [namespaces] = meter.months.values()
    return namespaces[NAMESPACE]


async def test_counts_go_on_after_a_restart(tmp_path):
    path = tmp_path / "usage.json"
    first = Metering(path, dict)
    first.start()
    first.meter.of(NAMESPACE).reads += 2
    await first.stop()
    second = Metering(path, dict)
    second.meter.of(NAMESPACE).reads += 1
    await second.stop()
    assert of_month(Metering(path, dict).meter).reads == 3


async def test_it_is_saved_while_the_node_lives(tmp_path, monkeypatch):
    monkeypatch.setattr(metering, "SAVE_INTERVAL_S", 0.001)
    path = tmp_path / "usage.json"
    kept = Metering(path, dict)
    kept.start()
    kept.meter.of(NAMESPACE).writes += 1
    await until(path.exists)
    assert of_month(Metering(path, dict).meter).writes == 1
    await kept.stop()


async def test_stored_bytes_are_charged_for_as_long_as_they_are_stored(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(metering.time, "monotonic", lambda: now[0])
    kept = Metering(tmp_path / "usage.json", lambda: {NAMESPACE: 1000})
    await kept.stop()
    assert kept.meter.to_dict() == {month: {} for month in kept.meter.months}  # nothing has passed yet
    now[0] += 10
    await kept.stop()
    assert of_month(kept.meter).byte_seconds == 10_000
    now[0] += 10_000  # the machine slept
    await kept.stop()
    assert of_month(kept.meter).byte_seconds == 10_000 + 1000 * metering.GAP_S_MAX


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", json.dumps({"2026-01": {"zz": 1}}).encode()])
async def test_a_broken_file_begins_anew(tmp_path, content):
    path = tmp_path / "usage.json"
    path.write_bytes(content)
    kept = Metering(path, dict)
    kept.meter.of(NAMESPACE).reads += 1
    await kept.stop()
    assert of_month(Metering(path, dict).meter).reads == 1


async def test_a_full_disk_costs_nothing_but_the_file(tmp_path):
    kept = Metering(tmp_path / "gone" / "usage.json", dict)
    kept.meter.of(NAMESPACE).reads += 1
    await kept.stop()
    assert of_month(kept.meter).reads == 1
