"""Namespaces: listed, created, renamed, deleted."""

from __future__ import annotations

import json

import pytest

from kvnet.core.catalog import Scope


async def create(api, title: str):
    return await api("POST", "", json.dumps({"title": title}, indent=2).encode())


async def test_namespace_is_created_listed_and_fetched(api):
    created = await create(api, "Müller's  \u0001 \U0001f600")
    assert "kv-version" in created.headers
    namespace = created.result
    assert set(namespace) == {"id", "title", "supports_url_encoding"}
    assert len(bytes.fromhex(namespace["id"])) == 16
    assert (await api("GET", f"/{namespace['id']}")).result == namespace
    answer = await api("GET", "")
    assert answer.result == [namespace]
    assert answer.json["result_info"] == {
        "page": 1, "per_page": 20, "count": 1, "total_count": 1, "total_pages": 1,
    }  # fmt: skip


async def test_creation_asked_again_under_its_request_id_names_the_same_namespace(api):
    """The second answer once named an id that was never created: each attempt drew one of its own."""
    body = b'{"title": "once"}'
    first = await api("POST", "", body, KV_Request_Id="create-1")
    api.node.written.clear()
    await api("POST", "", b'{"title": "another"}', KV_Request_Id="create-1")
    again, _ = api.node.written[-1]
    assert again.id.hex() == first.result["id"]
    assert (await api("POST", "", b'{"title": "third"}', KV_Request_Id="create-2")).result["id"] != first.result[
        "id"
    ]


async def test_namespace_gets_the_id_that_is_asked_for(api):
    wanted = "0F" * 16
    body = json.dumps({"title": "kept", "id": wanted}).encode()
    assert (await api("POST", "", body)).result["id"] == wanted.lower()
    assert [each["id"] for each in (await api("GET", "")).result] == [wanted.lower()]


@pytest.mark.parametrize("id_", ["", "0f", "0f" * 15 + "xx", "-" * 32, 7, "0f" * 17])
async def test_namespace_id_that_is_none_is_refused(api, id_):
    answer = await api("POST", "", json.dumps({"title": "t", "id": id_}).encode())
    assert answer.error == (400, 10001, "id: write 32 hex digits, or leave it out for a new one")


async def test_pages_go_on_until_an_empty_one(api):
    titles = [f"t{number:02}" for number in range(25)]
    for title in titles:
        api.node.create_namespace(title)
    seen = []
    for page in range(1, 10):
        answer = await api("GET", f"?per_page=10&page={page}&order=title&direction=desc")
        seen += [namespace["title"] for namespace in answer.result]
        if not answer.result:
            break
    assert page == 4
    assert seen == titles[::-1]
    by_id = [namespace["id"] for namespace in (await api("GET", "?per_page=1000")).result]
    assert by_id == sorted(by_id)
    assert len(by_id) == 25


@pytest.mark.parametrize(
    "query", ["page=0", "page=x", "per_page=0", "per_page=1001", "order=size", "direction=up", "page=1.5"]
)
async def test_page_that_cannot_be_is_refused(api, query):
    status, code, message = (await api("GET", f"?{query}")).error
    assert (status, code) == (400, 10001)
    assert message.startswith(query.split("=", maxsplit=1)[0] + ": must be ")


async def test_title_taken_by_another_is_refused(api, ns):
    assert (await create(api, "tests")).error[:2] == (400, 10014)
    other = (await create(api, "Tests")).result["id"]
    assert (await api("PUT", f"/{other}", b'{"title":"tests"}')).error[:2] == (400, 10014)
    assert (await api("PUT", f"/{other}", b'{"title":"Tests"}')).status == 200


@pytest.mark.parametrize("body", [b"{}", b'{"title":""}', b'{"name":"x"}'])
async def test_missing_title_is_refused(api, ns, body):
    expected = "create namespace: 'request is missing a title definition'"
    assert (await api("POST", "", body)).error == (400, 10019, expected)
    expected = "rename namespace: 'request is missing a title definition'"
    assert (await api("PUT", ns, body)).error == (400, 10019, expected)


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"null", b'"x"', b"{", b'{"title":1}', b'{"title":null}', b'{"title":"\xff"}',
     b'{"title":"\\ud800x"}', b"[" * 60_000],
)  # fmt: skip
async def test_body_that_is_no_object_with_a_title_is_refused(api, body):
    assert (await api("POST", "", body)).error == (400, 10012, "invalid request body")


async def test_bounds_of_a_title_and_of_its_body(api):
    assert (await create(api, "é" * 512)).status == 200
    assert (await create(api, "x" * 513)).error[:2] == (400, 10001)
    assert (await create(api, "x" * 70_000)).error[:2] == (413, 10001)


async def test_jurisdiction_is_refused_rather_than_ignored(api):
    answer = await api("POST", "", b'{"title":"x","jurisdiction":"eu"}')
    assert answer.error[:2] == (400, 10001)
    assert api.node.written == []
    assert (await api("POST", "", b'{"title":"x","jurisdiction":null}')).status == 200


async def test_renamed_namespace_keeps_its_id_and_pairs(api, ns):
    await api("PUT", f"{ns}/values/k", b"v")
    renamed = (await api("PUT", ns, b'{"title":"new"}')).result
    assert renamed == {"id": ns[1:], "title": "new", "supports_url_encoding": True}
    assert (await api("GET", ns)).result == renamed
    assert (await api("GET", f"{ns}/values/k")).body == b"v"


async def test_deleted_namespace_is_unknown_with_all_in_it(api, ns):
    await api("PUT", f"{ns}/values/k", b"v")
    assert (await api("DELETE", ns)).result is None
    for method, path, op in (
        ("GET", ns, "get namespace"),
        ("PUT", ns, "rename namespace"),
        ("DELETE", ns, "remove namespace"),
        ("GET", f"{ns}/values/k", "get"),
        ("GET", f"{ns}/metadata/k", "get"),
        ("PUT", f"{ns}/values/k", "put"),
        ("DELETE", f"{ns}/values/k", "remove key"),
        ("GET", f"{ns}/keys", "list keys"),
    ):
        answer = await api(method, path, b'{"title":"x"}' if method == "PUT" else b"")
        assert answer.error == (404, 10013, f"{op}: 'namespace not found'")


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
async def test_system_namespace_cannot_be_renamed_or_deleted(api, method):
    answer = await api(method, f"/{'0' * 32}", b'{"title":"x"}' if method == "PUT" else b"")
    assert answer.error[:2] == (404, 10013)
    assert api.node.written == []


async def test_a_request_id_that_is_used_again_later_never_brings_back_an_id(api):
    first = (await api("POST", "", b'{"title": "one"}', KV_Request_Id="same")).result["id"]
    await api("DELETE", f"/{first}")
    api.node.now += 600
    api.node.outcomes.clear()  # as the coordinator forgets
    assert (await api("POST", "", b'{"title": "one"}', KV_Request_Id="same")).result["id"] != first


async def test_a_retry_in_the_next_span_names_the_namespace_that_the_first_try_made(api):
    api.node.now = 1_800_000_000 - 0.5
    first = (await api("POST", "", b'{"title": "one"}', KV_Request_Id="same")).result
    api.node.now += 1
    retried = await api("POST", "", b'{"title": "one"}', KV_Request_Id="same")
    assert retried.result == first
    assert retried.headers["kv-version"] == str(api.node.outcomes[f"id-{Scope.WRITE}/same".encode()])
