from __future__ import annotations

import asyncio
from contextlib import aclosing

import msgpack
import pytest

from kvnet.transport import feed as feed_module
from kvnet.transport.feed import PATH, StampFeed, follow
from kvnet.transport.handshake import Dial, Purpose
from tests.support.peers import DEADLINE_S, identity, until


class Node:
    """An edge with a feed; its replica stands where the test says."""

    def __init__(self, shaper):
        self.position_seq = 5
        self.shaper = shaper
        self.start()

    def start(self):
        self.feed = StampFeed(
            identity("fra"),
            self.shaper,
            "stamps",
            readers=("monitor",),
            position_seq=lambda: self.position_seq,
            counters=lambda: {"frames_received": self.position_seq},
        )

    def apply(self, seq: int, wall_ms: float):
        self.position_seq = seq
        self.feed.add((1, seq, wall_ms), seq)


@pytest.fixture
async def node(peers):
    made = Node(peers.shaper("fra"))
    await peers.listen("fra", lambda request: made.feed.accept(request))  # noqa: PLW0108 - `start` makes another
    yield made
    made.feed.close()


class Reader:
    """What a monitor has been told; follows until the test ends."""

    def __init__(self, peers, *, secret=b"secret", name="monitor"):
        self.told = []
        self._feed = follow(
            identity(name, secret=secret), peers.session, peers.shaper("monitor"), "fra", peers.urls["fra"]
        )
        self._task = asyncio.get_running_loop().create_task(self._read())

    async def _read(self):
        async with asyncio.timeout(DEADLINE_S), aclosing(self._feed) as feed:
            async for told in feed:
                self.told.append(told)

    def kinds(self):
        return [told[0] for told in self.told]

    def stamps(self):
        return [row for told in self.told if told[0] == "stamps" for row in told[1]]

    async def stop(self):
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


@pytest.fixture
async def reader(peers, node):
    made = Reader(peers)
    yield made
    await made.stop()


async def test_a_reader_first_learns_who_it_is_and_since_when_it_knows_everything(node, reader):
    await until(lambda: reader.told)
    kind, name, start_id, wall_ms, known = reader.told[0]
    assert (kind, name, start_id, known) == ("hello", "fra", (1).to_bytes(8, "big"), {"oldest_seq": 5})
    assert wall_ms > 0


async def test_stamps_come_in_order_with_counters(node, reader):
    await until(lambda: reader.told)
    for seq in range(6, 40):
        node.apply(seq, seq * 10.0)
        await asyncio.sleep(0.01)
    await until(lambda: len(reader.stamps()) == 34)
    assert reader.stamps() == [[1, seq, seq * 10.0] for seq in range(6, 40)]
    last = [told for told in reader.told if told[0] == "stamps"][-1]
    assert last[2] == {"frames_received": 39}
    assert len(reader.told) < 34, "what is new leaves together"


async def test_an_idle_node_says_where_it_stands(node, reader):
    await until(lambda: "idle" in reader.kinds())
    idle = next(told for told in reader.told if told[0] == "idle")
    assert idle[2:] == [5, {"frames_received": 5}]


async def test_a_reader_that_comes_later_gets_what_was_kept_and_no_other_misses_anything(peers, node, reader):
    await until(lambda: reader.told)
    node.apply(6, 60.0)
    await until(reader.stamps)
    node.apply(7, 70.0)
    later = Reader(peers)
    node.apply(8, 80.0)
    everything = [[1, 6, 60.0], [1, 7, 70.0], [1, 8, 80.0]]
    await until(lambda: later.stamps() == everything and reader.stamps() == everything)
    await later.stop()


async def test_what_is_older_than_a_minute_is_forgotten_and_the_hello_says_so(peers, node, monkeypatch):
    node.apply(6, 60.0)
    node.feed._tick()
    monkeypatch.setattr(feed_module, "KEPT_MS", -1_000)
    node.apply(7, 70.0)
    node.feed._tick()
    late = Reader(peers)
    await until(lambda: late.told)
    assert late.told[0][4] == {"oldest_seq": 7}
    await late.stop()


async def test_the_number_of_kept_stamps_is_bounded(node, monkeypatch):
    monkeypatch.setattr(feed_module, "KEPT_ROWS_MAX", 10)
    for seq in range(6, 100):
        node.apply(seq, float(seq))
        node.feed._tick()
    assert node.feed._kept_rows == 10
    assert node.feed._oldest_seq == 89


async def test_a_follower_comes_back_after_the_node_restarts(node, reader):
    node.apply(6, 60.0)
    await until(reader.stamps)
    node.feed.close()
    node.start()
    node.apply(7, 70.0)
    await until(lambda: len(reader.stamps()) == 2)
    assert reader.kinds()[:5] == ["hello", "stamps", "lost", "hello", "stamps"]
    assert reader.told[3][4] == {"oldest_seq": 6}
    assert reader.stamps() == [[1, 6, 60.0], [1, 7, 70.0]]


async def test_nobody_reads_without_the_secret_or_under_another_nodes_name(peers, node):
    for wrong in (Reader(peers, secret=b"wrong"), Reader(peers, name="nrt")):
        await until(lambda reader=wrong: reader.told)
        assert wrong.kinds()[0] == "lost"
        await wrong.stop()


async def test_a_gossip_handshake_opens_no_feed(peers, node):
    socket = await peers.session.ws_connect(peers.urls["fra"] + PATH)
    await socket.send_bytes(Dial(identity("monitor"), "fra", Purpose.GOSSIP, b"n" * 16).hello())
    assert msgpack.unpackb((await socket.receive()).data) == ["refused", "purpose"]
