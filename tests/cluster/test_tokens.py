"""Tokens over real processes: good and refused at every PoP, also while the coordinator is away."""

from __future__ import annotations

import json
from typing import Any

from tests.support.network import Client, Network, kvnet, until


def token(network: Network, *arguments: object) -> Any:
    return json.loads(network.kvnet("token", *arguments, "--json"))


async def accepted(client: Client, pop: str, secret: str) -> int:
    """Return what a read of an absent key is answered with."""
    return (await client.ask(pop, "GET", f"{client.base}/values/absent", token=secret)).status


async def everywhere(client: Client, secret: str, status: int) -> None:
    async def alike() -> bool:
        return {await accepted(client, pop, secret) for pop in client.network.pops} == {status}

    await until(alike, f"every PoP answers {status}")


async def test_a_token_is_good_everywhere_and_refused_everywhere_also_without_the_coordinator(
    network: Network, client: Client
) -> None:
    made = token(network, "create", "reader", "--namespace", client.title, "--expires", "1d")
    await everywhere(client, made["value"], 404)
    other = token(network, "create", "other")
    network.kvnet("namespace", "create", "elsewhere")
    elsewhere = token(network, "create", "stranger", "--namespace", "elsewhere")
    await everywhere(client, elsewhere["value"], 403)
    rolled = token(network, "roll", "reader")["value"]
    await everywhere(client, made["value"], 401)
    await everywhere(client, rolled, 404)
    network.kvnet("token", "revoke", "other", "--yes")
    await everywhere(client, other["value"], 401)
    network.kvnet("stop", "coordinator")
    try:
        await everywhere(client, rolled, 404)
        await everywhere(client, elsewhere["value"], 403)
        await everywhere(client, other["value"], 401)
        ended = kvnet("token", "create", "late", "--data", network.folder.path)
        assert ended.returncode == 1
        assert "coordinator" in ended.stderr
    finally:
        network.kvnet("start", "coordinator")
    network.kvnet("restart", network.pops[-1])
    await everywhere(client, rolled, 404)
    listed = {each["name"]: each for each in token(network, "list", "--from", "Lisbon")}
    assert {"reader", "stranger"} <= set(listed)
    assert "other" not in listed
    assert listed["reader"]["namespaces"] != listed["stranger"]["namespaces"]


def test_wrong_orders_name_the_cure(network: Network) -> None:
    for arguments, code, says in (
        (["create", "x", "--expires", "soon"], 2, "90d"),
        (["create", "x", "--scope", "all"], 2, "read"),
        (["create", "x", "--namespace", "nowhere"], 1, "kvnet namespace create"),
        (["create", "x", "--scope", "admin", "--namespace", "elsewhere"], 1, "admin"),
        (["roll", "nobody"], 1, "kvnet token list"),
        (["revoke", "nobody", "--yes"], 1, "kvnet token list"),
        (["revoke", "bootstrap-admin", "--yes"], 2, "cluster.json"),
        (["roll", "bootstrap-write"], 2, "cluster.json"),
    ):
        ended = kvnet("token", *arguments, "--data", network.folder.path)
        assert (ended.returncode, ended.stdout) == (code, ""), (arguments, ended.stderr)
        assert says in ended.stderr, (arguments, ended.stderr)
