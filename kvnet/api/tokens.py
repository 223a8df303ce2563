"""Tokens: who may do what, where and until when. Only hashes are stored, so a secret is shown once."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from aiohttp import web

from kvnet.api import codes, envelope
from kvnet.api.bodies import read_json
from kvnet.api.call import Call, id_of_request
from kvnet.api.pages import page_of
from kvnet.api.validation import TIME_S_MAX, check_namespace_id
from kvnet.core.catalog import Scope, Token, hash_token
from kvnet.core.operations import CreateToken, RevokeToken, RollToken
from kvnet.core.versions import Version

NAME_CHARACTERS_MAX: Final = 120
NAMESPACES_MAX: Final = 100
SECRET_BYTES: Final = 30
PENDING_WAIT_MS: Final = 5000.0
"""How long a replica may take to learn whether a retry's secret is good."""
_SCOPES: Final = tuple(map(str, Scope))


class _NewToken(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a token's creation; a field that is none of ours may have been meant as a restriction."""

    name: str
    scope: str = str(Scope.READ)
    namespaces: list[str] | None = None
    expires_on: str | None = None


async def list_tokens(call: Call) -> web.Response:
    """Answer one page, by name."""
    tokens = sorted(call.backend.store.tokens.values(), key=lambda token: (token.name.encode(), token.id))
    now_s = call.backend.now_s()
    return page_of(call.query, tokens, lambda token: describe(token, now_s))


async def create_token(call: Call) -> web.Response:
    """Create a token; the answer's `value` is the secret."""
    operation, secret = _read_new(await read_json(call.request), call)
    created = Token(
        operation.id,
        operation.name,
        Scope(operation.scope),
        b"",
        operation.namespaces,
        int(call.backend.now_s() * 1000),
        operation.expires_at,
    )
    told = describe(created, call.backend.now_s()) | {"value": secret}
    return await _once(call, await call.write(operation, "create token", told), operation)


async def get_token(call: Call) -> web.Response:
    return envelope.success(describe(_find(call), call.backend.now_s()))


async def roll_token(call: Call) -> web.Response:
    """Give a token another secret, which is the result; the one before is refused from then on."""
    secret = _new_secret()
    operation = RollToken(call.place.token, hash_token(secret))
    return await _once(call, await call.write(operation, "roll token", secret), operation)


async def revoke_token(call: Call) -> web.Response:
    return await call.write(RevokeToken(call.place.token), "revoke token", {"id": call.place.token})


def describe(token: Token, now_s: float) -> dict[str, Any]:
    told: dict[str, Any] = {
        "id": token.id,
        "name": token.name,
        "status": "expired" if token.is_expired(now_s) else "active",
        "scope": str(token.scope),
        "namespaces": [namespace.hex() for namespace in token.namespaces],
    }
    if token.created_ms:
        told["issued_on"] = envelope.iso_time(token.created_ms // 1000)
    if token.expires_at:
        told["expires_on"] = envelope.iso_time(token.expires_at)
    return told


async def _once(call: Call, answer: web.Response, operation: CreateToken | RollToken) -> web.Response:
    """Return the answer if its secret is good.

    Raises:
        RequestError: it is a retry's, whose first try was made: that one's secret counts, and nobody knows it. Or
            this replica couldn't tell in time.
    """
    if "KV-Pending" in answer.headers and call.request_id() is not None:
        version = Version.parse(answer.headers["KV-Version"])
        if not await call.backend.wait_for(version, PENDING_WAIT_MS):
            raise codes.SECRET_UNKNOWN.error()
    elif "KV-Pending" in answer.headers:
        return answer
    if operation.hash not in call.backend.store.tokens:
        raise codes.TOKEN_SECRET_LOST.error(id=operation.id)
    return answer


def _find(call: Call) -> Token:
    for token in call.backend.store.tokens.values():
        if token.id == call.place.token:
            return token
    raise codes.TOKEN_NOT_FOUND.error(id=call.place.token)


def _new_secret() -> str:
    return secrets.token_urlsafe(SECRET_BYTES)


def _new_id(request_id: bytes | None, now_s: float) -> str:
    if request_id is None:
        return secrets.token_hex(16)
    return id_of_request(request_id, now_s, b"kvnet token").hex()


def _read_new(document: Any, call: Call) -> tuple[CreateToken, str]:
    """Return what a body asks for, and the secret."""
    try:
        new = msgspec.convert(document, _NewToken)
    except msgspec.ValidationError as error:
        raise codes.FIELD_INVALID.error(name="token", what=error) from None
    if not 1 <= len(new.name) <= NAME_CHARACTERS_MAX:
        raise codes.FIELD_INVALID.error(name="name", what=f"must have 1 to {NAME_CHARACTERS_MAX} characters")
    if new.scope not in _SCOPES:
        raise codes.FIELD_INVALID.error(name="scope", what=f"must be {' or '.join(_SCOPES)}")
    if new.namespaces == []:
        raise codes.FIELD_INVALID.error(name="namespaces", what="name one, or leave them out for all")
    namespaces = tuple(sorted({check_namespace_id(each) for each in new.namespaces or ()}))
    if len(namespaces) > NAMESPACES_MAX:
        raise codes.FIELD_INVALID.error(name="namespaces", what=f"must be at most {NAMESPACES_MAX}")
    if namespaces and new.scope == Scope.ADMIN:
        raise codes.FIELD_INVALID.error(name="namespaces", what="an admin token is good for all: leave them out")
    expires_at = 0 if new.expires_on is None else _read_time(new.expires_on, call.backend.now_s())
    secret = _new_secret()
    id_ = _new_id(call.request_id(), call.backend.now_s())
    return CreateToken(id_, new.name, new.scope, hash_token(secret), namespaces, expires_at), secret


def _read_time(text: str, now_s: float) -> int:
    try:
        moment = datetime.fromisoformat(text)
        time_s = int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())
    except (ValueError, OverflowError):
        raise codes.FIELD_INVALID.error(name="expires_on", what="write it like 2030-01-31T12:00:00Z") from None
    if not now_s < time_s <= TIME_S_MAX:
        raise codes.FIELD_INVALID.error(name="expires_on", what="must be in the future")
    return time_s
