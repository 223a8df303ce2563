"""What a node tells of its own use."""

from __future__ import annotations

import json

from prometheus_client.parser import text_string_to_metric_families

from kvnet.core.catalog import Scope
from kvnet.core.usage import Usage, read_months


async def use(api, ns) -> None:
    pairs = [{"key": f"{number}", "value": "12345"} for number in range(3)]
    await api("PUT", f"{ns}/bulk", json.dumps(pairs).encode())
    await api("PUT", f"{ns}/values/a", b"x")
    for key in ("a", "gone"):
        await api("GET", f"{ns}/values/{key}")
        await api("GET", f"{ns}/metadata/{key}")
    await api("POST", f"{ns}/bulk/get", b'{"keys": ["0", "1", "gone"]}')
    await api("DELETE", f"{ns}/values/a")
    await api("POST", f"{ns}/bulk/delete", b'["0", "gone"]')
    await api("GET", f"{ns}/keys")
    # None of these counts: nothing was read, and nothing written.
    await api("GET", f"{ns}/values/a", scope=None)
    await api("PUT", f"{ns}/values/a?expiration_ttl=1", b"x")
    await api("GET", f"{ns}/keys?limit=1")
    await api("PUT", f"{ns}/values/a", b"x", scope=Scope.READ)


async def test_every_operation_is_counted_once(api, ns):
    await use(api, ns)
    told = (await api("GET", "/usage", whole=True, scope=Scope.READ)).json
    [counted] = read_months(told["months"]).values()
    assert counted == {bytes.fromhex(ns[1:]): Usage(reads=7, writes=4, deletes=3, lists=1)}
    assert told["namespaces"] == {ns[1:]: {"title": "tests", "keys": 2, "bytes": 12}}
    assert told["position"] == str(api.node.store.position.version)


async def test_prometheus_reads_the_same(api, ns):
    await use(api, ns)
    api.node.stale_ms = 1500.0
    answer = await api("GET", "/metrics", whole=True, scope=Scope.READ)
    assert answer.headers["content-type"].startswith("text/plain")
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(answer.body.decode())
        for sample in family.samples
    }
    assert samples["kvnet_operations_total", ns[1:], "reads"] == 7
    assert samples["kvnet_operations_total", ns[1:], "deletes"] == 3
    assert samples["kvnet_keys", ns[1:], "tests"] == 2
    assert samples["kvnet_stored_bytes", ns[1:], "tests"] == 12
    assert samples["kvnet_staleness_seconds",] == 1.5
    assert samples["kvnet_position_seq",] == api.node.store.position.seq
    assert samples["kvnet_ready",] == 1


async def test_a_node_that_may_not_serve_still_tells(api, ns):
    api.node.is_ready = False
    assert (await api("GET", "/usage", whole=True)).status == 200
    assert b"kvnet_ready 0.0" in (await api("GET", "/metrics", whole=True)).body


async def test_no_token_no_numbers(api):
    for path in ("/usage", "/metrics"):
        assert (await api("GET", path, whole=True, scope=None)).error[:2] == (400, 9106)
        assert (await api("POST", path, whole=True)).status == 405
