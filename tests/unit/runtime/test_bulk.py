from __future__ import annotations

import pytest

from kvnet.core.events import BulkLost, BulkReceived
from kvnet.core.messages import Chunk, ChunkMissing, ChunksWanted, PagesCredit, PagesWanted
from kvnet.runtime import bulk as bulk_module
from kvnet.runtime.bulk import BulkLane
from tests.support.peers import until

NAMES = [b"%032d" % number for number in range(8)]


class Links:
    """Bulk links in the test's hands: it says when they are up, and how much is unsent."""

    def __init__(self):
        self.said = []
        self.dialled = []
        self.closed = []
        self.awaited = []
        self.unsent = 0

    @property
    def peers(self):
        return []

    def listen(self, events):
        self.events = events

    def connect(self, peer):
        self.dialled.append(peer)

    def disconnect(self, peer, why):
        self.closed.append(peer)
        self.events.on_lost(peer)

    def send(self, peer, message):
        self.said.append((peer, message))
        if isinstance(message, Chunk):
            self.unsent += len(message.data)

    def flush(self):
        """What was said has left already."""

    def unsent_bytes(self, peer):
        return self.unsent

    def await_writable(self, peer):
        self.awaited.append(peer)


class Lane:
    def __init__(self):
        self.links = Links()
        self.heard = []
        self.stored = dict.fromkeys(NAMES[:6], bytes(256 * 1024))
        self.read = []
        self.lane = BulkLane(self.links, self._chunk)

    def _chunk(self, name):
        self.read.append(name)
        return self.stored.get(name)


@pytest.fixture
async def lane():
    made = Lane()
    made.lane.listen(made.heard.append)
    yield made
    made.lane.stop()


async def test_what_is_said_before_the_link_stands_waits_for_it_in_order(lane):
    lane.lane.send("fra", PagesWanted(b"", 8))
    lane.lane.send("fra", PagesCredit(2))
    assert lane.links.dialled == ["fra", "fra"], "dialling twice does nothing"
    assert not lane.links.said
    lane.links.events.on_up("fra", 10.0)
    lane.lane.send("fra", PagesCredit(3))
    assert lane.links.said == [("fra", PagesWanted(b"", 8)), ("fra", PagesCredit(2)), ("fra", PagesCredit(3))]


@pytest.mark.parametrize("end", ["on_lost", "on_dial_failed"])
async def test_a_link_that_is_lost_or_was_never_made_is_told_once_with_all_that_waited(lane, end):
    lane.lane.send("fra", PagesCredit(2))
    getattr(lane.links.events, end)("fra")
    assert lane.heard == [BulkLost("fra")]
    lane.links.events.on_up("fra", 10.0)
    assert not lane.links.said


async def test_what_peers_say_is_told_in_order(lane):
    lane.links.events.on_up("fra", 10.0)
    lane.links.events.on_messages("fra", [PagesCredit(1), ChunksWanted((NAMES[0],))])
    assert lane.heard == [BulkReceived("fra", PagesCredit(1)), BulkReceived("fra", ChunksWanted((NAMES[0],)))]


async def test_chunks_are_read_only_as_far_as_the_link_has_room(lane):
    lane.links.events.on_up("fra", 10.0)
    for name in NAMES:
        lane.lane.send_chunk("fra", name)
    assert lane.links.awaited == ["fra"]
    assert not lane.read
    lane.links.events.on_writable("fra")
    assert lane.read == NAMES[:2], "two fill the 512 KiB that may be unsent"
    assert lane.links.awaited == ["fra", "fra"]
    while len(lane.read) < len(NAMES):
        lane.links.unsent = 0
        lane.links.events.on_writable("fra")
    assert [message.hash for _, message in lane.links.said] == NAMES
    assert [type(message) for _, message in lane.links.said] == [Chunk] * 6 + [ChunkMissing] * 2


async def test_a_peer_without_a_link_is_sent_no_chunk(lane):
    lane.lane.send_chunk("fra", NAMES[0])
    assert not lane.links.dialled
    lane.links.events.on_up("fra", 10.0)
    lane.lane.send_chunk("fra", NAMES[0])
    lane.links.events.on_lost("fra")
    lane.links.events.on_writable("fra")
    assert not lane.read


async def test_a_peer_may_ask_for_so_many_chunks_and_no_more(lane, monkeypatch):
    monkeypatch.setattr(bulk_module, "ASKED_MAX", 2)
    lane.links.events.on_up("fra", 10.0)
    for name in NAMES[:3]:
        lane.lane.send_chunk("fra", name)
    assert lane.links.said == [("fra", ChunkMissing(NAMES[2]))]


async def test_too_much_to_say_before_the_link_stands_is_as_if_it_had_failed(lane, monkeypatch):
    monkeypatch.setattr(bulk_module, "WAITING_BYTES_MAX", 300_000)
    lane.lane.send("fra", Chunk(NAMES[0], bytes(256 * 1024)))
    lane.lane.send("fra", Chunk(NAMES[1], bytes(256 * 1024)))
    assert lane.heard == [BulkLost("fra")]


async def test_a_link_on_which_nobody_has_said_anything_for_a_while_is_closed(lane, monkeypatch):
    monkeypatch.setattr(bulk_module, "IDLE_S", 0.02)
    monkeypatch.setattr(bulk_module, "LOOK_S", 0.01)
    lane.links.events.on_up("fra", 10.0)
    lane.lane.send_chunk("fra", NAMES[0])
    lane.links.events.on_up("nrt", 10.0)
    lane.lane._close_idle()
    await until(lambda: lane.links.closed)
    assert lane.links.closed == ["nrt"], "somebody waits for the other one"
    assert lane.heard == [BulkLost("nrt")]


async def test_a_link_over_which_something_was_just_asked_is_not_idle(lane, monkeypatch):
    """It was closed when only the peer's words counted, and the core took that for a donor's refusal."""
    now = 0.0
    monkeypatch.setattr(BulkLane, "_now", staticmethod(lambda: now))
    lane.links.events.on_up("fra", 10.0)
    lane.links.events.on_up("nrt", 10.0)
    now = bulk_module.IDLE_S - 1
    lane.lane.send("fra", PagesWanted(b"", 8))
    now = bulk_module.IDLE_S + 1
    lane.lane._look.cancel()  # it is replaced
    lane.lane._close_idle()
    assert lane.heard == [BulkLost("nrt")]


async def test_after_its_end_nothing_is_told(lane):
    lane.links.events.on_up("fra", 10.0)
    lane.lane.stop()
    lane.links.events.on_lost("fra")
    assert not lane.heard
