"""What a node does when a peer's history is not its own."""

from __future__ import annotations

from kvnet.core.events import Apply, Diverged, Empty
from kvnet.core.messages import Ask, BeaconId, Frames, Reason, Refused, Subscribe, Unsubscribe
from kvnet.core.versions import GENESIS
from tests.support.conversation import ROOT, Conversation, advert_of, beacon_of, frames_of, history, subscribe

OURS = history(6)
THEIRS = history(6, mark=b"theirs")
NEXT_EPOCH = history(6, epoch=2)
AFTER_LOSS = history(3, epoch=2)
"""The network's history, if the coordinator lost what came after the third frame, and began a new epoch."""
HERE = OURS[3].position


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
        node.receive(peer, Refused(Reason.MISMATCH, THEIRS[3].position))
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
        node.receive(peer, Refused(Reason.MISMATCH, theirs[3].position))
    assert node.reports["mismatch"] == 2
    assert node.journal.position == HERE


def test_one_peer_that_says_so_twice_is_still_one() -> None:
    node = below("a")
    for _ in range(2):
        subscribe_to(node, "a")
        node.receive("a", Refused(Reason.MISMATCH, THEIRS[3].position))
        node.wait(61_000)
    assert node.reports["mismatch"] == 2
    assert node.journal.position == HERE


def test_a_refusal_nobody_asked_for_says_nothing_about_us() -> None:
    """Any linked peer could empty a replica by refusing a subscription that was never made."""
    node = below("a")
    node.receive("a", Refused(Reason.MISMATCH, AFTER_LOSS[-1].position))
    assert node.journal.position == HERE
    assert not node.reports["mismatch"]


def test_the_higher_epoch_wins() -> None:
    node = below("a")
    subscribe_to(node, "a")
    node.receive("a", Refused(Reason.MISMATCH, AFTER_LOSS[-1].position))
    assert node.reports["forked"] == 1
    assert node.journal.position == GENESIS


def test_a_refusal_that_is_older_than_our_starting_over_says_nothing() -> None:
    """It was sent for what we had; and who sent it takes us for a child, while we take it for nobody."""
    node = below("a", "b")
    subscribe_to(node, "a")
    subscribe_to(node, "b")
    node.receive("a", Refused(Reason.MISMATCH, AFTER_LOSS[-1].position))
    assert node.reports["forked"] == 1
    node.receive("b", advert_of(AFTER_LOSS[-1].position, beacon=(2, 1)))
    assert "b" in node.parents
    node.said()
    node.receive("b", Refused(Reason.MISMATCH, AFTER_LOSS[-1].position))
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
    assert refusal == Refused(Reason.MISMATCH, AFTER_LOSS[-1].position)


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
