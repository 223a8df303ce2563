"""The network as a client sees it: one object from which namespaces are opened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from kvnet.client import account, tokens
from kvnet.client.answers import NamespaceInfo, TokenInfo
from kvnet.client.candidates import Candidate, candidate
from kvnet.client.directory import CLUSTER_FILE, Directory, Edge, from_cluster, from_urls, read_cluster_file
from kvnet.client.distance import Distance, read_topology
from kvnet.client.exchange import Exchange
from kvnet.client.lines import Lines
from kvnet.client.namespace import Namespace
from kvnet.client.pace import Hedge, Pace
from kvnet.client.probe import fastest_first
from kvnet.client.race import Ground, Tally
from kvnet.client.route import Route, nearest_first, place_of
from kvnet.client.session import Consistency, Session
from kvnet.client.watch import Watch
from kvnet.core.versions import Version
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
    from_: str | Place | None = None,
    seed: int | None = None,
    hedge_ms: Hedge = "auto",
    consistency: Consistency = "session",
    timeout_s: float = 10.0,
) -> Network:
    """Return a client of one network, to be entered with `async with`.

    Where the network is: `data`, the launcher's run folder (default `.kvnet`), or `cluster`, a `cluster.json` or
    its content, or `urls`, the addresses of edges, which need `token` and `account_id` too.

    Which edge is asked first: the nearest to `near`, a city, a PoP's code, `"lat,lon"` or a pair of degrees;
    without it the fastest as measured. When an edge fails the next nearest is asked, until it is back. With `pop`
    this PoP alone is asked. `from_` puts the client into a place: each request takes as long as it would from
    there, with jitter by `seed`; without `near` and `pop` the nearest to that place is asked.

    A read whose answer doesn't begin within `hedge_ms` is asked of the next edge as well: `auto` by what was
    measured, None for never. `consistency` is `session`, in which reads see what was written and read before, or
    `eventual`. `timeout_s` bounds one call over all edges it may ask.

    Raises:
        ConfigError: there is no such network, place or PoP, or the arguments contradict each other.
    """
    if sum(source is not None for source in (data, cluster, urls)) > 1:
        raise ConfigError("data=, cluster= and urls= each say where the network is: give one of them")
    if near is not None and pop is not None:
        raise ConfigError("near= and pop= each say which edge to ask: give one of them")
    if consistency not in {"session", "eventual"}:
        raise ConfigError(f"consistency={consistency!r}: write 'session' or 'eventual'")
    if isinstance(hedge_ms, (int, float)) and not hedge_ms >= 0:
        raise ConfigError(f"hedge_ms={hedge_ms!r}: write milliseconds, 'auto', or None for never")
    folder = None
    if urls is not None:
        directory = from_urls(urls, token=token, account_id=account_id)
    else:
        if not isinstance(cluster, Mapping):
            path = Path(cluster) if cluster is not None else Path(data or DATA_DEFAULT) / CLUSTER_FILE
            folder, cluster = path.parent, read_cluster_file(path)
        directory = from_cluster(cluster, token=token, account_id=account_id)
    stands = None if from_ is None else place_of(from_, directory.placed)
    distance = None if stands is None else Distance(read_topology(folder), stands, seed=seed)
    if distance is not None:
        distance.check(directory.edges)
    centre = stands if near is None else place_of(near, directory.placed)
    if pop is not None:
        directory = directory.only(pop)
    route = None
    if centre is not None and pop is None:
        route = Route(nearest_first(directory, centre))
    elif len(directory.edges) == 1:
        route = Route(directory.edges)
    session = Session() if consistency == "session" else None
    place = centre if stands is None else stands
    return Network(directory, route, timeout_s, place=place, distance=distance, hedge=hedge_ms, session=session)


class Network:
    """An open network; one pool of connections, safe for any number of tasks of one event loop."""

    def __init__(
        self,
        directory: Directory,
        route: Route | None,
        timeout_s: float,
        *,
        place: Place | None,
        distance: Distance | None,
        hedge: Hedge,
        session: Session | None,
    ) -> None:
        self._directory = directory
        self._route = route
        """None: the edges are to be measured when the network is entered."""
        self._timeout_s = timeout_s
        self._place = place
        self._distance = distance
        self._lines = Lines(distance)
        self._pace = Pace(hedge)
        self._session = session
        self.tally: Tally = Tally()
        """How many reads were made, hedged and so on, since the network was entered."""

    async def __aenter__(self) -> Self:
        lines = self._lines.open()
        route = self._route
        by_measure = route is None
        try:
            self._route = route = route or Route(await fastest_first(lines, self._directory))
        except BaseException:
            await lines.close()
            raise
        self._watch = Watch(lines, route, self._pace, by_measure=by_measure)
        ground = Ground(lines, route, self._watch, self._pace, self.tally, {})
        self._exchange = Exchange(ground, self._directory, self._timeout_s, self._session)
        self._watch.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._watch.close()
        await self._lines.close()

    @property
    def edge(self) -> Edge:
        """The edge that is asked first now."""
        return self._entered.preferred

    @property
    def preferred(self) -> Edge:
        """The edge that is asked first while it is up."""
        return self._entered.order[0]

    @property
    def version(self) -> Version | None:
        """The newest version that this network's own session depends on; a token for `session` elsewhere."""
        return None if self._session is None else self._session.version

    def session(self, version: Version | None = None) -> NetworkSession:
        """Return a session of its own over the same connections; it sees at least `version`."""
        return NetworkSession(self._exchange, Session(version))

    async def candidates(self, count: int = 5) -> list[Candidate]:
        """Return the preferred edges, each measured just now; those that are away are asked after all others."""
        route = self._entered
        edges = route.order[:count]
        measured = await self._watch.measure(edges)
        return [candidate(edge, measured.get(edge), route, self._place, self._distance) for edge in edges]

    async def status(self, code: str) -> dict[str, Any]:
        """Return what the edge of one PoP tells of itself.

        Raises:
            ConfigError: no PoP has this code.
            RequestError: it doesn't answer, or the token is refused.
        """
        return await self._exchange.status(self._directory.only(code).edges[0])

    @property
    def _entered(self) -> Route:
        assert self._route is not None, "enter the network first: `async with kvnet.connect(...) as net`"
        return self._route

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


class NetworkSession:
    """A session beside the network's own: for one user among many, or one that began elsewhere."""

    def __init__(self, exchange: Exchange, session: Session) -> None:
        self._exchange = exchange.in_session(session)
        self._session = session

    @property
    def version(self) -> Version | None:
        """The newest version that it depends on: a token with which it goes on anywhere."""
        return self._session.version

    def namespace(self, name: str) -> Namespace:
        """As Network.namespace, in this session."""
        return Namespace(self._exchange, name)
