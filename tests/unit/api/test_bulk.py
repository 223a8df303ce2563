"""Many pairs by one request."""

from __future__ import annotations

import asyncio
import base64
import json
import os
from contextlib import ExitStack
from urllib.parse import quote

import pytest

from kvnet.api import bulk
from kvnet.core.catalog import Scope
from kvnet.core.entries import INLINE_VALUE_BYTES_MAX
from kvnet.core.operations import DeleteValue, PutLargeValue, PutValue
from kvnet.errors import RequestError
from kvnet.limits import PROFILES
from tests.support.backends import NOW_S
from tests.support.http import read_answer
from tests.support.peers import until

TOO_EARLY = RequestError(429, 10001, "Too many writes of one key", headers={"Retry-After": "1"})


def body(*elements) -> bytes:
    return json.dumps(elements).encode()


async def put(api, ns, *elements, **headers):
    return await api("PUT", f"{ns}/bulk", body(*elements), **headers)


async def value_of(api, ns, key: str) -> bytes | None:
    answer = await api("GET", f"{ns}/values/{key}")
    return answer.body if answer.status == 200 else None


async def test_pairs_are_written_as_one_and_each_as_a_single_put_would(api, ns):
    answer = await put(
        api,
        ns,
        {"key": "a", "value": "é"},
        {"key": "b", "value": "AAEC", "base64": True, "metadata": {"n": 1.50}},
        {"key": "c/ \U0001f600", "value": "", "expiration_ttl": 60, "base64": False, "metadata": None},
        {"key": "d", "value": "x", "expiration": int(NOW_S) + 100, "expiration_ttl": None, "unknown": 1},
    )
    assert answer.result == {"successful_key_count": 4, "unsuccessful_keys": []}
    assert answer.headers["kv-version"] == str(api.node.store.position.version)
    assert api.node.stretches == [4]
    assert await value_of(api, ns, "a") == "é".encode()
    assert await value_of(api, ns, "b") == b"\0\1\2"
    assert (await api("GET", f"{ns}/metadata/b")).body.endswith(b'"result":{"n":1.5}}')
    expiring = await api("GET", f"{ns}/values/c%2F%20%F0%9F%98%80")
    assert (expiring.body, expiring.headers["expiration"]) == (b"", str(int(NOW_S) + 60))
    assert (await api("GET", f"{ns}/values/d")).headers["expiration"] == str(int(NOW_S) + 100)


async def test_of_two_pairs_for_one_key_the_last_counts_and_both_are_answered(api, ns):
    answer = await put(api, ns, {"key": "a", "value": "1"}, {"key": "b", "value": "2"}, {"key": "a", "value": "3"})
    assert answer.result["successful_key_count"] == 3
    assert await value_of(api, ns, "a") == b"3"
    assert api.node.stretches == [2]


@pytest.mark.parametrize("form", [("DELETE", "/bulk"), ("POST", "/bulk/delete")])
async def test_both_forms_of_deletion_remove_what_is_there_and_what_is_not(api, ns, form):
    await put(api, ns, *({"key": key, "value": "v"} for key in ("a", "b", "c")))
    method, path = form
    answer = await api(method, ns + path, body("a", "gone", "b"))
    assert answer.result == {"successful_key_count": 3, "unsuccessful_keys": []}
    assert [await value_of(api, ns, key) for key in ("a", "b", "c")] == [None, None, b"v"]


async def test_an_empty_array_is_a_success_where_the_namespace_is_known(api, ns):
    answer = await put(api, ns)
    assert answer.result == {"successful_key_count": 0, "unsuccessful_keys": []}
    assert "kv-version" not in answer.headers
    unknown = "/" + "7" * 32
    assert (await put(api, unknown)).error == (404, 10013, "bulk write keys: 'namespace not found'")
    refused = await api("POST", f"{unknown}/bulk/delete", body("a"))
    assert refused.error == (404, 10013, "bulk remove keys: 'namespace not found'")


@pytest.mark.parametrize(
    ("element", "status", "code", "says"),
    [
        (1, 400, 10001, "Expected `object`"),
        ({"key": "k"}, 400, 10001, "`value`"),
        ({"value": "v"}, 400, 10001, "`key`"),
        ({"key": 1, "value": "v"}, 400, 10001, "$.key"),
        ({"key": "k", "value": {}}, 400, 10001, "$.value"),
        ({"key": "k", "value": "v", "base64": "yes"}, 400, 10001, "$.base64"),
        ({"key": "k", "value": "v", "expiration": "soon"}, 400, 10001, "$.expiration"),
        ({"key": "", "value": "v"}, 400, 10001, "key name not allowed"),
        ({"key": "..", "value": "v"}, 400, 10001, "key name not allowed"),
        ({"key": "k" * 2049, "value": "v"}, 414, 10001, "key length limit"),
        ({"key": "k", "value": "é" * 32_769}, 413, 10001, "Value length of 65538 exceeds limit of 65536"),
        ({"key": "k", "value": "A===", "base64": True}, 400, 10001, "base64"),
        ({"key": "k", "value": "é", "base64": True}, 400, 10001, "base64"),
        ({"key": "k", "value": "v", "metadata": "m" * 1023}, 413, 10001, "Metadata length of 1025"),
        ({"key": "k", "value": "v", "expiration_ttl": 59}, 400, 10034, "at least 60"),
        ({"key": "k", "value": "v", "expiration_ttl": 10**25}, 400, 10034, "Invalid expiration_ttl"),
        ({"key": "k", "value": "v", "expiration": 1}, 400, 10034, "Invalid expiration of 1"),
    ],
)
async def test_one_bad_element_refuses_all_and_is_named(api, ns, element, status, code, says):
    answer = await put(api, ns, {"key": "good", "value": "v"}, element)
    told_status, told_code, message = answer.error
    assert (told_status, told_code) == (status, code)
    assert message.startswith("[1]: ")
    assert says in message
    assert api.node.written == []


@pytest.mark.parametrize(
    "raw", [b"", b"{}", b"null", b"[", b'[{"key":"a","value":"b"}', b'[{"key":"\\ud800","value":""}]', b"[\xff]"]
)
@pytest.mark.parametrize("form", [("PUT", "/bulk"), ("DELETE", "/bulk"), ("POST", "/bulk/delete")])
async def test_a_body_that_is_no_array_of_json_is_refused(api, ns, form, raw):
    method, path = form
    assert (await api(method, ns + path, raw)).error[:2] in {(400, 10012), (400, 10001)}
    assert api.node.written == []


async def test_the_number_of_elements_and_of_bytes_is_bounded(api, ns, monkeypatch):
    monkeypatch.setattr(bulk, "ELEMENTS_MAX", 3)
    assert (await api("POST", f"{ns}/bulk/delete", body(*"abc"))).status == 200
    assert (await api("POST", f"{ns}/bulk/delete", body(*"abcd"))).error[:2] == (400, 10001)
    monkeypatch.setattr(bulk, "BODY_BYTES_MAX", 20)
    assert (await api("POST", f"{ns}/bulk/delete", body("a" * 30))).error[:2] == (413, 10001)
    assert api.node.stretches == [3]


async def test_a_long_body_is_written_in_stretches_each_with_an_id_of_its_own(api, ns, monkeypatch):
    monkeypatch.setattr(bulk, "STRETCH_BYTES_MAX", 1000)
    monkeypatch.setattr(bulk, "IN_MEMORY_BYTES_MAX", 1000)
    pairs = [{"key": f"{number}", "value": "v" * 400} for number in range(5)]
    answer = await put(api, ns, *pairs, KV_Request_Id="mine")
    assert answer.result["successful_key_count"] == 5
    assert api.node.stretches == [2, 2, 1]
    ids = list(dict.fromkeys(request_id for _, request_id in api.node.written))
    assert len(ids) == 3
    assert ids[0] == f"id-{Scope.WRITE}/mine".encode()
    assert answer.headers["kv-version"] == str(api.node.store.position.version)


async def test_a_key_written_a_moment_ago_refuses_the_first_stretch_and_delays_a_later_one(api, ns, monkeypatch):
    monkeypatch.setattr(bulk, "STRETCH_BYTES_MAX", 500)
    api.node.limits = PROFILES["workers-kv-2018"]
    pairs = [{"key": f"{number}", "value": "v" * 400} for number in range(3)]
    api.node.refusals = [TOO_EARLY]
    refused = await put(api, ns, *pairs)
    assert refused.error[:2] == (429, 10001)
    assert refused.headers["retry-after"] == "1"
    assert api.node.written == []
    waits: list[float] = []

    async def note(delay: float) -> None:
        waits.append(delay)

    monkeypatch.setattr(bulk.asyncio, "sleep", note)
    api.node.refusals = [None, TOO_EARLY]
    assert (await put(api, ns, *pairs)).status == 200
    assert [delay for delay in waits if delay] == [1.0]
    assert api.node.stretches == [1, 1, 1]


async def test_what_breaks_off_in_the_middle_says_how_far_it_came(api, ns, monkeypatch):
    monkeypatch.setattr(bulk, "STRETCH_BYTES_MAX", 500)
    api.node.refusals = [None, None, RequestError(503, 20010, "the coordinator can't be reached")]
    answer = await put(api, ns, *({"key": f"{number}", "value": "v" * 400} for number in range(4)))
    status, code, message = answer.error
    assert (status, code) == (503, 20010)
    assert "2 of 4 were written" in message


async def test_large_values_come_alone_between_the_others(api, ns):
    api.node.limits = PROFILES["workers-kv"]
    large = os.urandom(INLINE_VALUE_BYTES_MAX + 1)
    edge = os.urandom(INLINE_VALUE_BYTES_MAX)
    answer = await put(
        api,
        ns,
        {"key": "a", "value": "1"},
        {"key": "large", "value": base64.b64encode(large).decode(), "base64": True},
        {"key": "edge", "value": base64.b64encode(edge).decode(), "base64": True},
        {"key": "b", "value": "2"},
    )
    assert answer.result["successful_key_count"] == 4
    assert [type(operation) for operation, _ in api.node.written] == [PutValue, PutLargeValue, PutValue, PutValue]
    assert api.node.stretches == [1, 1, 2]
    assert await value_of(api, ns, "large") == large
    assert await value_of(api, ns, "edge") == edge


async def test_deletions_are_deletions(api, ns):
    await api("DELETE", f"{ns}/bulk", body("a", "a"))
    assert [operation for operation, _ in api.node.written] == [DeleteValue(bytes.fromhex(ns[1:]), b"a")]


async def test_reading_takes_the_reading_scope_and_writing_the_other(api, ns):
    denied = (403, 10000, "Authentication error")
    assert (await put(api, ns, scope=Scope.READ)).error == denied
    assert (await api("DELETE", f"{ns}/bulk", b"[]", scope=Scope.READ)).error == denied
    assert (await api("POST", f"{ns}/bulk/delete", b"[]", scope=Scope.READ)).error == denied
    answer = await api("POST", f"{ns}/bulk/get", json.dumps({"keys": ["a"]}).encode(), scope=Scope.READ)
    assert answer.result == {"values": {"a": None}}


async def get(api, ns, **fields):
    return await api("POST", f"{ns}/bulk/get", json.dumps(fields).encode())


async def test_many_are_read_as_text_as_json_and_with_what_belongs_to_them(api, ns):
    await put(
        api,
        ns,
        {"key": "a", "value": '{"x": 1.0}', "metadata": {"m": [1]}},
        {"key": "b", "value": '"é"', "expiration_ttl": 60},
    )
    expected = {"a": '{"x": 1.0}', "gone": None, "b": '"é"'}
    assert (await get(api, ns, keys=["a", "gone", "b", "a"])).result == {"values": expected}
    assert (await get(api, ns, keys=["a", "b"], type="json")).result == {"values": {"a": {"x": 1.0}, "b": "é"}}
    assert (await get(api, ns, keys=["a", "b", "gone"], withMetadata=True)).result == {
        "values": {
            "a": {"value": '{"x": 1.0}', "metadata": {"m": [1]}},
            "b": {"value": '"é"', "metadata": None, "expiration": int(NOW_S) + 60},
            "gone": None,
        }
    }
    api.node.now += 60
    assert (await get(api, ns, keys=["b"])).result == {"values": {"b": None}}


async def test_what_can_not_be_read_so_is_refused(api, ns):
    await put(api, ns, {"key": "text", "value": "x"}, {"key": "raw", "value": "/w==", "base64": True})
    not_text = "bulk get keys: 'At least one of the requested keys corresponds to a non-{} value'"
    assert (await get(api, ns, keys=["text"])).status == 200
    assert (await get(api, ns, keys=["text", "raw"])).error == (400, 10029, not_text.format("text"))
    assert (await get(api, ns, keys=["text"], type="json")).error == (400, 10029, not_text.format("json"))
    assert (await get(api, ns, keys=["text"], type="stream")).error[:2] == (400, 10029)
    assert (await get(api, ns, keys=[])).error[:2] == (400, 10029)
    assert (await get(api, ns, keys=[f"{number}" for number in range(100)])).status == 200
    most = "bulk get keys: 'You can request a maximum of 100 keys'"
    assert (await get(api, ns, keys=[f"{number}" for number in range(101)])).error == (400, 10029, most)
    assert (await get(api, ns, keys=[".."])).error[:2] == (400, 10001)
    for fields in ({}, {"keys": "text"}, {"keys": [1]}, {"keys": ["text"], "withMetadata": 1}):
        assert (await get(api, ns, **fields)).error[:2] == (400, 10001)
    assert (await api("POST", f"{ns}/bulk/get", b"[")).error[:2] == (400, 10012)
    assert (await get(api, "/" + "7" * 32, keys=["a"])).error == (
        404,
        10013,
        "bulk get keys: 'namespace not found'",
    )


@pytest.mark.parametrize(
    ("name", "code"), [("", 10001), (".", 10001), ("..", 10001), ("k" * 2049, 10001), ("é" * 1025, 10001)]
)
async def test_one_name_that_no_key_can_have_refuses_all(api, ns, name, code):
    """Names are looked at together: the bad one must show wherever it stands."""
    await put(api, ns, {"key": "k" * 2048, "value": "x"}, {"key": "...", "value": "y"})
    good = ["k" * 2048, "...", "gone"]
    assert (await get(api, ns, keys=good)).result == {"values": {"k" * 2048: "x", "...": "y", "gone": None}}
    expected = (await api("GET", f"{ns}/values/{quote(name)}")).error if len(name) > 2 else None
    for at in range(4):
        error = (await get(api, ns, keys=[*good[:at], name, *good[at:]])).error
        assert error[1] == code
        assert expected is None or error[0] == expected[0]


async def test_the_bytes_read_at_once_are_bounded(api, ns, monkeypatch):
    api.node.limits = PROFILES["workers-kv"]
    large = "é" * INLINE_VALUE_BYTES_MAX
    await put(api, ns, {"key": "large", "value": large}, {"key": "small", "value": "x"})
    assert (await get(api, ns, keys=["large", "small"])).result == {"values": {"large": large, "small": "x"}}
    monkeypatch.setattr(bulk, "GET_BYTES_MAX", 2 * INLINE_VALUE_BYTES_MAX)
    assert (await get(api, ns, keys=["large"])).status == 200
    assert (await get(api, ns, keys=["large", "small"])).error[:2] == (413, 10029)


async def test_long_answers_take_room_until_they_are_sent(api, ns, monkeypatch):
    monkeypatch.setattr(bulk, "READ_AT_ONCE_BYTES", 10)
    await put(api, ns, {"key": "a", "value": "x" * 20}, {"key": "b", "value": "x"})
    for _ in range(20):
        assert (await get(api, ns, keys=["a"])).status == 200
    await until(lambda: api.node.large_reads.count == 0)
    with ExitStack() as stack:
        for _ in range(8):
            stack.enter_context(api.node.large_reads.taken())
        assert (await get(api, ns, keys=["a"])).error[:2] == (503, 20012)
        assert (await get(api, ns, keys=["b"])).status == 200


async def test_a_connection_that_rests_holds_no_room(api, ns, monkeypatch):
    """It once did: aiohttp keeps an answer, and all that hangs on it, until the connection's next request."""
    monkeypatch.setattr(bulk, "READ_AT_ONCE_BYTES", 10)
    await put(api, ns, {"key": "a", "value": "x" * 20})
    request = api.request("POST", f"{ns}/bulk/get", b'{"keys":["a"]}')
    resting = [await asyncio.open_connection("127.0.0.1", api.port) for _ in range(10)]
    for reader, writer in resting:
        writer.write(request)
        assert (await read_answer(reader)).result == {"values": {"a": "x" * 20}}
    assert api.node.large_reads.count == 0
    for _, writer in resting:
        writer.close()


async def test_what_is_read_is_measured_as_it_is_spelled(api, ns, monkeypatch):
    await put(api, ns, {"key": "a", "value": "\0" * 100})
    monkeypatch.setattr(bulk, "GET_BYTES_MAX", 500)
    assert (await get(api, ns, keys=["a"])).error[:2] == (413, 10029)
    monkeypatch.setattr(bulk, "GET_BYTES_MAX", 700)
    assert (await get(api, ns, keys=["a"])).result == {"values": {"a": "\0" * 100}}


async def test_an_element_is_bounded_by_what_it_may_carry(api, ns):
    most = await put(api, ns, {"key": "k", "value": "\0" * 65_536})
    assert most.status == 200
    padded = b'[{"key": "k", "value": "v", "padding": "' + b"x" * 600_000 + b'"}]'
    assert (await api("PUT", f"{ns}/bulk", padded)).error[:2] == (413, 10001)
    nested = b"[" + b"[" * 600_000 + b"]" * 600_000 + b"]"
    assert (await api("PUT", f"{ns}/bulk", nested)).error[:2] == (413, 10001)
