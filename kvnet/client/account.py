"""The account: its namespaces, found, listed and created."""

from __future__ import annotations

import shlex
from collections.abc import AsyncIterator
from typing import Final

from kvnet.client import wire
from kvnet.client.answers import NAMESPACE_NOT_FOUND, NamespaceInfo
from kvnet.client.exchange import Exchange
from kvnet.client.session import ANY, Freshness
from kvnet.errors import RequestError

PAGE_NAMESPACES: Final = 1000


async def every_namespace(exchange: Exchange, fresh: Freshness = ANY) -> AsyncIterator[NamespaceInfo]:
    """Yield the account's namespaces by title."""
    page = 1
    while True:
        query = wire.query(page=page, per_page=PAGE_NAMESPACES, order="title", direction="asc")
        result = (await exchange.read(query, fresh)).envelope()["result"]
        for namespace in result:
            yield NamespaceInfo(id=namespace["id"], title=namespace["title"])
        if len(result) < PAGE_NAMESPACES:
            return
        page += 1


async def find(exchange: Exchange, name: str, fresh: Freshness = ANY) -> NamespaceInfo:
    """Return the namespace with this title, or else with this id.

    Raises:
        RequestError: there is none; the text names the cure.
    """
    by_id = None
    async for namespace in every_namespace(exchange, fresh):
        if namespace.title == name:
            return namespace
        if namespace.id == name:
            by_id = namespace
    if by_id is None:
        raise RequestError(
            404,
            NAMESPACE_NOT_FOUND,
            f"there is no namespace {name!r}: create it with `kvnet namespace create {shlex.quote(name)}`",
        )
    return by_id


async def create(exchange: Exchange, title: str, id_: str | None = None) -> NamespaceInfo:
    """Return the namespace just created, with this id if one is given.

    Raises:
        RequestError: another one has this title or id, or no edge answered.
    """
    document = {"title": title} if id_ is None else {"title": title, "id": id_}
    answer = await exchange.write("POST", "", lambda: wire.document(document))
    result = answer.envelope()["result"]
    return NamespaceInfo(id=result["id"], title=result["title"])
