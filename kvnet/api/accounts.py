"""The account: a cluster has one, and clients that weren't told its id ask here."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from kvnet.api import codes, envelope
from kvnet.api.call import Call
from kvnet.api.pages import page_of


async def list_accounts(call: Call) -> web.Response:
    return page_of(call.query, [_account(call)], dict)


async def get_account(call: Call) -> web.Response:
    return envelope.success(_account(call))


async def list_memberships(call: Call) -> web.Response:
    """Answer the one membership that every token has."""
    account = _account(call)
    membership = {"id": account["id"], "status": "accepted", "account": account, "roles": [], "permissions": {}}
    return page_of(call.query, [membership], dict)


def _account(call: Call) -> dict[str, Any]:
    cluster = call.backend.store.cluster
    if cluster is None:
        raise codes.NOT_READY.error(name=call.backend.name)
    return {
        "id": cluster.account_id,
        "name": "kvnet",
        "type": "standard",
        "settings": {},
        "created_on": envelope.iso_time(cluster.created_ms // 1000),
    }
