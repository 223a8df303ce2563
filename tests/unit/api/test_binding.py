"""The binding protocol, byte by byte, as workerd writes it; the runtime itself is in tests/workers."""

from __future__ import annotations

import json

import pytest

from kvnet.api.bulk import GET_KEYS_MAX
from kvnet.core.catalog import Scope
from kvnet.core.operations import PutValue
from kvnet.errors import RequestError
from kvnet.limits import profile
from tests.support.backends import NOW_S, FakeNode
from tests.support.http import exchange

NOW = int(NOW_S)
PAST = "Please specify integer greater than the current number of seconds since the UNIX epoch."


@pytest.fixture
def kv(api, node):
    """Ask as a binding of one namespace does."""
    namespace = node.create_namespace("bound").hex()

    async def kv(method: str, path: str, body: bytes = b"", **headers: str):
        headers = {"KV_Namespace": namespace, "CF_KV_FLPROD_405": "https://fake-host/x"} | headers
        return await api(method, path, body, whole=True, **headers)

    kv.namespace = namespace
    return kv


def refusal(answer) -> tuple[int, str]:
    """Return what a Worker sees of an error, once it is sure that the body is one in due form."""
    status, _, _ = answer.error
    return status, answer.reason


async def test_a_value_comes_back_with_its_metadata_and_its_end(kv):
    put = await kv("PUT", "/k?urlencoded=true&expiration_ttl=60", b"\x00v", CF_KV_Metadata='{"a": "é"}')
    assert put.status == 200
    got = await kv("GET", "/k?urlencoded=true&cache_ttl=60")
    assert (got.status, got.body) == (200, b"\x00v")
    assert got.headers["cf-kv-metadata"].encode("latin-1").decode() == '{"a":"é"}'
    assert got.headers["cf-expiration"] == str(NOW + 60)
    assert got.headers["kv-version"] == put.headers["kv-version"]
    await kv("PUT", "/k?urlencoded=true", b"w")
    got = await kv("GET", "/k?urlencoded=true")
    assert not {"cf-kv-metadata", "cf-expiration"} & set(got.headers)


async def test_the_rest_api_has_what_the_binding_wrote_and_the_other_way_round(kv, api):
    await kv("PUT", "/a%2Fb?urlencoded=true", b"v", CF_KV_Metadata="7")
    assert (await api("GET", f"/{kv.namespace}/values/a%2Fb")).body == b"v"
    assert (await api("GET", f"/{kv.namespace}/metadata/a%2Fb")).result == 7
    await api("PUT", f"/{kv.namespace}/values/x", b"w")
    assert (await kv("GET", "/x?urlencoded=true")).body == b"w"


@pytest.mark.parametrize(
    ("path", "key"),
    [
        ("/bulk%2Fget", b"bulk/get"),
        ("/healthz", b"healthz"),
        ("/status", b"status"),
        ("/metrics", b"metrics"),
        ("/openapi.json", b"openapi.json"),
        ("/peer", b"peer"),
        ("/client%2Fv4%2Faccounts", b"client/v4/accounts"),
        ("/%2F", b"/"),
        ("/a+b%20c", b"a+b c"),
        ("/%00%0A", b"\x00\n"),
        ("/[!$&'()*,:;=@~-_.]", b"[!$&'()*,:;=@~-_.]"),
        ("/%25%3F%23%F0%9F%98%80", "%?#\U0001f600".encode()),
    ],
)
async def test_the_whole_path_is_the_key(kv, node, path, key):
    await kv("PUT", f"{path}?urlencoded=true", b"v")
    operation, _ = node.written[-1]
    assert (operation.key, operation.value) == (key, b"v")
    assert (await kv("GET", f"{path}?urlencoded=true")).body == b"v"
    assert (await kv("DELETE", f"{path}?urlencoded=true", Content_Length="0")).status == 200
    assert (await kv("GET", f"{path}?urlencoded=true")).status == 404


async def test_a_form_is_a_value_like_any_other(kv):
    body = b"--b\r\nContent-Disposition: form-data; name=value\r\n\r\nv\r\n--b--"
    await kv("PUT", "/k", body, Content_Type="multipart/form-data; boundary=b")
    assert (await kv("GET", "/k")).body == body


async def test_only_a_missing_key_is_404(kv, api):
    missing = await kv("GET", "/k?urlencoded=true")
    assert (missing.status, missing.reason) == (404, "Not Found")
    for method, path, body in (
        ("GET", "/k", b""),
        ("PUT", "/k", b"v"),
        ("DELETE", "/k", b""),
        ("GET", "/", b""),
        ("POST", "/bulk/get", b'{"keys":["k"]}'),
    ):
        answer = await api(method, path, body, whole=True, KV_Namespace="ab" * 16)
        assert refusal(answer) == (400, "namespace not found"), method


async def test_an_expired_pair_is_null_at_its_second(kv, node):
    await kv("PUT", "/k?expiration_ttl=60", b"v")
    node.now = NOW + 59.99
    assert (await kv("GET", "/k")).status == 200
    node.now = NOW + 60
    assert (await kv("GET", "/k")).status == 404


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("expiration_ttl=0", "Invalid expiration_ttl of 0. Please specify integer greater than 0."),
        ("expiration_ttl=59", "Invalid expiration_ttl of 59. Expiration TTL must be at least 60."),
        ("expiration_ttl=nan", "Invalid expiration_ttl of nan. Please specify integer greater than 0."),
        (
            f"expiration={NOW}",
            f"Invalid expiration of {NOW}. {PAST}",
        ),
        (
            f"expiration={NOW + 59}",
            f"Invalid expiration of {NOW + 59}. Expiration times must be at least 60 seconds in the future.",
        ),
    ],
)
async def test_a_time_that_workers_kv_refuses_is_refused_in_its_words(kv, node, query, reason):
    assert refusal(await kv("PUT", f"/k?urlencoded=true&{query}", b"v")) == (400, reason)
    assert node.written == []


async def test_ttl_wins_over_expiration(kv, node):
    await kv("PUT", f"/k?expiration={NOW + 1000}&expiration_ttl=60", b"v")
    assert node.written[-1][0].ttl_s == 60


async def test_sizes_are_refused_in_the_words_of_workers_kv(kv):
    assert refusal(await kv("PUT", "/k", b"x" * 65_537)) == (413, "Value length of 65537 exceeds limit of 65536.")
    metadata = json.dumps("x" * 1023)
    answer = await kv("PUT", "/k", b"v", CF_KV_Metadata=metadata)
    assert refusal(answer) == (413, "Metadata length of 1025 exceeds limit of 1024.")
    for method in ("GET", "PUT", "DELETE"):
        answer = await kv(method, "/" + "k" * 2049)
        assert refusal(answer) == (414, "UTF-8 encoded length of 2049 exceeds key length limit of 2048.")


async def test_what_is_no_key_or_no_metadata_is_refused(kv):
    assert refusal(await kv("GET", "/%ED%A0%80")) == (400, "Could not URL-decode key name")
    assert refusal(await kv("GET", "/%2E%2E")) == (400, "key name not allowed")
    assert refusal(await kv("PUT", "/k", b"v", CF_KV_Metadata="{")) == (400, "metadata must be valid json")


@pytest.mark.parametrize("ttl", ["29", "0", "-1", "x", "60.5"])
async def test_a_short_cache_ttl_is_refused(kv, ttl):
    reason = f"Invalid cache_ttl of {ttl}. Cache TTL must be at least 30."
    assert refusal(await kv("GET", f"/k?cache_ttl={ttl}")) == (400, reason)
    body = json.dumps({"keys": ["k"], "cacheTtl": ttl}).encode()
    assert refusal(await kv("POST", "/bulk/get", body)) == (400, reason)


async def test_bulk_get_has_every_key(kv):
    await kv("PUT", "/a", b'{"x": 1}', CF_KV_Metadata='"m"')
    await kv("PUT", "/123", b"7")
    body = {"keys": ["a", "missing", "123"], "type": "json", "cacheTtl": "60"}
    assert (await kv("POST", "/bulk/get", json.dumps(body).encode())).json == {
        "a": {"x": 1}, "missing": None, "123": 7,
    }  # fmt: skip
    body = {"keys": ["a", "missing"], "withMetadata": True}
    assert (await kv("POST", "/bulk/get", json.dumps(body).encode())).json == {
        "a": {"value": '{"x": 1}', "metadata": "m"}, "missing": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"keys": []}, "You must request at least one key"),
        ({"keys": ["k"] * (GET_KEYS_MAX + 1)}, "You can request a maximum of 100 keys"),
        ({"keys": ["t"], "type": "stream"}, '"stream" is not a valid type. Use "json" or "text"'),
        ({"keys": ["t"], "type": "é\n"}, '"??" is not a valid type. Use "json" or "text"'),
        (
            {"keys": ["t"], "type": "json"},
            "At least one of the requested keys corresponds to a non-json value",
        ),
        ({"keys": ["."]}, "key name not allowed"),
        ({"keys": [""]}, "key name not allowed"),
        ([], "Expected `object`, got `array`"),
    ],
)
async def test_a_bulk_get_that_cannot_be_met_says_why(kv, body, reason):
    await kv("PUT", "/t", b"text")
    assert refusal(await kv("POST", "/bulk/get", json.dumps(body).encode())) == (400, reason)


async def test_a_list_has_metadata_as_a_string_and_goes_on_by_its_cursor(kv, node):
    await kv("PUT", "/p1?expiration_ttl=60", b"v", CF_KV_Metadata='{"a": [1]}')
    for number in range(2, 6):
        await kv("PUT", f"/p{number}", b"v")
    await kv("PUT", "/q", b"v")
    first = (await kv("GET", "/?key_count_limit=1&prefix=p")).json
    assert first["keys"] == [{"name": "p1", "expiration": NOW + 60, "metadata": '{"a":[1]}'}]
    assert first["list_complete"] is False
    rest = (await kv("GET", f"/?key_count_limit=1000&prefix=p&cursor={first['cursor']}")).json
    assert rest == {"keys": [{"name": f"p{number}"} for number in range(2, 6)], "list_complete": True}
    assert len((await kv("GET", "/")).json["keys"]) == 6


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("key_count_limit=0", "Invalid key_count_limit of 0. Please specify an integer greater than 0."),
        ("key_count_limit=x", "Invalid key_count_limit of x. Please specify an integer greater than 0."),
        ("key_count_limit=1001", "Invalid key_count_limit of 1001. Please specify an integer less than 1000."),
        ("cursor=AAAA", "Invalid cursor"),
    ],
)
async def test_a_list_that_cannot_be_met_says_why(kv, query, reason):
    assert refusal(await kv("GET", f"/?{query}")) == (400, reason)


async def test_a_second_write_within_a_second_says_what_the_status_says(kv, node):
    node.refusal = RequestError(429, 10001, "Too many writes of one key", headers={"Retry-After": "1"})
    answer = await kv("PUT", "/k", b"v")
    assert (answer.status, answer.reason, answer.headers["retry-after"]) == (429, "Too Many Requests", "1")


async def test_a_token_is_asked_for_as_everywhere(kv, api):
    assert refusal(await kv("PUT", "/k", b"v", scope=Scope.READ)) == (403, "Authentication error")
    assert (await kv("GET", "/k", scope=Scope.READ)).status == 404
    answer = await api("GET", "/k", whole=True, scope=None, KV_Namespace=kv.namespace)
    assert refusal(answer) == (400, "Missing X-Auth-Key, X-Auth-Email or Authorization headers")


@pytest.mark.parametrize("namespace", ["", "xyz", "zz" * 16])
async def test_a_namespace_that_is_none_is_refused(api, namespace):
    answer = await api("GET", "/k", whole=True, KV_Namespace=namespace)
    assert answer.status == 400
    assert "could not parse UUID" in answer.reason


async def test_two_namespaces_are_refused(api, kv):
    sent = api.request(
        "GET", "/k", headers={"KV-Namespace": kv.namespace, "kv-namespace": kv.namespace}, whole=True
    )
    assert b"kv-namespace" in sent
    answer = await exchange(api.port, sent)
    assert refusal(answer) == (400, "KV-Namespace: must come once")


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/k"), ("POST", "/"), ("PUT", "/"), ("DELETE", "/"), ("PATCH", "/k")]
)
async def test_what_no_binding_asks_is_refused(kv, method, path):
    answer = await kv(method, path)
    assert (answer.status, answer.reason) == (405, "Method not allowed")


async def test_a_replica_that_may_not_serve_says_so(kv, node):
    node.is_ready = False
    answer = await kv("GET", "/k")
    assert refusal(answer) == (503, "fra isn't ready: its replica is still being filled; ask another PoP")


async def test_a_read_waits_for_a_version_where_it_is_told_to(kv, node):
    put = await kv("PUT", "/k", b"v")
    node.reaches = False
    answer = await kv("GET", "/k", KV_At_Least=put.headers["kv-version"])
    assert answer.status == 504


async def test_operations_are_counted(kv, node):
    await kv("PUT", "/k", b"v")
    await kv("GET", "/k")
    await kv("POST", "/bulk/get", b'{"keys":["a","b"]}')
    await kv("GET", "/")
    await kv("DELETE", "/k")
    used = node.usage.of(bytes.fromhex(kv.namespace))
    assert (used.reads, used.writes, used.deletes, used.lists) == (3, 1, 1, 1)


async def test_large_values_come_and_go_in_pieces(serve, tmp_path):
    node = FakeNode(tmp_path / "large", profile("workers-kv"))
    async with serve(node) as api:
        namespace = node.create_namespace("large").hex()
        value = bytes(range(256)) * 8192
        put = await api("PUT", "/k", value, whole=True, KV_Namespace=namespace, CF_KV_Metadata="1")
        assert put.status == 200
        assert not isinstance(node.written[-1][0], PutValue)
        got = await api("GET", "/k", whole=True, KV_Namespace=namespace)
        assert got.body == value
        assert got.headers["cf-kv-metadata"] == "1"
    node.store.close()
