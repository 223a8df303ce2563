"""What a node does when a peer's history is not its own."""

from __future__ import annotations

import struct

from kvnet.core.events import Apply, Diverged, Empty
from kvnet.core.frames import EPOCH_MAX
from kvnet.core.messages import Ask, BeaconId, Frames, Reason, Refused, Subscribe, Unsubscribe
from kvnet.core.versions import GENESIS
from tests.support.conversation import (
    ROOT,
    Conversation,
    advert_of,
    beacon_of,
    frames_of,
    history,
    refused,
    subscribe,
)

OURS = history(6)
THEIRS = history(6, mark=b"theirs")
NEXT_EPOCH = history(6, epoch=2)
AFTER_LOSS = history(3, epoch=2)
"""The network's history, if the coordinator lost what came after the third frame, and began a new epoch."""
HERE = OURS[3].position
LEFT = history(3, mark=b"left", epoch=2)
"""An abandoned history that ends at 2-4; what the network went on with is `THIRD_EPOCH`."""
THIRD_EPOCH = history(6, epoch=3)


def below(*peers: str) -> Conversation:
    node = Conversation(history=OURS[:4])
    node.link("up", *peers)
    node.adopt("up")
    return node


def subscribe_to(node: Conversation, peer: str) -> None:
    """The node is late and takes this peer, which has something newer."""
    if not node.is_late:
        node.wait(700)
    else:
        node.wait(200)
    node.receive(peer, advert_of(THEIRS[5].position, beacon=(1, 9), latency_ms=300))
    assert peer in node.parents
    node.said()


def test_frames_of_another_history_bar_the_peer_and_nobody_yields_to_one() -> None:
    node = below("a", "b")
    subscribe_to(node, "a")
    node.receive("a", frames_of(THEIRS[4]))
    assert node.parents == ["up"]
    assert node.told(Unsubscribe) == ["a"]
    assert node.journal.position == HERE
    assert node.reports["mismatch"] == 1
    assert not node.reports["forked"]

    node.receive("a", Ask(1, 1, BeaconId(0, 0), ladder=False))
    node.receive("a", advert_of(THEIRS[5].position, beacon=(1, 9), latency_ms=1))
    assert not node.said(), "it is neither answered nor taken"


def test_a_bar_outlives_the_link_and_ends_after_a_minute() -> None:
    """It was kept with the link, so that a peer whose link broke was believed again."""
    node = below("a")
    subscribe_to(node, "a")
    node.receive("a", frames_of(THEIRS[4]))
    node.lose("a")
    node.link("a")
    node.said()
    node.receive("a", advert_of(THEIRS[5].position, beacon=(1, 9), latency_ms=1))
    assert not node.told(Subscribe)
    node.wait(60_000)
    node.said()
    node.receive("a", advert_of(THEIRS[5].position, beacon=(1, 9), latency_ms=1))
    assert node.told(Subscribe) == ["a"]


def test_two_peers_that_agree_against_us_make_us_start_over() -> None:
    node = below("a", "b")
    for peer in ("a", "b"):
        subscribe_to(node, peer)
        node.receive(peer, refused(Reason.MISMATCH, THEIRS[3].position))
    assert node.reports["forked"] == 1
    assert node.journal.position == GENESIS
    assert not node.parents
    assert not node.children
    assert node.is_late
    assert node.told(Ask), "it looks for the network's history"
    node.receive("a", advert_of(THEIRS[5].position, beacon=(1, 9)))
    node.receive("a", frames_of(*THEIRS))
    assert node.journal.position == THEIRS[5].position


def test_two_peers_that_do_not_agree_are_only_barred() -> None:
    node = below("a", "b")
    for peer, theirs in (("a", THEIRS), ("b", history(6, mark=b"another"))):
        subscribe_to(node, peer)
        node.receive(peer, refused(Reason.MISMATCH, theirs[3].position))
    assert node.reports["mismatch"] == 2
    assert node.journal.position == HERE


def test_one_peer_that_says_so_twice_is_still_one() -> None:
    node = below("a")
    for _ in range(2):
        subscribe_to(node, "a")
        node.receive("a", refused(Reason.MISMATCH, THEIRS[3].position))
        node.wait(61_000)
    assert node.reports["mismatch"] == 2
    assert node.journal.position == HERE


def test_a_refusal_nobody_asked_for_says_nothing_about_us() -> None:
    """Any linked peer could empty a replica by refusing a subscription that was never made."""
    node = below("a")
    node.receive("a", refused(Reason.MISMATCH, AFTER_LOSS[-1].position))
    assert node.journal.position == HERE
    assert not node.reports["mismatch"]


def test_the_higher_epoch_wins() -> None:
    node = below("a")
    subscribe_to(node, "a")
    node.receive("a", refused(Reason.MISMATCH, AFTER_LOSS[-1].position))
    assert node.reports["forked"] == 1
    assert node.journal.position == GENESIS


def left_behind(*peers: str) -> Conversation:
    """A node on the abandoned history, late, that has just taken the first of these peers."""
    node = Conversation(history=LEFT)
    node.link("up", *peers)
    node.adopt("up")
    node.wait(700)
    node.receive(peers[0], advert_of(LEFT[-1].position, beacon=(2, 9), latency_ms=300))
    assert peers[0] in node.parents
    node.said()
    return node


def test_a_refusal_tells_in_which_epoch_the_refuser_is_and_not_only_where_the_histories_part() -> None:
    """Two coordinators had run; one went on, told to accept the loss, and had come farther than the other. Where
    the other's edges ended its last frame end was of an old epoch: its refusals named 1-4 to nodes at 2-4. By that
    it was behind them, so it was barred as one that is wrong; and since all edges of the abandoned history agreed
    with each other, there never was a second peer to believe. Nobody gave way for as long as anybody watched
    (swarm, seed 16). Here the refuser has moved on since its last advert: only the refusal tells of epoch 3.
    """
    node = left_behind("a")
    assert THIRD_EPOCH[3].position.epoch < node.journal.position.epoch
    node.receive("a", refused(Reason.MISMATCH, THIRD_EPOCH[3].position, epoch=3))
    assert node.reports["forked"] == 1
    assert node.journal.position == GENESIS
    node.receive("a", advert_of(THIRD_EPOCH[-1].position, beacon=(3, 1)))
    node.receive("a", frames_of(*THIRD_EPOCH))
    assert node.journal.position == THIRD_EPOCH[-1].position


def test_a_refusal_names_the_epoch_of_the_newest_entry_even_where_its_position_is_older() -> None:
    """The other end of it: who refuses a position in the midst of its history says how far that has come."""
    node = Conversation(history=THIRD_EPOCH)
    node.link("up", "left")
    node.adopt("up")
    node.receive("left", subscribe(LEFT[-1].position))
    assert node.said_to("left", Refused) == [refused(Reason.MISMATCH, THIRD_EPOCH[3].position, epoch=3)]


def test_frames_of_an_old_epoch_overrule_us_when_their_sender_has_advertised_a_higher_one() -> None:
    """A parent of the network's history was starting over when the node subscribed: behind it, so it took it as a
    child. Then it sent what it filled itself with: a frame of epoch 1 where the node had 2-4. By the frame alone
    it was the older one, and was barred, although its advert had told of epoch 3.
    """
    node = left_behind("b", "a")
    node.wait(200)
    node.receive("a", advert_of(THIRD_EPOCH[-1].position, beacon=(3, 1), latency_ms=300))
    node.receive("a", frames_of(THIRD_EPOCH[4]))
    assert node.reports["mismatch"] == 1
    assert node.reports["forked"] == 1
    assert node.journal.position == GENESIS


def test_frames_of_an_old_epoch_from_who_advertised_none_higher_only_bar_it() -> None:
    node = left_behind("a")
    node.receive("a", frames_of(THIRD_EPOCH[4]))
    assert node.reports["mismatch"] == 1
    assert not node.reports["forked"]
    assert node.journal.position == LEFT[-1].position


def test_a_beacon_of_a_later_epoch_from_below_our_tip_says_that_we_are_left_behind() -> None:
    """A node at 5-403 subscribed to one at 5-370, which took it as a child that is ahead and had nothing to send.
    Then the network went on from an older disk: epoch 6 began at 373. The node got the beacons, of epoch 6 with
    head 373, for it had been handed everything up to there; and since it had that many entries it took them for
    its own. It believed itself up to date for ever, with a history that nobody else had (swarm, seed 25).
    """
    node = Conversation(history=OURS)
    node.link("up")
    node.receive("up", advert_of(OURS[1].position, beacon=(1, 1)))
    node.receive("up", beacon_of(OURS[1].position, number=1, path=(ROOT, "up")))
    assert not node.is_late, "of its own epoch, a beacon may well be older than the tip"
    opening = AFTER_LOSS[-1].position
    assert opening.seq <= node.journal.position.seq
    node.receive("up", beacon_of(opening, number=1, path=(ROOT, "up")))
    assert node.state.beacon == (1, 1), "it isn't ours"
    assert node.reports["forked"] == 1
    assert node.journal.position == GENESIS
    assert not node.parents
    node.wait(500)
    assert {type(message) for _, message in node.said()} >= {Unsubscribe, Ask}, "it looks for the other"
    node.receive("up", advert_of(opening, beacon=(2, 2)))
    node.receive("up", frames_of(*AFTER_LOSS), beacon_of(opening, number=2, path=(ROOT, "up")))
    assert node.journal.position == opening
    assert not node.is_late


def test_a_beacon_of_a_later_epoch_that_is_ahead_of_us_is_only_early() -> None:
    """Its frames are still on their way, from another parent or behind a gap: nothing is thrown away for it."""
    node = below()
    node.receive("up", beacon_of(NEXT_EPOCH[-1].position, number=1, path=(ROOT, "up")))
    assert not node.reports["forked"]
    assert node.journal.position == HERE
    node.receive("up", frames_of(*NEXT_EPOCH[4:]), beacon_of(NEXT_EPOCH[-1].position, number=2, path=(ROOT, "up")))
    assert node.state.beacon == (2, 2)


def overruled(*peers: str) -> Conversation:
    """A node that has started over because the first of these peers refused it in the name of epoch 2."""
    node = below(*peers)
    subscribe_to(node, peers[0])
    node.receive(peers[0], refused(Reason.MISMATCH, OURS[2].position, epoch=2))
    assert node.journal.position == GENESIS
    node.said()
    return node


def test_who_was_overruled_does_not_take_the_abandoned_history_from_who_has_not_heard_yet() -> None:
    """Nodes that had started over filled themselves at once from the neighbours that answered first: those that
    hadn't heard yet and still had the abandoned history. Then the coordinator contradicted them, and was barred
    (swarm, seed 38).
    """
    node = overruled("a", "b")
    node.receive("b", advert_of(OURS[5].position, beacon=(1, 9)))
    node.receive("up", advert_of(OURS[5].position, beacon=(1, 9)))
    assert not node.told(Subscribe)
    assert not node.parents
    node.receive("b", advert_of(AFTER_LOSS[-1].position, beacon=(2, 1)))
    assert node.told(Subscribe) == ["b"], "now it has heard"


def test_for_a_minute_at_most_who_was_overruled_holds_out_for_an_epoch_that_nobody_shows() -> None:
    node = overruled("a", "b")
    node.wait(59_000)
    node.receive("b", advert_of(OURS[5].position, beacon=(1, 9)))
    assert not node.told(Subscribe)
    node.wait(1000)
    node.receive("b", advert_of(OURS[5].position, beacon=(1, 9)))
    assert node.told(Subscribe) == ["b"]


def test_an_empty_replica_does_not_begin_below_an_epoch_that_a_neighbour_advertises() -> None:
    """The other half of seed 38: nobody has overruled a new disk, but it can see the higher epoch itself."""
    node = Conversation()
    node.link("a", "b")
    node.receive("a", advert_of(AFTER_LOSS[-1].position, beacon=(2, 1)))
    node.receive("a", refused(Reason.HORIZON, AFTER_LOSS[-1].position))
    node.said()
    node.receive("b", advert_of(OURS[5].position, beacon=(1, 9)))
    assert not node.told(Subscribe)
    node.lose("a")
    node.receive("b", advert_of(OURS[5].position, beacon=(1, 9)))
    assert node.told(Subscribe) == ["b"], "only as long as there is somebody who says so"


def test_a_replica_that_is_not_empty_goes_on_with_its_epoch_whatever_others_advertise() -> None:
    """What it has may be the beginning of the higher epoch too: it is filled by whoever has the next frame."""
    node = below("a", "b")
    node.lose("up")
    node.receive("a", advert_of(NEXT_EPOCH[-1].position, beacon=(2, 1)))
    node.receive("a", refused(Reason.HORIZON, NEXT_EPOCH[-1].position))
    node.said()
    node.receive("b", advert_of(OURS[5].position, beacon=(1, 9)))
    assert node.told(Subscribe) == ["b"]


def test_a_barred_peer_is_listened_to_again_when_it_advertises_a_higher_epoch() -> None:
    """The coordinator had contradicted a node in its own epoch and was barred. Then it began a new one. All other
    neighbours refused the node with HORIZON; the one that could serve it, or overrule it, wasn't listened to for
    the rest of the minute (swarm, seed 45).
    """
    node = below("b", "coordinator")
    subscribe_to(node, "coordinator")
    node.receive("coordinator", frames_of(THEIRS[4]))
    node.lose("up")
    node.receive("b", advert_of(AFTER_LOSS[-1].position, beacon=(2, 1)))
    node.receive("b", refused(Reason.HORIZON, AFTER_LOSS[-1].position))
    node.said()
    node.receive("coordinator", advert_of(THEIRS[5].position, beacon=(1, 10)))
    assert not node.told(Subscribe), "in the same epoch it is still barred"
    node.receive("coordinator", advert_of(AFTER_LOSS[-1].position, beacon=(2, 1), path=()))
    assert node.told(Subscribe) == ["coordinator"]
    node.receive("coordinator", refused(Reason.MISMATCH, OURS[2].position, epoch=2))
    node.receive("coordinator", advert_of(AFTER_LOSS[-1].position, beacon=(2, 1), path=()))
    node.receive("coordinator", frames_of(*AFTER_LOSS))
    assert node.journal.position == AFTER_LOSS[-1].position


def test_two_peers_agree_if_they_name_the_same_chain_whatever_epoch_each_of_them_says() -> None:
    """One tells it by a refusal, which names the frame end there (1-4), the other by the frame that comes after it
    (of epoch 2). These were two positions, so the two were never seen to agree.
    """
    theirs = history(4, mark=b"theirs", epoch=2)
    here = AFTER_LOSS[-1].position
    assert (theirs[3].position[:2], theirs[4].epoch, here[:2]) == ((1, 4), 2, (2, 4))
    node = Conversation(history=AFTER_LOSS)
    node.link("up", "a", "b")
    node.adopt("up")
    node.wait(700)
    node.receive("a", advert_of(theirs[4].position, beacon=(2, 9), latency_ms=300))
    node.receive("a", refused(Reason.MISMATCH, theirs[3].position, epoch=2))
    assert node.journal.position == here
    node.wait(200)
    node.receive("b", advert_of(theirs[4].position, beacon=(2, 9), latency_ms=300))
    node.receive("b", frames_of(theirs[4]))
    assert node.reports["mismatch"] == 2
    assert node.reports["forked"] == 1
    assert node.journal.position == GENESIS


def test_who_started_over_serves_nothing_of_what_it_threw_away() -> None:
    node = Conversation()
    node.link("up", "a", "child")
    node.adopt("up")
    node.receive("up", frames_of(*OURS[:4]))  # recent frames are kept in memory as well
    subscribe_to(node, "a")
    node.receive("a", refused(Reason.MISMATCH, AFTER_LOSS[-1].position))
    node.receive("a", advert_of(AFTER_LOSS[-1].position, beacon=(2, 1)))
    node.receive("a", frames_of(*AFTER_LOSS))
    node.said()
    node.receive("child", subscribe(GENESIS))
    assert node.said_to("child", Frames) == [frames_of(*AFTER_LOSS)]


def test_who_started_over_asks_those_again_that_could_not_serve_it_before() -> None:
    node = below("a", "b")
    subscribe_to(node, "b")
    node.receive("b", refused(Reason.HORIZON, AFTER_LOSS[-1].position))
    subscribe_to(node, "a")
    node.receive("a", refused(Reason.MISMATCH, AFTER_LOSS[-1].position))
    assert node.journal.position == GENESIS
    node.said()
    node.receive("b", advert_of(AFTER_LOSS[-1].position, beacon=(2, 1)))
    assert node.told(Subscribe) == ["b"]


def test_what_was_disputed_before_starting_over_counts_for_nothing_after_it() -> None:
    node = below("a", "b")
    for peer in ("a", "b"):
        subscribe_to(node, peer)
        node.receive(peer, refused(Reason.MISMATCH, THEIRS[3].position))
    node.receive("a", advert_of(OURS[5].position, beacon=(1, 9)))
    node.receive("a", frames_of(*OURS[:4]))
    node.receive("a", refused(Reason.FULL, OURS[3].position))
    node.wait(1000)
    node.receive("b", advert_of(THEIRS[5].position, beacon=(1, 9)))
    node.receive("b", refused(Reason.MISMATCH, THEIRS[3].position))
    assert node.reports["forked"] == 1, "one peer alone, this time"
    assert node.journal.position == HERE


def test_a_refusal_that_is_older_than_our_starting_over_says_nothing() -> None:
    """It was sent for what we had; and who sent it takes us for a child, while we take it for nobody."""
    node = below("a", "b")
    subscribe_to(node, "a")
    subscribe_to(node, "b")
    node.receive("a", refused(Reason.MISMATCH, AFTER_LOSS[-1].position))
    assert node.reports["forked"] == 1
    node.receive("b", advert_of(AFTER_LOSS[-1].position, beacon=(2, 1)))
    assert "b" in node.parents
    node.said()
    node.receive("b", refused(Reason.MISMATCH, AFTER_LOSS[-1].position))
    assert node.reports["forked"] == 1
    assert not node.parents
    node.said()
    for _ in range(3):
        node.receive("b", beacon_of(AFTER_LOSS[-1].position, number=1, path=(ROOT, "b")))
    assert node.said() == [("b", Unsubscribe())]


def test_an_epoch_that_continues_our_history_is_just_the_next_frame() -> None:
    node = Conversation(history=NEXT_EPOCH[:6])
    node.link("up", "child")
    node.adopt("up")
    node.receive("child", subscribe(NEXT_EPOCH[5].position))
    node.said()
    node.receive("up", frames_of(NEXT_EPOCH[6]), beacon_of(NEXT_EPOCH[6].position, number=1, path=(ROOT, "up")))
    assert node.journal.position.epoch == 2
    assert node.state.beacon == (2, 1)
    assert [type(message).__name__ for message in node.said_to("child")] == ["Frames", "Beacon"]


def test_an_older_epoch_is_refused_by_who_knows_the_newer_one() -> None:
    node = Conversation(history=AFTER_LOSS)
    node.link("up", "stale")
    node.adopt("up")
    node.receive("stale", subscribe(OURS[5].position))
    [refusal] = node.said_to("stale")
    assert refusal == refused(Reason.MISMATCH, AFTER_LOSS[-1].position)


def test_what_came_before_the_frame_that_differs_is_not_applied_onto_nothing() -> None:
    """One message: a frame that continues us, then one of a higher epoch that doesn't. The first was applied to
    the emptied replica, and the node stopped.
    """
    node = below("a")
    subscribe_to(node, "a")
    stranger = history(6, mark=b"theirs", epoch=2)[6]
    assert stranger.first_seq == OURS[5].last_seq + 1
    node.receive("a", frames_of(OURS[4], OURS[5], stranger))
    kinds = [type(effect) for effect in node.effects if isinstance(effect, Apply | Empty)]
    assert kinds == [Apply, Empty]
    assert node.journal.position == GENESIS
    assert not node.parents


def test_a_diverged_replica_starts_over_and_leaves_everybody() -> None:
    node = below("child")
    node.receive("child", subscribe(HERE))
    node.said()
    node.hear(Diverged("the digest differs"))
    said = node.said(Unsubscribe, Refused)
    assert ("up", Unsubscribe()) in said
    assert [peer for peer, message in said if isinstance(message, Refused)] == ["child"]
    assert node.journal.position == GENESIS
    assert node.is_late
    node.receive("up", advert_of(HERE, beacon=(1, 9)))
    node.receive("up", frames_of(*OURS[:4]))
    assert node.journal.position == HERE


def test_malformed_frames_bar_the_peer_and_change_nothing() -> None:
    node = below()
    node.receive("up", Frames((b"", b"garbage", bytes(100))))
    assert node.reports["malformed"] == 1
    assert not node.parents
    assert node.is_late
    node.receive("up", advert_of(OURS[5].position, beacon=(1, 9)))
    assert not node.told(Subscribe)


def test_a_frame_of_the_highest_epoch_is_taken_by_nobody() -> None:
    """No coordinator could open another after it: there is no number left, and no peer reads an advert of it."""
    for epoch, is_taken in ((7, True), (EPOCH_MAX, False)):
        data = bytearray(OURS[4].data)
        struct.pack_into(">I", data, 1, epoch)
        node = below()
        node.receive("up", Frames((bytes(data),)))
        assert node.reports["malformed"] == (not is_taken)
        assert node.journal.position.epoch == (epoch if is_taken else 1)
