"""Who may ask for what."""

from __future__ import annotations

import pytest

from kvnet.core.catalog import Scope
from tests.support.backends import TOKENS

PATHS = ["", "/{ns}/values/k", "/{ns}/nothing", "/{ns}/values/"]


@pytest.mark.parametrize("path", PATHS)
async def test_without_a_token_there_is_no_answer(api, ns, path):
    answer = await api("GET", path.format(ns=ns[1:]), scope=None)
    assert answer.error == (400, 9106, "Missing X-Auth-Key, X-Auth-Email or Authorization headers")
    assert "kv-position" not in answer.headers


@pytest.mark.parametrize(
    "authorization", ["", "Bearer", "Bearer ", "Basic eDp5", "Bearer a b", "Bearer é", "x" * 5000]
)
async def test_garbled_header_is_told_so(api, authorization):
    answer = await api("GET", "", scope=None, Authorization=authorization)
    assert answer.error == (400, 6003, "Invalid request headers")
    assert answer.json["errors"][0]["error_chain"][0]["code"] == 6111


@pytest.mark.parametrize("secret", ["wrong", TOKENS[Scope.ADMIN][:-1], TOKENS[Scope.ADMIN] + "x"])
async def test_unknown_token_is_refused(api, secret):
    answer = await api("GET", "", scope=None, Authorization=f"Bearer {secret}")
    assert answer.error == (401, 10000, "Authentication error")


async def test_scheme_is_case_insensitive(api):
    answer = await api("GET", "", scope=None, Authorization=f"bEARER {TOKENS[Scope.READ]}")
    assert answer.status == 200


async def test_key_and_mail_are_taken_for_a_token(api):
    for key, status in ((TOKENS[Scope.READ], 200), ("wrong", 403)):
        answer = await api("GET", "", scope=None, X_Auth_Key=key, X_Auth_Email="a@example.net")
        assert answer.status == status
    assert answer.error == (403, 9103, "Unknown X-Auth-Key or X-Auth-Email")
    assert (await api("GET", "", scope=None, X_Auth_Key=TOKENS[Scope.READ])).error[1] == 9106


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PUT", "/{ns}/values/k", b"v"),
        ("DELETE", "/{ns}/values/k", b""),
        ("POST", "", b'{"title":"x"}'),
        ("PUT", "/{ns}", b'{"title":"x"}'),
        ("DELETE", "/{ns}", b""),
    ],
)
async def test_reading_token_may_not_write(api, ns, method, path, body):
    answer = await api(method, path.format(ns=ns[1:]), body, scope=Scope.READ)
    assert answer.error == (403, 10000, "Authentication error")
    assert api.node.written == []
    for scope in (Scope.WRITE, Scope.ADMIN):
        assert (await api(method, path.format(ns=ns[1:]), body, scope=scope)).status != 403
    assert api.node.written


async def test_every_token_may_read(api, ns):
    await api("PUT", f"{ns}/values/k", b"v")
    for scope in Scope:
        for path in ("", ns, f"{ns}/keys", f"{ns}/values/k", f"{ns}/metadata/k"):
            assert (await api("GET", path, scope=scope)).status == 200


async def test_token_can_be_verified(api):
    answer = await api("GET", "/client/v4/user/tokens/verify", whole=True, scope=Scope.READ)
    assert answer.result == {"id": "id-read", "status": "active"}
