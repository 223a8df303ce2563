"""The network as a client sees it: one object from which namespaces are opened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import aiohttp

from kvnet.client import account, tokens
from kvnet.client.answers import NamespaceInfo, TokenInfo
from kvnet.client.directory import CLUSTER_FILE, Directory, Edge, from_cluster, from_urls, read_cluster_file
from kvnet.client.exchange import Exchange
from kvnet.client.namespace import Namespace
from kvnet.client.probe import fastest_first
from kvnet.client.route import Route, nearest_first
from kvnet.errors import ConfigError
from kvnet.topology.geography import Place

DATA_DEFAULT: Final = ".kvnet"


def connect(
    *,
    data: str | Path | None = None,
    cluster: str | Path | Mapping[str, Any] | None = None,
    urls: Sequence[str] | None = None,
    token: str | None = None,
    account_id: str | None = None,
    near: str | Place | None = None,
    pop: str | None = None,
    timeout_s: float = 10.0,
) -> Network:
    """Return a client of one network, to be entered with `async with`.

    Where the network is: `data`, the launcher's run folder (default `.kvnet`), or `cluster`, a `cluster.json` or
    its content, or `urls`, the addresses of edges, which need `token` and `account_id` too. Which edge is asked
    first: the nearest to `near`, a city, a PoP's code, `"lat,lon"` or a pair of degrees; without it the fastest
    as measured now. When an edge fails the next nearest is asked, until it is back. With `pop` this PoP alone is
    asked. `timeout_s` bounds one call over all edges it may ask.

    Raises:
        ConfigError: there is no such network, place or PoP, or the arguments contradict each other.
    """
    if sum(source is not None for source in (data, cluster, urls)) > 1:
        raise ConfigError("data=, cluster= and urls= each say where the network is: give one of them")
    if near is not None and pop is not None:
        raise ConfigError("near= and pop= each say which edge to ask: give one of them")
    if urls is not None:
        directory = from_urls(urls, token=token, account_id=account_id)
    else:
        if not isinstance(cluster, Mapping):
            path = Path(cluster) if cluster is not None else Path(data or DATA_DEFAULT) / CLUSTER_FILE
            cluster = read_cluster_file(path)
        directory = from_cluster(cluster, token=token, account_id=account_id)
    if pop is not None:
        directory = directory.only(pop)
    route = None
    if near is not None:
        route = Route(nearest_first(directory, near))
    elif len(directory.edges) == 1:
        route = Route(directory.edges)
    return Network(directory, route, timeout_s)


class Network:
    """An open network; one pool of connections, safe for any number of tasks of one event loop."""

    def __init__(self, directory: Directory, route: Route | None, timeout_s: float) -> None:
        self._directory = directory
        self._route = route
        """None: the edges are to be measured when the network is entered."""
        self._timeout_s = timeout_s

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession()
        # aiohttp would send a PUT again on its own and tell of the second failure alone; we know which of two
        # failures leaves the outcome open, and where else to ask.
        self._session._retry_connection = False  # noqa: SLF001
        route = self._route or Route(await fastest_first(self._session, self._directory))
        self._route = route
        self._exchange = Exchange(self._session, self._directory, route, self._timeout_s)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._exchange.close()
        await self._session.close()

    @property
    def edge(self) -> Edge:
        """The edge that is asked first now."""
        assert self._route is not None, "enter the network first: `async with kvnet.connect(...) as net`"
        return self._route.preferred

    def namespace(self, name: str) -> Namespace:
        """Return the namespace with this title or id; it is looked up with the first call that needs it."""
        return Namespace(self._exchange, name)

    async def namespaces(self) -> list[NamespaceInfo]:
        """Return all namespaces by title.

        Raises:
            RequestError: no edge answered, or the token is refused.
        """
        return [namespace async for namespace in account.every_namespace(self._exchange)]

    async def tokens(self) -> list[TokenInfo]:
        """Return all tokens by name, without their secrets.

        Raises:
            RequestError: no edge answered, or the token is refused: this takes an admin's.
        """
        return [token async for token in tokens.every_token(self._exchange)]

    async def token(self, name: str) -> TokenInfo:
        """Return the token with this id or name.

        Raises:
            RequestError: there is none, or several, or as for `tokens`.
        """
        return await tokens.find(self._exchange, name)

    async def create_token(
        self,
        name: str,
        *,
        scope: str = "read",
        namespaces: Sequence[str] = (),
        expires_on: str | None = None,
    ) -> tuple[TokenInfo, str]:
        """Return a new token and its secret, which nobody can tell again.

        `scope` is `read`, `write` or `admin`; `namespaces` are titles or ids, none for all of the account;
        `expires_on` is a time in ISO 8601.

        Raises:
            RequestError: refused, or as for `tokens`.
        """
        ids = [await self.namespace(each).id() for each in namespaces]
        return await tokens.create(self._exchange, name, scope, ids, expires_on)

    async def roll_token(self, name: str) -> str:
        """Return another secret for a token; the one before is refused everywhere within the bound.

        Raises:
            RequestError: as for `token`.
        """
        return await tokens.roll(self._exchange, (await self.token(name)).id)

    async def revoke_token(self, name: str) -> None:
        """Have a token refused, everywhere within the bound.

        Raises:
            RequestError: it is the last admin's, or as for `token`.
        """
        await tokens.revoke(self._exchange, (await self.token(name)).id)

    async def create_namespace(self, title: str, *, id: str | None = None) -> Namespace:  # noqa: A002 - its name
        """Return a namespace that exists from now on, with this `id` (32 hex digits) if one is given.

        Raises:
            RequestError: another one has this title or id, the token is refused, or no edge answered.
        """
        created = await account.create(self._exchange, title, id)
        return Namespace(self._exchange, title, created.id)
