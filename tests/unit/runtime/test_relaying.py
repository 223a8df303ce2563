"""A read that an edge puts to others: whom it asks, what it makes of the answers, and what it lets in."""

from __future__ import annotations

import asyncio
import random
from hashlib import sha256
from types import SimpleNamespace

import pytest
from aiohttp import web
from aiohttp.payload import Payload

from kvnet.core.messages import Advert, BeaconId
from kvnet.core.state import Neighbour, NodeConfig, NodeState, Parent
from kvnet.core.versions import GENESIS, Position, Version
from kvnet.errors import RequestError
from kvnet.runtime import relaying
from kvnet.runtime.forwarding import DIGEST_HEADER
from kvnet.runtime.relaying import PATH, WHOLE_BYTES_MAX, RelayDesk, RelayedAnswer, Relayer, promises
from kvnet.timers import Timers
from kvnet.topology.wan import Wan
from kvnet.transport.signing import HEADER, sign
from tests.support.peers import identity, topology, until

QUESTION = b"what is k?"
AT_5 = Version(1, 5)


def position(seq):
    return Position(1, seq, bytes(16))


def advert(seq, beacon=0):
    return Advert(position(seq), BeaconId(1, beacon), 1.0, (), 0, False, 0.0, -1.0, 0.0, False)


def state_of(*neighbours, seq=1, beacon=0):
    """A node that stands at `seq` with this beacon, and has these neighbours."""
    config = NodeConfig(name="fra", root="coordinator", members=(), nearest=(), root_links=())
    state = NodeState(config, Timers(), SimpleNamespace(position=GENESIS), SimpleNamespace(), random.Random(1))
    state.tip = state.applied = position(seq)
    state.head_seq = seq
    state.beacon = BeaconId(1, beacon)
    state.neighbours = {neighbour.name: neighbour for neighbour in neighbours}
    return state


def neighbour(name, told=None, rtt_ms=10.0):
    return Neighbour(name, rtt_ms=rtt_ms, advert=told)


class Other:
    """A node that answers questions; `answer` makes what it says."""

    def __init__(self, name):
        self.name = name
        self.taken = []
        self.status = 200
        self.body = b"theirs"
        self.headers = {"KV-Position": "1-9", "KV-Pop": name, "KV-Version": "1-5"}
        self.go_on = asyncio.Event()
        self.go_on.set()
        known = ("coordinator", "fra", "ams", "nrt")
        self.desk = RelayDesk(identity(name, start=2), known, self.answer, question_bytes_max=1 << 20)

    async def answer(self, request, question):
        self.taken.append((request.method, question))
        await self.go_on.wait()
        if isinstance(self.body, Exception):
            raise self.body
        return web.Response(status=self.status, body=self.body, headers=self.headers)

    async def handle(self, request):
        try:
            return await self.desk.handle(request)
        except RequestError as error:
            return web.Response(status=error.status, text=error.message)


@pytest.fixture
async def others(peers):
    made = {name: Other(name) for name in ("coordinator", "ams", "nrt")}
    for name, other in made.items():
        await peers.listen(name, other.handle)
    return made


def relayer_of(peers, state=None, *, wan=None, **who):
    return Relayer(
        identity("fra", **who),
        peers.session,
        wan or Wan(topology()),
        state or state_of(),
        coordinator="coordinator",
        url_of=lambda name: peers.urls[name],
    )


async def ask(relayer, *, head_only=False, at_least=AT_5, staleness_ms=None):
    return await relayer.ask(QUESTION, head_only=head_only, at_least=at_least, staleness_ms=staleness_ms)


async def body_of(answer):
    assert isinstance(answer, RelayedAnswer), answer
    return b"".join([part async for part in answer.parts()])


async def drain(parts):
    async for _ in parts:
        pass


async def test_coordinator_answers_first(peers, others):
    relayer = relayer_of(peers, state_of(neighbour("ams", advert(9))))
    answer = await ask(relayer)
    assert (answer.status, answer.reason, answer.size) == (200, "OK", 6)
    assert {"KV-Position", "KV-Pop", "KV-Version", "Content-Type"} == set(answer.headers)
    assert await body_of(answer) == b"theirs"
    assert relayer.status() == {"under_way": 1, "relayed": 1, "in_vain": 0}
    answer.close()
    answer.close()
    assert relayer.status()["under_way"] == 0
    assert others["coordinator"].taken == [("POST", QUESTION)]
    assert others["ams"].taken == []


async def test_head_is_asked_as_one(peers, others):
    others["coordinator"].body = b"x" * 500_000
    answer = await ask(relayer_of(peers), head_only=True)
    assert (answer.size, await body_of(answer)) == (500_000, b"")
    assert others["coordinator"].taken == [("HEAD", QUESTION)]


async def test_error_of_the_client_is_an_answer(peers, others):
    others["coordinator"].status = 404
    assert (await ask(relayer_of(peers))).status == 404


async def test_promising_neighbour_is_asked_where_the_coordinator_is_cut_off(peers, others):
    wan = Wan(topology())
    wan.cut("fra", "coordinator")
    behind, ahead = neighbour("ams", advert(4), 1.0), neighbour("nrt", advert(5), 99.0)
    answer = await ask(relayer_of(peers, state_of(behind, ahead), wan=wan))
    assert await body_of(answer) == b"theirs"
    assert others["nrt"].taken
    assert not others["ams"].taken
    assert not others["coordinator"].taken


async def test_the_nearest_that_promise_are_asked_one_after_the_other(peers, others):
    wan = Wan(topology())
    wan.cut("coordinator", "fra")
    others["ams"].status = 503
    others["ams"].headers = {"KV-Position": "1-4", "KV-Staleness-Ms": "1500"}
    others["nrt"].headers = {}
    neighbours = (neighbour("nrt", advert(5), 2.0), neighbour("ams", advert(5), 1.0))
    relayer = relayer_of(peers, state_of(*neighbours), wan=wan)
    told = await ask(relayer)
    assert told == (
        "coordinator (the way back is cut), ams (stands at 1-4, may be 1500 ms behind), nrt (answers 200)"
    )
    assert relayer.status() == {"under_way": 0, "relayed": 0, "in_vain": 1}


async def test_cut_off_neighbours_are_not_asked(peers, others):
    wan = Wan(topology())
    wan.isolate("fra")
    relayer = relayer_of(peers, state_of(neighbour("ams", advert(9)), neighbour("nrt", advert(9))), wan=wan)
    assert await ask(relayer) == "coordinator (cut off)"
    assert not any(other.taken for other in others.values())


async def test_what_the_coordinator_lacks_nobody_has(peers, others):
    others["coordinator"].status = 504
    others["coordinator"].headers["KV-Staleness-Ms"] = "0"
    relayer = relayer_of(peers, state_of(neighbour("ams", advert(9))))
    assert await ask(relayer) == "coordinator (stands at 1-9)"
    assert not others["ams"].taken


async def test_node_that_is_down_is_told_as_down(peers, others):
    peers.urls["coordinator"] = "http://127.0.0.1:1"
    assert await ask(relayer_of(peers)) == "coordinator (down)"


async def test_silent_node_is_left(peers, others, monkeypatch):
    monkeypatch.setattr(relaying, "SILENCE_TIMEOUT_S", 0.05)
    others["coordinator"].go_on.clear()
    assert await ask(relayer_of(peers)) == "coordinator (no answer in time)"
    others["coordinator"].go_on.set()


async def test_only_so_many_are_relayed_at_once(peers, others, monkeypatch):
    monkeypatch.setattr(relaying, "UNDER_WAY_MAX", 2)
    relayer = relayer_of(peers)
    held = [await ask(relayer), await ask(relayer)]
    assert await ask(relayer) == "nobody, 2 reads are being relayed already"
    held[0].close()
    assert isinstance(await ask(relayer), RelayedAnswer)


async def test_client_that_is_gone_gives_its_place_back(peers, others):
    others["coordinator"].go_on.clear()
    relayer = relayer_of(peers)
    asking = asyncio.ensure_future(ask(relayer))
    await until(lambda: others["coordinator"].taken)
    assert relayer.status()["under_way"] == 1
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    assert relayer.status()["under_way"] == 0
    others["coordinator"].go_on.set()


async def test_long_answer_streams_and_ends_early_where_the_way_is_cut(peers, others):
    wan = Wan(topology())
    others["coordinator"].body = bytes(8 << 20)
    answer = await ask(relayer_of(peers, wan=wan))
    assert answer.size == 8 << 20
    parts = answer.parts()
    got = len(await anext(parts))
    assert 0 < got < 8 << 20
    wan.cut("coordinator", "fra")
    with pytest.raises(ConnectionAbortedError):
        await drain(parts)
    answer.close()


async def half_an_answer(size, sent):
    """Serve an answer of `size` bytes whose connection ends after `sent` of them."""

    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(len(QUESTION))
        writer.write(b"HTTP/1.1 200 OK\r\nKV-Position: 1-9\r\nContent-Length: %d\r\n\r\n" % size + bytes(sent))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    return server, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def test_short_answer_that_is_cut_short_is_none_and_the_next_is_asked(peers, others):
    server, peers.urls["coordinator"] = await half_an_answer(WHOLE_BYTES_MAX, 100)
    answer = await ask(relayer_of(peers, state_of(neighbour("ams", advert(5)))))
    assert answer.headers["KV-Pop"] == "ams"
    assert await ask(relayer_of(peers)) == "coordinator (its answer was cut short)"
    server.close()


async def test_long_answer_that_is_cut_short_ends_early(peers, others):
    server, peers.urls["coordinator"] = await half_an_answer(WHOLE_BYTES_MAX + 1, 100)
    answer = await ask(relayer_of(peers))
    with pytest.raises(ConnectionAbortedError):
        await body_of(answer)
    answer.close()
    server.close()


@pytest.mark.parametrize(
    ("told", "at_least", "staleness_ms", "expected"),
    [
        (None, AT_5, None, False),
        (advert(4), AT_5, None, False),
        (advert(5), AT_5, None, True),
        (advert(1, beacon=3), None, 100, False),
        (advert(1, beacon=4), None, 100, True),
        (advert(5, beacon=3), AT_5, 100, False),
        (advert(4, beacon=4), AT_5, 100, False),
        (advert(5, beacon=4), AT_5, 100, True),
    ],
)
def test_promise_is_what_the_last_advert_told(told, at_least, staleness_ms, expected):
    assert promises(state_of(beacon=3), neighbour("ams", told), at_least, staleness_ms) is expected


def test_parent_has_what_it_sent_us_though_we_cannot_show_it():
    state = state_of(beacon=3)
    state.tip = position(5)
    state.head_seq = 5
    parent = neighbour("ams", advert(1, beacon=0))
    assert not promises(state, parent, AT_5, None)
    state.parents["ams"] = Parent("ams", 0.0)
    assert promises(state, parent, AT_5, None)
    assert promises(state, parent, None, 100)
    assert not promises(state, parent, Version(1, 6), None)


@pytest.mark.parametrize(
    "header",
    [
        None,
        sign(identity("fra"), "GET", PATH, QUESTION),
        sign(identity("fra"), "POST", "/peer/v1/write", QUESTION),
        sign(identity("fra"), "POST", PATH, b"something else"),
        sign(identity("fra", secret=b"another"), "POST", PATH, QUESTION),
        sign(identity("lhr"), "POST", PATH, QUESTION),
    ],
    ids=["unsigned", "another method", "another path", "another question", "another secret", "another node"],
)
async def test_question_that_no_node_has_signed_is_refused(peers, others, header):
    headers = {DIGEST_HEADER: sha256(QUESTION).hexdigest()} | ({} if header is None else {HEADER: header})
    async with peers.session.post(peers.urls["ams"] + PATH, data=QUESTION, headers=headers) as response:
        assert response.status == 401
    assert others["ams"].taken == []


async def test_question_that_is_not_the_signed_one_is_refused(peers, others):
    headers = {
        HEADER: sign(identity("fra"), "POST", PATH, QUESTION),
        DIGEST_HEADER: sha256(QUESTION).hexdigest(),
    }
    async with peers.session.post(peers.urls["ams"] + PATH, data=b"what is x?", headers=headers) as response:
        assert response.status == 400
    assert others["ams"].taken == []


async def test_desk_answers_only_so_many_at_once(peers, others, monkeypatch):
    monkeypatch.setattr(relaying, "ANSWERED_MAX", 1)
    coordinator = others["coordinator"]
    coordinator.go_on.clear()
    relayer = relayer_of(peers)
    first = asyncio.ensure_future(ask(relayer))
    await until(lambda: coordinator.taken)
    assert await ask(relayer) == "coordinator (answers 503)"
    coordinator.go_on.set()
    assert await body_of(await first) == b"theirs"
    second = await ask(relayer)
    assert await body_of(second) == b"theirs", "its place was given back"


async def test_answer_that_breaks_off_ends_its_connection(peers, others):
    class Broken(Payload):
        _size = 10 * WHOLE_BYTES_MAX

        async def write(self, writer):
            await writer.write(bytes(WHOLE_BYTES_MAX))
            raise ConnectionAbortedError("a chunk is gone")

        def decode(self, encoding="utf-8", errors="strict"):
            raise NotImplementedError

    others["coordinator"].body = Broken(None)
    answer = await ask(relayer_of(peers))
    with pytest.raises(ConnectionAbortedError):
        await body_of(answer)
    answer.close()


async def test_question_that_is_too_long_is_refused(peers, others):
    question = bytes((1 << 20) + 1)
    relayer = relayer_of(peers)
    told = await relayer.ask(question, head_only=False, at_least=None, staleness_ms=1)
    assert told == "coordinator (answers 413)"
    assert others["coordinator"].taken == []
