"""The one account, as clients find it that weren't told its id."""

from __future__ import annotations

import pytest

from kvnet.core.catalog import Scope
from tests.support.backends import ACCOUNT


async def test_the_account_is_found(api):
    listed = await api("GET", "/client/v4/accounts?page=1", whole=True, scope=Scope.READ)
    [account] = listed.result
    assert (account["id"], account["name"]) == (ACCOUNT, "kvnet")
    assert listed.json["result_info"] == {
        "page": 1,
        "per_page": 20,
        "count": 1,
        "total_count": 1,
        "total_pages": 1,
    }
    assert (await api("GET", f"/accounts/{ACCOUNT.upper()}", whole=True)).result == account
    [membership] = (await api("GET", "/client/v4/memberships?page=1", whole=True)).result
    assert (membership["account"], membership["status"]) == (account, "accepted")


@pytest.mark.parametrize("what", ["accounts", "memberships"])
async def test_a_page_beyond_the_end_is_empty(api, what):
    assert (await api("GET", f"/client/v4/{what}?page=2", whole=True)).result == []


async def test_another_account_is_nobodys_business(api):
    answer = await api("GET", "/client/v4/accounts/" + "f" * 32, whole=True)
    assert answer.error == (403, 10000, "Authentication error")


@pytest.mark.parametrize("path", ["/accounts/xyz", "/accounts/", f"/accounts/{ACCOUNT}/"])
async def test_a_malformed_account_is_no_route(api, path):
    assert (await api("GET", path, whole=True)).error[:2] == (400, 7003)


async def test_the_old_address_of_namespaces_answers_alike(api, ns):
    old = await api("GET", f"/client/v4/accounts/{ACCOUNT}/workers/namespaces{ns}", whole=True)
    assert old.result == (await api("GET", ns)).result
