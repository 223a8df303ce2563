"""Reading and writing one pair."""

from __future__ import annotations

import pytest

from kvnet.core.operations import PutValue
from kvnet.errors import RequestError, StorageDamaged
from tests.support.backends import NOW_S

NOW = int(NOW_S)
IN_THE_PAST = "Please specify integer greater than the current number of seconds since the UNIX epoch."


async def test_value_comes_back_as_it_was_put(api, ns):
    put = await api("PUT", f"{ns}/values/k", b"\x00\xff\r\n\x00")
    assert put.result is None
    got = await api("GET", f"{ns}/values/k")
    assert (got.status, got.body) == (200, b"\x00\xff\r\n\x00")
    assert got.headers["content-type"] == "application/octet-stream"
    assert "expiration" not in got.headers


async def test_answers_say_where_the_record_and_the_replica_stand(api, ns):
    put = await api("PUT", f"{ns}/values/k", b"v")
    await api("PUT", f"{ns}/values/other", b"v")
    api.node.stale_ms = 501.5
    got = await api("GET", f"{ns}/values/k")
    position = str(api.node.store.position.version)
    assert got.headers["kv-version"] == put.headers["kv-version"] != position
    assert got.headers["etag"] == f'"{put.headers["kv-version"]}"'
    assert got.headers["kv-position"] == position
    assert got.headers["kv-staleness-ms"] == "1000"
    assert got.headers["kv-pop"] == "fra"


async def test_head_says_what_get_says_without_the_value(api, ns):
    await api("PUT", f"{ns}/values/k", b"12345")
    got = await api("HEAD", f"{ns}/values/k")
    assert (got.status, got.headers["content-length"], "kv-version" in got.headers) == (200, "5", True)


async def test_empty_value_is_a_value(api, ns):
    assert (await api("PUT", f"{ns}/values/k")).status == 200
    got = await api("GET", f"{ns}/values/k")
    assert (got.status, got.body) == (200, b"")


@pytest.mark.parametrize(
    "content_type", ["application/json", "text/plain;charset=UTF-8", "application/x-www-form-urlencoded"]
)
async def test_body_is_stored_verbatim_whatever_its_type(api, ns, content_type):
    body = b'{"metadata":"{}","value":"x"}'
    await api("PUT", f"{ns}/values/k", body, Content_Type=content_type)
    assert (await api("GET", f"{ns}/values/k")).body == body
    assert (await api("GET", f"{ns}/metadata/k")).result is None


async def test_body_that_says_it_is_compressed_is_stored_verbatim(api, ns):
    await api("PUT", f"{ns}/values/k", b"not gzip at all", Content_Encoding="gzip")
    assert (await api("GET", f"{ns}/values/k")).body == b"not gzip at all"


async def test_missing_key_is_an_envelope_even_for_the_raw_value(api, ns):
    for kind in ("values", "metadata"):
        answer = await api("GET", f"{ns}/{kind}/k")
        assert answer.error == (404, 10009, "get: 'key not found'")
        assert "kv-version" not in answer.headers


async def test_delete_succeeds_whether_or_not_the_key_exists(api, ns):
    await api("PUT", f"{ns}/values/k", b"v")
    for _ in range(2):
        assert (await api("DELETE", f"{ns}/values/k")).result is None
    assert (await api("GET", f"{ns}/values/k")).status == 404


async def test_expiring_pair_says_when_and_then_is_gone(api, ns):
    await api("PUT", f"{ns}/values/k?expiration_ttl=60", b"v")
    assert (await api("GET", f"{ns}/values/k")).headers["expiration"] == str(NOW + 60)
    api.node.now = NOW + 59.999
    assert (await api("GET", f"{ns}/values/k")).status == 200
    api.node.now = NOW + 60.0
    assert (await api("GET", f"{ns}/values/k")).error[:2] == (404, 10009)
    assert (await api("GET", f"{ns}/metadata/k")).error[:2] == (404, 10009)


async def test_ttl_wins_over_expiration(api, ns):
    await api("PUT", f"{ns}/values/k?expiration=banana&expiration_ttl=90", b"v")
    operation, _ = api.node.written[-1]
    assert (operation.ttl_s, operation.expires_at) == (90, 0)


async def test_put_without_expiry_or_metadata_clears_both(api, ns):
    form = b'--b\r\nContent-Disposition: form-data; name="value"\r\n\r\nv\r\n'
    form += b'--b\r\nContent-Disposition: form-data; name="metadata"\r\n\r\n{"a":1}\r\n--b--'
    await api("PUT", f"{ns}/values/k?expiration={NOW + 61}", form, Content_Type="multipart/form-data; boundary=b")
    assert (await api("GET", f"{ns}/metadata/k")).result == {"a": 1}
    assert (await api("GET", f"{ns}/values/k")).headers["expiration"] == str(NOW + 61)
    await api("PUT", f"{ns}/values/k", b"v")
    assert (await api("GET", f"{ns}/metadata/k")).result is None
    assert "expiration" not in (await api("GET", f"{ns}/values/k")).headers


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("expiration_ttl=59", "Invalid expiration_ttl of 59. Expiration TTL must be at least 60."),
        ("expiration_ttl=0", "Invalid expiration_ttl of 0. Please specify integer greater than 0."),
        ("expiration_ttl=-60", "Invalid expiration_ttl of -60. Please specify integer greater than 0."),
        ("expiration_ttl=6e1", "Invalid expiration_ttl of 6e1. Please specify integer greater than 0."),
        ("expiration_ttl=", "Invalid expiration_ttl of . Please specify integer greater than 0."),
        (
            "expiration_ttl=1800000000000",
            "Invalid expiration_ttl of 1800000000000. Please specify seconds, not milliseconds or a time.",
        ),
        (f"expiration={NOW}", f"Invalid expiration of {NOW}. {IN_THE_PAST}"),
        ("expiration=soon", f"Invalid expiration of soon. {IN_THE_PAST}"),
        (
            f"expiration={NOW + 59}",
            f"Invalid expiration of {NOW + 59}. Expiration times must be at least 60 seconds in the future.",
        ),
        (
            f"expiration={NOW}000",
            f"Invalid expiration of {NOW}000. Please specify seconds since the UNIX epoch, not milliseconds.",
        ),
    ],
)
async def test_expiry_that_cannot_be_is_refused(api, ns, query, message):
    assert (await api("PUT", f"{ns}/values/k?{query}", b"v")).error == (400, 10034, message)
    assert api.node.written == []


async def test_value_of_the_limit_is_taken_and_one_byte_more_refused(api, ns):
    limit = api.node.limits.value_bytes_max
    assert (await api("PUT", f"{ns}/values/k", b"x" * limit)).status == 200
    assert len((await api("GET", f"{ns}/values/k")).body) == limit
    refused = await api("PUT", f"{ns}/values/k", b"x" * (limit + 1))
    assert refused.error == (413, 10001, f"Value length of {limit + 1} exceeds limit of {limit}.")
    assert len((await api("GET", f"{ns}/values/k")).body) == limit


async def test_second_write_within_the_interval_is_told_when_to_try_again(api, ns):
    api.node.refusal = RequestError(429, 10001, "429 Too Many Requests", headers={"Retry-After": "1"})
    answer = await api("PUT", f"{ns}/values/k", b"v")
    assert answer.error == (429, 10001, "429 Too Many Requests")
    assert answer.headers["retry-after"] == "1"


async def test_pending_write_says_so(api, ns):
    api.node.pending = True
    assert (await api("PUT", f"{ns}/values/k", b"v")).headers["kv-pending"] == "1"
    api.node.pending = False
    assert "kv-pending" not in (await api("PUT", f"{ns}/values/k", b"v")).headers


async def test_request_id_goes_to_the_coordinator_within_its_token(api, ns):
    """Two clients that both count from 1 must not be taken for one that retries."""
    await api("PUT", f"{ns}/values/k", b"v", KV_Request_Id="retry-1")
    operation, request_id = api.node.written[-1]
    assert isinstance(operation, PutValue)
    assert request_id.endswith(b"/retry-1")
    assert len(request_id) > len(b"/retry-1")
    for bad in ("x" * 65, "a b", "é"):
        answer = await api("PUT", f"{ns}/values/k", b"v", KV_Request_Id=bad)
        assert answer.error[:2] == (400, 10001)
    assert len(api.node.written) == 1


async def test_namespace_this_replica_has_not_heard_of_is_for_the_coordinator_to_judge(api, ns):
    unknown = "/" + "5" * 32
    for method, op in (("PUT", "put"), ("DELETE", "remove key")):
        answer = await api(method, f"{unknown}/values/k")
        assert answer.error == (404, 10013, f"{op}: 'namespace not found'")
    assert len(api.node.written) == 2
    assert (await api("GET", f"{unknown}/values/k")).error == (404, 10013, "get: 'namespace not found'")


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
async def test_system_namespace_does_not_exist_for_clients(api, method):
    """Its records are tokens and namespaces: whoever could write there could make himself an admin."""
    answer = await api(method, f"/{'0' * 32}/values/cluster")
    assert answer.error[:2] == (404, 10013)
    assert api.node.written == []


async def test_a_damaged_record_is_no_answer_and_the_node_is_told(api, ns, monkeypatch):
    def get(namespace, key):
        raise StorageDamaged("flipped bits")

    monkeypatch.setattr(api.node.store, "get", get)
    answer = await api("GET", f"{ns}/values/k")
    assert answer.error[:2] == (503, 20004)
    assert [str(damage) for damage in api.node.damages] == ["flipped bits"]
