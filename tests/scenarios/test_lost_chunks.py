"""Entries whose chunks nobody gives: lost with a disk, or of values that were replaced long ago."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kvnet.core.bootstrap import AGAIN_MS
from kvnet.core.bootstrap import SILENCE_MS as DONOR_SILENCE_MS
from kvnet.core.events import Applied, Apply, BulkLost, ChunksLacking, DropUnapplied, Empty
from kvnet.core.fetching import (
    HASTY_MS,
    IN_VAIN_MS,
    IN_VAIN_MS_MAX,
    OUTSTANDING_MAX,
    ROUND_AGAIN_MS,
    SILENCE_MS,
    SILENT_LINK_MS,
)
from kvnet.core.frames import Frame
from kvnet.core.messages import Chunk, ChunkMissing, Offer, PagesWanted, Reason, Refused, Subscribe
from kvnet.core.versions import GENESIS
from tests.support.conversation import (
    ROOT,
    advert_of,
    beacon_of,
    frames_of,
    history,
    refused,
    subscribe,
)
from tests.support.large import ChunkConversation

H = history(8)
HERE, BEYOND = H[3].position, H[7].position
NEXT_EPOCH = history(4, epoch=2)
"""What a coordinator goes on with that has lost what came behind `HERE`."""
NAMES = tuple(b"%032d" % number for number in range(30))
LOST, OTHER = NAMES[:2]


# -- the coordinator --------------------------------------------------------------------------------------------


def stuck(*members: str, **flags: Any) -> ChunkConversation:
    """A coordinator that is given frames to `BEYOND`, and lacks a chunk to apply what comes behind `HERE`."""
    node = ChunkConversation(ROOT, history=H[:3], members=members, root_links=members, fresh=False, **flags)
    node.link(*members)
    for peer in members:
        node.receive(peer, advert_of(HERE))
    node.wait(500)
    [(peer, _)] = node.said(Subscribe)
    take_but_for(node, peer, H[3:])
    return node


def take_but_for(node: ChunkConversation, peer: str, frames: Sequence[Frame]) -> None:
    """A peer gives these frames; only the first of them can be applied."""
    node.commits = False
    node.receive(peer, frames_of(*frames))
    node.journal.append(node.uncommitted.pop(0))
    node.hear(ChunksLacking((LOST,)))
    node.hear(Applied(node.journal.position))


def deny_all(node: ChunkConversation) -> None:
    """Whoever is asked for a chunk hasn't got it."""
    while asked := node.wanted():
        for peer, name in asked:
            node.receive_bulk(peer, ChunkMissing(name))


def test_a_coordinator_refuses_while_nobody_has_a_chunk_and_goes_on_when_somebody_has() -> None:
    """It waited for ever, said nothing, and accepting the loss changed nothing either.

    Found by swarm simulation in torture mode, seed 19: the chunk had gone with a disk that lied.
    """
    node = stuck("a", "b")
    deny_all(node)
    node.wait(IN_VAIN_MS - 1000)
    assert not node.refused()
    why = refusal_within(node, IN_VAIN_MS)
    assert "the entries behind 1-4, 4 in number" in why
    assert "--accept-loss" in why
    node.wait(1.3 * ROUND_AGAIN_MS)
    [(peer, _)] = node.wanted()
    node.receive_bulk(peer, Chunk(LOST, b"data"))
    node.commit()
    assert node.opened() == 2
    assert node.journal.position == BEYOND


def refusal_within(node: ChunkConversation, ms: float) -> str:
    """Let time pass until it refuses to write, everybody having been asked in vain; "" if it doesn't."""
    end = node.now + ms
    while node.now < end:
        node.wait(100)
        why = node.refused()
        deny_all(node)
        if why:
            return why
    return ""


def test_told_to_accept_the_loss_it_forgets_what_it_can_not_apply_and_opens_an_epoch_above_it() -> None:
    node = stuck("a", "b", accept_loss=True)
    deny_all(node)
    opened = None
    for _ in range(int(IN_VAIN_MS_MAX / 100)):
        node.wait(100)
        opened = opened or node.opened()
        if opened:
            break
        deny_all(node)
    assert opened == 2
    drops = [effect for effect in node.effects if isinstance(effect, DropUnapplied)]
    assert drops
    assert node.state.tip == node.state.applied == node.journal.position == HERE
    assert not node.parents
    node.wait(2 * SILENCE_MS)
    assert not node.wanted(), "nobody needs the chunk any more"


def test_the_epoch_it_opens_is_above_the_one_of_the_frames_that_it_drops() -> None:
    later = history(4, epoch=3)  # H[:4], then the entries that open 2 and 3
    node = ChunkConversation(ROOT, history=H[:3], members=("a",), root_links=("a",), fresh=False, accept_loss=True)
    node.link("a")
    node.receive("a", advert_of(HERE))
    node.wait(500)
    take_but_for(node, "a", [H[3], *later[4:]])
    opened = None
    while opened is None and node.now < 20_000:
        deny_all(node)
        node.wait(100)
        opened = node.opened()
    assert opened == 4


def test_a_chunk_that_is_on_its_way_is_waited_for_by_who_accepts_a_loss() -> None:
    node = stuck("a", "b", accept_loss=True)
    [(peer, _)] = node.wanted()
    node.wait(IN_VAIN_MS - 500)
    node.receive_bulk(peer, Chunk(LOST, b"data"))
    node.commit()
    assert node.journal.position == BEYOND
    assert node.opened() == 2


def test_who_is_silent_for_ever_is_not_waited_for_for_ever() -> None:
    node = stuck("a", "b")
    why = ""
    for _ in range(int(IN_VAIN_MS_MAX / 100) + 60):
        node.wait(100)
        why = why or node.refused()
    assert "--accept-loss" in why


def test_chunks_of_values_that_were_replaced_are_nowhere_and_pages_lead_past_them() -> None:
    """As with a copy of yesterday's disk: the frames since then are all there, and some of their chunks aren't."""
    node = stuck("a", "b")
    for peer in ("a", "b"):
        node.receive(peer, advert_of(BEYOND))
    why = refusal_within(node, 4 * IN_VAIN_MS)
    assert "--recover" in why
    assert "--accept-loss" in why
    told_so = stuck("a", "b", recover=True)
    for peer in ("a", "b"):
        told_so.receive(peer, advert_of(BEYOND))
    assert not refusal_within(told_so, 2 * IN_VAIN_MS)
    assert told_so.replica.bootstrap_status() is not None
    assert told_so.opened() is None


def test_told_both_it_takes_pages_before_it_accepts_a_loss() -> None:
    """An empty disk was filled with frames up to a value that was replaced long ago; the rest would be lost."""
    node = stuck("a", "b", recover=True, accept_loss=True)
    for peer in ("a", "b"):
        node.receive(peer, advert_of(BEYOND))
        node.replica.root._ahead[peer] = BEYOND
    node.wait(2 * IN_VAIN_MS_MAX)
    assert node.replica.bootstrap_status() is not None
    assert node.state.tip == BEYOND


# -- edges ------------------------------------------------------------------------------------------------------


def waiting(*peers: str) -> ChunkConversation:
    """An edge that has frames to `BEYOND`, and stands at `HERE` for want of a chunk."""
    node = ChunkConversation(history=H[:4])
    node.link("up", *peers)
    node.adopt("up")
    for peer in peers:
        node.receive(peer, advert_of(HERE))
    node.commits = False
    node.receive("up", frames_of(*H[4:]))
    node.hear(ChunksLacking((LOST,)))
    node.said()
    return node


def test_a_network_that_goes_on_without_such_an_entry_costs_nobody_the_replica() -> None:
    """All edges had the entry and none its chunk: for the next epoch every one of them emptied itself."""
    node = waiting("child")
    node.receive("child", subscribe(HERE))
    node.receive("up", beacon_of(NEXT_EPOCH[-1].position, number=1, path=(ROOT, "up")))
    assert node.reports["forked"] == 1
    assert [type(effect) for effect in node.effects if isinstance(effect, DropUnapplied | Empty)] == [
        DropUnapplied
    ]
    assert node.state.tip == node.state.applied == HERE
    assert not node.parents
    assert [peer for peer, message in node.said(Refused)] == ["child"]
    node.commits = True
    node.receive("up", advert_of(NEXT_EPOCH[-1].position, beacon=(2, 2)))
    assert node.parents == ["up"]
    node.receive("up", frames_of(NEXT_EPOCH[-1]))
    assert node.journal.position == NEXT_EPOCH[-1].position


def test_who_gave_way_does_not_take_the_abandoned_frames_of_whoever_has_not_heard() -> None:
    node = waiting("stale")
    node.receive("up", beacon_of(NEXT_EPOCH[-1].position, number=1, path=(ROOT, "up")))
    node.commits = True
    node.receive("stale", advert_of(BEYOND))
    assert not node.parents
    node.wait(node.timers.peer_bar_ms)
    node.receive("stale", advert_of(BEYOND))
    assert node.parents == ["stale"], "the higher epoch is gone for good"


def test_what_is_applied_and_differs_is_thrown_away_as_ever() -> None:
    node = ChunkConversation(history=H)
    node.link("up")
    node.adopt("up")
    node.receive("up", beacon_of(NEXT_EPOCH[-1].position, number=1, path=(ROOT, "up")))
    assert node.journal.position == GENESIS


def test_an_edge_takes_pages_when_the_coordinator_keeps_a_chunk_no_more() -> None:
    """A value that was replaced an hour ago: its frame is in every journal, and its chunks are nowhere."""
    node = waiting("near")
    node.receive("near", advert_of(BEYOND))
    deny = node.wanted()
    assert deny
    for peer, name in deny:
        node.receive_bulk(peer, ChunkMissing(name))
    assert node.replica.bootstrap_status() is None, "one neighbour's word isn't enough"
    node.receive_bulk(ROOT, ChunkMissing(LOST))
    status = node.replica.bootstrap_status()
    assert status is not None
    assert status["donor"] == "near", "who is no further than we are has nothing for us"
    [(peer, wanted)] = [
        (e.peer, e.message) for e in node._bulk if isinstance(getattr(e, "message", 0), PagesWanted)
    ]
    assert (peer, wanted.after) == ("near", b"")
    node.receive("up", frames_of(*H[4:]))
    assert node.replica.bootstrap_status() is not None, "frames help nothing"
    node.commits = True
    node.receive_bulk(ROOT, Chunk(LOST, b"data"))
    node.commit()
    assert node.replica.bootstrap_status() is None, "what couldn't be applied was"


def test_a_donor_that_is_no_further_is_asked_for_nothing() -> None:
    """Refused by the coordinator for its horizon, nodes took pages of each other and came to where they were.

    Found by swarm simulation in torture mode, seed 245.
    """
    node = ChunkConversation(history=H[:4])
    node.link("near", ROOT)
    node.receive("near", advert_of(HERE))
    node.receive(ROOT, advert_of(BEYOND))
    [(peer, _)] = node.said(Subscribe)
    node.receive(peer, refused(Reason.HORIZON, BEYOND))
    status = node.replica.bootstrap_status()
    assert status is not None
    assert status["donor"] == ROOT


def test_a_parent_that_gives_nothing_does_not_keep_a_node_from_pages() -> None:
    """Late, with a parent that was as far as it was, it was refused for its horizon again and again.

    Found by swarm simulation in torture mode, seed 245.
    """
    node = ChunkConversation(history=H[:4])
    node.link("up")
    node.adopt("up")
    node.wait(DONOR_SILENCE_MS)
    assert node.is_late
    assert node.parents == ["up"]
    node.link(ROOT)
    node.receive(ROOT, advert_of(BEYOND))
    assert [peer for peer, _ in node.said(Subscribe)] == [ROOT]
    node.receive(ROOT, refused(Reason.HORIZON, BEYOND))
    assert node.replica.bootstrap_status() is not None
    node.wait(AGAIN_MS)


# -- sources ----------------------------------------------------------------------------------------------------


def test_what_was_asked_of_a_peer_whose_link_is_lost_is_asked_of_another() -> None:
    """Its bulk link stood on, half-open, and was waited for until patience ended. Liveness mode, seed 20."""
    node = waiting("near")
    assert node.wanted() == [("up", LOST)]
    node.lose("up")
    assert node.wanted() == [("near", LOST)]


def test_a_source_that_is_silent_on_its_link_as_well_is_not_slow() -> None:
    """Patience had grown to 16 s on slow links, and was spent on a process that stood still. Liveness, seed 20."""
    node = waiting("near")
    node.replica.fetching._patience = 8.0
    assert node.wanted() == [("up", LOST)]
    node.wait(SILENT_LINK_MS - 10)
    assert not node.wanted()
    node.wait(20)
    assert node.wanted() == [("near", LOST)]


def test_a_parent_that_was_silent_is_asked_again_between_the_others() -> None:
    """All asked each other in turn what only the coordinator had, whom its own children had tried once.

    Found by swarm simulation in liveness mode, seed 20.
    """
    node = waiting("a", "b", "c")
    asked = []
    while len(asked) < 5:
        node.wait(100)
        asked += [peer for peer, _ in node.wanted()]
    assert asked[0] == "up"
    assert asked[2] == "up"
    assert asked[4] == "up"


def test_the_coordinator_is_the_first_of_several_parents_to_be_asked() -> None:
    node = ChunkConversation(history=H[:4])
    node.link("up", rtt_ms=2)
    node.adopt("up")
    node.link(ROOT, rtt_ms=80)
    node.wait(700)
    node.receive(ROOT, advert_of(HERE, beacon=(1, 9), latency_ms=0.0, path=()))
    assert node.parents == ["up", ROOT]
    node.commits = False
    node.receive("up", frames_of(*H[4:]))
    node.hear(ChunksLacking((LOST,)))
    assert node.wanted() == [(ROOT, LOST)]


def test_a_neighbour_that_is_past_the_entry_is_asked_as_soon_as_it_says_so() -> None:
    node = waiting("near")
    assert node.wanted() == [("up", LOST)]
    node.receive("near", advert_of(BEYOND))
    assert not node.wanted(), "the chunk may be on its way"
    node.wait(HASTY_MS)
    node.receive("near", advert_of(BEYOND))
    assert node.wanted() == [("near", LOST)]
    node.receive("near", advert_of(BEYOND))
    assert not node.wanted(), "once"


def test_who_sends_other_chunks_and_not_this_one_is_not_waited_for() -> None:
    """It hadn't got it, and kept the ask; what else it sent was taken for a sign that this would come.

    Found by swarm simulation in safety mode, seed 111.
    """
    node = ChunkConversation(history=H[:4])
    node.link("up", "near")
    node.adopt("up")
    node.receive("near", advert_of(HERE), Offer(b"offer-number-one", (LOST, *NAMES[2:8])))
    assert ("near", LOST) in node.wanted()
    node.commits = False
    node.receive("up", frames_of(*H[4:]))
    for name in NAMES[2:8]:
        node.wait(SILENCE_MS / 3)
        node.receive_bulk("near", Chunk(name, b"data"))
    node.hear(ChunksLacking((LOST,)))
    assert node.wanted() == [("up", LOST)]


def test_what_an_entry_needs_does_not_wait_for_room() -> None:
    node = ChunkConversation(history=H[:4])
    node.link("up")
    node.adopt("up")
    node.receive("up", Offer(b"offer-number-one", NAMES[2:]))
    assert len(node.wanted()) == OUTSTANDING_MAX
    node.commits = False
    node.receive("up", frames_of(*H[4:]))
    node.hear(ChunksLacking((LOST, OTHER)))
    assert node.wanted() == [("up", LOST), ("up", OTHER)]
    node.receive_bulk("up", Chunk(NAMES[2 + OUTSTANDING_MAX - 1], b"data"))
    assert NAMES[2 + OUTSTANDING_MAX - 1] in node.chunks, "what was taken back is stored when it comes"


def test_a_parent_is_asked_anew_once_its_bulk_link_may_be_made_again() -> None:
    node = waiting()
    assert node.wanted() == [("up", LOST)]
    node.hear(BulkLost("up"))
    assert node.wanted() == [(ROOT, LOST)]
    node.hear(BulkLost(ROOT))
    node.wait(1.3 * ROUND_AGAIN_MS)
    assert node.wanted() == [("up", LOST)]


def test_frames_that_are_taken_back_are_never_applied_and_may_come_again() -> None:
    node = waiting()
    node.receive("up", beacon_of(NEXT_EPOCH[-1].position, number=1, path=(ROOT, "up")))
    assert not node.uncommitted
    assert not [effect for effect in node.effects if isinstance(effect, Apply)]
