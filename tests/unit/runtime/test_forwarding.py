from __future__ import annotations

import asyncio
import random
from hashlib import sha256
from io import BytesIO

import msgpack
import pytest
from aiohttp import web

from kvnet.core.manifest import CHUNK_BYTES
from kvnet.core.operations import DeleteValue, PutLargeValue, PutValue, to_wire
from kvnet.core.pieces import LargeRoom
from kvnet.core.spread import Share, Spread
from kvnet.core.versions import Version
from kvnet.errors import RequestError
from kvnet.runtime import forwarding
from kvnet.runtime.forwarding import PATH, SPREAD_PATH, Forwarder, WriteDesk
from kvnet.topology.wan import Wan
from kvnet.transport.signing import HEADER, BodyDigest, sign
from tests.support.large import large_value
from tests.support.peers import identity, topology, until

NAMESPACE = b"n" * 16
PUT = PutValue(NAMESPACE, b"key", b"value", b"", 0, 60)
SPREAD = Spread(complete=False, applied=1, of=2, missing=("per",), took_ms={"fra": 1.5})
HALF = Share.parse("50%")
VALUE_BYTES_MAX = 2 * CHUNK_BYTES
LARGE = large_value(2, last=100_000)
PUT_LARGE = PutLargeValue(NAMESPACE, b"key", LARGE.manifest.pack(), b"{}", 0, 60, LARGE.chunks)


class Coordinator:
    """Takes forwarded writes; each answer is the next of `answers`, or another version."""

    def __init__(self):
        self.taken = []
        self.answers = []
        self.go_on = asyncio.Event()
        self.go_on.set()
        self.room = LargeRoom(2)
        self.waited = []
        self.spreads = []
        self.told = []
        self.desk = WriteDesk(
            identity("coordinator", start=2),
            ("fra", "ams"),
            self.write,
            self.spread,
            value_bytes_max=VALUE_BYTES_MAX,
            room=self.room,
        )

    async def spread(self, version, share, timeout_ms):
        self.spreads.append((version, share, timeout_ms))
        answer = self.told.pop(0) if self.told else SPREAD
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def write(self, operations, request_id, waited):
        self.waited.append(waited)
        self.taken.append((list(operations), request_id))
        await self.go_on.wait()
        answer = self.answers.pop(0) if self.answers else Version(1, len(self.taken))
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
async def coordinator(peers):
    made = Coordinator()

    async def handle(request):
        return await (made.desk.handle_spread if request.path == SPREAD_PATH else made.desk.handle)(request)

    await peers.listen("coordinator", handle)
    return made


class Waits:
    """An edge's replica: has every version, or none."""

    def __init__(self):
        self.has_it = True
        self.asked = []

    async def __call__(self, version, timeout_ms):
        self.asked.append((version, timeout_ms))
        return self.has_it


@pytest.fixture
def waits():
    return Waits()


def forwarder_of(peers, waits, *, wan=None, url="", **who):
    return Forwarder(
        identity("fra", **who),
        peers.session,
        wan or Wan(topology()),
        random.Random(1),
        coordinator="coordinator",
        url=url or peers.urls["coordinator"],
        wait_for=waits,
        visibility_wait_ms=1000,
    )


@pytest.fixture
def forwarder(peers, coordinator, waits):
    return forwarder_of(peers, waits)


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(forwarding, "RETRY_FOR_S", 0.05)
    monkeypatch.setattr(forwarding, "RETRY_FIRST_S", 0.005)


async def refused(writing) -> RequestError:
    with pytest.raises(RequestError) as raised:
        await writing
    return raised.value


async def test_a_write_arrives_whole_and_its_answer_waits_for_the_own_replica(forwarder, coordinator, waits):
    operations = [PUT, DeleteValue(NAMESPACE, b"\xff other")]
    coordinator.answers = [Version(3, 77)]
    assert await forwarder.write(operations, b"id of the client") == (Version(3, 77), False)
    assert coordinator.taken == [(operations, b"id of the client")]
    assert waits.asked == [(Version(3, 77), 1000)]


async def test_a_write_that_isnt_visible_here_in_time_is_pending(forwarder, waits):
    waits.has_it = False
    assert (await forwarder.write([PUT])).pending


async def test_writes_without_an_id_get_one_of_their_own_that_no_restart_repeats(
    peers, forwarder, coordinator, waits
):
    await forwarder.write([PUT])
    await forwarder.write([PUT])
    await forwarder_of(peers, waits, start=2).write([PUT])
    ids = [request_id for _, request_id in coordinator.taken]
    assert len(set(ids)) == 3
    assert all(request_id.startswith(b"fra\0") for request_id in ids)


async def test_the_coordinators_refusal_is_the_clients_answer(forwarder, coordinator):
    coordinator.answers = [RequestError(429, 10048, "too often", headers={"Retry-After": "1"})]
    error = await refused(forwarder.write([PUT]))
    assert (error.status, error.code, error.message) == (429, 10048, "too often")
    assert (error.definite, error.headers) == (True, {"Retry-After": "1"})


async def test_a_broken_connection_is_retried_with_the_same_id(peers, waits):
    asked = []

    async def breaks_twice(request):
        asked.append(msgpack.unpackb(await request.read())["request_id"])
        if len(asked) <= 2:
            request.transport.abort()
        return web.Response(body=msgpack.packb({"version": [1, 9]}))

    await peers.listen("coordinator", breaks_twice)
    assert await forwarder_of(peers, waits).write([PUT]) == (Version(1, 9), False)
    assert len(asked) == 3
    assert len(set(asked)) == 1


async def test_a_coordinator_that_nobody_can_reach_has_definitely_not_written(peers, waits, impatient):
    error = await refused(forwarder_of(peers, waits, url="http://127.0.0.1:1").write([PUT]))
    assert (error.status, error.definite) == (503, True)
    assert error.headers == {"Retry-After": "1"}


async def test_a_coordinator_that_never_answered_may_have_written(peers, waits, impatient):
    async def breaks(request):
        await request.read()
        request.transport.abort()
        return web.Response()

    await peers.listen("coordinator", breaks)
    error = await refused(forwarder_of(peers, waits).write([PUT]))
    assert (error.status, error.definite) == (504, False)


async def test_a_coordinator_that_takes_too_long_may_have_written(forwarder, coordinator, monkeypatch, impatient):
    monkeypatch.setattr(forwarding, "ATTEMPT_TIMEOUT_S", 0.02)
    coordinator.go_on.clear()
    error = await refused(forwarder.write([PUT]))
    assert (error.status, error.definite) == (504, False)
    assert coordinator.taken
    coordinator.go_on.set()


async def test_a_cut_way_there_is_definite_and_a_cut_way_back_is_not(peers, coordinator, waits, impatient):
    wan = Wan(topology())
    wan.cut("fra", "coordinator")
    error = await refused(forwarder_of(peers, waits, wan=wan).write([PUT]))
    assert (error.definite, coordinator.taken) == (True, [])
    wan.heal_all()
    wan.cut("coordinator", "fra")
    error = await refused(forwarder_of(peers, waits, wan=wan).write([PUT]))
    assert not error.definite
    assert coordinator.taken


async def test_a_write_goes_through_once_the_cut_heals(peers, coordinator, waits):
    wan = Wan(topology())
    wan.cut("fra", "coordinator")
    writing = asyncio.ensure_future(forwarder_of(peers, waits, wan=wan).write([PUT]))
    await asyncio.sleep(0)
    assert coordinator.taken == []
    wan.heal_all()
    assert (await writing).version == Version(1, 1)


async def test_the_way_takes_the_pairs_time_both_ways(peers, coordinator, waits):
    wan = Wan(topology("internet"))
    loop = asyncio.get_running_loop()
    began = loop.time()
    await forwarder_of(peers, waits, wan=wan).write([PUT])
    assert (loop.time() - began) * 1000 >= wan.rtt_ms("fra", "coordinator") - 3


async def test_the_number_of_writes_under_way_is_bounded(forwarder, coordinator, monkeypatch):
    monkeypatch.setattr(forwarding, "WAITING_MAX", 3)
    coordinator.go_on.clear()
    writing = [asyncio.ensure_future(forwarder.write([PUT])) for _ in range(3)]
    await until(lambda: len(coordinator.taken) == 3)
    error = await refused(forwarder.write([PUT]))
    assert (error.status, error.definite, error.headers) == (503, True, {"Retry-After": "1"})
    coordinator.go_on.set()
    await asyncio.gather(*writing)
    assert (await forwarder.write([PUT])).version == Version(1, 4)


@pytest.mark.parametrize("who", [{"secret": b"wrong"}, {"cluster": "another"}])
async def test_a_node_without_the_secret_writes_nothing(peers, coordinator, waits, who):
    error = await refused(forwarder_of(peers, waits, **who).write([PUT]))
    assert error.status == 502, "the node's trouble isn't the client's: no 401"
    assert coordinator.taken == []


async def test_another_program_at_the_address_is_no_answer(peers, waits, impatient):
    async def other(request):
        return web.Response(status=404, text="<html>not here</html>")

    await peers.listen("coordinator", other)
    error = await refused(forwarder_of(peers, waits).write([PUT]))
    assert (error.status, error.definite) == (504, False)


async def post(peers, body: bytes, **signed_as):
    headers = {HEADER: sign(identity("fra", **signed_as), "POST", PATH, body)}
    async with peers.session.post(peers.urls["coordinator"] + PATH, data=body, headers=headers) as response:
        return response.status, msgpack.unpackb(await response.read())


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xc1",
        msgpack.packb([1, 2]),
        msgpack.packb({"operations": [], "request_id": b"id", "waited": False}),
        msgpack.packb({"operations": [to_wire(PUT)], "request_id": b"", "waited": False}),
        msgpack.packb({"operations": [[99, b"what"]], "request_id": b"id", "waited": False}),
        msgpack.packb({"operations": ["text"], "request_id": b"id", "waited": False}),
        msgpack.packb({"operations": [7], "request_id": b"id", "waited": False}),
        msgpack.packb({"operations": [to_wire(PUT)], "request_id": b"id", "waited": 1}),
        msgpack.packb({"operations": [to_wire(PUT)], "request_id": b"id"}),
    ],
)
async def test_a_malformed_write_is_refused_and_nothing_happens(peers, coordinator, body):
    status, answer = await post(peers, body)
    assert status == 400
    assert (answer["error"]["status"], answer["error"]["definite"]) == (400, True)
    assert coordinator.taken == []


async def test_an_oversized_write_is_refused_before_it_is_in_memory(peers, coordinator):
    status, _ = await post(peers, bytes(65_536 + forwarding.BODY_OVERHEAD_BYTES + 1))
    assert status == 413
    assert coordinator.taken == []


async def test_a_large_value_arrives_with_its_chunks(forwarder, coordinator):
    coordinator.answers = [Version(3, 77)]
    assert await forwarder.write([PUT_LARGE], b"id") == (Version(3, 77), False)
    assert coordinator.taken == [([PUT_LARGE], b"id")]


async def test_a_large_value_is_never_in_one_piece_on_its_way(forwarder, coordinator):
    await forwarder.write([PUT_LARGE])
    [([taken], _)] = coordinator.taken
    assert [len(chunk) for chunk in taken.chunks] == [CHUNK_BYTES, 100_000]


async def test_too_many_large_values_at_once_are_told_to_come_back_and_small_ones_are_not(forwarder, coordinator):
    coordinator.go_on.clear()
    writing = [asyncio.ensure_future(forwarder.write([PUT_LARGE])) for _ in range(2)]
    await until(lambda: len(coordinator.taken) == 2)
    error = await refused(forwarder.write([PUT_LARGE]))
    assert (error.status, error.definite, error.headers) == (503, True, {"Retry-After": "1"})
    writing.append(asyncio.ensure_future(forwarder.write([PUT])))
    await until(lambda: len(coordinator.taken) == 3)
    coordinator.go_on.set()
    await asyncio.gather(*writing)
    await forwarder.write([PUT_LARGE])


async def test_many_writes_arrive_as_one(forwarder, coordinator):
    puts = [PUT._replace(key=b"%d" % number, value=bytes(60_000)) for number in range(70)]
    coordinator.answers = [Version(3, 77)]
    assert await forwarder.write([*puts, DeleteValue(NAMESPACE, b"gone")], b"id") == (Version(3, 77), False)
    assert coordinator.taken == [([*puts, DeleteValue(NAMESPACE, b"gone")], b"id")]


async def test_long_bodies_take_room_and_short_ones_of_many_writes_do_not(forwarder, coordinator):
    long = [PUT._replace(key=b"%d" % number, value=bytes(60_000)) for number in range(20)]
    with coordinator.room.taken(), coordinator.room.taken():
        error = await refused(forwarder.write(long))
        assert (error.status, error.definite, error.headers) == (503, True, {"Retry-After": "1"})
        await forwarder.write([PUT, DeleteValue(NAMESPACE, b"other")])
    await forwarder.write(long)
    assert [len(operations) for operations, _ in coordinator.taken] == [2, 20]


async def test_more_writes_than_are_sequenced_at_once_are_refused(forwarder, coordinator, monkeypatch):
    monkeypatch.setattr(forwarding, "STRETCH_OPERATIONS_MAX", 2)
    error = await refused(forwarder.write([PUT] * 3))
    assert (error.status, error.code) == (400, 10012)
    assert coordinator.taken == []


def large_body(operations=(PUT_LARGE,), chunks=LARGE.chunks) -> bytes:
    head = {"operations": [to_wire(operation) for operation in operations], "request_id": b"id", "waited": False}
    return b"".join(map(msgpack.packb, (head, *chunks)))


async def post_large(peers, body: bytes, told: str | None = None, **signed_as):
    digest = BodyDigest(told or sha256(body).hexdigest())
    headers = {
        HEADER: sign(identity("fra", **signed_as), "POST", PATH, digest),
        forwarding.DIGEST_HEADER: digest.hex,
    }
    sent = BytesIO(body)
    async with peers.session.post(peers.urls["coordinator"] + PATH, data=sent, headers=headers) as response:
        return response.status, msgpack.unpackb(await response.read())


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"\xc1", 400),
        (large_body()[:-1000], 200),  # as a value of fewer chunks: the coordinator compares them with the manifest
        (large_body(operations=[PUT]), 400),
        (large_body(operations=[PUT_LARGE, PUT]), 400),
        (large_body(chunks=["text"]), 400),
        (large_body(chunks=[bytes(9_000_000)]), 413),
        (large_body(chunks=[b""] * 1000), 200),
    ],
)
async def test_a_malformed_large_value_is_refused(peers, coordinator, body, status):
    answered, _ = await post_large(peers, body)
    assert answered == status
    assert len(coordinator.taken) == (status == 200)
    with coordinator.room.taken(), coordinator.room.taken():
        pass  # nothing is left under way


async def test_a_large_value_is_refused_before_it_is_read_when_its_signature_is_wrong(peers, coordinator):
    status, _ = await post_large(peers, large_body(), secret=b"wrong")
    assert status == 401
    status, answer = await post_large(peers, large_body(), told=sha256(b"another").hexdigest())
    assert (status, answer["error"]["definite"]) == (400, True)
    assert coordinator.taken == []


# -- how far a write has spread ---------------------------------------------------------------------------


async def test_the_coordinator_is_told_at_once_that_a_write_will_be_waited_for(forwarder, coordinator):
    await forwarder.write([PUT], waited=True)
    await forwarder.write([PUT])
    await forwarder.write([PUT_LARGE], waited=True)
    assert coordinator.waited == [True, False, True]


async def test_a_writes_spread_is_what_the_coordinator_says(forwarder, coordinator):
    assert await forwarder.spread(Version(3, 77), HALF, 1000) == SPREAD
    [(version, share, timeout_ms)] = coordinator.spreads
    assert (version, share) == (Version(3, 77), HALF)
    assert 900 < timeout_ms <= 1000, "the way there and back is part of the time"


async def test_a_coordinator_that_refuses_is_asked_again_until_the_time_is_over(forwarder, coordinator, impatient):
    coordinator.told = [RequestError(503, 20010, "starting"), RequestError(503, 20010, "starting")]
    assert await forwarder.spread(Version(3, 77), HALF, 20_000) == SPREAD
    assert len(coordinator.spreads) == 3
    coordinator.told = [RequestError(503, 20010, "stopping")] * 1000
    assert await forwarder.spread(Version(3, 77), HALF, 50) is None


async def test_nothing_is_known_of_a_writes_spread_when_the_coordinator_cannot_be_asked(
    peers, coordinator, waits, impatient
):
    wan = Wan(topology())
    wan.cut("coordinator", "fra")
    assert await forwarder_of(peers, waits, wan=wan).spread(Version(1, 1), HALF, 20) is None


async def test_a_coordinator_that_falls_silent_does_not_keep_the_client_longer_than_it_waits(
    forwarder, coordinator, monkeypatch
):
    monkeypatch.setattr(forwarding, "SPREAD_GRACE_S", 0.05)
    asked = asyncio.Event()

    async def never(version, share, timeout_ms):
        asked.set()
        await asyncio.Event().wait()

    coordinator.desk._spread = never
    async with asyncio.timeout(forwarding.ATTEMPT_TIMEOUT_S):
        assert await forwarder.spread(Version(1, 1), HALF, 50) is None
    assert asked.is_set()


async def test_the_number_of_writes_whose_spread_is_waited_for_is_bounded(forwarder, coordinator, monkeypatch):
    monkeypatch.setattr(forwarding, "WAITED_MAX", 1)
    held = asyncio.Event()

    async def hold(version, share, timeout_ms):
        coordinator.spreads.append(version)
        await held.wait()
        return SPREAD

    coordinator.desk._spread = hold
    waiting = asyncio.ensure_future(forwarder.spread(Version(1, 1), HALF, 20_000))
    await until(lambda: coordinator.spreads)
    assert await forwarder.spread(Version(1, 2), HALF, 20_000) is None
    held.set()
    assert await waiting == SPREAD


@pytest.mark.parametrize(
    "asked",
    [
        7,
        {"version": [1, 1], "share": 1000},
        {"version": [1], "share": 1000, "timeout_ms": 1},
        {"version": [1, 1], "share": 0, "timeout_ms": 1},
        {"version": [1, 1], "share": 100_001, "timeout_ms": 1},
        {"version": [1, 1], "share": 1000, "timeout_ms": -1},
        {"version": [1, 1], "share": 1000, "timeout_ms": forwarding.SPREAD_MS_MAX + 1},
        {"version": [1, 1], "share": 1000, "timeout_ms": 1, "more": bytes(forwarding.SPREAD_BYTES_MAX)},
    ],
)
async def test_a_malformed_question_after_a_spread_is_refused(peers, coordinator, asked):
    body = msgpack.packb(asked)
    headers = {HEADER: sign(identity("fra"), "POST", SPREAD_PATH, body)}
    url = peers.urls["coordinator"] + SPREAD_PATH
    async with peers.session.post(url, data=body, headers=headers) as response:
        assert response.status in {400, 413}
    assert coordinator.spreads == []


async def test_whoever_is_no_node_hears_nothing_of_a_writes_spread(peers, coordinator):
    body = msgpack.packb({"version": [1, 1], "share": 1000, "timeout_ms": 1})
    url = peers.urls["coordinator"] + SPREAD_PATH
    for headers in ({}, {HEADER: sign(identity("fra", secret=b"another"), "POST", SPREAD_PATH, body)}):
        async with peers.session.post(url, data=body, headers=headers) as response:
            assert response.status == 401
    assert coordinator.spreads == []
