"""Tokens: made, listed, rolled, revoked, and kept to what they are for."""

from __future__ import annotations

import json

import pytest

from kvnet.core.catalog import Scope
from tests.support.backends import NOW_S, TOKENS

USER = "/client/v4/user/tokens"
DENIED = (403, 10000, "Authentication error")
UNKNOWN = (401, 10000, "Authentication error")


async def ask(api, method: str, path: str = "", document: object = None, scope: Scope = Scope.ADMIN, **headers):
    body = b"" if document is None else json.dumps(document).encode()
    return await api(method, USER + path, body, whole=True, scope=scope, **headers)


async def made(api, **fields):
    return (await ask(api, "POST", "", {"name": "mine", **fields})).result


async def with_secret(api, secret: str, method: str, path: str, body: bytes = b"", *, whole: bool = False):
    return await api(method, path, body, scope=None, whole=whole, Authorization=f"Bearer {secret}")


async def test_a_token_is_made_and_good_at_once_and_its_secret_is_told_once(api, ns):
    token = await made(api, scope="write")
    assert {name: token[name] for name in ("name", "status", "scope", "namespaces")} == {
        "name": "mine",
        "status": "active",
        "scope": "write",
        "namespaces": [],
    }
    assert token["issued_on"] == "2027-01-15T08:00:00Z"
    assert "expires_on" not in token
    assert len(token["value"]) >= 40
    assert (await with_secret(api, token["value"], "PUT", f"{ns}/values/k", b"v")).status == 200
    secret = token.pop("value")
    assert (await ask(api, "GET", f"/{token['id']}")).result == token
    listed = await ask(api, "GET")
    assert token in listed.result
    assert secret.encode() not in listed.body
    verified = await with_secret(api, secret, "GET", f"{USER}/verify", whole=True)
    assert verified.result == {"id": token["id"], "status": "active"}


async def test_lists_are_paged_by_name(api):
    for name in ("b", "a", "é"):
        await made(api, name=name)
    pages = [await ask(api, "GET", f"?page={page}&per_page=2") for page in (1, 2, 3, 4)]
    names = [token["name"] for page in pages for token in page.result]
    assert names == sorted([*map(str, Scope), "a", "b", "é"], key=str.encode)
    assert [page.json["result_info"]["count"] for page in pages] == [2, 2, 2, 0]


async def test_rolled_it_has_another_secret_and_the_one_before_is_unknown(api):
    token = await made(api)
    rolled = (await ask(api, "PUT", f"/{token['id']}/value", {})).result
    assert (await with_secret(api, rolled, "GET", "")).status == 200
    assert (await with_secret(api, token["value"], "GET", "")).error == UNKNOWN


async def test_revoked_it_is_unknown(api):
    token = await made(api)
    assert (await ask(api, "DELETE", f"/{token['id']}")).result == {"id": token["id"]}
    assert (await with_secret(api, token["value"], "GET", "")).error == UNKNOWN
    assert (await ask(api, "GET", f"/{token['id']}")).error[:2] == (404, 20030)
    assert (await ask(api, "DELETE", f"/{token['id']}")).error[:2] == (404, 20030)
    assert (await ask(api, "PUT", f"/{token['id']}/value")).error[:2] == (404, 20030)


async def test_its_time_ends_to_the_second(api):
    token = await made(api, expires_on="2027-01-15T08:01:00Z")
    assert token["expires_on"] == "2027-01-15T08:01:00Z"
    api.node.now = int(NOW_S) + 59.9
    assert (await with_secret(api, token["value"], "GET", "")).status == 200
    api.node.now = int(NOW_S) + 60
    assert (await with_secret(api, token["value"], "GET", "")).error == UNKNOWN
    assert (await ask(api, "GET", f"/{token['id']}")).result["status"] == "expired"


async def test_a_token_for_some_namespaces_knows_no_others(api, ns):
    other, unknown = "/" + api.node.create_namespace("other").hex(), "/" + "7" * 32
    token = await made(api, scope="write", namespaces=[ns[1:].upper(), ns[1:]])
    assert token["namespaces"] == [ns[1:]]
    secret = token["value"]
    assert (await with_secret(api, secret, "PUT", f"{ns}/values/k", b"v")).status == 200
    assert (await with_secret(api, secret, "PUT", ns, b'{"title": "renamed"}')).status == 200
    assert [each["id"] for each in (await with_secret(api, secret, "GET", "")).result] == [ns[1:]]
    for path in (other, unknown):
        for method, below in (
            ("GET", ""),
            ("PUT", ""),
            ("DELETE", ""),
            ("GET", "/keys"),
            ("GET", "/values/k"),
            ("PUT", "/values/k"),
            ("DELETE", "/values/k"),
            ("GET", "/metadata/k"),
            ("PUT", "/bulk"),
            ("DELETE", "/bulk"),
            ("POST", "/bulk/delete"),
            ("POST", "/bulk/get"),
        ):
            answer = await with_secret(api, secret, method, path + below, b"[]")
            assert answer.error == DENIED, (method, below)
    assert (await with_secret(api, secret, "POST", "", b'{"title": "new"}')).error == DENIED
    for path in ("/status", "/usage", "/metrics"):
        assert (await with_secret(api, secret, "GET", path, whole=True)).error == DENIED
    assert (await with_secret(api, secret, "GET", "/client/v4/accounts", whole=True)).status == 200


@pytest.mark.parametrize("scope", [Scope.READ, Scope.WRITE])
async def test_only_admins_handle_tokens(api, scope):
    id_ = (await made(api))["id"]
    for method, path in (
        ("GET", ""),
        ("POST", ""),
        ("GET", f"/{id_}"),
        ("DELETE", f"/{id_}"),
        ("PUT", f"/{id_}/value"),
    ):
        assert (await ask(api, method, path, {"name": "x"}, scope=scope)).error == DENIED


@pytest.mark.parametrize(
    ("document", "status", "says"),
    [
        ([], 400, "object"),
        ({}, 400, "name"),
        ({"name": ""}, 400, "1 to 120"),
        ({"name": "x" * 121}, 400, "1 to 120"),
        ({"name": 1}, 400, "name"),
        ({"name": "x", "scope": "all"}, 400, "read or write or admin"),
        ({"name": "x", "scope": None}, 400, "scope"),
        ({"name": "x", "namespaces": "all"}, 400, "namespaces"),
        ({"name": "x", "namespaces": ["tests"]}, 400, "UUID"),
        ({"name": "x", "namespaces": ["7" * 32]}, 404, "namespace not found"),
        ({"name": "x", "scope": "admin", "namespaces": ["7" * 32]}, 400, "admin"),
        ({"name": "x", "policies": []}, 400, "policies"),
        ({"name": "x", "namespaces": []}, 400, "leave them out"),
        ({"name": "x", "expires_on": "soon"}, 400, "expires_on"),
        ({"name": "x", "expires_on": "2020-01-01T00:00:00Z"}, 400, "future"),
        ({"name": "x", "expires_on": 2_000_000_000}, 400, "expires_on"),
    ],
)
async def test_a_token_that_is_not_clear_is_not_made(api, document, status, says):
    before = len(api.node.store.tokens)
    told_status, _, message = (await ask(api, "POST", "", document)).error
    assert told_status == status
    assert says in message
    assert len(api.node.store.tokens) == before


async def test_a_retry_makes_no_second_token_and_gives_no_secret_that_is_not_good(api):
    first = (await ask(api, "POST", "", {"name": "x"}, KV_Request_Id="one")).result
    retried = await ask(api, "POST", "", {"name": "x"}, KV_Request_Id="one")
    assert retried.error[:2] == (400, 20032)
    assert first["id"] in retried.error[2]
    assert (await with_secret(api, first["value"], "GET", "")).status == 200
    assert [token["name"] for token in (await ask(api, "GET")).result].count("x") == 1


async def test_the_paths_below_a_token_are_these_and_no_others(api):
    for path, error in (("/a/b", (400, 7003)), ("/" + "a" * 65, (400, 7003)), ("/", (400, 7003))):
        assert (await ask(api, "GET", path)).error[:2] == error
    assert (await ask(api, "PATCH", "/abc")).error[:2] == (405, 10405)
    assert TOKENS  # the ones that every test asks with are still there


async def test_a_secret_that_may_not_be_the_one_that_counts_is_not_told(api):
    api.node.pending = True
    api.node.reaches = False
    unknown = await ask(api, "POST", "", {"name": "x"}, KV_Request_Id="one")
    assert unknown.error[:2] == (504, 20011)
    api.node.reaches = True
    assert (await ask(api, "POST", "", {"name": "x"}, KV_Request_Id="one")).error[:2] == (400, 20032)
    assert (await ask(api, "POST", "", {"name": "y"}, KV_Request_Id="two")).status == 200


async def test_a_request_id_that_is_used_again_later_makes_another_token(api):
    first = (await ask(api, "POST", "", {"name": "x"}, KV_Request_Id="one")).result
    api.node.now += 600
    api.node.outcomes.clear()  # as the coordinator forgets
    second = (await ask(api, "POST", "", {"name": "x"}, KV_Request_Id="one")).result
    assert first["id"] != second["id"]
    assert (await with_secret(api, first["value"], "GET", "")).status == 200
