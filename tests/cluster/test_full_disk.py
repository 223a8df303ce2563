"""A disk that is full takes no writes and loses none: files may not grow, as under a quota."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.network import until

VALUE = os.urandom(60_000)


@contextmanager
def full_disk(network, name: str) -> Iterator[None]:
    """Inside, no file of this node grows beyond what its environment has now."""
    pid = network.pid(name)
    [data] = (network.folder.node_folder(name) / "store").glob("replica-*/data.mdb")
    before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (data.stat().st_size, before[1]))
    try:
        yield
    finally:
        if network.pid(name) == pid:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, before)


async def test_full_coordinator_refuses_writes_and_loses_nothing(network, client):
    acknowledged = set()
    with full_disk(network, "coordinator"):

        async def is_full():
            key = f"key-{len(acknowledged)}"
            answer = await client.put("coordinator", key, VALUE)
            if answer.status == 200:
                acknowledged.add(key)
                return False
            return answer

        refused = await until(is_full, "the disk is full")
        assert refused.error[0] == 507
        assert (await client.put("fra", "elsewhere", VALUE)).error == refused.error
        await client.agreed()
        for node in network.replicas:
            assert await client.keys(node) == acknowledged
    again = await client.put("fra", "elsewhere", VALUE)
    assert again.status == 200
    await client.agreed()
    network.kvnet("restart", "coordinator")

    async def writes_go_on():
        return (await client.put("coordinator", "after", VALUE)).status == 200

    await until(writes_go_on, "writes go on")
    await client.agreed()
    for node in network.replicas:
        assert await client.keys(node) == acknowledged | {"elsewhere", "after"}


async def test_full_edge_serves_what_it_has_and_catches_up(network, client):
    await client.put("coordinator", "before", b"kept")
    await client.agreed()
    others = [name for name in network.replicas if name != "fra"]
    with full_disk(network, "fra"):
        for number in range(20):
            assert (await client.put("coordinator", f"key-{number}", VALUE)).status == 200
        head = await client.agreed(others)

        async def is_full():
            return (await client.status("fra"))["driver"]["storage_full"]

        await until(is_full, "the disk is full")
        read = await client.get("fra", "before")
        assert (read.status, read.body) == (200, b"kept")
        assert read.position < head
    await client.agreed()
    assert await client.keys("fra") == await client.keys("coordinator")
