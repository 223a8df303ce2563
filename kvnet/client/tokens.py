"""Tokens: listed, found, created, rolled and revoked."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Final

from kvnet.client import wire
from kvnet.client.answers import TokenInfo
from kvnet.client.exchange import Exchange
from kvnet.errors import RequestError

PATH: Final = "/user/tokens"
PAGE_TOKENS: Final = 1000
TOKEN_NOT_FOUND: Final = 20030


async def every_token(exchange: Exchange) -> AsyncIterator[TokenInfo]:
    """Yield the cluster's tokens by name."""
    page = 1
    while True:
        answer = await exchange.read(PATH + wire.query(page=page, per_page=PAGE_TOKENS))
        result = answer.envelope()["result"]
        for told in result:
            yield _info(told)
        if len(result) < PAGE_TOKENS:
            return
        page += 1


async def find(exchange: Exchange, name: str) -> TokenInfo:
    """Return the token with this id, or else the only one with this name.

    Raises:
        RequestError: there is none, or several have this name; the text names the cure.
    """
    tokens = [token async for token in every_token(exchange)]
    found = [token for token in tokens if token.id == name] or [token for token in tokens if token.name == name]
    if not found:
        raise RequestError(404, TOKEN_NOT_FOUND, f"there is no token {name!r}: `kvnet token list` shows them")
    if len(found) > 1:
        ids = ", ".join(token.id for token in found)
        raise RequestError(400, TOKEN_NOT_FOUND, f"{len(found)} tokens are called {name!r}: name its id, of {ids}")
    return found[0]


async def create(
    exchange: Exchange, name: str, scope: str, namespaces: Sequence[str], expires_on: str | None
) -> tuple[TokenInfo, str]:
    """Return a new token and its secret; `namespaces` are ids, none for all.

    Raises:
        RequestError: refused, or no edge answered.
    """
    document: dict[str, Any] = {"name": name, "scope": scope}
    if namespaces:
        document["namespaces"] = list(namespaces)
    if expires_on is not None:
        document["expires_on"] = expires_on
    answer = await exchange.write("POST", PATH, lambda: wire.document(document))
    result = answer.envelope()["result"]
    return _info(result), result["value"]


async def roll(exchange: Exchange, id_: str) -> str:
    """Return another secret for this token; the one before is refused from now on."""
    answer = await exchange.write("PUT", f"{PATH}/{id_}/value", lambda: wire.document({}))
    secret: str = answer.envelope()["result"]
    return secret


async def revoke(exchange: Exchange, id_: str) -> None:
    """Have this token refused everywhere."""
    (await exchange.write("DELETE", f"{PATH}/{id_}")).envelope()


def _info(told: Mapping[str, Any]) -> TokenInfo:
    return TokenInfo(
        id=told["id"],
        name=told["name"],
        scope=told["scope"],
        namespaces=tuple(told["namespaces"]),
        status=told["status"],
        issued_on=told.get("issued_on"),
        expires_on=told.get("expires_on"),
    )
