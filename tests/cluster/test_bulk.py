"""Many pairs by one request, over real processes."""

from __future__ import annotations

from tests.support.network import Client, Network, until


def pairs(count: int, size: int) -> list[dict[str, str]]:
    return [{"key": f"{number:05}", "value": f"{number:05}".ljust(size, "v")} for number in range(count)]


async def test_ten_thousand_pairs_through_the_farthest_edge_are_at_every_pop(
    network: Network, client: Client
) -> None:
    written = await client.bulk("per", "PUT", pairs(10_000, 100))
    assert written.json["result"] == {"successful_key_count": 10_000, "unsuccessful_keys": []}
    for pop in network.pops:
        last = await client.get(pop, "09999", KV_At_Least=str(written.version), KV_Wait_Timeout_Ms="30000")
        assert last.body == b"09999".ljust(100, b"v")
    await client.agreed()


async def test_a_long_body_comes_in_stretches_and_is_whole(network: Network, client: Client) -> None:
    many = pairs(200, 60_000)
    written = await client.bulk("per", "PUT", many)
    assert written.json["result"]["successful_key_count"] == 200
    names = [pair["key"] for pair in many]
    read = await client.bulk(
        "scl", "POST", {"keys": names[100:]}, "/get", KV_At_Least=str(written.version), KV_Wait_Timeout_Ms="30000"
    )
    assert read.json["result"]["values"] == {pair["key"]: pair["value"] for pair in many[100:]}

    async def remove() -> bool:
        removed = await client.bulk("scl", "DELETE", names)
        assert removed.status in {200, 429}  # all were written within the last second, or not
        return removed.status == 200

    await until(remove, "the pairs may be written again")
    assert await client.keys("coordinator") == set()


async def test_a_bad_element_writes_nothing_and_a_refusal_by_the_coordinator_neither(
    network: Network, client: Client
) -> None:
    bad = await client.bulk("per", "PUT", [{"key": "a", "value": "1"}, {"key": "b"}])
    assert bad.error == (400, 10001)
    for number in range(10):
        await client.put("coordinator", "hot", b"%d" % number)
        pair = {"key": f"fresh {number}", "value": "1"}
        early = await client.bulk("coordinator", "PUT", [pair, {"key": "hot", "value": "again"}])
        if early.status == 429:  # it came within the second, as it nearly always does
            break
    assert early.error == (429, 10001)
    assert early.headers["Retry-After"] == "1"
    assert pair["key"] not in await client.keys("coordinator")
