"""Reads that this node isn't fresh enough for: put to another node, and answered for one."""

from __future__ import annotations

import asyncio
import json

import pytest
from aiohttp import web

from kvnet.api.relaying import CARRIED, QUESTION_BYTES_MAX
from kvnet.api.service import HttpService
from kvnet.core.catalog import Scope
from kvnet.core.versions import Version
from kvnet.limits import Limits
from tests.support.backends import ACCOUNT, FakeNode, FakeRelayed
from tests.support.http import exchange, request_bytes
from tests.unit.api.conftest import serving

AHEAD = "1-999"


@pytest.fixture
async def other(tmp_path):
    """A node that answers other nodes' questions, to whoever posts them."""
    folder = tmp_path / "other"
    folder.mkdir()
    node = FakeNode(folder, Limits(value_bytes_max=1 << 20))
    node.name = node.pop = "iad"
    services = []

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        return await services[0].answer_peer(request, await request.read())

    services.append(HttpService(node))
    async with serving(node, {"/ask": answer}) as made:
        yield made
    node.store.close()


async def asked_there(api, other):
    """Return what `other` answers to the last question that `api` was made to put."""
    question, head_only, _, _ = api.node.questions[-1]
    method = "HEAD" if head_only else "POST"
    sent = request_bytes(method, "/ask", {"Host": "h", "Content-Length": str(len(question))}, question)
    return await exchange(other.port, sent, method=method)


async def test_read_without_a_wish_is_never_relayed(api, ns):
    api.node.stale_ms = 60_000
    api.node.relayed = FakeRelayed(b"theirs")
    assert (await api("GET", f"{ns}/values/k")).status == 404
    assert api.node.questions == []


async def test_another_nodes_answer_is_passed_on_as_it_is(api, ns):
    api.node.relayed = relayed = FakeRelayed(
        b"th",
        b"eirs",
        KV_Pop="iad",
        KV_Position="1-1000",
        KV_Staleness_Ms="0",
        KV_Version="1-999",
        Content_Type="application/octet-stream",
    )
    answer = await api("GET", f"{ns}/values/k", KV_At_Least=AHEAD, KV_Wait_Timeout_Ms="0")
    assert (answer.status, answer.body) == (200, b"theirs")
    told = {name: answer.headers[name] for name in ("kv-pop", "kv-position", "kv-staleness-ms", "kv-version")}
    assert told == {"kv-pop": "iad", "kv-position": "1-1000", "kv-staleness-ms": "0", "kv-version": "1-999"}
    assert answer.headers["kv-relayed-by"] == "fra"
    assert relayed.closed
    [(_, head_only, at_least, staleness_ms)] = api.node.questions
    assert (head_only, at_least, staleness_ms) == (False, Version(1, 999), None)


async def test_error_of_another_node_is_an_answer_with_its_reason(api, ns):
    body = b'{"success":false}'
    api.node.relayed = FakeRelayed(body, status=404, reason="No such thing", KV_Pop="iad")
    answer = await api("GET", f"{ns}/values/k", KV_At_Least=AHEAD)
    assert (answer.status, answer.reason, answer.body) == (404, "No such thing", body)


async def test_head_tells_the_size_and_holds_nothing(api, ns):
    api.node.relayed = relayed = FakeRelayed(b"x" * 12, KV_Pop="iad")
    answer = await api("HEAD", f"{ns}/values/k", KV_At_Least=AHEAD)
    assert (answer.status, answer.headers["content-length"]) == (200, "12")
    assert relayed.closed
    assert api.node.questions[0][1]


@pytest.mark.parametrize(
    ("headers", "code"), [({"KV_At_Least": AHEAD}, 20003), ({"KV_Max_Staleness_Ms": "10"}, 20002)]
)
async def test_refusal_says_who_was_asked(api, ns, headers, code):
    api.node.stale_ms = 700
    api.node.relayed = "coordinator (cut off), lhr (stands at 1-3)"
    answer = await api("GET", f"{ns}/keys", **headers)
    assert answer.error[1] == code
    assert "asked in its place: coordinator (cut off), lhr (stands at 1-3); ask another PoP" in answer.error[2]
    assert answer.headers["kv-pop"] == "fra"
    assert "kv-relayed-by" not in answer.headers


async def test_answer_that_ends_early_ends_early_here_too(api, ns):
    broken = FakeRelayed(b"begin", ConnectionAbortedError("gone"), KV_Pop="iad")
    broken.size = 1000
    api.node.relayed = broken
    with pytest.raises(asyncio.IncompleteReadError):
        await api("GET", f"{ns}/values/k", KV_At_Least=AHEAD)
    assert broken.closed


@pytest.mark.parametrize(("method", "path"), [("PUT", "/values/k"), ("DELETE", "/values/k")])
async def test_write_is_never_relayed(api, ns, method, path):
    answer = await api(method, ns + path, b"v" if method == "PUT" else b"", KV_At_Least=AHEAD)
    assert answer.error[:2] == (504, 20003)
    assert api.node.questions == []


async def test_what_an_account_is_is_never_relayed(api):
    path = "/client/v4/user/tokens/verify"
    answer = await api("GET", path, whole=True, KV_At_Least=AHEAD)
    assert answer.error[:2] == (504, 20003)
    assert api.node.questions == []


async def test_right_to_read_is_checked_before_anybody_is_asked(api, ns):
    elsewhere = api.node.create_namespace("elsewhere")
    secret = api.node.add_token("narrow", Scope.READ, namespaces=(elsewhere,))
    bearer = {"Authorization": f"Bearer {secret}"}
    answer = await api("GET", f"{ns}/values/k", scope=None, KV_At_Least=AHEAD, **bearer)
    assert answer.status == 403
    assert (await api("GET", f"{ns}/values/k", scope=None, KV_At_Least=AHEAD)).status == 400
    assert api.node.questions == []


async def put_question(api, path, method="GET", body=b"", **headers):
    """Have this node ask, and be refused."""
    refused = await api(method, path, body, **{"KV_At_Least": AHEAD, "KV_Wait_Timeout_Ms": "0", **headers})
    assert refused.status in {503, 504}, refused


async def test_question_is_answered_from_the_asked_nodes_store(api, other):
    namespace = other.node.create_namespace("n")
    there = f"/{namespace.hex()}"
    written = (await other("PUT", f"{there}/values/a%2Fb", b"value")).headers["kv-version"]
    await put_question(api, f"{there}/values/a%2Fb", KV_At_Least="1-900")
    late = await asked_there(api, other)
    assert late.error[:2] == (504, 20003), "it is as much bound by what the client wants"
    assert "kv-position" in late.headers
    other.node.put_many(namespace, [b"%d" % number for number in range(900)])
    got = await asked_there(api, other)
    assert (got.status, got.body) == (200, b"value")
    assert got.headers["kv-version"] == written
    assert got.headers["kv-pop"] == "iad"
    assert other.node.questions == [], "who is asked asks nobody"


async def test_every_kind_of_read_gets_its_own_answer(api, other):
    namespace = other.node.create_namespace("n")
    there = f"/{namespace.hex()}"
    form = (
        b'--b\r\nContent-Disposition: form-data; name="value"\r\n\r\nvalue\r\n'
        b'--b\r\nContent-Disposition: form-data; name="metadata"\r\n\r\n{"m":1}\r\n--b--\r\n'
    )
    await other("PUT", f"{there}/values/k", form, Content_Type="multipart/form-data; boundary=b")
    api.node.stale_ms = 700
    wish = {"KV_Max_Staleness_Ms": "100", "KV_At_Least": "1-1"}
    by_binding = {"whole": True, "KV_Namespace": namespace.hex()}
    questions = [
        ("GET", f"{there}/values/k", b"", {}, lambda answer: answer.body == b"value"),
        ("HEAD", f"{there}/values/k", b"", {}, lambda answer: answer.headers["content-length"] == "5"),
        ("GET", f"{there}/values/k", b"", {"Range": "bytes=1-2"}, lambda answer: answer.body == b"al"),
        ("GET", f"{there}/metadata/k", b"", {}, lambda answer: answer.result == {"m": 1}),
        ("GET", f"{there}/keys?prefix=k", b"", {}, lambda answer: len(answer.result) == 1),
        ("POST", f"{there}/bulk/get", b'{"keys":["k"]}', {}, lambda a: a.result == {"values": {"k": "value"}}),
        ("GET", there, b"", {}, lambda answer: answer.result["title"] == "n"),
        ("GET", "", b"", {}, lambda answer: [each["title"] for each in answer.result] == ["n"]),
        ("GET", "/k", b"", by_binding, lambda answer: answer.headers["cf-kv-metadata"] == '{"m":1}'),
        ("GET", "/", b"", by_binding, lambda answer: answer.json["keys"][0]["name"] == "k"),
        ("POST", "/bulk/get", b'{"keys":["k"]}', by_binding, lambda answer: answer.json == {"k": "value"}),
    ]
    for method, path, body, more, holds in questions:
        await put_question(api, path, method, body, **{**wish, **more})
        answer = await asked_there(api, other)
        assert answer.status in {200, 206}, (method, path, answer)
        assert holds(answer), (method, path, answer)


async def test_question_tells_what_the_token_reaches(api, other, ns):
    theirs = other.node.create_namespace("not reached")
    secret = api.node.add_token("narrow", Scope.READ, namespaces=(bytes.fromhex(ns[1:]),))
    refused = await api("GET", "", scope=None, Authorization=f"Bearer {secret}", KV_At_Least=AHEAD)
    assert refused.status == 504
    other.node.put_many(theirs, [b"%d" % number for number in range(1000)])
    assert (await asked_there(api, other)).result == []


async def test_question_carries_no_secret(api, ns):
    await put_question(api, f"{ns}/values/k", Cookie="c=private", X_Auth_Email="me@private")
    question = api.node.questions[0][0]
    assert b"/values/k" in question
    assert b"token-that-may" not in question
    assert b"private" not in question
    assert "Authorization" not in CARRIED


async def test_garbled_question_is_refused_without_a_position(other):
    for question in (b"", b"\x00", json.dumps({"method": "GET"}).encode()):
        sent = request_bytes("POST", "/ask", {"Host": "h", "Content-Length": str(len(question))}, question)
        answer = await exchange(other.port, sent)
        assert answer.error[:2] == (400, 10012)
        assert "kv-position" not in answer.headers


async def test_question_can_only_read(api, other, ns):
    path = f"/client/v4/accounts/{ACCOUNT}/storage/kv/namespaces{ns}/bulk"
    await put_question(api, f"{ns}/bulk/get", "POST", b'{"keys":["k"]}')
    question = api.node.questions[0][0].replace(b"/bulk/get", b"/bulk/del")
    assert path.encode() in question
    sent = request_bytes("POST", "/ask", {"Host": "h", "Content-Length": str(len(question))}, question)
    assert (await exchange(other.port, sent)).status in {400, 405}
    assert other.node.written == []


async def test_longest_body_of_a_bulk_get_fits_a_question(api, ns):
    keys = [f"{number:0512d}" for number in range(100)]
    body = json.dumps({"keys": keys}).encode().ljust(2 * 1024 * 1024)
    await put_question(api, f"{ns}/bulk/get", "POST", body)
    assert len(api.node.questions[0][0]) < QUESTION_BYTES_MAX
