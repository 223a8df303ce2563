"""Which namespace each KV binding means, by id; what a wrangler project asks for is created if it is missing."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final

import aiohttp

from kvnet.client import Network
from kvnet.client.directory import API_BASE, Directory, Edge
from kvnet.errors import ConfigError, KvnetError
from kvnet.workers.project import VARIABLE, Project

SPREAD_S: Final = 10.0
POLL_S: Final = 0.1
AT_ONCE: Final = 32


def read_binds(binds: Sequence[str]) -> dict[str, str]:
    """Return namespaces by the names of variables, as `NAME=NAMESPACE` tells them.

    Raises:
        ConfigError: one is written differently.
    """
    found = {}
    for bind in binds:
        name, equals, namespace = bind.partition("=")
        if not equals or not namespace or not VARIABLE.fullmatch(name):
            raise ConfigError(f"--bind {bind!r} won't do: write NAME=NAMESPACE, such as KV=settings")
        if name in found:
            raise ConfigError(f"--bind {name} is given twice: leave one of them out")
        found[name] = namespace
    return found


async def resolve(
    network: Network, project: Project, binds: Mapping[str, str], *, preview: bool
) -> tuple[dict[str, str], list[str]]:
    """Return the namespaces' ids by the names of variables, and those of them that were created now.

    `binds` go before the project's own. `preview` takes its preview ids.

    Raises:
        RequestError: a namespace of `binds` doesn't exist, no edge answered, or the token is refused.
    """
    ids = {name: (await network.namespace(namespace).info()).id for name, namespace in binds.items()}
    created = []
    wanted = [binding for binding in project.kv_namespaces if binding.name not in binds]
    titles = {namespace.title: namespace.id for namespace in await network.namespaces()} if wanted else {}
    for binding in wanted:
        namespace_id = binding.chosen_id(preview=preview)
        if namespace_id is None and binding.name in titles:
            namespace_id = titles[binding.name]
        elif namespace_id is None or namespace_id not in titles.values():
            title = binding.name if binding.name not in titles else f"{binding.name} {namespace_id}"
            namespace_id = await (await network.create_namespace(title, id=namespace_id)).id()
            titles[title] = namespace_id
            created.append(namespace_id)
        ids[binding.name] = namespace_id
    return ids, created


async def spread(directory: Directory, edges: Sequence[Edge], namespace_ids: Sequence[str]) -> None:
    """Return when each of the edges knows each of the namespaces.

    Raises:
        KvnetError: one doesn't in time.
    """
    headers = {"Authorization": f"Bearer {directory.token}"}
    base = f"{API_BASE}/accounts/{directory.account_id}/storage/kv/namespaces"
    gate = asyncio.Semaphore(AT_ONCE)

    async def known(session: aiohttp.ClientSession, url: str) -> bool:
        try:
            async with gate, session.get(url) as response:
                return response.status == 200
        except aiohttp.ClientError:
            return False

    async def wait(session: aiohttp.ClientSession, edge: Edge, namespace_id: str) -> None:
        while not await known(session, f"{edge.url}{base}/{namespace_id}"):
            waited[edge.code] = namespace_id
            await asyncio.sleep(POLL_S)
        waited.pop(edge.code, None)

    waited: dict[str, str] = {}
    async with aiohttp.ClientSession(headers=headers) as session:
        try:
            async with asyncio.timeout(SPREAD_S):
                await asyncio.gather(*(wait(session, edge, id_) for id_ in namespace_ids for edge in edges))
        except TimeoutError:
            raise KvnetError(
                f"the new namespace isn't known in {', '.join(sorted(waited)[:5])} after {SPREAD_S:.0f} s: "
                "`kvnet status` tells how far each PoP is"
            ) from None
