"""A child subscribes; its parent streams from a cursor into the journal."""

from __future__ import annotations

from itertools import pairwise

from kvnet.core.entries import Delete
from kvnet.core.events import UNSENT_BYTES_MAX, LinkWritable
from kvnet.core.frames import Frame, cut_frame
from kvnet.core.messages import Beacon, Frames, Move, Reason, Refused, Unsubscribe
from kvnet.core.stream import RECENT_BYTES_MAX
from kvnet.core.versions import GENESIS, Position
from tests.support.conversation import ROOT, Conversation, beacon_of, frames_of, history, refused, subscribe

H = history(6)


def parent_with(child: str = "child", *, frames: int = 6) -> Conversation:
    """A node that has a parent, a history and a linked peer."""
    node = Conversation(history=H[:frames])
    node.link("up", child)
    node.adopt("up")
    return node


def test_a_child_gets_every_later_frame_and_then_the_beacon() -> None:
    node = parent_with()
    node.receive("child", subscribe(H[2].position))
    [frames, beacon] = node.said_to("child")
    assert frames == frames_of(*H[3:])
    assert beacon.beacon == (1, 1)
    assert beacon.path == (ROOT, "up", "me")
    assert node.children == ["child"]


def test_a_new_frame_goes_to_the_children_before_it_is_applied() -> None:
    node = parent_with(frames=5)
    node.receive("child", subscribe(H[4].position))
    node.said()
    node.commits = False
    node.receive("up", frames_of(H[5]))
    assert node.said_to("child") == [frames_of(H[5])]
    assert node.journal.position == H[4].position


def test_a_beacon_follows_its_frames() -> None:
    node = parent_with(frames=4)
    node.receive("child", subscribe(H[3].position))
    node.said()
    node.receive("up", frames_of(H[4], H[5]), beacon_of(H[5].position, number=2, path=(ROOT, "up")))
    kinds = [type(message) for message in node.said_to("child")]
    assert kinds == [Frames, Beacon]


def test_a_beacon_counts_only_once_its_head_is_here() -> None:
    node = parent_with(frames=4)
    node.receive("child", subscribe(H[3].position))
    node.said()
    node.receive("up", beacon_of(H[5].position, number=2, path=(ROOT, "up")))
    assert not node.said()
    assert node.state.beacon == (1, 1)


def test_repeated_frames_are_dropped_and_overlapping_ones_taken_from_where_we_are() -> None:
    node = parent_with(frames=4)
    node.receive("up", frames_of(*H[2:6]))
    assert node.journal.position == H[5].position
    node.receive("up", frames_of(*H[2:6]))
    assert node.replica.stream.frames_duplicate == 2 + 4
    assert not node.effects


def test_frames_after_a_gap_are_not_taken() -> None:
    """They were sent for an older subscription to the same parent; those of the newer one follow."""
    node = parent_with(frames=3)
    node.receive("up", frames_of(H[4]))
    assert node.journal.position == H[2].position
    node.receive("up", frames_of(H[3], H[4]))
    assert node.journal.position == H[4].position
    assert node.parents == ["up"]


def test_frames_of_somebody_who_is_no_parent_are_not_taken() -> None:
    node = parent_with(frames=3)
    node.receive("child", frames_of(H[3]))
    assert node.journal.position == H[2].position


def test_a_full_link_gets_no_more_until_it_is_writable_again() -> None:
    frames = history(40, size=20_000)
    node = Conversation(history=frames)
    node.link("up", "child")
    node.adopt("up")
    node.receive("child", subscribe(GENESIS))
    assert node.awaited() == ["child"]
    first = node.said_to("child", Frames)
    handed = sum(len(data) for message in first for data in message.frames)
    assert UNSENT_BYTES_MAX <= handed < UNSENT_BYTES_MAX + 64 * 1024
    assert all(sum(map(len, message.frames)) <= 64 * 1024 for message in first)

    node.unsent["child"] = UNSENT_BYTES_MAX
    node.receive("up", beacon_of(frames[-1].position, number=2, path=(ROOT, "up")))
    assert not node.said_to("child"), "it waits"
    node.unsent["child"] = 0
    taken = list(first)
    while node.state.children["child"].waiting:
        node.hear(LinkWritable("child"))
        taken += node.said_to("child", Frames)
    assert [data for message in taken for data in message.frames] == [frame.data for frame in frames]


def test_a_large_frame_is_forwarded_at_once_although_it_is_not_committed() -> None:
    """One frame above the memory's limit was dropped from it before the journal had it: it left with the next
    beacon only, hop by hop.
    """
    frames = history(3, size=RECENT_BYTES_MAX + 1)
    node = Conversation(history=frames[:2])
    node.link("up", "child")
    node.adopt("up")
    node.receive("child", subscribe(frames[1].position))
    node.said()
    node.commits = False
    node.receive("up", frames_of(frames[2]))
    assert node.said_to("child") == [frames_of(frames[2])]


def test_a_child_older_than_the_journal_is_refused() -> None:
    node = Conversation(history=history(20, size=1000), journal_bytes_max=5000)
    node.link("up", "child")
    node.adopt("up")
    node.receive("child", subscribe(GENESIS))
    assert node.said_to("child") == [refused(Reason.HORIZON, node.state.tip)]
    assert not node.children


def test_a_child_of_another_history_is_refused_with_what_we_have_there() -> None:
    node = parent_with()
    other = history(4, mark=b"other")[3].position
    node.receive("child", subscribe(other))
    assert node.said_to("child") == [refused(Reason.MISMATCH, H[3].position)]


def test_a_child_that_is_no_frame_end_is_refused() -> None:
    node = parent_with()
    node.receive("child", subscribe(Position(1, 3, bytes(16))))
    assert node.said_to("child") == [refused(Reason.MISMATCH, H[2].position)]


def test_a_parent_can_not_be_a_child() -> None:
    node = parent_with()
    node.receive("up", subscribe(H[5].position))
    assert node.said_to("up") == [refused(Reason.BEHIND, H[5].position)]
    assert node.parents == ["up"]


def test_subscribing_again_moves_the_cursor() -> None:
    node = parent_with()
    node.receive("child", subscribe(H[4].position))
    node.said()
    node.receive("child", subscribe(H[1].position))
    assert node.said_to("child", Frames) == [frames_of(*H[2:])]


def test_a_child_that_is_ahead_is_taken_and_gets_what_comes_after_it() -> None:
    node = parent_with(frames=4)
    node.receive("child", subscribe(H[4].position))
    assert node.children == ["child"]
    assert not node.said_to("child", Frames, Refused)
    node.receive("up", frames_of(H[4], H[5]))
    assert node.said_to("child", Frames) == [frames_of(H[5])]


def test_a_child_that_is_ahead_in_an_epoch_that_was_left_behind_is_refused() -> None:
    node = Conversation(history=history(3, epoch=2))
    node.link("up", "child")
    node.adopt("up")
    node.receive("child", subscribe(H[5].position))
    assert node.said_to("child") == [refused(Reason.MISMATCH, node.state.tip)]


def test_a_child_that_was_ahead_on_another_history_is_refused_when_that_shows() -> None:
    node = parent_with(frames=4)
    node.receive("child", subscribe(Position(1, 5, bytes(16))))
    assert node.children == ["child"]
    longer = frame_after(H[3], entries=3)
    assert longer.first_seq <= 5 < longer.last_seq, "where the child stands we have no frame end"
    node.receive("up", frames_of(longer), frames_of(frame_after(longer, entries=1)))
    assert [message.reason for message in node.said_to("child", Refused)] == [Reason.MISMATCH]
    assert not node.children


def test_a_child_that_falls_behind_the_horizon_is_refused_from_there_on() -> None:
    frames = history(60, size=20_000)
    node = Conversation(history=frames[:10], journal_bytes_max=100_000)
    node.link("up", "child")
    node.adopt("up")
    node.receive("child", subscribe(frames[9].position))
    node.unsent["child"] = UNSENT_BYTES_MAX  # its link takes nothing from now on
    for frame in frames[10:]:
        node.receive("up", frames_of(frame))
    node.said()
    node.unsent["child"] = 0
    node.hear(LinkWritable("child"))
    assert node.said_to("child") == [refused(Reason.HORIZON, node.state.tip)]
    assert not node.children


def test_a_child_that_comes_back_with_another_history_is_a_child_no_more() -> None:
    node = parent_with(frames=5)
    node.receive("child", subscribe(H[4].position))
    node.receive("child", subscribe(history(4, mark=b"other")[3].position))
    node.said()
    node.receive("up", frames_of(H[5]))
    assert not node.said_to("child")
    assert not node.children


def test_recent_frames_in_memory_are_bounded_and_what_is_older_comes_from_the_journal() -> None:
    frames = history(120, size=20_000)
    node = Conversation(history=frames[:2])
    node.link("up", "child")
    node.adopt("up")
    for frame in frames[2:]:
        node.receive("up", frames_of(frame))
    in_memory = node.replica.stream._recent
    assert 0 < sum(len(frame.data) for frame in in_memory) <= RECENT_BYTES_MAX
    for start in (frames[1], in_memory[1]):
        node.receive("child", subscribe(start.position))
        taken = node.said_to("child", Frames)
        while node.state.children["child"].waiting:
            node.hear(LinkWritable("child"))
            taken += node.said_to("child", Frames)
        assert all(sum(map(len, message.frames)) <= 64 * 1024 for message in taken)
        expected = [frame.data for frame in frames if frame.first_seq > start.last_seq]
        assert [data for message in taken for data in message.frames] == expected


def test_who_unsubscribes_or_is_lost_gets_nothing_more() -> None:
    node = parent_with(frames=5)
    node.link("other")
    node.receive("child", subscribe(H[4].position))
    node.receive("other", subscribe(H[4].position))
    node.receive("child", Unsubscribe())
    node.lose("other")
    node.said()
    node.receive("up", frames_of(H[5]))
    assert not node.said(Frames)
    assert not node.children


def frame_after(frame: Frame, *, entries: int) -> Frame:
    return cut_frame(
        epoch=frame.epoch,
        first_seq=frame.last_seq + 1,
        stamp=0,
        chain_before=frame.chain_after,
        digest_after=bytes(16),
        entries=[Delete(bytes(16), b"key")] * entries,
    )


def full_node() -> Conversation:
    node = parent_with("child-0")
    for number in range(8):
        node.link(f"child-{number}")
        node.receive(f"child-{number}", subscribe(H[5].position))
    node.said()
    return node


def test_a_full_node_refuses_whoever_is_not_late() -> None:
    node = full_node()
    node.link("ninth")
    node.receive("ninth", subscribe(H[5].position))
    assert node.said_to("ninth", Refused) == [refused(Reason.FULL, H[5].position)]


def test_a_full_node_takes_who_is_late_and_asks_another_child_to_move() -> None:
    node = full_node()
    node.link("ninth")
    node.receive("ninth", subscribe(H[5].position, late=True))
    [moved] = node.told(Move)
    assert moved != "ninth"
    assert len(node.children) == 9


def test_a_child_of_a_full_node_may_subscribe_again() -> None:
    node = full_node()
    node.receive("child-3", subscribe(H[3].position))
    assert node.said_to("child-3", Frames, Refused) == [frames_of(*H[4:])]


def test_each_of_many_that_come_in_need_moves_another_child() -> None:
    node = full_node()
    names = [f"late-{number}" for number in range(8)]
    node.link(*names)
    node.receive(names[0], subscribe(H[5].position, late=True))
    node.receive(names[0], subscribe(H[5].position, late=True))
    for name in names[1:]:
        node.receive(name, subscribe(H[5].position, late=True))
    moved = node.told(Move)
    assert len(moved) == len(set(moved)) == 8, "one for each new child, none twice"


def test_nobody_is_asked_to_move_twice_within_five_seconds() -> None:
    node = full_node()
    node.link("ninth", "tenth")
    node.receive("ninth", subscribe(H[5].position, late=True))
    node.receive("tenth", subscribe(H[5].position, late=True))
    moved = node.told(Move)
    assert len(set(moved)) == 2
    asked: dict[str, list[float]] = {name: [node.now] for name in moved}
    for _ in range(30):  # the surplus is asked again with each round of adverts
        node.wait(500)
        for name in node.told(Move):
            asked.setdefault(name, []).append(node.now)
    assert sum(map(len, asked.values())) > 4
    for times in asked.values():
        assert all(after - before >= 5000 for before, after in pairwise(times))
