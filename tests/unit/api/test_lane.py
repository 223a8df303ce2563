"""The fast lane: what it answers is what the service answers, and it dies with what it rests on."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kvnet.api import hot as hot_answers
from kvnet.api import lane as lanes
from kvnet.api import plain as plain_reads
from kvnet.api.hot import JUDGED_AFTER, NOTED_IN, NOTED_IN_IDLE
from kvnet.api.lane import LaneServer
from kvnet.api.plain import NO_SHAPE, PlainReads, Shape
from kvnet.api.server import HttpServer
from kvnet.api.service import HttpService
from kvnet.core.catalog import Scope
from kvnet.errors import StorageDamaged
from kvnet.limits import profile
from tests.support.backends import ACCOUNT, NOW_S, TOKENS, FakeNode
from tests.support.http import read_answer

SETTLE_S = 5.0
WAITS_S = 0.5
LAST = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
"""Ends every conversation: whatever was asked before it is answered first."""


class NeverPlain(PlainReads):
    """Leaves every request to the service. What is told apart is told apart as ever."""

    def find(self, request: bytes) -> tuple[Shape, bytes]:
        return NO_SHAPE, b""


class Gone(asyncio.Transport):
    """A connection whose client is gone."""

    paused = resumed = 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...
    def is_closing(self) -> bool:
        return True

    def close(self) -> None: ...
    def pause_reading(self) -> None:
        self.paused += 1

    def resume_reading(self) -> None:
        self.resumed += 1


class Fast:
    """One node behind three ports: the lane, a lane that answers nothing itself, and the service alone."""

    def __init__(self, node: FakeNode, server: LaneServer, plain: PlainReads, ports: Sequence[int]) -> None:
        self.node = node
        self.server = server
        self.plain = plain
        self.port, self.slow_port, self.service_port = ports
        self.namespace = node.create_namespace("lane").hex()
        self.values = f"/client/v4/accounts/{ACCOUNT}/storage/kv/namespaces/{self.namespace}/values/"

    def rest(self, key: str, method: str = "GET", *more: str, scope: Scope = Scope.READ) -> bytes:
        lines = [
            f"{method} {self.values}{key} HTTP/1.1",
            "Host: x",
            f"Authorization: Bearer {TOKENS[scope]}",
            *more,
        ]
        return "\r\n".join([*lines, "", ""]).encode()

    def bound(self, key: str, method: str = "GET", *more: str) -> bytes:
        lines = [
            f"{method} /{key}?urlencoded=true HTTP/1.1",
            "Host: fake-host",
            f"KV-Namespace: {self.namespace}",
            f"Authorization: Bearer {TOKENS[Scope.WRITE]}",
            *more,
        ]
        return "\r\n".join([*lines, "", ""]).encode()

    def put(self, key: str, value: bytes, *more: str) -> bytes:
        return self.bound(key, "PUT", f"Content-Length: {len(value)}", *more) + value

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def ask(self, *requests: bytes) -> list[bytes]:
        """Return the answers to requests on one connection, each sent when the one before is answered."""
        reader, writer = await self.connect()
        answers = []
        for request in requests:
            writer.write(request)
            answer = await read_answer(reader, request.split(b" ")[0].decode())
            answers.append(answer.body if answer.status == 200 else str(answer.status).encode())
        writer.close()
        return answers


async def converse(port: int, parts: Sequence[bytes], waits_s: float = SETTLE_S) -> bytes | None:
    """Return all that comes back until the connection ends; None if it stays open."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        async with asyncio.timeout(waits_s):
            for part in parts:
                writer.write(part)
                await asyncio.sleep(0)
            return await reader.read(-1)
    except TimeoutError:
        return None
    except ConnectionError:
        return b"reset"
    finally:
        writer.close()


async def alone(port: int, request: bytes) -> bytes:
    """Return the bytes of the answer to this one request."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    body = b"" if request.startswith(b"HEAD") else await reader.readexactly(length)
    writer.close()
    return head + body


@asynccontextmanager
async def fast_lane(node: FakeNode) -> AsyncIterator[Fast]:
    loop = asyncio.get_running_loop()
    plain = PlainReads(node)
    server = LaneServer(HttpServer(HttpService(node)), plain)
    slow = LaneServer(HttpServer(HttpService(node)), NeverPlain(node))
    servers = (server, slow, HttpServer(HttpService(node)))
    listeners = [await loop.create_server(each, "127.0.0.1", 0) for each in servers]
    try:
        yield Fast(node, server, plain, [listener.sockets[0].getsockname()[1] for listener in listeners])
    finally:
        for listener in listeners:
            listener.close()
        for each in servers:
            each.pre_shutdown()
            await each.shutdown(0.01)


@pytest.fixture
async def fast(node):
    async with fast_lane(node) as fast:
        yield fast


@pytest.fixture
def answered(fast, monkeypatch):
    """The requests that the lane itself has answered, hot ones left out."""
    answered: list[bytes] = []
    read = fast.plain.read

    def note(shape: Shape, key: bytes, request: bytes) -> bytes | None:
        told = read(shape, key, request)
        if told is not None:
            answered.append(request)
        return told

    monkeypatch.setattr(fast.plain, "read", note)
    return answered


async def both(fast: Fast, *parts: bytes) -> bytes | None:
    """Return what lane and service both answer."""
    told = await converse(fast.port, [*parts, LAST])
    assert told == await converse(fast.slow_port, [*parts, LAST])
    return told


PLAIN_KEYS = ["k", "a%2Fb", "a/b", "%F0%9F%98%80", "+", "a+b", "x~-_.!$&'()*,;=:@", "k" * 2048, "%6b", "none"]


async def test_plain_reads_are_answered_by_the_lane_as_by_the_service(fast, answered):
    fast.node.stale_ms = 3
    await fast.ask(
        *(fast.put(key, key.encode()) for key in PLAIN_KEYS[:-1]),
        fast.put("described", b"v", 'CF-KV-Metadata: {"a": "é"}'),
        fast.bound("ends", "PUT", "Content-Length: 1").replace(b"=true", b"=true&expiration_ttl=60") + b"v",
    )
    asked = [
        ask(key, method)
        for key in (*PLAIN_KEYS, "described", "ends")
        for ask in (fast.rest, fast.bound)
        for method in ("GET", "HEAD")
    ]
    answered.clear()
    for request in asked:
        told = await alone(fast.port, request)
        assert told == await alone(fast.service_port, request)
        assert told.startswith(b"HTTP/1.1 404" if b"none" in request else b"HTTP/1.1 200")
    assert answered == asked
    assert b"Date:" not in told
    assert b"Server:" not in told


@pytest.mark.parametrize("ttl", ["30", "60", "86400"])
async def test_a_binding_that_tells_how_long_to_keep_is_plain(fast, answered, ttl):
    await fast.ask(fast.put("k", b"v"))
    asked = [fast.bound(key, method).replace(b"=true", f"=true&cache_ttl={ttl}".encode()) for key in ("k", "none")
             for method in ("GET", "HEAD")]  # fmt: skip
    answered.clear()
    for request in asked:
        assert await alone(fast.port, request) == await alone(fast.service_port, request)
    assert answered == asked


@pytest.mark.parametrize(
    "query", ["cache_ttl=29", "cache_ttl=0", "cache_ttl=x", "cache_ttl=", "cache_ttl=60&a=b", "a"]
)
async def test_a_binding_with_another_query_is_the_services(fast, answered, query):
    request = fast.bound("k").replace(b"=true", f"=true&{query}".encode())
    assert await alone(fast.port, request) == await alone(fast.service_port, request)
    assert answered == []


async def test_what_is_no_plain_read_pushes_out_none(fast):
    """Lists, and reads of a binding with other queries, are all different: each was once remembered as none."""
    await fast.ask(fast.put("k", b"v"), fast.rest("k"), fast.rest("k"))
    before = dict(fast.plain._shapes)
    assert before
    for number in range(50):
        fast.plain.answer(fast.bound(f"k{number}").replace(b"=true", b"=false"))
        fast.plain.answer(fast.rest("k").replace(b"/values/k", f"/keys?cursor={number}".encode()))
        fast.plain.answer(fast.rest("k").replace(fast.values.encode(), f"/{number}/".encode()))
    assert fast.plain._shapes == before


ODD = [
    "Range: bytes=0-1",
    'If-None-Match: "1-1"',
    "KV-At-Least: 1-1",
    "KV-Max-Staleness-Ms: 0",
    "KV-Wait: all",
    "Content-Length: 0",
    "Content-Length: 2",
    "content-length: +2",
    "Content-Length: 1, 1",
    "Transfer-Encoding: chunked",
    "Transfer-Encoding: chunked\r\nContent-Length: 5",
    "Transfer-Encoding : chunked",
    "Expect: 100-continue",
    "Connection: close",
    "Connection: Upgrade\r\nUpgrade: websocket",
    "Connection: keep-alive, upgrade\r\nUpgrade: h2c",
    "X-Auth-Key: k\r\nX-Auth-Email: e",
    "Host: y",
    "Authorization: Bearer other",
    "KV-Namespace: zz",
    "X-Folded: a\r\n b",
    " X-Folded: a",
    "X-Bare: a\nContent-Length: 5",
    "X-Return: a\rb",
    "X-Nul: a\x00b",
    "X-High: \u00e9",
    "X Space: a",
    "X-Empty:",
    ": nameless",
    "no colon",
    "X-Long: " + "x" * 9000,
    "Accept-Encoding: gzip",
    "X-Forwarded-For: 1.2.3.4",
]


@pytest.mark.parametrize("field", ODD, ids=lambda field: field[:24].encode().hex()[:48])
async def test_a_head_with_an_odd_field_means_the_same_to_both(fast, field):
    for ask in (fast.rest, fast.bound):
        for method in ("GET", "HEAD", "PUT", "POST"):
            told = await converse(fast.port, [ask("k", method, field), LAST], WAITS_S)
            assert told == await converse(fast.slow_port, [ask("k", method, field), LAST], WAITS_S)


@pytest.mark.parametrize(
    "line",
    [
        "GET {} HTTP/1.0",
        "GET {} HTTP/1.2",
        "GET {} HTTP/2.0",
        "GET {} http/1.1",
        "GET {}  HTTP/1.1",
        "GET  {} HTTP/1.1",
        "GET\t{} HTTP/1.1",
        "get {} HTTP/1.1",
        "GET http://x{} HTTP/1.1",
        "GET //x{} HTTP/1.1",
        "GET {}?a=b HTTP/1.1",
        "GET {}#a HTTP/1.1",
        "GET {}%zz HTTP/1.1",
        "GET {}%FF HTTP/1.1",
        "GET {}\u00e9 HTTP/1.1",
        "GET {}\x7f HTTP/1.1",
        "GET {}\x00 HTTP/1.1",
        'GET {}"<> HTTP/1.1',
        "GET {}",
        "GET {} ",
        " GET {} HTTP/1.1",
        "\r\nGET {} HTTP/1.1",
        "DELETE {} HTTP/1.1",
        "OPTIONS * HTTP/1.1",
        "PRI * HTTP/2.0",
        "",
    ],
)
async def test_an_odd_request_line_means_the_same_to_both(fast, line):
    plain = fast.rest("k")
    told = await converse(
        fast.port, [line.format(fast.values + "k").encode() + plain[plain.index(b"\r\n") :], LAST]
    )
    slow = await converse(
        fast.slow_port, [line.format(fast.values + "k").encode() + plain[plain.index(b"\r\n") :], LAST]
    )
    assert told == slow


@pytest.mark.parametrize("ending", [b"\n\n", b"\n", b"\r\n\n", b"\r\r", b"\r\n\r"])
async def test_other_line_ends_mean_the_same_to_both(fast, ending):
    request = fast.rest("k").replace(b"\r\n", ending[:1]) if ending == b"\n" else fast.rest("k")[:-4] + ending
    assert await converse(fast.port, [request, LAST], WAITS_S) == await converse(
        fast.slow_port, [request, LAST], WAITS_S
    )


async def test_keys_that_are_none_mean_the_same_to_both(fast):
    for key in ("", ".", "..", "k" * 2049, "%", "%00", "%ED%A0%80", "a?urlencoded=true", "%2E"):
        await both(fast, fast.rest(key))
        await both(fast, fast.bound(key))


@pytest.mark.parametrize("byte", [byte for byte in range(256) if byte not in b" ?\r\n"])
async def test_a_byte_in_a_key_is_plain_only_if_the_service_takes_it(fast, byte):
    """A NUL was once a key's as it came, where the service refuses it."""
    for ask in (fast.rest, fast.bound):
        request = ask("#k", "GET").replace(b"#", bytes([byte]))
        told = fast.plain.answer(request)
        assert told is None or told == await alone(fast.service_port, request)


async def test_pipelined_requests_are_answered_in_their_order(fast):
    await fast.ask(fast.put("a", b"A"), fast.put("b", b"B"), fast.put("c", b"C" * 1000))
    mixed = [
        fast.rest("a"), fast.bound("none"), fast.put("c", b"C" * 1000), fast.rest("b"), fast.bound("c"),
        fast.rest("a", "HEAD"), fast.rest("a", "GET", "Range: bytes=0-0"), fast.bound("b"),
    ]  # fmt: skip
    await both(fast, b"".join(mixed))
    await both(fast, *mixed)
    for cut in (1, 7, 50, 333):
        stream = b"".join(mixed)
        await both(fast, *(stream[at : at + cut] for at in range(0, len(stream), cut)))


async def test_a_connection_comes_back_to_the_lane_after_a_write(fast, answered):
    await fast.ask(fast.put("k", b"v"), fast.bound("k"), fast.put("k", b"w"), fast.bound("k"), fast.rest("k"))
    assert answered == [fast.bound("k"), fast.bound("k"), fast.rest("k")]


async def hot(fast: Fast, request: bytes) -> None:
    """Have a request's answer remembered."""
    await fast.ask(*[request] * (2 * NOTED_IN))
    assert list(fast.plain.hot) == [request]


async def test_a_hot_answer_ends_with_the_next_commit(fast):
    await fast.ask(fast.put("k", b"old"))
    await hot(fast, fast.rest("k"))
    assert await fast.ask(fast.put("k", b"new"), fast.rest("k")) != [b"old"]
    assert (await fast.ask(fast.rest("k"))) == [b"new"]


async def test_a_hot_answer_ends_with_its_bound_on_staleness(fast):
    fast.node.stale_ms = 100
    await fast.ask(fast.put("k", b"v"))
    await hot(fast, fast.rest("k"))
    before = fast.plain.until
    fast.node.stale_ms = 700
    deadline = asyncio.get_running_loop().time() + SETTLE_S
    while b"KV-Staleness-Ms: 1000" not in (told := await alone(fast.port, fast.rest("k"))):
        assert b"KV-Staleness-Ms: 500" in told
        assert asyncio.get_running_loop().time() < deadline, told
    assert fast.plain.until != before


async def test_a_revoked_token_is_refused_at_once(fast):
    await fast.ask(fast.put("k", b"v"))
    await hot(fast, fast.rest("k"))
    fast.node.revoke("id-read")
    assert await fast.ask(fast.rest("k")) == [b"401"]
    await both(fast, fast.rest("k"))


async def test_a_deleted_namespace_is_gone_at_once(fast):
    await fast.ask(fast.put("k", b"v"))
    await hot(fast, fast.bound("k"))
    fast.node.delete_namespace(bytes.fromhex(fast.namespace))
    assert await fast.ask(fast.bound("k"), fast.rest("k")) == [b"400", b"404"]


async def test_an_expiring_pair_ends_at_its_second_and_is_never_hot(fast):
    put = fast.bound("k", "PUT", "Content-Length: 1").replace(b"=true", b"=true&expiration_ttl=60") + b"v"
    await fast.ask(put, *[fast.rest("k")] * (3 * NOTED_IN))
    assert fast.plain.hot == {}
    fast.node.now = NOW_S + 59.7
    assert await fast.ask(fast.rest("k"), fast.bound("k")) == [b"v", b"v"]
    fast.node.now = int(NOW_S) + 60
    assert await fast.ask(fast.rest("k"), fast.bound("k")) == [b"404", b"404"]


async def test_a_token_with_an_end_is_refused_from_then_on(fast):
    secret = fast.node.add_token("short", Scope.READ, expires_at=int(NOW_S) + 60)
    request = fast.rest("k").replace(TOKENS[Scope.READ].encode(), secret.encode())
    await fast.ask(fast.put("k", b"v"), *[request] * (3 * NOTED_IN))
    fast.node.now = int(NOW_S) + 60
    assert await fast.ask(request) == [b"401"]


async def test_a_token_for_other_namespaces_is_refused(fast):
    other = fast.node.create_namespace("other")
    secret = fast.node.add_token("there", Scope.READ, namespaces=(other,))
    request = fast.rest("k").replace(TOKENS[Scope.READ].encode(), secret.encode())
    for _ in range(2):
        assert await fast.ask(request) == [b"403"]
    await both(fast, request)


async def test_a_replica_that_may_not_serve_stops_at_once_and_comes_back(fast):
    await fast.ask(fast.put("k", b"v"))
    await hot(fast, fast.rest("k"))
    fast.node.is_ready = False
    fast.node.store.look_again()
    assert await fast.ask(fast.rest("k")) == [b"503"]
    fast.node.is_ready = True
    fast.node.store.look_again()
    assert await fast.ask(fast.rest("k")) == [b"v"]


async def test_a_damaged_record_is_told_to_the_node(fast, monkeypatch):
    await fast.ask(fast.put("k", b"v"))

    def damaged(*_: object) -> None:
        raise StorageDamaged("flipped")

    monkeypatch.setattr("kvnet.api.plain.crc32", damaged)
    monkeypatch.setattr(type(fast.node.store), "get", damaged)
    assert await fast.ask(fast.rest("k")) == [b"503"]
    assert len(fast.node.damages) == 1


async def test_a_change_under_way_is_remembered_by_nobody(fast):
    """A writer in another thread may commit between two reads of one request."""
    await fast.ask(fast.put("k", b"v"))
    await hot(fast, fast.rest("k"))
    fast.node.store.changes[0] += 1
    await fast.ask(*[fast.rest("k")] * (3 * NOTED_IN))
    assert fast.plain.hot == {}
    assert fast.plain.seen == -1
    fast.node.store.changes[0] += 1
    await hot(fast, fast.rest("k"))


async def test_reads_are_counted_hot_or_not(fast):
    used = fast.node.usage.of(bytes.fromhex(fast.namespace))
    await fast.ask(fast.put("k", b"v"))
    await fast.ask(*[fast.rest("k")] * 40, *[fast.bound("k", "HEAD")] * 40, fast.rest("none"))
    fast.plain.count()
    assert used.reads == 81


async def test_what_is_remembered_has_a_bound(fast, monkeypatch):
    monkeypatch.setattr(hot_answers, "HOT_MAX", 50)
    monkeypatch.setattr(plain_reads, "SHAPES_MAX", 20)
    monkeypatch.setattr(plain_reads, "ONCE_MAX", 30)

    def warm(number: int, *more: str) -> None:
        """Ask so often that it is remembered."""
        for _ in range(2 * NOTED_IN):
            assert fast.plain.answer(fast.rest(f"k{number}", "GET", *more))

    for number in range(120):
        warm(number, f"X-Number: {number % 10}")
        assert 0 < len(fast.plain.hot) <= 50
    for number in range(100):
        fast.plain.answer(fast.rest("k", "GET", f"X-Number: {number}"))
        fast.plain.answer(fast.rest("k", "GET", f"X-Number: {number}"))
        assert 0 < len(fast.plain._shapes) <= 20
        assert len(fast.plain._once) <= 30
    monkeypatch.setattr(hot_answers, "HOT_BYTES_MAX", 3000)
    for number in range(60):
        warm(number)
        assert 0 < sum(len(request) + len(told) for request, (told, _) in fast.plain.hot.items()) <= 4000


async def test_heads_that_are_all_different_push_out_none_and_are_plain(fast, answered):
    """A header that numbers requests once made each of them a shape, and the 1,024th dropped all others."""
    await fast.ask(fast.put("k", b"v"), fast.rest("k"), fast.rest("k"))
    before = dict(fast.plain._shapes)
    assert before
    answered.clear()
    numbered = [fast.rest("k", "GET", f"Traceparent: 00-{number:032x}-01") for number in range(50)]
    for request in numbered:
        assert await alone(fast.port, request) == await alone(fast.service_port, request)
    assert answered == numbered
    assert fast.plain._shapes == before
    fast.plain.count()
    assert fast.node.usage.of(bytes.fromhex(fast.namespace)).reads == 2 + 2 * len(numbered)


async def test_what_waits_to_be_counted_is_bounded_when_heads_are_all_different(fast, monkeypatch):
    """Each of them is a shape of its own with one read, kept until it is counted."""
    monkeypatch.setattr(plain_reads, "SHAPES_MAX", 8)
    await fast.ask(fast.put("k", b"v"))
    for number in range(100):
        assert fast.plain.answer(fast.rest("k", "GET", f"Traceparent: {number}"))
        assert len(fast.plain.uncounted) <= 8
    fast.plain.count()
    assert fast.node.usage.of(bytes.fromhex(fast.namespace)).reads == 100


async def test_a_head_that_came_once_is_refused_on_its_connection_as_soon_as_its_token_is(fast):
    """Its shape isn't remembered, so nobody would end it with the token."""
    await fast.ask(fast.put("k", b"v"))
    reader, writer = await fast.connect()
    request = fast.rest("k", "GET", "Traceparent: once")
    writer.write(request)
    assert (await read_answer(reader)).body == b"v"
    fast.node.revoke("id-read")
    writer.write(request)
    assert (await read_answer(reader)).status == 401
    writer.close()


async def test_counting_looks_only_at_what_was_read(fast):
    """It once walked all shapes, for each request that wasn't plain."""
    await fast.ask(fast.put("k", b"v"))
    for number in range(40):
        for _ in range(2):
            assert fast.plain.answer(fast.rest("k", "GET", f"X-Number: {number}"))
    fast.plain.count()
    assert len(fast.plain._shapes) == 40
    assert fast.plain.uncounted == []
    await fast.ask(*[fast.rest("k", "GET", "X-Number: 7")] * 3)
    assert len(fast.plain.uncounted) == 1
    fast.plain.count()
    assert fast.node.usage.of(bytes.fromhex(fast.namespace)).reads == 83


async def test_keys_at_random_are_not_remembered_until_some_repeat(fast):
    await fast.ask(fast.put("k", b"v"))
    plain = fast.plain
    for number in range((JUDGED_AFTER + 1) * NOTED_IN):
        plain.answer(fast.rest(f"k{number}"))
    assert plain.hot == {}
    assert not plain._hot.pays
    for _ in range((JUDGED_AFTER + 1) * NOTED_IN_IDLE):
        plain.answer(fast.rest("k"))
    assert plain._hot.pays
    await fast.ask(*[fast.rest("k")] * 20)
    assert list(plain.hot) == [fast.rest("k")]


async def test_what_was_hot_is_hot_again_soon_after_a_commit(fast):
    await fast.ask(fast.put("k", b"v"))
    await hot(fast, fast.rest("k"))
    await fast.ask(fast.put("other", b"w"), *[fast.rest("k")] * NOTED_IN)
    assert list(fast.plain.hot) == [fast.rest("k")]


AT_LEASTS = ["0-0", "1-1", "1-5", "1-6", "1-7", "0-99", "2-0", "01-01", "1", "", "a-b", "1-1, 1-1", f"1-{10**20}"]
WITH_IT = ["KV-Wait-Timeout-Ms: 0", "KV-Wait-Timeout-Ms: 30001", "KV-Wait-Timeout-Ms: x", "KV-Max-Staleness-Ms: 5"]


@pytest.mark.parametrize("more", [[], *([field] for field in WITH_IT)])
async def test_a_read_that_asks_for_a_version_is_answered_as_by_the_service(fast, more):
    await fast.ask(fast.put("k", b"v"))
    for at_least in AT_LEASTS:
        for key in ("k", "none"):
            for ask in (fast.rest, fast.bound):
                request = ask(key, "GET", f"KV-At-Least: {at_least}", *more)
                for _ in range(3):
                    assert await alone(fast.port, request) == await alone(fast.service_port, request)


async def test_a_version_that_this_replica_has_is_met_on_the_lane_and_another_is_not(fast, answered):
    await fast.ask(fast.put("k", b"v"))
    position = fast.node.store.position
    met = fast.rest("k", "GET", f"KV-At-Least: {position.version}", "KV-Wait-Timeout-Ms: 5")
    later = fast.rest("k", "GET", f"KV-At-Least: {position.epoch}-{position.seq + 1}", "KV-Wait-Timeout-Ms: 5")
    for request in (met, later, met, later):
        assert await alone(fast.port, request) == await alone(fast.service_port, request)
    assert answered == [met, met]
    assert len(fast.node.waits) == 6
    await fast.ask(fast.put("k", b"w"))
    assert await fast.ask(later, later, met) == [b"w"] * 3
    assert answered[2:] == [later, later, met]


async def test_a_hot_answer_to_a_read_that_asks_for_a_version_stays_within_its_commit(fast):
    await fast.ask(fast.put("k", b"v"))
    request = fast.rest("k", "GET", f"KV-At-Least: {fast.node.store.position.version}")
    await hot(fast, request)
    assert (await fast.ask(fast.put("k", b"w"), request))[1] == b"w"


async def test_a_client_that_pipelines_without_end_leaves_others_their_turn(fast, monkeypatch):
    """It once had the loop for seconds: everything that came was answered before anything else was looked at."""
    await fast.ask(fast.put("k", b"v"))
    monkeypatch.setattr(lanes, "AT_ONCE", 10)
    lane = fast.server()
    transport = Gone()
    transport.is_closing = lambda: False
    written: list[bytes] = []
    transport.write = written.append
    lane.connection_made(transport)
    turns: list[int] = []
    asyncio.get_running_loop().call_soon(lambda: turns.append(len(written)))
    lane.data_received(fast.rest("k") * 95 + fast.rest("k")[:20])
    assert len(written) == 1
    deadline = asyncio.get_running_loop().time() + SETTLE_S
    while len(written) < 10:
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0)
    lane.data_received(fast.rest("k")[20:])
    assert b"".join(written).count(b"HTTP/1.1 200 OK") == 96
    assert turns == [1], "somebody else was before the second ten"
    assert transport.paused == transport.resumed == 9
    lane.connection_lost(None)


async def test_reads_are_counted_though_their_shape_was_forgotten(fast, monkeypatch):
    """A hot answer once outlived its shape, and what it answered was nobody's."""
    monkeypatch.setattr(plain_reads, "SHAPES_MAX", 4)
    used = fast.node.usage.of(bytes.fromhex(fast.namespace))
    await fast.ask(fast.put("k", b"v"))
    count = 20 * NOTED_IN
    reader, writer = await fast.connect()
    for number in range(count):
        writer.write(fast.rest("k"))
        assert (await read_answer(reader)).body == b"v"
        assert fast.plain.answer(fast.rest("k", "GET", f"Traceparent: {number}"))
    fast.plain.count()
    assert used.reads == 2 * count
    writer.close()


async def test_two_requests_in_one_are_two(fast):
    """The second begins and ends as the first: what is between the two ends of it all is no key."""
    await fast.ask(fast.put("a", b"A"), fast.put("b", b"B"))
    reader, writer = await fast.connect()
    for _ in range(3):
        writer.write(fast.rest("a") + fast.rest("b"))
        assert [(await read_answer(reader)).body for _ in range(2)] == [b"A", b"B"]
    writer.close()


async def test_large_values_go_the_long_way(tmp_path):
    node = FakeNode(tmp_path / "large", profile("workers-kv"))
    async with fast_lane(node) as fast:
        value = bytes(range(256)) * 4096
        await fast.ask(fast.put("k", value))
        assert await fast.ask(fast.rest("k"), fast.rest("k")) == [value, value]
    node.store.close()


async def test_a_client_that_reads_slowly_is_not_read_from(fast, monkeypatch):
    monkeypatch.setattr(lanes, "UNSENT_BYTES_MAX", 1024)
    await fast.ask(fast.put("k", b"v" * 60_000))
    reader, writer = await fast.connect()
    count = 400
    sender = asyncio.create_task(_send(writer, fast.rest("k"), count))
    lane = await _only_lane(fast)
    deadline = asyncio.get_running_loop().time() + SETTLE_S
    while not lane._paused:
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.01)
    assert lane._transport.get_write_buffer_size() < 2_000_000
    for _ in range(count):
        assert (await read_answer(reader)).body == b"v" * 60_000
    await sender
    writer.close()


async def _send(writer: asyncio.StreamWriter, request: bytes, count: int) -> None:
    for _ in range(count):
        writer.write(request)
        await writer.drain()


async def _only_lane(fast: Fast) -> lanes.Lane:
    deadline = asyncio.get_running_loop().time() + SETTLE_S
    while len(fast.server._lanes) != 1:
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.01)
    return next(iter(fast.server._lanes))


@pytest.mark.parametrize("drips", [False, True])
async def test_a_head_that_never_ends_is_dropped_and_others_live(fast, monkeypatch, drips):
    """It once had to be silent for that: a byte now and then kept it for ever."""
    monkeypatch.setattr(lanes, "SWEEP_S", 0.02)
    monkeypatch.setattr(lanes, "HEAD_S_MAX", 0.3)
    reader, writer = await fast.connect()
    writer.write(b"GET /")
    ended = asyncio.create_task(_ends(reader))
    deadline = asyncio.get_running_loop().time() + SETTLE_S
    while drips and not ended.done():
        assert asyncio.get_running_loop().time() < deadline
        writer.write(b"x")
        await asyncio.sleep(0.01)
    assert await ended
    writer.close()
    assert await fast.ask(fast.rest("none")) == [b"404"]


async def test_an_idle_connection_ends_and_a_busy_one_does_not(fast, monkeypatch):
    monkeypatch.setattr(lanes, "SWEEP_S", 0.02)
    monkeypatch.setattr(lanes, "IDLE_S_MAX", 0.3)
    reader, writer = await fast.connect()
    busy_reader, busy = await fast.connect()
    ended = asyncio.create_task(_ends(reader))
    while not ended.done():
        busy.write(fast.rest("none"))
        assert (await read_answer(busy_reader)).status == 404
    assert ended.result()
    busy.close()
    writer.close()


async def _ends(reader: asyncio.StreamReader) -> bool:
    try:
        async with asyncio.timeout(SETTLE_S):
            return await reader.read(-1) == b""
    except ConnectionError:
        return True


async def test_connections_have_a_bound(fast, monkeypatch):
    """Those that aiohttp has for itself count as well, until they end."""
    monkeypatch.setattr(fast.server, "_most", 3)
    held = [await fast.connect() for _ in range(3)]
    for reader, writer in held[1:]:
        writer.write(fast.rest("none"))
        assert (await read_answer(reader)).status == 404
    reader, given_up = held[0]
    given_up.write(fast.rest("none", "GET", "Transfer-Encoding: chunked") + b"0\r\n\r\n")
    assert (await read_answer(reader)).status == 404
    reader, refused = await fast.connect()
    assert await _ends(reader)
    refused.close()
    given_up.close()
    deadline = asyncio.get_running_loop().time() + SETTLE_S
    while len(fast.server._lanes) == 3:
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.01)
    reader, writer = await fast.connect()
    writer.write(fast.rest("none"))
    assert (await read_answer(reader)).status == 404
    for other in (writer, *(writer for _, writer in held[1:])):
        other.close()


async def test_files_are_kept_for_the_node_itself(node, monkeypatch):
    monkeypatch.setattr("resource.getrlimit", lambda _: (1024, 4096))
    server = LaneServer(HttpServer(HttpService(node)), PlainReads(node))
    assert server._most == 1024 - lanes.FILES_KEPT


async def test_a_half_closed_connection_is_answered(fast):
    reader, writer = await fast.connect()
    writer.write(fast.rest("none"))
    writer.write_eof()
    assert (await read_answer(reader)).status == 404
    assert await reader.read(-1) == b""
    writer.close()


async def test_a_client_that_asks_and_leaves_at_once_leaves_no_trace(fast, caplog):
    """aiohttp's side of a connection begins with a task, whose first turn once found the connection lost."""
    lane = fast.server()
    lane.connection_made(Gone())
    lane.data_received(fast.rest("k", "GET", "Range: bytes=0-0"))
    lane.connection_lost(None)
    assert await fast.ask(fast.rest("none")) == [b"404"]
    gc.collect()
    assert caplog.records == []


async def test_a_stopping_server_ends_its_connections(node):
    async with fast_lane(node) as fast:
        reader, writer = await fast.connect()
        writer.write(fast.rest("none"))
        await read_answer(reader)
    assert await _ends(reader)
    writer.close()


FIELDS = st.sampled_from(ODD)
CHANGES = st.lists(
    st.tuples(
        st.sampled_from(["insert", "delete", "replace"]), st.integers(0, 400), st.binary(min_size=1, max_size=3)
    ),
    max_size=4,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kinds=st.lists(st.sampled_from(["rest", "bound", "head", "put"]), min_size=1, max_size=3),
    fields=st.lists(FIELDS, max_size=2),
    changes=CHANGES,
    cuts=st.lists(st.integers(1, 900), max_size=3),
)
async def test_any_bytes_mean_the_same_to_both(tmp_path_factory, kinds, fields, changes, cuts):
    """Smuggling begins where two servers read one stream in two ways."""
    node = FakeNode(tmp_path_factory.mktemp("fuzz") / "node", profile("workers-kv-2018"))
    try:
        async with fast_lane(node) as fast:
            await fast.ask(fast.put("k", b"v"))
            asks = {
                "rest": fast.rest("k", "GET", *fields),
                "bound": fast.bound("k", "GET", *fields),
                "head": fast.rest("none", "HEAD"),
                "put": fast.put("k", b"v", *fields),  # changes nothing, however often it is sent
            }
            stream = bytearray(b"".join(asks[kind] for kind in kinds))
            for what, at, data in changes:
                start = at % (len(stream) + 1)
                end = start if what == "insert" else start + len(data)
                stream[start:end] = b"" if what == "delete" else data
            edges = sorted({0, len(stream), *(cut % (len(stream) + 1) for cut in cuts)})
            parts = [bytes(stream[start:end]) for start, end in pairwise(edges)]
            parts.append(b"\r\n\r\n" + LAST * 2)
            for waits_s in (WAITS_S, 4 * WAITS_S, 16 * WAITS_S):
                told, slow = [await converse(port, parts, waits_s) for port in (fast.port, fast.slow_port)]
                if told == slow:
                    break
            assert told == slow
    finally:
        node.store.close()
