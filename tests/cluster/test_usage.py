"""Usage counted at the nodes that clients ask, added up over the network, and kept over restarts and kills."""

from __future__ import annotations

import json
from typing import Any

from tests.support.network import Client, Network, kvnet, until


def usage(network: Network, *arguments: object) -> dict[str, Any]:
    return dict(json.loads(network.kvnet("usage", "--json", *arguments)))


async def test_what_clients_asked_anywhere_is_added_up_and_survives(network: Network, client: Client) -> None:
    await client.bulk("per", "PUT", [{"key": f"{number}", "value": "12345"} for number in range(10)])
    for node in ("coordinator", *network.pops):
        await client.get(node, "0")
        await client.keys(node)
    await client.agreed()
    told = usage(network, client.title)
    [counted] = told["namespaces"]
    nodes = len(network.pops) + 1
    expected = {"reads": nodes, "writes": 10, "deletes": 0, "lists": nodes, "keys": 10, "bytes": 60}
    assert {name: counted[name] for name in expected} == expected
    assert told["silent"] == []
    assert told["price_dollars"] == 5.0

    async def charged() -> bool:
        return usage(network, client.title)["namespaces"][0]["byte_seconds"] > 0

    await until(charged, "storage is charged for")
    network.kvnet("restart", "per")
    network.kvnet("stop", "scl")
    told = usage(network, client.title)
    assert told["silent"] == ["scl"]
    [counted] = told["namespaces"]
    assert (counted["writes"], counted["reads"]) == (10, nodes - 1)
    network.kvnet("start", "scl")
    await client.agreed()
    assert usage(network, client.title)["namespaces"][0]["reads"] == nodes


def test_wrong_arguments_name_the_cure(network: Network) -> None:
    for arguments, code, says in ((["nowhere"], 1, "kvnet namespace list"), (["--month", "May"], 2, "YYYY-MM")):
        ended = kvnet("usage", *arguments, "--data", network.folder.path)
        assert (ended.returncode, ended.stdout) == (code, "")
        assert says in ended.stderr
