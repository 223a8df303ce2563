"""Large values over HTTP: in and out in pieces, to the last byte of the limit, and never half of one."""

from __future__ import annotations

import asyncio

import pytest

from kvnet.core.entries import INLINE_VALUE_BYTES_MAX
from kvnet.core.manifest import CHUNK_BYTES, Manifest
from kvnet.core.operations import PutLargeValue, PutValue
from kvnet.limits import profile
from tests.support.backends import FakeNode

LIMIT = 26_214_400
BOUNDARY = "d4e5f6"


@pytest.fixture
def node(tmp_path):
    node = FakeNode(tmp_path / "node", profile("workers-kv"))
    yield node
    node.store.close()


def value_of(size: int) -> bytes:
    return b"".join(b"%015d\n" % number for number in range(-(-size // 16)))[:size]


def form(value: bytes, metadata: bytes = b'{"a":1}') -> bytes:
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="value"; filename="blob"\r\n\r\n'.encode()
    more = f'\r\n--{BOUNDARY}\r\nContent-Disposition: form-data; name="metadata"\r\n\r\n'.encode()
    return head + value + more + metadata + f"\r\n--{BOUNDARY}--\r\n".encode()


async def put_form(api, path: str, body: bytes):
    return await api("PUT", path, body, Content_Type=f"multipart/form-data; boundary={BOUNDARY}")


@pytest.mark.parametrize("size", [INLINE_VALUE_BYTES_MAX + 1, CHUNK_BYTES, CHUNK_BYTES + 1, LIMIT])
@pytest.mark.parametrize("as_form", [False, True])
async def test_a_large_value_comes_back_as_it_was_put(api, ns, size, as_form):
    value = value_of(size)
    path = f"{ns}/values/k"
    put = await (put_form(api, path, form(value)) if as_form else api("PUT", path, value))
    assert put.status == 200
    [(operation, _)] = api.node.written
    assert isinstance(operation, PutLargeValue)
    assert Manifest.unpack(operation.manifest).size == size
    assert max(map(len, operation.chunks)) <= CHUNK_BYTES
    got = await api("GET", f"{ns}/values/k")
    assert (got.status, got.headers["content-length"]) == (200, str(size))
    assert got.headers["content-type"] == "application/octet-stream"
    assert got.headers["kv-version"] == put.headers["kv-version"]
    assert got.body == value
    metadata = await api("GET", f"{ns}/metadata/k")
    assert metadata.result == ({"a": 1} if as_form else None)


async def test_a_value_that_its_entry_can_carry_stays_whole(api, ns):
    await api("PUT", f"{ns}/values/k", value_of(INLINE_VALUE_BYTES_MAX))
    await put_form(api, f"{ns}/values/k", form(value_of(INLINE_VALUE_BYTES_MAX)))
    assert [type(operation) for operation, _ in api.node.written] == [PutValue, PutValue]


async def test_one_byte_over_the_limit_is_refused_in_either_form(api, ns):
    raw = await api("PUT", f"{ns}/values/k", bytes(LIMIT + 1))
    assert raw.error == (413, 10001, f"Value length of {LIMIT + 1} exceeds limit of {LIMIT}.")
    multipart = await put_form(api, f"{ns}/values/k", form(bytes(LIMIT + 1)))
    assert multipart.error == (413, 10001, f"Value length of {LIMIT + 1} exceeds limit of {LIMIT}.")
    assert api.node.written == []


async def test_head_tells_the_size_without_the_value(api, ns):
    await api("PUT", f"{ns}/values/k", value_of(CHUNK_BYTES + 5))
    got = await api("HEAD", f"{ns}/values/k")
    assert (got.status, got.headers["content-length"], got.body) == (200, str(CHUNK_BYTES + 5), b"")


async def test_a_large_value_is_listed_like_any_other(api, ns):
    await put_form(api, f"{ns}/values/k", form(value_of(CHUNK_BYTES)))
    assert (await api("GET", f"{ns}/keys")).result == [{"name": "k", "metadata": {"a": 1}}]


async def test_a_value_that_is_not_whole_here_is_no_answer(api, ns):
    await api("PUT", f"{ns}/values/k", value_of(3 * CHUNK_BYTES))
    forget(api.node.store, 1)
    got = await api("GET", f"{ns}/values/k")
    assert got.error[:2] == (503, 20004)
    [damage] = api.node.damages
    assert "is gone" in str(damage)


async def test_a_value_that_is_damaged_while_it_is_sent_ends_early_and_never_looks_whole(api, ns):
    value = value_of(LIMIT)
    await api("PUT", f"{ns}/values/k", value)
    reader, writer = await asyncio.open_connection("127.0.0.1", api.port, limit=1024)
    writer.write(api.request("GET", f"{ns}/values/k"))
    head = await reader.readuntil(b"\r\n\r\n")
    assert f"Content-Length: {LIMIT}".encode() in head
    forget(api.node.store, 90)
    got = await reader.read(-1)
    assert 0 < len(got) < LIMIT
    assert value.startswith(got)
    assert len(api.node.damages) == 1, "and the node is told"
    writer.close()


async def test_a_value_that_is_replaced_while_it_is_sent_arrives_whole(api, ns):
    value = value_of(LIMIT)
    await api("PUT", f"{ns}/values/k", value)
    reader, writer = await asyncio.open_connection("127.0.0.1", api.port, limit=1024)
    writer.write(api.request("GET", f"{ns}/values/k"))
    await reader.readuntil(b"\r\n\r\n")
    await api("PUT", f"{ns}/values/k", b"small")
    while api.node.store.erase_some():
        pass
    assert await reader.readexactly(LIMIT) == value
    writer.close()


async def test_too_many_large_values_at_once_are_told_to_come_back_and_small_ones_are_not(api, ns):
    with api.node.large_room.taken():
        api.node.large_room._count_max = 1
        for answer in (
            await api("PUT", f"{ns}/values/k", value_of(CHUNK_BYTES)),
            await put_form(api, f"{ns}/values/k", form(value_of(2 * CHUNK_BYTES))),
        ):
            assert (answer.status, answer.headers["retry-after"]) == (503, "1")
        assert (await api("PUT", f"{ns}/values/k", value_of(100))).status == 200
    assert (await api("PUT", f"{ns}/values/k", value_of(CHUNK_BYTES))).status == 200


async def test_a_refused_or_broken_large_value_leaves_room_for_the_next(api, ns):
    api.node.large_room._count_max = 1
    unknown = "/" + "f" * 32
    assert (await api("PUT", f"{unknown}/values/k", value_of(CHUNK_BYTES))).status == 404
    _, writer = await asyncio.open_connection("127.0.0.1", api.port)
    writer.write(api.request("PUT", f"{ns}/values/k", value_of(CHUNK_BYTES))[:100_000])
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    async with asyncio.timeout(10):
        while (await api("PUT", f"{ns}/values/k", value_of(CHUNK_BYTES))).status == 503:
            pass


def forget(store, index: int) -> None:
    """Lose a chunk of the value under `k`, as a damaged disk would."""
    [namespace] = store.namespaces
    name = Manifest.unpack(store.get(namespace, b"k").value).chunks[index]
    with store.environment.write() as txn:
        assert txn.delete(name, db=store.environment.chunk_databases.data)
