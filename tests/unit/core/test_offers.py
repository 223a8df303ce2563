"""The bounds of what offers may cost a node; how they go is told in tests/scenarios/test_large_values.py."""

from __future__ import annotations

from kvnet.core.events import ChunksLacking, ChunksReady
from kvnet.core.fetching import KEPT_ASKS_MAX, OUTSTANDING_MAX, SILENCE_MS
from kvnet.core.messages import CHUNKS_WANTED_MAX, Chunk, ChunksWanted, Holds, Offer
from kvnet.core.offers import OFFER_LIFE_MS, OFFERS_MAX
from tests.support.conversation import ROOT, advert_of, history, subscribe
from tests.support.large import ChunkConversation

H = history(4)
HEAD = H[-1].position


def name_of(number: int) -> bytes:
    return b"%032d" % number


def id_of(number: int) -> bytes:
    return b"%016d" % number


def node() -> ChunkConversation:
    node = ChunkConversation(history=H)
    node.link("up", "near")
    node.adopt("up")
    node.receive("near", advert_of(HEAD))
    node.said()
    return node


def test_the_oldest_of_too_many_offers_is_dropped_with_what_only_it_needed() -> None:
    me = node()
    shared = name_of(999_999)
    for number in range(OFFERS_MAX + 5):
        me.receive("up", Offer(id_of(number), (name_of(number), shared)))
    sizes = me.replica.sizes()
    assert sizes["offers"] == OFFERS_MAX
    assert sizes["chunks_wanted"] == OFFERS_MAX + 1


def test_the_coordinator_settles_an_offer_that_it_drops() -> None:
    root = ChunkConversation(ROOT, history=H)
    root.wait(1000)
    root.link("child")
    root.receive("child", subscribe(HEAD))
    for number in range(OFFERS_MAX + 1):
        root.hear(ChunksReady(id_of(number), (name_of(number),)))
    assert root.settled() == [id_of(0)]


def test_no_more_than_twelve_chunks_are_ever_outstanding_whoever_is_silent() -> None:
    me = node()
    me.receive("up", Offer(id_of(0), tuple(map(name_of, range(100)))))
    asked = 0
    for _ in range(200):
        at_once = len(me.wanted())
        assert at_once <= OUTSTANDING_MAX
        asked += at_once
        me.wait(SILENCE_MS / 10)
    assert asked > 3 * OUTSTANDING_MAX, "others were asked in the place of the silent ones"


def test_patience_grows_with_each_round_so_that_slow_links_get_their_time() -> None:
    me = ChunkConversation(history=H)
    me.link("up")
    me.adopt("up")
    me.hear(ChunksLacking((name_of(1),)))
    gaps, before = [], me.now
    asked: list[str] = []
    while len(asked) < 8:
        me.wait(100)
        for peer, _ in me.wanted():
            gaps.append(me.now - before)
            before = me.now
            asked.append(peer)
    assert asked == ["up", ROOT] * 4
    assert gaps[3] > gaps[1] + SILENCE_MS / 2, "the coordinator's turn comes later in the second round"
    assert gaps[5] > gaps[3] + SILENCE_MS / 2


def test_asks_that_can_not_be_kept_are_answered_at_once() -> None:
    me = node()
    wanted = tuple(map(name_of, range(CHUNKS_WANTED_MAX)))
    me.receive("up", Offer(id_of(0), wanted))
    askers = KEPT_ASKS_MAX // CHUNKS_WANTED_MAX
    for number in range(askers + 1):
        me.receive_bulk(f"peer-{number}", ChunksWanted(wanted))
    assert me.replica.sizes()["kept_chunk_asks"] == KEPT_ASKS_MAX
    assert me.denied() == [(f"peer-{askers}", name) for name in wanted]


def test_an_ask_that_is_repeated_is_kept_once() -> None:
    me = node()
    me.receive("up", Offer(id_of(0), (name_of(0),)))
    for _ in range(3):
        me.receive_bulk("near", ChunksWanted((name_of(0),)))
    me.receive_bulk("up", Chunk(name_of(0), b"data"))
    assert me.served() == [("near", name_of(0))]


def test_chunks_that_nobody_asked_for_are_not_stored() -> None:
    me = node()
    me.receive_bulk("near", Chunk(name_of(0), b"data"))
    assert not me.chunks
    me.receive("up", Offer(id_of(0), (name_of(1),)))
    me.receive_bulk("near", Chunk(name_of(2), b"data"))
    assert not me.chunks
    assert me.replica.fetching.chunks_unwanted == 2


def test_a_chunk_that_two_offers_have_is_fetched_once_for_both() -> None:
    me = node()
    me.receive("up", Offer(id_of(0), (name_of(0),)))
    me.receive("up", Offer(id_of(1), (name_of(0), name_of(1))))
    assert me.wanted() == [("up", name_of(0)), ("up", name_of(1))]
    me.receive_bulk("up", Chunk(name_of(0), b"data"), Chunk(name_of(1), b"data"))
    assert me.said(Holds) == [("up", Holds(id_of(0))), ("up", Holds(id_of(1)))]


def test_an_idle_node_has_no_timer_for_offers() -> None:
    me = node()
    me.receive("up", Offer(id_of(0), (name_of(0),)))
    me.receive_bulk("up", Chunk(name_of(0), b"data"))
    me.wait(OFFER_LIFE_MS)
    assert me.replica.sizes()["offers"] == 0
    assert not me.state.has_timer("offers")
