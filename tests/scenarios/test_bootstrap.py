"""A node that nobody can serve frames to is made anew of pages, and serves what it had until it is proven."""

from __future__ import annotations

from kvnet.core.bootstrap import AGAIN_MS, ALONE_MS, CREDIT, CREDIT_STEP, SILENCE_MS
from kvnet.core.donor import SILENCE_MS as RECEIVER_SILENCE_MS
from kvnet.core.events import Applied, BulkLost, ChunksLacking, FinishBootstrap, PageSent
from kvnet.core.frames import Frame
from kvnet.core.messages import PagesCredit, PagesRefused, PagesWanted, Reason, Subscribe
from kvnet.core.root import Phase
from kvnet.core.versions import GENESIS
from kvnet.simulator.disk import SimulatedDisk
from tests.support.conversation import ROOT, advert_of, continue_history, frames_of, history, refused, subscribe
from tests.support.frames import FrameMaker
from tests.support.paged import PagedConversation, disk_of, pages_of


def a_story(frames: int = 40) -> tuple[FrameMaker, bytes]:
    """A history of so many keys, and the namespace that they are in."""
    maker = FrameMaker()
    maker.open_epoch()
    maker.cut()
    namespace = maker.create_namespace("n")
    maker.cut()
    continue_history(maker, frames - 2, namespace, size=10, mark=b"")
    return maker, namespace


def blank(*peers: str, head: Frame, disk: SimulatedDisk | None = None, **more: bool) -> PagedConversation:
    """A node with links to these peers, who stand at this frame's end and whose journals begin later."""
    node = PagedConversation(disk=disk, **more)
    node.link(*peers)
    for peer in peers:
        node.receive(peer, advert_of(head.position))
    for peer in node.told(Subscribe):
        node.receive(peer, refused(Reason.HORIZON, head.position))
    node.wait(2 * AGAIN_MS)
    for peer in node.told(Subscribe):
        node.receive(peer, refused(Reason.HORIZON, head.position))
    return node


def give(node: PagedConversation, peer: str, disk: SimulatedDisk, after: bytes = b"", count: int = 1000) -> None:
    for page in pages_of(disk, after)[:count]:
        node.receive_bulk(peer, page)


def test_a_blank_node_whom_two_neighbours_refuse_is_made_anew_of_the_nearest_ones_pages() -> None:
    maker, _ = a_story()
    donor = disk_of(maker.frames)
    node = blank("a", "b", head=maker.frames[-1])
    [(peer, after)] = node.wanted()
    assert (peer, after) == ("a", b"")
    node.sent.clear()
    give(node, peer, donor)
    assert ("a", subscribe(maker.position, late=True)) in node.said(Subscribe), "the tail comes from the donor"
    assert node.disk.records == donor.records
    assert node.disk.position == maker.position
    assert node.disk.verified
    assert node.replica.bootstrap_status() is None
    assert node.reports["bootstrap"]


def test_a_node_that_is_served_from_the_beginning_takes_no_pages() -> None:
    maker, _ = a_story()
    node = PagedConversation()
    node.link("a")
    node.receive("a", advert_of(maker.position))
    node.receive("a", frames_of(*maker.frames))
    assert node.disk.position == maker.position
    node.wait(5000)
    assert not node.wanted()


def test_one_neighbours_word_is_enough_when_there_is_no_other() -> None:
    maker, _ = a_story()
    node = PagedConversation()
    node.link("a")
    node.receive("a", advert_of(maker.position))
    assert node.told(Subscribe) == ["a"]
    node.receive("a", refused(Reason.HORIZON, maker.position))
    assert not node.wanted()
    node.wait(2 * ALONE_MS)
    assert node.wanted() == [("a", b"")]


def test_frames_that_come_while_the_pages_do_are_kept_and_replayed_onto_them() -> None:
    """Deletes, overwrites and namespaces that come and go meanwhile are as they are at the coordinator."""
    maker, namespace = a_story()
    donor = disk_of(maker.frames)
    node = blank("a", "b", head=maker.frames[-1])
    node.wanted()
    first = pages_of(donor)[0]
    node.receive_bulk("a", first)
    assert node.parents == ["a"]
    second_namespace = maker.create_namespace("short-lived")
    maker.put(second_namespace, b"key", b"value")
    maker.cut()
    for number in range(0, 20, 2):
        maker.delete(namespace, b"key-%d" % number)
        maker.put(namespace, b"key-%d" % (number + 1), b"newer")
        maker.cut()
    late = maker.frames[len(donor.journal.frames) :]
    for frame in late:
        donor.apply([frame])
    node.receive("a", frames_of(*late))
    give(node, "a", donor, first.until, count=2)
    maker.delete_namespace(second_namespace)
    maker.put(namespace, b"last", b"value")
    last = maker.cut()
    donor.apply([last])
    assert node.disk.position == GENESIS, "nothing of it is seen"
    give(node, "a", donor, pages_of(donor, first.until)[1].until)
    assert not node.disk.verified, "a page is as of a frame that isn't here yet"
    node.receive("a", frames_of(last))
    assert node.disk.records == donor.records
    assert node.disk.digest == donor.digest


def test_another_donor_goes_on_where_the_first_one_died() -> None:
    maker, _ = a_story()
    donor = disk_of(maker.frames)
    node = blank("a", "b", head=maker.frames[-1])
    assert node.wanted() == [("a", b"")]
    give(node, "a", donor, count=2)
    node.bulk()
    node.hear(BulkLost("a"))
    assert node.wanted() == [("b", pages_of(donor)[1].until)]
    give(node, "a", donor, pages_of(donor)[1].until)
    assert not node.disk.verified, "nobody waits for the first one any more"
    give(node, "b", donor, pages_of(donor)[1].until)
    assert node.disk.records == donor.records


def test_a_donor_that_is_silent_or_refuses_is_left_for_another() -> None:
    maker, _ = a_story()
    donor = disk_of(maker.frames)
    node = blank("a", "b", "c", head=maker.frames[-1])
    assert node.wanted() == [("a", b"")]
    node.receive_bulk("a", PagesRefused(maker.position))
    assert node.wanted() == [("b", b"")]
    node.wait(2 * SILENCE_MS)
    assert node.wanted() == [("c", b"")]
    give(node, "c", donor)
    assert node.disk.records == donor.records


def test_a_donor_that_is_behind_the_first_page_is_left_for_another() -> None:
    """The frames between would be missing."""
    maker, _ = a_story()
    donor, behind = disk_of(maker.frames), disk_of(maker.frames[:-3])
    node = blank("a", "b", head=maker.frames[-1])
    node.wanted()
    give(node, "a", donor, count=1)
    node.bulk()
    node.hear(BulkLost("a"))
    [(peer, after)] = node.wanted()
    assert peer == "b"
    give(node, "b", behind, after, count=1)
    assert node.replica.bootstrap_status()["pages"] == 1
    node.wait(4 * AGAIN_MS)
    assert node.wanted()[0][1] == after
    give(node, "a", donor, after)
    give(node, "b", donor, after)
    assert node.disk.records == donor.records


def test_a_page_that_was_altered_is_wanted_again_of_another() -> None:
    maker, _ = a_story()
    donor = disk_of(maker.frames)
    node = blank("a", "b", head=maker.frames[-1])
    node.wanted()
    first, second, third = pages_of(donor)[:3]
    node.receive_bulk("a", first, second._replace(body=second.body[:-1] + b"x"), third)
    assert node.wanted() == [("b", first.until)]
    give(node, "b", donor, first.until)
    assert node.disk.records == donor.records


def test_a_donor_gets_credit_as_pages_are_stored_and_no_more() -> None:
    maker, _ = a_story(300)
    donor = disk_of(maker.frames)
    node = blank("a", "b", head=maker.frames[-1])
    node.stores = False
    assert node.bulk(PagesWanted) == [("a", PagesWanted(b"", CREDIT))]
    give(node, "a", donor, count=CREDIT_STEP + 1)
    assert not node.bulk(PagesCredit)
    for _ in range(CREDIT_STEP):
        node.store()
    assert node.bulk(PagesCredit) == [("a", PagesCredit(CREDIT_STEP))]


def test_a_too_old_replica_is_served_until_its_successor_takes_its_place() -> None:
    maker, namespace = a_story()
    donor, old = disk_of(maker.frames), disk_of(maker.frames[:10])
    node = blank("a", "b", head=maker.frames[-1], disk=old)
    assert node.wanted() == [("a", b"")]
    give(node, "a", donor, count=3)
    assert node.disk.position == maker.frames[9].position
    assert node.disk.verified
    assert node.disk.get(namespace, b"key-7") is not None
    assert node.state.beacon_seen(node.disk.position.seq) is None, "it says how old that is"
    give(node, "a", donor, pages_of(donor)[2].until)
    assert node.disk.records == donor.records
    assert not node.reports["forked"]


def test_a_donor_behind_the_replica_that_is_served_is_none() -> None:
    maker, _ = a_story()
    node = blank("a", "b", head=maker.frames[-1], disk=disk_of(maker.frames[:30]))
    node.wanted()
    give(node, "a", disk_of(maker.frames[:20]), count=1)
    assert node.disk.successor is None
    assert node.wanted() == [("b", b"")]


def test_a_node_that_is_started_again_goes_on_with_the_pages_it_has() -> None:
    maker, namespace = a_story()
    donor = disk_of(maker.frames)
    node = blank("a", "b", head=maker.frames[-1])
    node.wanted()
    give(node, "a", donor, count=2)
    maker.put(namespace, b"meanwhile", b"value")
    frame = maker.cut()
    donor.apply([frame])
    node.receive("a", frames_of(frame))
    until = node.disk.successor.progress.until
    again = PagedConversation(disk=node.disk)
    assert again.state.tip == maker.position, "the tail goes on where it was"
    again.link("b")
    again.receive("b", advert_of(maker.position))
    again.wait(2 * AGAIN_MS)
    assert again.wanted() == [("b", until)]
    give(again, "b", donor, until)
    assert again.disk.records == donor.records


def test_a_history_that_overrules_ours_meanwhile_begins_everything_anew() -> None:
    maker, _ = a_story()
    donor = disk_of(maker.frames)
    node = blank("a", "b", head=maker.frames[-1])
    node.wanted()
    give(node, "a", donor, count=2)
    assert node.disk.successor is not None
    other = history(60, mark=b"other", epoch=2)
    node.receive("a", frames_of(other[-1]))
    node.receive("a", refused(Reason.MISMATCH, other[-1].position))
    assert node.reports["forked"] or node.reports["mismatch"]
    give(node, "a", donor, pages_of(donor)[1].until)
    assert node.disk.position == GENESIS
    assert not node.disk.verified


def two_histories() -> tuple[FrameMaker, FrameMaker]:
    """They differ in their last frame."""
    maker, namespace = a_story()
    other, _ = a_story()
    for each, value in ((maker, b"ours"), (other, b"theirs")):
        each.put(namespace, b"key", value)
        each.cut()
    return maker, other


def test_a_page_that_is_known_to_be_of_another_history_is_not_stored() -> None:
    maker, other = two_histories()
    donor = disk_of(maker.frames[:-1])
    node = blank("a", "b", head=maker.frames[-2])
    node.wanted()
    give(node, "a", donor, count=2)
    node.receive("a", frames_of(maker.frames[-1]))
    node.hear(BulkLost("a"))
    after = pages_of(donor)[1].until
    assert node.wanted() == [("b", after)]
    give(node, "b", disk_of(other.frames), after, count=1)
    assert node.replica.bootstrap_status()["pages"] == 2
    node.wait(3 * AGAIN_MS)
    assert node.wanted()[0] == ("a", after), "what came before is of use"
    give(node, "a", disk_of(maker.frames), after)
    assert node.disk.position == maker.position


def test_pages_that_turn_out_to_be_of_another_history_make_the_node_begin_anew() -> None:
    """Their donor stood where our own history has another frame; that frame came later."""
    maker, other = two_histories()
    node = blank("a", "b", head=maker.frames[-2])
    node.wanted()
    give(node, "a", disk_of(maker.frames[:-1]), count=2)
    after = pages_of(disk_of(maker.frames[:-1]))[1].until
    give(node, "a", disk_of(other.frames), after, count=1)
    node.receive("a", frames_of(maker.frames[-1]))
    assert not node.disk.verified
    assert node.disk.successor is None, "without waiting for the last page"
    node.wait(3 * AGAIN_MS)
    [(peer, after)] = node.wanted()[-1:]
    assert after == b""
    give(node, peer, disk_of(maker.frames))
    assert node.disk.position == maker.position
    assert node.disk.verified


def test_a_tail_that_nobody_can_continue_any_more_begins_everything_anew() -> None:
    maker, _ = a_story()
    donor = disk_of(maker.frames)
    node = blank("a", "b", head=maker.frames[-1])
    node.wanted()
    give(node, "a", donor, count=2)
    start = node.disk.successor.progress.start
    node.lose("a")
    node.lose("b")
    continue_history(maker, 60, next(reversed(maker.records)), size=10, mark=b"more")
    node.link("c", "d")
    for peer in "cd":
        node.receive(peer, advert_of(maker.position))
    for peer in node.told(Subscribe):
        node.receive(peer, refused(Reason.HORIZON, maker.position))
    node.wait(2 * AGAIN_MS)
    for peer in node.told(Subscribe):
        node.receive(peer, refused(Reason.HORIZON, maker.position))
    node.wait(2 * AGAIN_MS)
    peer, after = node.wanted()[-1]
    assert after == b""
    give(node, peer, disk_of(maker.frames))
    assert node.disk.position == maker.position
    assert maker.position.seq > start.seq


def test_one_peers_word_is_enough_also_for_a_tail_that_nobody_can_continue() -> None:
    maker, namespace = a_story()
    node = blank("a", "b", head=maker.frames[-1])
    node.wanted()
    give(node, "a", disk_of(maker.frames), count=2)
    for peer in "ab":
        node.lose(peer)
        node.hear(BulkLost(peer))
    continue_history(maker, 60, namespace, size=10, mark=b"more")
    node.bulk()
    node.link("c")
    wanted: list[tuple[str, bytes]] = []
    for _ in range(20):
        node.receive("c", advert_of(maker.position))
        for peer in node.told(Subscribe):
            node.receive(peer, refused(Reason.HORIZON, maker.position))
        node.wait(0.5 * ALONE_MS)
        wanted = [(peer, after) for peer, after in node.wanted() if not after]
        if wanted:
            break
    assert wanted == [("c", b"")]
    give(node, "c", disk_of(maker.frames))
    assert node.disk.position == maker.position


def test_who_gave_pages_that_could_not_be_proven_is_asked_last() -> None:
    """It was the nearest, so it was asked again and again, and each time all was in vain."""
    maker, namespace = a_story()
    lacking = disk_of(maker.frames)
    del lacking.records[namespace][b"key-7"]
    node = blank("a", "b", head=maker.frames[-1])
    assert node.wanted() == [("a", b"")]
    give(node, "a", lacking)
    assert node.reports["diverged"]
    assert not node.disk.verified
    node.wait(2 * AGAIN_MS)
    assert node.wanted() == [("b", b"")]
    give(node, "b", disk_of(maker.frames))
    assert node.disk.verified


def test_a_node_that_is_started_again_with_all_pages_needs_no_new_frame_to_end() -> None:
    """Before, nothing but a frame made it look; in a network without writes it waited for ever."""
    maker, _ = a_story()
    pages = pages_of(disk_of(maker.frames))
    node = blank("a", "b", head=maker.frames[-1])
    node.wanted()
    node.receive_bulk("a", *pages[:-1])
    node.disk.successor.store_page(pages[-1])
    again = PagedConversation(disk=node.disk)
    again.wait(AGAIN_MS)
    assert again.disk.verified
    assert again.disk.position == maker.position


def test_a_commit_of_the_old_replica_says_nothing_of_the_successor() -> None:
    """It was under way when the successor began; the tail seemed to end before its beginning, for ever."""
    maker, _ = a_story()
    pages = pages_of(disk_of(maker.frames))
    old = maker.frames[4].position
    node = blank("a", "b", head=maker.frames[-1], disk=disk_of(maker.frames[:5]))
    node.wanted()
    node.receive_bulk("a", pages[0])
    node.hear(Applied(old))
    node.receive_bulk("a", *pages[1:])
    assert node.disk.position == maker.position


def test_a_replica_that_is_being_proven_is_not_given_up_for_a_later_horizon() -> None:
    maker, _ = a_story()
    node = blank("a", "b", head=maker.frames[-1])
    node.wanted()
    node.proves = False
    give(node, "a", disk_of(maker.frames))
    [proof] = [effect for effect in node.effects if isinstance(effect, FinishBootstrap)]
    for _ in range(4):
        for peer in "ab":
            node.receive(peer, advert_of(maker.position))
        for peer in [*node.told(Subscribe), *node.parents]:
            node.receive(peer, refused(Reason.HORIZON, maker.position))
        node.wait(2 * ALONE_MS)
    assert node.disk.successor is not None
    node.finish(proof.until, proof.digest)
    assert node.disk.position == maker.position


def test_frames_that_come_after_all_make_pages_needless() -> None:
    """Where no donor gives any, the search for one goes on beside the search for frames."""
    maker, _ = a_story()
    node = blank("a", "b", head=maker.frames[-1])
    for peer in "ab":
        node.receive_bulk(peer, PagesRefused(maker.position))
    assert node.replica.bootstrap_status() is not None
    node.link("c")
    node.receive("c", advert_of(maker.position))
    assert "c" in node.told(Subscribe)
    node.receive("c", frames_of(*maker.frames))
    assert node.disk.position == maker.position
    assert node.replica.bootstrap_status() is None
    node.bulk()
    node.wait(5 * AGAIN_MS)
    assert not node.wanted()


# -- the giving side ------------------------------------------------------------------------------------------


def a_donor(*peers: str, verified: bool = True) -> PagedConversation:
    maker, _ = a_story()
    node = PagedConversation(disk=disk_of(maker.frames, verified=verified))
    node.link("up", *peers)
    node.adopt("up")
    node.said()
    return node


def test_pages_are_read_one_by_one_as_far_as_the_credit_goes() -> None:
    node = a_donor("x")
    node.receive_bulk("x", PagesWanted(b"", 2))
    assert node.read() == [("x", b"")]
    pages = pages_of(node.disk)
    node.hear(PageSent("x", pages[0].until))
    assert node.read() == [("x", pages[0].until)]
    node.hear(PageSent("x", pages[1].until))
    assert not node.read(), "no credit"
    node.receive_bulk("x", PagesCredit(1))
    assert node.read() == [("x", pages[1].until)]


def test_a_receiver_that_starts_elsewhere_is_served_from_there() -> None:
    node = a_donor("x")
    pages = pages_of(node.disk)
    node.receive_bulk("x", PagesWanted(b"", 5))
    node.receive_bulk("x", PagesWanted(pages[2].until, 5))
    assert node.read() == [("x", b"")]
    node.hear(PageSent("x", pages[0].until))
    assert node.read() == [("x", pages[2].until)]


def test_two_are_served_at_once_and_a_third_when_one_is_done_gone_or_silent() -> None:
    node = a_donor("x", "y", "z")
    for peer in "xyz":
        node.receive_bulk(peer, PagesWanted(b"", 2))
    assert node.bulk(PagesRefused) == [("z", PagesRefused(node.disk.position))]
    node.hear(PageSent("x", b""))
    node.receive_bulk("z", PagesWanted(b"", 2))
    assert not node.bulk(PagesRefused)
    node.hear(BulkLost("y"))
    node.receive_bulk("x", PagesWanted(b"", 2))
    assert not node.bulk(PagesRefused)
    node.wait(RECEIVER_SILENCE_MS + 1)
    node.receive_bulk("y", PagesWanted(b"", 2))
    assert not node.bulk(PagesRefused)


def test_a_receiver_that_takes_no_more_makes_room_at_once() -> None:
    node = a_donor("x", "y", "z")
    for peer in "xy":
        node.receive_bulk(peer, PagesWanted(b"", 2))
    node.receive_bulk("y", PagesRefused(GENESIS))
    node.receive_bulk("z", PagesWanted(b"", 2))
    assert not node.bulk(PagesRefused)
    node.hear(PageSent("y", b"n"))
    assert ("y", b"n") not in node.read()


def test_who_leaves_a_donor_tells_it_unless_that_has_refused_or_is_gone() -> None:
    """It kept one of the two places that a donor has for half a minute, and gave others nothing."""
    maker, _ = a_story()
    node = blank("a", "b", "c", head=maker.frames[-1])
    node.receive_bulk("a", PagesRefused(maker.position))
    assert not node.bulk(PagesRefused)
    node.wait(2 * SILENCE_MS)
    assert [peer for peer, _ in node.bulk(PagesRefused)] == ["b"]
    node.hear(BulkLost("c"))
    assert not node.bulk(PagesRefused)


def test_who_is_not_verified_or_being_made_itself_gives_no_pages() -> None:
    node = a_donor("x", verified=False)
    node.receive_bulk("x", PagesWanted(b"", 2))
    assert [peer for peer, _ in node.bulk(PagesRefused)] == ["x"]
    maker, _ = a_story()
    node = blank("a", "b", head=maker.frames[-1], disk=disk_of(maker.frames[:10]))
    node.wanted()
    give(node, "a", disk_of(maker.frames), count=1)
    node.receive_bulk("b", PagesWanted(b"", 2))
    assert [peer for peer, _ in node.bulk(PagesRefused)] == ["b"]


# -- the coordinator ------------------------------------------------------------------------------------------


def test_a_coordinator_with_an_empty_disk_is_made_anew_of_a_members_pages_and_then_writes() -> None:
    maker, _ = a_story()
    donor = disk_of(maker.frames)
    node = PagedConversation(ROOT, fresh=False, recover=True)
    node.link("a", "b")
    for peer in "ab":
        node.receive(peer, advert_of(maker.position))
    node.wait(600)
    [asked] = node.told(Subscribe)
    node.receive(asked, refused(Reason.HORIZON, maker.position))
    [(peer, after)] = node.wanted()
    assert after == b""
    assert node.opened() is None
    give(node, peer, donor)
    assert node.disk.records == donor.records
    assert node.opened() == 2, "the next epoch"


def test_a_coordinator_older_than_its_networks_journals_says_how_to_go_on() -> None:
    maker, _ = a_story()
    node = PagedConversation(ROOT, disk=disk_of(maker.frames[:10]), fresh=False)
    node.link("a")
    node.receive("a", advert_of(maker.position))
    node.wait(600)
    assert node.told(Subscribe) == ["a"]
    node.receive("a", refused(Reason.HORIZON, maker.position))
    assert "--recover" in node.refused()
    assert not node.wanted()


def test_a_coordinator_whose_tail_nobody_can_continue_begins_anew() -> None:
    maker, namespace = a_story()
    donor = disk_of(maker.frames)
    node = PagedConversation(ROOT, fresh=False, recover=True)
    node.link("a", "b")
    for peer in "ab":
        node.receive(peer, advert_of(maker.position))
    node.wait(600)
    [asked] = node.told(Subscribe)
    node.receive(asked, refused(Reason.HORIZON, maker.position))
    [(peer, _)] = node.wanted()
    give(node, peer, donor, count=2)
    for peer in "ab":
        node.lose(peer)
        node.hear(BulkLost(peer))
    continue_history(maker, 60, namespace, size=10, mark=b"more")
    node.bulk()
    node.said()
    node.link("c", "d")
    for _ in range(8):
        for peer in "cd":
            node.receive(peer, advert_of(maker.position))
        for peer in node.told(Subscribe):
            node.receive(peer, refused(Reason.HORIZON, maker.position))
        node.wait(1.5 * ALONE_MS)
    peer, after = node.wanted()[-1]
    assert after == b""
    give(node, peer, disk_of(maker.frames))
    assert node.opened() == 2


def proving(**flags: bool) -> tuple[PagedConversation, SimulatedDisk]:
    """A coordinator that is made anew, all pages there, and behind them frames of which one needs a lost chunk."""
    maker, namespace = a_story()
    donor = disk_of(maker.frames)
    node = PagedConversation(ROOT, fresh=False, recover=True, **flags)
    node.proves = False
    node.link("a")
    node.receive("a", advert_of(maker.position))
    node.wait(600)
    [asked] = node.told(Subscribe)
    node.receive(asked, refused(Reason.HORIZON, maker.position))
    node.wanted()
    give(node, "a", donor, count=2)
    assert "a" in node.parents
    before = len(maker.frames)
    continue_history(maker, 3, namespace, size=10, mark=b"more")
    node.receive("a", frames_of(*maker.frames[before:]))
    give(node, "a", donor, pages_of(donor)[1].until)
    assert node.replica.bootstrap_status()["proving"]
    node.hear(ChunksLacking((b"lost".ljust(32),)))
    node.later = maker.frames[before:]
    return node, donor


def test_a_coordinator_whose_tail_needs_a_lost_chunk_says_so() -> None:
    node, _ = proving()
    why = ""
    for _ in range(40):
        node.wait(500)
        why = why or node.refused()
    assert "--accept-loss" in why
    assert node.replica.bootstrap_status()["proving"], "the chunk may still come"


def test_told_to_accept_the_loss_it_is_made_anew_without_that_tail() -> None:
    """All that its members show is kept; only what none of them could apply is not."""
    node, donor = proving(accept_loss=True)
    node.bulk()
    asked: list[tuple[str, bytes]] = []
    while not asked:
        node.wait(100)
        asked = node.wanted()
    assert asked == [("a", b"")]
    node.proves = True
    give(node, "a", donor, count=2)
    for parent in node.parents:
        node.receive(parent, frames_of(*node.later))
    give(node, "a", donor, pages_of(donor)[1].until)
    assert node.replica.bootstrap_status() is None
    assert node.disk.records == donor.records
    assert node.disk.position == donor.position
    node.wait(10_000)
    assert node.replica.root.phase is Phase.OPENING
