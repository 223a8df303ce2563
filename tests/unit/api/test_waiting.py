"""Writes that are answered when members have them; unit/runtime/test_receipts.py tells how that is found out."""

from __future__ import annotations

import gc
import json

import pytest

from kvnet.core.catalog import Scope
from kvnet.core.operations import PutValue
from kvnet.core.spread import Share, Spread
from kvnet.core.versions import Version

TOKENS_PATH = "/client/v4/user/tokens"
TOLD = {"complete": True, "applied": 2, "of": 2, "missing": [], "took_ms": {"fra": 0.0, "per": 81.3}}


@pytest.mark.parametrize("wait", ["all", "100%", "99.5%", "1%"])
async def test_a_write_tells_how_far_it_has_spread(api, ns, wait):
    answer = await api("PUT", f"{ns}/values/k", b"v", KV_Wait=wait, KV_Wait_Timeout_Ms="250")
    assert (answer.status, answer.result) == (200, TOLD)
    version = api.node.store.position.version
    assert answer.headers["kv-version"] == str(version)
    assert api.node.spreads == [(version, Share.parse(wait), 250)]
    assert api.node.waited[-1], "the coordinator knew before the write was sequenced"


async def test_at_the_time_out_a_write_is_a_success_that_names_the_missing(api, ns):
    api.node.told_spread = Spread(complete=False, applied=1, of=2, missing=("per",), took_ms={"fra": 1.0})
    answer = await api("PUT", f"{ns}/values/k", b"v", KV_Wait="all")
    assert answer.status == 200
    assert answer.result["complete"] is False
    assert answer.result["missing"] == ["per"]
    assert api.node.spreads[0][2] == 10_000, "the bound for a write to be everywhere"


async def test_a_bulk_write_tells_it_of_its_last_write_beside_its_own_result(api, ns):
    body = json.dumps([{"key": f"k{n}", "value": "v"} for n in range(3)]).encode()
    answer = await api("PUT", f"{ns}/bulk", body, KV_Wait="all")
    assert answer.result == {"successful_key_count": 3, "unsuccessful_keys": [], **TOLD}
    assert api.node.spreads[0][0] == api.node.store.position.version
    assert (await api("POST", f"{ns}/bulk/delete", b'["k1"]', KV_Wait="50%")).result["complete"]


async def test_a_bulk_write_of_nothing_waits_for_nothing(api, ns):
    assert (await api("PUT", f"{ns}/bulk", b"[]", KV_Wait="all")).status == 200
    assert api.node.spreads == []


async def test_deletes_namespaces_and_revocations_can_be_waited_for_as_well(api, ns):
    assert (await api("DELETE", f"{ns}/values/k", KV_Wait="all")).result == TOLD
    created = await api("POST", "", b'{"title": "other"}', KV_Wait="all")
    assert created.result == {"id": created.result["id"], "title": "other", "supports_url_encoding": True, **TOLD}
    made = await api("POST", f"{TOKENS_PATH}", b'{"name": "n"}', scope=Scope.ADMIN, whole=True, KV_Wait="all")
    assert made.result["value"]
    assert made.result["complete"]
    path = f"{TOKENS_PATH}/{made.result['id']}"
    assert (await api("DELETE", path, scope=Scope.ADMIN, whole=True, KV_Wait="all")).result["complete"]


async def test_an_answer_that_is_a_text_cannot_tell_it_and_nothing_is_written(api):
    path = f"{TOKENS_PATH}/id-read/value"
    before = list(api.node.written)
    answer = await api("PUT", path, b"{}", scope=Scope.ADMIN, whole=True, KV_Wait="all")
    assert answer.error[:2] == (400, 10001)
    assert api.node.written == before
    assert (await api("PUT", path, b"{}", scope=Scope.ADMIN, whole=True, KV_Wait="local")).status == 200


@pytest.mark.parametrize(("method", "path"), [("PUT", "values/k"), ("PUT", "bulk")])
async def test_a_value_is_not_held_while_it_is_waited_for(api, ns, method, path):
    held: list[object] = []
    value = "held?" * 10_000

    async def spread(version: Version, share: Share, timeout_ms: float) -> Spread:
        api.node.written.clear()
        puts = (each for each in gc.get_objects() if isinstance(each, PutValue))
        held.extend(put for put in puts if put.value == value.encode())
        return api.node.told_spread

    api.node.spread = spread
    body = json.dumps([{"key": "k", "value": value}]) if path == "bulk" else value
    assert (await api(method, f"{ns}/{path}", body.encode(), KV_Wait="all")).status == 200
    assert api.node.waited == [True]
    assert held == []


@pytest.mark.parametrize(
    "headers",
    [
        {"KV_Wait": ""},
        {"KV_Wait": "everywhere"},
        {"KV_Wait": "0%"},
        {"KV_Wait": "101%"},
        {"KV_Wait": "99"},
        {"KV_Wait": "all", "KV_Wait_Timeout_Ms": "-1"},
        {"KV_Wait": "all", "KV_Wait_Timeout_Ms": "30001"},
        {"KV_Wait": "local", "KV_Wait_Timeout_Ms": "soon"},
    ],
)
@pytest.mark.parametrize(("method", "path", "body"), [("PUT", "values/k", b"v"), ("PUT", "bulk", b"[]")])
async def test_what_cannot_be_waited_for_is_refused_before_anything_is_written(
    api, ns, headers, method, path, body
):
    status, code, message = (await api(method, f"{ns}/{path}", body, **headers)).error
    assert (status, code) == (400, 10001)
    assert message.startswith("KV-Wait")
    assert api.node.waited == []


async def test_waiting_for_this_replica_takes_the_time_that_was_asked_for(api, ns):
    api.node.pending = True
    answer = await api("PUT", f"{ns}/values/k", b"v", KV_Wait="local", KV_Wait_Timeout_Ms="4000")
    assert (answer.status, answer.result) == (200, None)
    assert "kv-pending" not in answer.headers
    assert api.node.waits[-1][1] == 4000
    api.node.reaches = False
    answer = await api("PUT", f"{ns}/values/k2", b"v", KV_Wait="local", KV_Wait_Timeout_Ms="4000")
    assert answer.headers["kv-pending"] == "1"


async def test_what_is_everywhere_is_not_pending_here(api, ns):
    api.node.pending = True
    assert "kv-pending" not in (await api("PUT", f"{ns}/values/k", b"v", KV_Wait="all")).headers
