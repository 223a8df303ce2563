"""The account: a cluster has one, and clients that weren't told its id ask here."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

from aiohttp import web

from kvnet.api import codes, envelope
from kvnet.api.call import Call
from kvnet.api.query import Query

PAGE_DEFAULT: Final = 20
PAGE_MAX: Final = 1000


async def list_accounts(call: Call) -> web.Response:
    return _page(call.query, _account(call))


async def get_account(call: Call) -> web.Response:
    return envelope.success(_account(call))


async def list_memberships(call: Call) -> web.Response:
    """Answer the one membership that every token has."""
    account = _account(call)
    membership = {"id": account["id"], "status": "accepted", "account": account, "roles": [], "permissions": {}}
    return _page(call.query, membership)


def _account(call: Call) -> dict[str, Any]:
    cluster = call.backend.store.cluster
    if cluster is None:
        raise codes.NOT_READY.error(name=call.backend.name)
    created = datetime.fromtimestamp(cluster.created_ms / 1000, UTC)
    return {
        "id": cluster.account_id,
        "name": "kvnet",
        "type": "standard",
        "settings": {},
        "created_on": created.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }


def _page(query: Query, only: dict[str, Any]) -> web.Response:
    page = query.integer("page", 1, 1)
    per_page = query.integer("per_page", PAGE_DEFAULT, 1, PAGE_MAX)
    shown = [only] if page == 1 else []
    info = {"page": page, "per_page": per_page, "count": len(shown), "total_count": 1, "total_pages": 1}
    return envelope.success(shown, result_info=info)
