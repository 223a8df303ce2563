"""What the node says of itself and of the token that asks."""

from __future__ import annotations

from aiohttp import web

from kvnet.api import envelope
from kvnet.api.backend import Backend
from kvnet.api.call import Call


def health(backend: Backend) -> web.Response:
    """Answer that the process answers; it takes no token."""
    return envelope.plain({"status": "ok", "name": backend.name, "pop": backend.pop, "ready": backend.ready()})


async def status(call: Call) -> web.Response:
    return envelope.plain(call.backend.status())


async def verify_token(call: Call) -> web.Response:
    told = {"id": call.token.id, "status": "active"}
    if call.token.expires_at:
        told["expires_on"] = envelope.iso_time(call.token.expires_at)
    return envelope.success(
        told,
        messages=[{"code": 10000, "message": "This API Token is valid and active", "type": None}],
    )
