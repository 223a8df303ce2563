"""Several nodes talk to each other, and the test reads along: the protocol as transcripts.

Versions are `epoch-seq`, beacons `epoch.number`; the numbers in front are milliseconds. Everything said at one
time is said one after the other, each answer as soon as its question is heard.
"""

from __future__ import annotations

from kvnet.core.events import Connect, Empty, OpenEpoch, RefuseWrites, Report
from kvnet.core.messages import Advert, Ask, Beacon, Frames, Refused, Subscribe, Unsubscribe
from tests.support.ensemble import ROOT, Ensemble, history

H = history(6)
THEIRS = history(6, mark=b"theirs")
REPAIR = (Report, Connect, Ask, Subscribe, Unsubscribe, Refused, Frames)


# -- subscription and cursor


def test_all_are_late_at_the_start_and_the_tree_grows_from_the_root() -> None:
    net = Ensemble({"root": ["a"], "a": ["b"]}, start=False)
    net.start("root", "a", "b")
    net.wait(1000)
    assert net.transcript(since=0) == [
        "    0  root dials a",
        "    0  a dials b",
        "    0  a late: just started",
        "    0  b late: just started",
        "    0  root -> a Advert(0-0, beacon 0.0)",
        "    0  a -> root Advert(0-0, beacon 0.0)",
        "    0  a -> root Ask(0-0, beacon 0.0)",
        "    0  a -> b Advert(0-0, beacon 0.0)",
        "    0  a -> b Ask(0-0, beacon 0.0)",
        "    0  b -> a Advert(0-0, beacon 0.0)",
        "    0  b -> a Ask(0-0, beacon 0.0)",
        "  500  root opens epoch 1",
        "  500  root -> a Advert(1-1, beacon 1.1)",  # the answer to the ask it kept
        "  500  a -> root Subscribe(0-0, late)",
        "  500  root -> a Frames(1-1)",
        "  500  root -> a Beacon(1.1, head 1)",
        "  500  a -> b Advert(1-1, beacon 0.0)",  # and so from neighbour to neighbour
        "  500  b -> a Subscribe(0-0, late)",
        "  500  a -> b Frames(1-1)",
        "  500  a -> b Beacon(1.1, head 1)",
        "  500  b -> a Advert(1-1, beacon 0.0)",  # a has it long since: a late answer to its first ask
        " 1000  root -> a Beacon(1.2, head 1)",
        " 1000  a -> b Beacon(1.2, head 1)",
    ]
    assert net.tree() == {"a": ["root"], "b": ["a"]}


def test_a_child_is_served_from_where_it_is_and_then_from_what_comes() -> None:
    net = Ensemble({"root": ["a"], "b": ["a"]})
    net.stop("b")
    net.write(3)
    net.transcript()
    net.start("b")
    net.write()
    assert net.transcript() == [
        "b dials a",
        "b late: just started",
        "b -> a Advert(1-1, beacon 0.0)",
        "b -> a Ask(1-1, beacon 0.0)",
        "a -> b Advert(1-4, beacon 1.2)",  # a link came up
        "a -> b Advert(1-4, beacon 1.2)",  # and it was asked
        "b -> a Subscribe(1-1, late)",
        "a -> b Frames(1-2..1-4)",
        "a -> b Beacon(1.2, head 1)",
        "root -> a Frames(1-5)",
        "a -> b Frames(1-5)",
    ]


def test_a_subscription_that_is_repeated_moves_the_cursor_and_repeated_frames_are_dropped() -> None:
    net = Ensemble({"root": ["a"], "b": ["a"]})
    net.write(2)
    net.transcript()
    net.say("b", "a", Subscribe(net.journal("a").frames[0].position, late=False))
    net.write()
    assert net.transcript(Subscribe, Frames, of="b") == [
        "b -> a Subscribe(1-1)",
        "a -> b Frames(1-2..1-3)",
        "a -> b Frames(1-4)",
    ]
    assert net.agreed() == "1-4"
    assert net.core("b").stream.frames_duplicate == 2


# -- lateness


def below_a_relay() -> Ensemble:
    """`c` and `d` are below the relay `a`; both have a link to `b`, which is farther away."""
    net = Ensemble(
        {"root": ["a", "b"], "c": ["a", "b"], "d": ["a", "b"]}, rtt_ms={"root a": 10, "b c": 60, "b d": 80}
    )
    net.wait(10_000)
    assert net.tree() == {"a": ["root"], "b": ["root"], "c": ["a"], "d": ["a"]}
    net.write()
    net.wait(250)
    net.transcript()
    return net


def test_a_relay_falls_silent_and_its_children_move() -> None:
    net = below_a_relay()
    silent_at = net.now
    net.silence("a")
    net.write()
    net.wait(800)
    assert net.transcript(*REPAIR, Beacon, since=silent_at) == [
        "    0  root -> a Frames(1-3)",
        "    0  root -> b Frames(1-3)",
        "  250  root -> a Beacon(1.25, head 3)",
        "  250  root -> b Beacon(1.25, head 3)",
        "  500  root -> a Beacon(1.26, head 3)",
        "  500  root -> b Beacon(1.26, head 3)",
        "  500  c late: no newer beacon",
        "  500  c -> b Ask(1-2, beacon 1.24)",
        "  500  c -> b Subscribe(1-2, late)",
        "  500  b -> c Frames(1-3)",
        "  500  b -> c Beacon(1.26, head 3)",
        "  500  d late: no newer beacon",
        "  500  d -> b Ask(1-2, beacon 1.24)",
        "  500  d -> b Subscribe(1-2, late)",
        "  500  b -> d Frames(1-3)",
        "  500  b -> d Beacon(1.26, head 3)",
        "  750  root -> a Beacon(1.27, head 3)",
        "  750  root -> b Beacon(1.27, head 3)",
        "  750  b -> c Beacon(1.27, head 3)",
        "  750  b -> d Beacon(1.27, head 3)",
    ]
    assert net.tree() == {"b": ["root"], "c": ["a", "b"], "d": ["a", "b"]}, "until the review"
    net.wait(10_000)
    assert net.tree() == {"b": ["root"], "c": ["b"], "d": ["b"]}


def test_a_relay_ends_and_its_children_move_at_once() -> None:
    net = below_a_relay()
    net.stop("a")
    net.write()
    assert net.transcript(*REPAIR, Advert) == [
        "c late: no parent",
        "c -> b Ask(1-2, beacon 1.24)",
        "d late: no parent",
        "d -> b Ask(1-2, beacon 1.24)",
        "root -> b Frames(1-3)",
        "b -> c Advert(1-3, beacon 1.24)",  # it had nothing newer before, and kept the asks
        "b -> d Advert(1-3, beacon 1.24)",
        "c -> b Subscribe(1-2, late)",
        "d -> b Subscribe(1-2, late)",
        "b -> c Frames(1-3)",
        "b -> d Frames(1-3)",
    ]
    assert net.tree() == {"b": ["root"], "c": ["b"], "d": ["b"]}
    assert net.agreed() == "1-3"


# -- the ladder


def far_from_help(*, out_of_reach: tuple[str, ...]) -> Ensemble:
    """`b` knows only its parent `p`, which falls silent before a write; everybody else has it."""
    far = dict.fromkeys(("b m", "b n", "b x", "b y", "b root"), 60)
    net = Ensemble({"m": ["x"], "n": ["y"], "b": ["p"], "p": ["x"], "root": ["x", "y"]}, rtt_ms=far)
    for name in out_of_reach:
        net.part("b", name)
    net.silence("p")
    net.write()
    net.transcript()
    net.wait(4500)
    return net


def test_the_first_rung_is_two_members_at_random() -> None:
    net = far_from_help(out_of_reach=())
    assert net.transcript(*REPAIR, of="b", since=1000) == [
        "  500  b late: no newer beacon",
        " 1500  b dials m",
        " 1500  b dials n",
        " 1500  b -> m LadderAsk(1-1, beacon 1.2)",
        " 1500  b -> n LadderAsk(1-1, beacon 1.2)",
        " 1500  b -> m Subscribe(1-1, late)",
        " 1500  m -> b Frames(1-2)",
    ]


def test_the_second_rung_is_two_of_the_coordinators_neighbours() -> None:
    net = far_from_help(out_of_reach=("m", "n"))
    assert net.transcript(*REPAIR, of="b", since=1000) == [
        "  500  b late: no newer beacon",
        " 1500  b dials m",
        " 1500  b dials n",
        " 2500  b dials x",
        " 2500  b dials y",
        " 2500  b -> x LadderAsk(1-1, beacon 1.2)",
        " 2500  b -> y LadderAsk(1-1, beacon 1.2)",
        " 2500  b -> x Subscribe(1-1, late)",
        " 2500  x -> b Frames(1-2)",
    ]


def test_the_last_rung_is_the_coordinator() -> None:
    net = far_from_help(out_of_reach=("m", "n", "x", "y"))
    assert net.transcript(*REPAIR, of="b", since=1000) == [
        "  500  b late: no newer beacon",
        " 1500  b dials m",
        " 1500  b dials n",
        " 2500  b dials x",
        " 2500  b dials y",
        " 3500  b dials root",
        " 3500  b -> root LadderAsk(1-1, beacon 1.2)",
        " 3500  b -> root Subscribe(1-1, late)",
        " 3500  root -> b Frames(1-2)",
    ]


# -- loops


def test_two_that_could_serve_each_other_wait_for_news_instead() -> None:
    """Neither has anything newer than the other; so neither subscribes, and the first news reaches both."""
    net = Ensemble({"root": ["a", "b"], "a": ["b"]})
    net.part("root", "a")
    net.part("root", "b")
    net.write()
    net.wait(400)
    assert net.transcript(Report, Ask, Advert, Subscribe) == [
        "a late: no parent",
        "a -> b Ask(1-1, beacon 1.2)",
        "b late: no parent",
        "b -> a Ask(1-1, beacon 1.2)",
    ]
    assert net.tree() == {"a": [], "b": []}
    net.link("root", "a")
    assert net.transcript(Ask, Subscribe, Frames, Refused) == [
        "a -> root Ask(1-1, beacon 1.2)",
        "a -> root Subscribe(1-1, late)",
        "root -> a Frames(1-2)",
        "b -> a Subscribe(1-1, late)",
        "a -> b Frames(1-2)",
    ]
    assert net.tree() == {"a": ["root"], "b": ["a"]}


def test_a_node_whose_only_link_is_to_its_own_child_has_each_write_within_the_bound() -> None:
    """`a` took `b` as a second parent when packets were lost. Then `b` loses every link but the one to `a`, which
    is connected. No child was ever asked, so `b` waited until `a` reviewed its parents: 10 s to 40 s.
    """
    net = Ensemble({"root": ["a", "b"], "a": ["b"]})
    net.hold("root", "a")
    net.wait(1000)
    net.release("root", "a")
    net.wait(1000)
    assert net.tree() == {"a": ["root", "b"], "b": ["root"]}
    net.part("root", "b")
    net.write()
    net.wait(10_000)
    assert net.agreed() == "1-2"


def test_a_loop_of_late_nodes_does_no_harm_and_ends_with_the_next_beacon_from_outside() -> None:
    net = Ensemble(
        {"root": ["x", "y"], "a": ["x"], "b": ["a"], "c": ["b"]}, rtt_ms={"y c": 56, "a c": 56, "b x": 200}
    )
    net.link("y", "c")
    net.link("a", "c")
    assert net.tree() == {"x": ["root"], "y": ["root"], "a": ["x"], "b": ["a"], "c": ["b"]}

    net.hold("b", "c")  # what b says to c hangs for a while, and c takes a second parent
    net.wait(1300)
    net.release("b", "c")
    net.wait(500)
    assert net.parents("c") == ["b", "y"]

    net.part("x", "a")  # a loses its parent; c has its beacons from y, so a isn't on their path
    net.wait(500)
    assert net.tree() == {"x": ["root"], "y": ["root"], "a": ["c"], "b": ["a"], "c": ["b", "y"]}

    net.transcript()
    silent_at = net.now
    net.silence("y")  # and now a, b and c have only each other
    net.write()
    net.wait(2500)
    assert net.transcript(*REPAIR, since=silent_at) == [
        "    0  root -> x Frames(1-2)",
        "    0  root -> y Frames(1-2)",
        "  150  a dials x",
        "  700  a late: no newer beacon",
        "  700  b late: no newer beacon",
        "  700  c late: no newer beacon",
        "  950  a dials x",
        " 1700  a dials x",
        " 1700  a dials y",
        " 1700  b dials x",
        " 1700  b dials y",
        " 1700  b -> x LadderAsk(1-1, beacon 1.7)",
        " 1700  b -> x Subscribe(1-1, late)",
        " 1700  x -> b Frames(1-2)",
        " 1700  b -> c Frames(1-2)",
        " 1700  c -> a Frames(1-2)",
        " 1700  a -> b Frames(1-2)",
    ]
    assert net.positions() == {**dict.fromkeys(("root", "x", "a", "b", "c"), "1-2"), "y": "1-1"}
    net.wait(45_000)
    assert net.tree() == {"x": ["root"], "b": ["x"], "c": ["b"], "a": ["b"]}, (
        "reviews have taken what was too much"
    )


# -- histories


def test_a_higher_epoch_takes_the_place_of_a_history_that_it_left_behind() -> None:
    """The coordinator came back from an older disk and was told to go on; `b` has what it left behind."""
    net = Ensemble({"root": ["a"], "b": ["a"]}, disks={"root": H[:3], "a": H[:3], "b": H[:6]}, start=False)
    net.start("root", "a", fresh=False, accept_loss=True)
    net.wait(1000)
    assert net.positions() == {"root": "2-4", "a": "2-4", "b": "1-6"}
    net.transcript()
    net.start("b")
    assert net.transcript(*REPAIR, Empty) == [
        "b dials a",
        "b late: just started",
        "b -> a Ask(1-6, beacon 0.0)",
        "b -> a Subscribe(1-6, late)",
        "a -> b Refused(MISMATCH, 2-4)",
        "b mismatch",
        "b forked",
        "b throws its replica away",
        "b -> a Ask(0-0, beacon 0.0)",
        "b -> a Subscribe(0-0, late)",
        "a -> b Frames(1-1..2-4)",
    ]
    assert net.agreed() == "2-4"


def test_one_peer_that_contradicts_is_barred_and_two_that_agree_are_believed() -> None:
    net = Ensemble(
        {"root": ["a", "b"], "c": ["a"]},
        disks={"root": H[:4], "a": H[:4], "b": H[:4], "c": history(3, mark=b"theirs", epochs=2)},
        start=False,
    )
    net.start("root", "a", "b", fresh=False)
    net.wait(1000)
    net.transcript()
    net.start("c")
    assert net.transcript(Subscribe, Refused, Report, Empty) == [
        "c late: just started",
        "c -> a Subscribe(2-4, late)",
        "a -> c Refused(MISMATCH, 1-4 of 2)",
        "c mismatch",
    ]
    net.link("c", "b")
    assert net.transcript(Refused, Report, Empty) == [
        "b -> c Refused(MISMATCH, 1-4 of 2)",
        "c mismatch",
        "c forked",
        "c throws its replica away",
    ]
    assert net.agreed() == "2-5"


def test_all_edges_of_an_abandoned_history_give_way_to_the_coordinator_alone() -> None:
    """Two coordinators had run; the one that came back was told to accept the loss of what the other had written
    in epoch 2. It stood at 1-5 and began epoch 3 there, while `c` and `d` had the other's history up to 2-4. Its
    last frame end at or below that, 1-4, was all that it said when it refused them: of an older epoch, so they
    barred it. And as they agreed with each other, there was no second peer to believe (swarm, seed 16).
    """
    left = history(3, mark=b"left", epochs=2)
    net = Ensemble({"root": ["c", "d"], "c": ["d"]}, disks={"root": history(5), "c": left, "d": left}, start=False)
    net.start("c", "d")
    net.start("root", fresh=False, accept_loss=True)
    net.wait(500)
    assert net.transcript(OpenEpoch, Subscribe, Refused, Report, Empty, Frames, since=0)[2:] == [
        "  500  root -> d Subscribe(1-5, late)",  # c stands where d stands: it isn't asked
        "  500  d -> root Refused(MISMATCH, 2-4)",
        "  500  root opens epoch 3",
        "  500  c -> root Subscribe(2-4, late)",
        "  500  d -> root Subscribe(2-4, late)",
        "  500  root -> c Refused(MISMATCH, 1-4 of 3)",
        "  500  root -> d Refused(MISMATCH, 1-4 of 3)",
        "  500  c mismatch",
        "  500  c forked",
        "  500  c throws its replica away",
        "  500  d mismatch",
        "  500  d forked",
        "  500  d throws its replica away",
        "  500  c -> root Subscribe(0-0, late)",
        "  500  d -> root Subscribe(0-0, late)",
        "  500  root -> c Frames(1-1..3-6)",
        "  500  root -> d Frames(1-1..3-6)",
    ]
    assert net.agreed() == "3-6"


# -- the coordinator


def test_the_coordinator_fetches_what_a_member_has_beyond_it_before_it_opens_an_epoch() -> None:
    net = Ensemble({"root": ["a", "b"]}, disks={"root": H[:2], "a": H[:3], "b": H[:5]}, start=False)
    net.start("a", "b")
    net.start("root", fresh=False)
    net.wait(500)
    assert net.transcript(OpenEpoch, Connect, Advert, Subscribe, Unsubscribe, Frames, Beacon, since=0) == [
        "    0  root dials a",
        "    0  root dials b",
        "    0  root -> a Advert(1-2, beacon 0.0)",
        "    0  a -> root Advert(1-3, beacon 0.0)",
        "    0  root -> b Advert(1-2, beacon 0.0)",
        "    0  b -> root Advert(1-5, beacon 0.0)",
        "  500  root -> b Subscribe(1-2, late)",
        "  500  b -> root Frames(1-3..1-5)",
        "  500  root -> a Advert(1-5, beacon 0.0)",  # now it can answer this ask
        "  500  root -> b Unsubscribe",
        "  500  root opens epoch 2",
        "  500  root -> b Advert(2-6, beacon 2.1)",
        "  500  a -> root Subscribe(1-3, late)",
        "  500  b -> root Subscribe(1-5, late)",
        "  500  root -> a Frames(1-4..2-6)",
        "  500  root -> a Beacon(2.1, head 6)",
        "  500  root -> b Frames(2-6)",
        "  500  root -> b Beacon(2.1, head 6)",
    ]
    assert net.agreed() == "2-6"


def test_the_coordinator_does_not_write_over_what_nobody_gives_back() -> None:
    """`a` is ahead on another history: what it has doesn't continue the coordinator's."""
    net = Ensemble({"root": ["a"]}, disks={"root": H[:2], "a": THEIRS[:4]}, start=False)
    net.start("a")
    net.start("root", fresh=False)
    net.wait(500)
    why = "the network is ahead by 2 writes and no member can give that back; start with --accept-loss to go on"
    assert net.transcript(Subscribe, Refused, Unsubscribe, Frames, OpenEpoch, RefuseWrites) == [
        "root -> a Subscribe(1-2, late)",
        "a -> root Refused(MISMATCH, 1-2)",
        f"root refuses to write: {why} without it",
    ]
    assert net.positions() == {"root": "1-2", "a": "1-4"}


def test_a_new_epoch_goes_down_the_tree_as_the_next_frame_does() -> None:
    net = Ensemble({"root": ["a", "b"], "c": ["a"]})
    net.write(2)
    net.transcript()
    stopped_at = net.now
    net.stop(ROOT)
    net.wait(300)
    net.start(ROOT, fresh=False)
    net.wait(500)
    assert net.transcript(Report, OpenEpoch, Connect, Subscribe, Frames, Beacon, since=stopped_at) == [
        "    0  a late: no parent",
        "    0  b late: no parent",
        "  300  root dials a",
        "  300  root dials b",
        "  500  c late: no newer beacon",
        "  800  root opens epoch 2",
        "  800  a -> root Subscribe(1-3, late)",
        "  800  b -> root Subscribe(1-3, late)",
        "  800  root -> a Frames(2-4)",
        "  800  root -> a Beacon(2.1, head 4)",
        "  800  root -> b Frames(2-4)",
        "  800  root -> b Beacon(2.1, head 4)",
        "  800  a -> c Frames(2-4)",  # c has stayed where it was
        "  800  a -> c Beacon(2.1, head 4)",
    ]
    assert net.agreed() == "2-4"
    assert net.tree() == {"a": ["root"], "b": ["root"], "c": ["a"]}
