"""How new an answer is: what it says of it, and what a request may ask."""

from __future__ import annotations

import math

import pytest

from kvnet.core.versions import Version


@pytest.mark.parametrize(
    ("stale_ms", "shown"),
    [(0, "0"), (0.01, "500"), (500, "500"), (500.1, "1000"), (61_000, "61000"), (math.inf, None)],
)
async def test_staleness_is_an_upper_bound_in_steps(api, ns, stale_ms, shown):
    api.node.stale_ms = stale_ms
    assert (await api("GET", f"{ns}/values/k")).headers.get("kv-staleness-ms") == shown


async def test_replica_staler_than_asked_for_refuses_reads_only(api, ns):
    api.node.stale_ms = 1200.5
    answer = await api("GET", f"{ns}/keys", KV_Max_Staleness_Ms="1200")
    expected = (
        "fra may be 1201 ms behind, more than the 1200 ms asked for; asked in its place: nobody; ask another PoP"
    )
    assert answer.error == (503, 20002, expected)
    assert answer.headers["retry-after"] == "1"
    assert (await api("GET", f"{ns}/keys", KV_Max_Staleness_Ms="1201")).status == 200
    assert (await api("PUT", f"{ns}/values/k", b"v", KV_Max_Staleness_Ms="0")).status == 200
    api.node.stale_ms = math.inf
    assert (await api("GET", f"{ns}/keys", KV_Max_Staleness_Ms="9999999")).error[:2] == (503, 20002)


async def test_read_waits_for_the_version_it_asks_for(api, ns):
    written = (await api("PUT", f"{ns}/values/k", b"v")).headers["kv-version"]
    got = await api("GET", f"{ns}/values/k", KV_At_Least=written)
    assert got.status == 200
    assert api.node.waits == [(Version.parse(written), 1000)]


async def test_version_that_does_not_come_in_time_is_told_so(api, ns):
    position = api.node.store.position.version
    answer = await api("GET", f"{ns}/values/k", KV_At_Least="1-999", KV_Wait_Timeout_Ms="20")
    assert answer.error == (
        504,
        20003,
        (
            f"fra stands at {position} and did not reach 1-999 within 20 ms; "
            "asked in its place: nobody; ask another PoP, or wait longer with KV-Wait-Timeout-Ms"
        ),
    )
    assert api.node.waits == [(Version(1, 999), 20)]


@pytest.mark.parametrize(
    "headers",
    [
        {"KV_At_Least": "12"},
        {"KV_At_Least": ""},
        {"KV_At_Least": "1-2-3"},
        {"KV_At_Least": "1-2", "KV_Wait_Timeout_Ms": "30001"},
        {"KV_At_Least": "1-2", "KV_Wait_Timeout_Ms": "soon"},
        {"KV_Max_Staleness_Ms": "-1"},
        {"KV_Max_Staleness_Ms": "1e3"},
        {"KV_Max_Staleness_Ms": "1", "KV_Wait_Timeout_Ms": "-1"},
    ],
)
async def test_header_that_cannot_be_read_is_refused(api, ns, headers):
    status, code, message = (await api("GET", f"{ns}/keys", **headers)).error
    assert (status, code) == (400, 10001)
    assert message.startswith("KV-")
    assert api.node.waits == []


async def test_read_waits_for_the_beacon_that_makes_its_view_new_enough(api, ns):
    api.node.stale_ms = 700
    api.node.becomes_fresh = True
    assert (await api("GET", f"{ns}/keys", KV_Max_Staleness_Ms="600", KV_Wait_Timeout_Ms="250")).status == 200
    [(staleness_ms, timeout_ms)] = api.node.fresh_waits
    assert staleness_ms == 600
    assert 0 < timeout_ms <= 250
    assert api.node.questions == []
