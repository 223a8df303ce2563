"""A large value's chunks travel down the tree ahead of its entry, and are fetched from anybody after it."""

from __future__ import annotations

from kvnet.core.events import Applied, BulkLost, ChunksLacking, ChunksReady
from kvnet.core.fetching import OUTSTANDING_MAX, ROUND_AGAIN_MS, SILENCE_MS
from kvnet.core.messages import Chunk, ChunkMissing, ChunksWanted, Holds, Offer, Unsubscribe
from kvnet.core.offers import OFFER_AGAIN_MS, OFFER_LIFE_MS, SETTLE_MS
from kvnet.core.versions import GENESIS
from tests.support.conversation import ROOT, advert_of, history, subscribe
from tests.support.large import ChunkConversation

H = history(4)
HEAD = H[-1].position
ID = b"offer-number-one"
NAMES = tuple(b"%032d" % number for number in range(30))
FIRST, SECOND, THIRD = NAMES[:3]


def node_with(*children: str, stored: tuple[bytes, ...] = (), peers: tuple[str, ...] = ()) -> ChunkConversation:
    """A node with the parent `up`, these children, and links to these peers."""
    node = ChunkConversation(history=H, stored=stored)
    node.link("up", *children, *peers)
    node.adopt("up")
    for child in children:
        node.receive(child, subscribe(HEAD))
    for peer in peers:
        node.receive(peer, advert_of(HEAD))
    node.said()
    return node


def coordinator(*children: str) -> ChunkConversation:
    node = ChunkConversation(ROOT, history=H, stored=NAMES)
    node.wait(1000)
    node.link(*children)
    for child in children:
        node.receive(child, subscribe(HEAD))
    node.said()
    return node


def give(node: ChunkConversation, peer: str, *names: bytes) -> None:
    node.receive_bulk(peer, *(Chunk(name, b"data") for name in names))


# -- offers ---------------------------------------------------------------------------------------------------


def test_the_coordinator_offers_to_all_its_children_and_is_told_when_all_hold_it() -> None:
    node = coordinator("a", "b")
    node.hear(ChunksReady(ID, NAMES))
    assert node.said(Offer) == [("a", Offer(ID, NAMES)), ("b", Offer(ID, NAMES))]
    node.receive("a", Holds(ID))
    assert not node.settled()
    node.receive("b", Holds(ID))
    assert node.settled() == [ID]
    node.wait(SETTLE_MS)
    assert not node.settled(), "once"


def test_the_coordinator_does_not_wait_for_ever_nor_for_whoever_has_left() -> None:
    node = coordinator("a", "b")
    node.hear(ChunksReady(ID, NAMES))
    node.receive("a", Holds(ID))
    node.receive("b", Unsubscribe())
    assert node.settled() == [ID]

    node = coordinator("a", "b")
    node.hear(ChunksReady(ID, NAMES))
    node.lose("b")
    node.receive("a", Holds(ID))
    assert node.settled() == [ID]

    node = coordinator("a", "b")
    node.hear(ChunksReady(ID, NAMES))
    node.wait(SETTLE_MS - 1000)
    assert not node.settled()
    node.wait(1500)
    assert node.settled() == [ID]


def test_without_children_an_offer_is_settled_at_once() -> None:
    node = coordinator()
    node.hear(ChunksReady(ID, NAMES))
    assert node.settled() == [ID]


def test_an_offer_is_passed_on_at_once_and_its_chunks_are_fetched_in_order_a_few_at_a_time() -> None:
    node = node_with("child")
    node.receive("up", Offer(ID, NAMES))
    assert node.said() == [("child", Offer(ID, NAMES))]
    assert node.wanted() == [("up", name) for name in NAMES[:OUTSTANDING_MAX]]
    give(node, "up", FIRST, SECOND)
    assert node.wanted() == [("up", name) for name in NAMES[OUTSTANDING_MAX : OUTSTANDING_MAX + 2]]


def test_a_chunk_counts_as_outstanding_until_it_is_stored() -> None:
    node = node_with()
    node.stores = False
    node.receive("up", Offer(ID, NAMES))
    node.wanted()
    give(node, "up", FIRST)
    assert not node.wanted(), "that one is still in memory"
    node.store(FIRST)
    assert node.wanted() == [("up", NAMES[OUTSTANDING_MAX])]


def test_a_chunk_that_is_on_its_way_is_sent_on_as_soon_as_it_is_stored() -> None:
    node = node_with("child")
    node.receive("up", Offer(ID, (FIRST, SECOND)))
    node.receive_bulk("child", ChunksWanted((FIRST, SECOND)))
    assert not node.served()
    give(node, "up", FIRST)
    assert node.served() == [("child", FIRST)]
    give(node, "up", SECOND)
    assert node.served() == [("child", SECOND)]
    node.receive_bulk("child", ChunksWanted((FIRST,)))
    assert node.served() == [("child", FIRST)], "what is here is sent at once"


def test_a_node_says_that_it_holds_all_only_when_its_children_do() -> None:
    node = node_with("child")
    node.receive("up", Offer(ID, (FIRST,)))
    give(node, "up", FIRST)
    assert not node.said(Holds)
    node.receive("child", Holds(ID))
    assert node.said(Holds) == [("up", Holds(ID))]

    node = node_with("child")
    node.receive("up", Offer(ID, (FIRST,)))
    node.receive("child", Holds(ID))
    assert not node.said(Holds), "the child has it from elsewhere; we haven't"
    give(node, "up", FIRST)
    assert node.said(Holds) == [("up", Holds(ID))]


def test_a_node_that_has_all_chunks_and_no_children_says_so_at_once() -> None:
    node = node_with(stored=NAMES)
    node.receive("up", Offer(ID, NAMES))
    assert node.said() == [("up", Holds(ID))]
    assert not node.wanted()


def test_a_child_that_is_gone_is_not_waited_for() -> None:
    node = node_with("child", stored=(FIRST,))
    node.receive("up", Offer(ID, (FIRST,)))
    node.lose("child")
    assert node.said(Holds) == [("up", Holds(ID))]


def test_a_second_offerer_is_told_as_soon_as_we_hold_it_ourselves_and_is_another_source() -> None:
    node = node_with("child", peers=("other",))
    node.receive("up", Offer(ID, (FIRST,)))
    node.receive("other", Offer(ID, (FIRST,)))
    assert node.wanted() == [("up", FIRST)]
    node.receive_bulk("up", ChunkMissing(FIRST))
    assert node.wanted() == [("other", FIRST)]
    node.said()
    give(node, "other", FIRST)
    assert node.said() == [("other", Holds(ID))], "the child hasn't got it yet, so nothing to the first"


def test_an_offer_goes_round_a_loop_of_subscriptions_without_anybody_waiting_for_ever() -> None:
    node = node_with("child", stored=(FIRST,))
    node.receive("up", Offer(ID, (FIRST,)))
    node.said()
    node.receive("child", Offer(ID, (FIRST,)))
    assert node.said() == [("child", Holds(ID))]


def test_a_new_child_is_given_what_was_offered_within_half_a_minute() -> None:
    node = node_with(stored=(FIRST,), peers=("late",))
    node.receive("up", Offer(ID, (FIRST,)))
    node.receive("late", subscribe(HEAD))
    assert node.said_to("late", Offer) == [Offer(ID, (FIRST,))]
    node.receive("late", subscribe(HEAD))
    assert not node.said_to("late", Offer), "once"

    node = node_with(stored=(FIRST,), peers=("late",))
    node.receive("up", Offer(ID, (FIRST,)))
    node.wait(OFFER_AGAIN_MS)
    node.receive("late", subscribe(HEAD))
    assert not node.said_to("late", Offer)


def test_after_a_lost_link_an_offer_is_answered_again() -> None:
    node = node_with(stored=(FIRST,))
    node.receive("up", Offer(ID, (FIRST,)))
    node.lose("up")
    node.link("up")
    node.said()
    node.receive("up", Offer(ID, (FIRST,)))
    assert node.said(Holds) == [("up", Holds(ID))]


def test_an_old_offer_is_forgotten_and_its_chunks_are_no_longer_fetched() -> None:
    node = node_with("child")
    node.receive("up", Offer(ID, (FIRST,)))
    node.receive_bulk("child", ChunksWanted((FIRST,)))
    node.wait(OFFER_LIFE_MS + 1000)
    assert node.denied() == [("child", FIRST)]
    node.wanted()
    node.wait(OFFER_LIFE_MS)
    assert not node.wanted()
    give(node, "up", FIRST)
    assert FIRST not in node.chunks, "nobody asked for it any more"


# -- sources --------------------------------------------------------------------------------------------------


def test_a_silent_source_is_left_for_the_next_one_and_taken_all_the_same_if_it_speaks_at_last() -> None:
    node = node_with(peers=("near",))
    node.receive("up", Offer(ID, (FIRST,)))
    assert node.wanted() == [("up", FIRST)]
    node.wait(SILENCE_MS + 1)
    assert node.wanted() == [("near", FIRST)]
    give(node, "up", FIRST)
    assert FIRST in node.chunks


def test_a_slow_source_that_goes_on_sending_is_not_left() -> None:
    node = node_with(peers=("near",))
    node.receive("up", Offer(ID, NAMES[:5]))
    node.wanted()
    for name in NAMES[:4]:
        node.wait(SILENCE_MS - 500)
        give(node, "up", name)
    assert not node.wanted()


def test_a_lost_bulk_link_is_left_at_once() -> None:
    node = node_with("child", peers=("near",))
    node.receive("up", Offer(ID, (FIRST,)))
    node.receive_bulk("child", ChunksWanted((FIRST,)))
    node.wanted()
    node.hear(BulkLost("up"))
    assert node.wanted() == [("near", FIRST)]
    node.hear(BulkLost("child"))
    give(node, "near", FIRST)
    assert not node.served(), "the child's ask went with its link"


def test_a_chunk_that_is_not_what_its_hash_says_is_asked_of_somebody_else() -> None:
    node = node_with(peers=("near",))
    node.stores = False
    node.receive("up", Offer(ID, (FIRST,)))
    node.wanted()
    give(node, "up", FIRST)
    node.store(FIRST, ok=False)
    assert node.wanted() == [("near", FIRST)]
    assert node.reports["chunks"] == 1


def test_two_nodes_that_want_the_same_chunk_of_each_other_do_not_wait_for_each_other() -> None:
    node = node_with("child")
    node.receive("up", Offer(ID, (FIRST,)))
    node.receive_bulk("up", ChunksWanted((FIRST,)))
    assert node.denied() == [("up", FIRST)]


# -- an entry that waits --------------------------------------------------------------------------------------


def test_what_an_entry_needs_is_asked_of_parents_then_of_who_is_near_and_last_of_the_coordinator() -> None:
    node = ChunkConversation(history=H)
    node.link("up")
    node.link("far", rtt_ms=90)
    node.link("near", rtt_ms=5)
    node.link("mute", rtt_ms=1)
    node.adopt("up")
    for peer in ("far", "near"):
        node.receive(peer, advert_of(HEAD))
    node.hear(ChunksLacking((FIRST,)))
    asked = []
    for _ in range(4):
        [(peer, _)] = node.wanted()
        asked.append(peer)
        node.receive_bulk(peer, ChunkMissing(FIRST))
    assert asked == ["up", "near", "far", ROOT], "a peer that hasn't said where it stands isn't asked"
    assert not node.wanted(), "all have been asked"
    node.wait(1.3 * ROUND_AGAIN_MS)
    assert node.wanted() == [("up", FIRST)], "again, for ever"
    assert node.reports["chunks"] == 1
    give(node, "up", FIRST)
    assert node.reports["chunks"] == 2


def test_what_an_entry_needs_comes_before_what_is_offered() -> None:
    node = node_with()
    node.receive("up", Offer(ID, NAMES))
    node.wanted()
    urgent = b"u" * 32
    node.hear(ChunksLacking((urgent,)))
    assert node.wanted() == [("up", urgent)], "as many were outstanding as may be, and the last one is taken back"
    give(node, "up", *NAMES[: OUTSTANDING_MAX - 1])
    assert node.wanted()[0] == ("up", NAMES[OUTSTANDING_MAX - 1]), "for a while"


def test_what_an_entry_needs_is_fetched_beyond_the_life_of_its_offer() -> None:
    node = node_with()
    node.receive("up", Offer(ID, (FIRST, SECOND)))
    node.hear(ChunksLacking((SECOND,)))
    node.wait(OFFER_LIFE_MS + 1000)
    node.wanted()
    node.wait(OFFER_LIFE_MS)
    assert {name for _, name in node.wanted()} == {SECOND}


def test_chunks_that_came_meanwhile_are_not_fetched_again() -> None:
    node = node_with(stored=(FIRST,))
    node.hear(ChunksLacking((FIRST, SECOND)))
    assert node.wanted() == [("up", SECOND)]


def test_a_child_whose_entry_waits_is_served_as_soon_as_ours_is_here() -> None:
    node = node_with("child")
    node.hear(ChunksLacking((FIRST,)))
    node.receive_bulk("child", ChunksWanted((FIRST,)))
    give(node, "up", FIRST)
    assert node.served() == [("child", FIRST)]


def test_a_node_that_starts_over_forgets_what_it_waited_for() -> None:
    node = node_with("child")
    node.receive("up", Offer(ID, (FIRST,)))
    node.hear(ChunksLacking((SECOND,)))
    node.receive_bulk("child", ChunksWanted((FIRST,)))
    node.wanted()
    node.hear(Applied(GENESIS))  # what an Empty ends in
    assert node.denied() == [("child", FIRST)]
    node.wait(OFFER_LIFE_MS)
    assert not node.wanted()


def test_pages_and_chunks_over_the_ordinary_link_are_dropped() -> None:
    node = node_with()
    node.receive("up", Chunk(FIRST, b"data"))
    assert node.reports["malformed"] == 1
