"""Who asks: from request headers to a token of the catalogue."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final

from kvnet.api import codes
from kvnet.core.catalog import Scope, Token, hash_token

_BEARER: Final = re.compile(r"(?i:bearer) +([\x21-\x7e]{1,1024})")


def identify(headers: Mapping[str, str], tokens: Mapping[bytes, Token], now_s: Callable[[], float]) -> Token:
    """Return the token these headers carry, as `Authorization: Bearer` or as `X-Auth-Key` and `X-Auth-Email`.

    Only the hash of what was sent is looked up, so the time it takes says nothing about any token.

    Raises:
        RequestError: nothing was sent, it can't be read, or no token has this hash, or none any more.
    """
    authorization = headers.get("Authorization")
    if authorization is not None:
        bearer = _BEARER.fullmatch(authorization.strip())
        if bearer is None:
            raise codes.AUTH_GARBLED.error()
        secret, problem = bearer[1], codes.TOKEN_UNKNOWN
    elif headers.get("X-Auth-Key") and headers.get("X-Auth-Email"):
        secret, problem = headers["X-Auth-Key"], codes.KEY_PAIR_UNKNOWN
    else:
        raise codes.AUTH_MISSING.error()
    token = tokens.get(hash_token(secret))
    if token is None or (token.expires_at and token.is_expired(now_s())):
        raise problem.error()
    return token


def require(token: Token, scope: Scope) -> None:
    """Raise unless this token's scope covers `scope`."""
    if not token.scope.covers(scope):
        raise codes.TOKEN_NOT_ALLOWED.error()


def require_everywhere(token: Token) -> None:
    """Raise unless this token is good for all namespaces."""
    if token.namespaces:
        raise codes.TOKEN_NOT_ALLOWED.error()
