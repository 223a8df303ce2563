"""Reads that ask for less than a value: nothing, where it is known already, or a part."""

from __future__ import annotations

import asyncio

import pytest

from kvnet.api.conditions import Part, is_known, wanted_part
from kvnet.core.manifest import CHUNK_BYTES
from kvnet.core.versions import Version
from kvnet.errors import RequestError
from kvnet.limits import profile
from tests.support.backends import FakeNode

VERSION = Version(1, 7)
VALUE = bytes(range(100))


@pytest.mark.parametrize(
    ("told", "known"),
    [
        ('"1-7"', True),
        ('W/"1-7"', True),
        ('"0-1", "1-7"', True),
        (' "0-1" ,W/"1-7" ', True),
        ("*", True),
        (" * ", True),
        ('"1-8"', False),
        ("1-7", False),
        ('"1-7', False),
        ('w/"1-7"', False),
        ('"0-1" "1-7"', False),
        ("", False),
        ('"é"', False),
    ],
)
def test_a_version_is_known_by_its_tag(told, known):
    assert is_known({"If-None-Match": told}, VERSION) is known
    assert not is_known({}, VERSION)


@pytest.mark.parametrize(
    ("told", "part"),
    [
        ("bytes=0-0", (0, 0)),
        ("bytes=10-19", (10, 19)),
        ("bytes=10-", (10, 99)),
        ("bytes=99-1000", (99, 99)),
        ("bytes=-1", (99, 99)),
        ("bytes=-1000", (0, 99)),
        ("Bytes = 1-2", (1, 2)),
        ("bytes=2-1", None),
        ("bytes=-", None),
        ("bytes=a-b", None),
        ("bytes=0-1,3-4", None),
        ("lines=0-1", None),
        ("bytes=0x1-2", None),
        ("bytes=1 - 2", None),
        ("", None),
    ],
)
def test_a_range_is_a_part_or_nothing(told, part):
    assert wanted_part({"Range": told}, VERSION, 100) == (part and Part(*part))


@pytest.mark.parametrize(
    ("told", "size"), [("bytes=100-", 100), ("bytes=-0", 100), ("bytes=0-", 0), ("bytes=-5", 0)]
)
def test_a_range_behind_the_end_is_refused_with_the_size(told, size):
    with pytest.raises(RequestError) as refused:
        wanted_part({"Range": told}, VERSION, size)
    assert (refused.value.status, refused.value.headers) == (416, {"Content-Range": f"bytes */{size}"})


def test_a_range_of_another_version_is_all_of_this_one():
    assert wanted_part({"Range": "bytes=0-1", "If-Range": '"1-7"'}, VERSION, 100) == Part(0, 1)
    for other in ('"1-6"', 'W/"1-7"', "Thu, 26 Nov 2026 00:00:00 GMT", ""):
        assert wanted_part({"Range": "bytes=0-1", "If-Range": other}, VERSION, 100) is None


async def test_a_client_that_has_it_is_told_so(api, ns):
    put = await api("PUT", f"{ns}/values/k", VALUE)
    tag = put.headers["etag"]
    for method, kind in (("GET", "values"), ("HEAD", "values"), ("GET", "metadata")):
        request = api.request(method, f"{ns}/{kind}/k", headers={"If-None-Match": tag, "Connection": "close"})
        answer = await everything(api.port, request)
        assert answer.startswith(b"HTTP/1.1 304 Not Modified\r\n")
        assert f"ETag: {tag}".encode() in answer
        assert answer.endswith(b"\r\n\r\n")
    changed = await api("PUT", f"{ns}/values/k", b"new")
    got = await api("GET", f"{ns}/values/k", If_None_Match=tag)
    assert (got.status, got.body, got.headers["etag"]) == (200, b"new", changed.headers["etag"])
    assert (await api("GET", f"{ns}/values/missing", If_None_Match="*")).status == 404


@pytest.mark.parametrize("name", ["If-Match", "If-None-Match", "If-Unmodified-Since"])
async def test_a_write_with_a_condition_is_refused(api, ns, name):
    """It would be done whether the condition held or not."""
    for method, path, body in (
        ("PUT", "/values/k", b"v"),
        ("DELETE", "/values/k", b""),
        ("PUT", "/bulk", b'[{"key":"k","value":"v"}]'),
    ):
        answer = await api(method, ns + path, body, **{name.replace("-", "_"): "*"})
        assert answer.error == (400, 10001, f"{name}: a write takes no conditions; leave it out")
    assert api.node.written == []


async def everything(port: int, request: bytes) -> bytes:
    """Return all that comes back: a 304 has no length that says where it ends."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    told = await reader.read(-1)
    writer.close()
    return told


async def test_a_part_comes_with_its_place(api, ns):
    await api("PUT", f"{ns}/values/k", VALUE)
    part = await api("GET", f"{ns}/values/k", Range="bytes=10-19")
    assert (part.status, part.body) == (206, VALUE[10:20])
    assert (part.headers["content-range"], part.headers["content-length"]) == ("bytes 10-19/100", "10")
    assert "etag" in part.headers
    whole = await api("HEAD", f"{ns}/values/k", Range="bytes=10-19")
    assert (whole.status, whole.headers["content-length"]) == (200, "100")
    refused = await api("GET", f"{ns}/values/k", Range="bytes=100-")
    assert refused.error == (416, 10001, "Range: it begins behind the value's 100 bytes")
    assert refused.headers["content-range"] == "bytes */100"


@pytest.mark.parametrize(
    ("first", "last"),
    [
        (0, 0),
        (CHUNK_BYTES - 1, CHUNK_BYTES),
        (CHUNK_BYTES, 2 * CHUNK_BYTES - 1),
        (5, 3 * CHUNK_BYTES + 4),
        (3 * CHUNK_BYTES + 4, 3 * CHUNK_BYTES + 4),
    ],
)
async def test_a_part_of_a_large_value_is_cut_from_its_chunks(serve, tmp_path, first, last):
    node = FakeNode(tmp_path / "large", profile("workers-kv"))
    value = b"".join(number.to_bytes(4, "big") for number in range(3 * CHUNK_BYTES // 4 + 2))[
        : 3 * CHUNK_BYTES + 5
    ]
    async with serve(node) as api:
        ns = "/" + node.create_namespace("large").hex()
        await api("PUT", f"{ns}/values/k", value)
        part = await api("GET", f"{ns}/values/k", Range=f"bytes={first}-{last}")
        assert (part.status, part.body) == (206, value[first : last + 1])
        assert part.headers["content-range"] == f"bytes {first}-{last}/{len(value)}"
        assert (await api("GET", f"{ns}/values/k")).headers["accept-ranges"] == "bytes"
    node.store.close()
