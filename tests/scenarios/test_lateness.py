"""Who notices that it misses something, whom it asks, and how far it goes."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

from kvnet.core.messages import Advert, Ask, BeaconId, Move, Reason, Subscribe, Unsubscribe
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

H = history(6)
HERE = H[2].position
AHEAD = H[4].position
MEMBERS = ("me", *(f"m{n}" for n in range(40)))


def on_time(*others: str, rtt_ms: float = 20.0, members: tuple[str, ...] = ()) -> Conversation:
    """A node with a parent that has just delivered a beacon; the next is due in 250 ms."""
    node = Conversation(history=H[:3], members=members, root_links=("x", "y", "z") if members else ())
    node.link("up", *others, rtt_ms=rtt_ms)
    node.adopt("up", latency_ms=100.0)
    return node


def late(*others: str, **more: object) -> Conversation:
    node = on_time(*others, **more)
    node.wait(500)
    assert node.is_late
    return node


# -- causes


def test_two_intervals_without_a_newer_beacon_are_late() -> None:
    node = on_time("a")
    node.wait(499)
    assert not node.is_late
    node.receive("up", beacon_of(HERE, number=2, path=(ROOT, "up"), interval_ms=500))
    node.wait(999)
    assert not node.is_late
    node.wait(1)
    assert node.is_late


def test_a_neighbours_position_that_is_still_lacking_is_late() -> None:
    node = on_time("a", rtt_ms=20)
    node.receive("a", advert_of(AHEAD, beacon=(1, 1), latency_ms=500))
    node.wait(69)
    assert not node.is_late
    node.wait(1)
    assert node.is_late


def test_what_arrives_in_time_was_not_lacking() -> None:
    node = on_time("a")
    node.receive("a", advert_of(AHEAD, beacon=(1, 1), latency_ms=500))
    node.wait(60)
    node.receive("up", frames_of(H[3], H[4]))
    node.wait(100)
    assert not node.is_late


def test_neither_a_child_nor_a_barred_peer_nor_an_older_epoch_can_make_anybody_late() -> None:
    node = on_time("child", "barred", "old")
    node.receive("child", subscribe(HERE))
    node.state.barred["barred"] = node.now + 60_000
    node.state.tip = node.state.tip._replace(epoch=2)
    node.receive("child", advert_of(AHEAD, latency_ms=500))
    node.receive("barred", advert_of(AHEAD._replace(epoch=2), latency_ms=500))
    node.receive("old", advert_of(AHEAD, latency_ms=500))
    node.wait(400)
    assert not node.is_late


def test_a_lost_parent_is_late_at_once_and_asks_everybody() -> None:
    node = on_time("a", "b", "c", "d", "e", "f")
    node.lose("up")
    assert node.is_late
    assert sorted(node.told(Ask)) == ["a", "b", "c", "d", "e", "f"]


def test_a_lost_second_parent_is_nothing() -> None:
    node = late("a")
    node.receive("a", advert_of(AHEAD, beacon=(1, 2), latency_ms=200))
    node.receive("a", frames_of(H[3], H[4]), beacon_of(AHEAD, number=2, path=(ROOT, "a")))
    assert not node.is_late
    node.lose("a")
    assert node.parents == ["up"]
    assert not node.is_late


def test_frames_without_a_beacon_do_not_make_anybody_be_on_time() -> None:
    node = late("a")
    node.receive("up", frames_of(H[3]))
    assert node.is_late
    node.receive("up", beacon_of(H[3].position, number=2, path=(ROOT, "up")))
    assert not node.is_late


def test_a_beacon_without_what_is_lacking_does_not_either() -> None:
    node = on_time("a")
    node.wait(475)
    node.receive("a", advert_of(AHEAD, beacon=(1, 1), latency_ms=500))
    node.wait(30)  # late, for want of a beacon; and the neighbour's position may still be on its way
    assert node.is_late
    node.receive("up", beacon_of(HERE, number=2, path=(ROOT, "up")))
    assert node.is_late
    node.receive("up", frames_of(H[3], H[4]))
    assert not node.is_late


def test_frames_that_bring_what_was_lacking_end_the_lateness_that_it_began() -> None:
    """What was lacking was forgotten in the moment in which the node became late for it. So it went on asking and
    climbing, with everything at hand, until the next newer beacon.
    """
    node = on_time("a", "b")
    node.receive("up", beacon_of(HERE, number=2, path=(ROOT, "up"), interval_ms=5000))
    node.receive("a", advert_of(AHEAD, beacon=(1, 2), latency_ms=500))
    node.wait(70)
    assert node.is_late
    assert node.told(Ask) == ["a", "b"] or node.told(Ask) == ["b", "a"]
    node.receive("up", frames_of(H[3]))
    assert node.is_late, "there is more"
    node.receive("up", frames_of(H[4]))
    assert not node.is_late
    node.wait(2000)
    assert not node.said(Ask)


def test_a_beacon_ends_it_even_if_what_a_neighbour_advertised_never_comes() -> None:
    """The neighbour may be on another history: nobody else has what it told of, and the beacon says that all is
    here. Only within the grace does the neighbour's word count for more.
    """
    node = on_time("a")
    node.receive("a", advert_of(AHEAD, beacon=(1, 1), latency_ms=500))
    node.wait(70)
    assert node.is_late
    node.receive("up", beacon_of(HERE, number=2, path=(ROOT, "up")))
    assert not node.is_late
    node.receive("a", advert_of(AHEAD, beacon=(1, 1), latency_ms=500))
    node.wait(70)
    assert node.is_late, "told once more, it is looked for once more"


def test_what_was_lacking_does_not_make_up_for_a_beacon_that_is_overdue() -> None:
    node = on_time("a")
    node.wait(475)
    node.receive("a", advert_of(AHEAD, beacon=(1, 1), latency_ms=500))
    node.wait(30)
    node.receive("up", frames_of(H[3], H[4]))
    assert node.is_late
    node.receive("up", beacon_of(AHEAD, number=2, path=(ROOT, "up")))
    assert not node.is_late


def test_a_beacon_that_is_repeated_is_no_sign_of_life() -> None:
    node = on_time("a")
    node.wait(475)
    node.receive("up", beacon_of(HERE, number=1, path=(ROOT, "up")))
    node.wait(25)
    assert node.is_late


# -- asking


def test_a_link_that_comes_up_while_late_is_asked_at_once() -> None:
    node = late("a")
    node.said()
    node.link("b")
    assert node.said_to("b", Ask) == [Ask(1, 3, BeaconId(1, 1), ladder=False)]
    node.receive("up", beacon_of(HERE, number=2, path=(ROOT, "up")))
    node.link("c")
    assert not node.said_to("c", Ask), "on time it asks nobody"


def test_waits_differ_by_a_fifth_so_that_a_dead_coordinator_causes_no_storm() -> None:
    node = on_time("a", members=MEMBERS)
    rungs = []
    node.wait(500)
    for _ in range(60):
        rung = node.replica.lateness._rung
        while node.replica.lateness._rung == rung:
            node.wait(1)
        rungs.append(node.now)
    waits = [after - before for before, after in pairwise(rungs)]
    assert 800 <= min(waits) < 850
    assert 1150 < max(waits) <= 1201


def test_the_four_that_promise_most_are_asked_and_after_300_ms_the_others() -> None:
    node = on_time("a", "b", "c", "d", "e", "f")
    for name, latency in zip("abcdef", (600, 500, 400, 300, 200, 150), strict=True):
        node.receive(name, advert_of(HERE, beacon=(1, 1), latency_ms=latency))
    node.wait(500)
    assert node.said(Ask)[:4] == [(name, Ask(1, 3, BeaconId(1, 1), ladder=False)) for name in "fedc"]
    node.wait(360)
    assert node.told(Ask) == ["b", "a"]


def test_a_newer_beacon_ends_it() -> None:
    node = late("a")
    node.said()
    node.receive("up", beacon_of(HERE, number=2, path=(ROOT, "up")))
    assert not node.is_late
    node.wait(400)
    assert not node.said(Ask)


def test_an_ask_is_answered_at_once_by_who_has_something_newer() -> None:
    node = on_time("a")
    node.receive("a", Ask(1, 2, BeaconId(1, 1), ladder=False))
    [advert] = node.said_to("a", Advert)
    assert (advert.position, advert.beacon) == (HERE, (1, 1))
    node.receive("a", Ask(1, 3, BeaconId(1, 0), ladder=True))
    assert node.told(Advert) == ["a"]


def test_an_ask_is_kept_and_answered_once_when_it_can_be() -> None:
    node = on_time("a")
    node.receive("a", Ask(1, 3, BeaconId(1, 1), ladder=False))
    assert not node.said()
    node.commits = False
    node.receive("up", frames_of(H[3]))
    assert not node.said(), "not before it is applied"
    node.commit()
    [advert] = node.said_to("a", Advert)
    assert advert.position == H[3].position
    node.receive("up", frames_of(H[4]))
    node.commit()
    assert not node.said(), "once"


def test_a_kept_ask_is_answered_with_a_newer_beacon_too() -> None:
    node = on_time("a")
    node.receive("a", Ask(1, 3, BeaconId(1, 1), ladder=False))
    node.receive("up", beacon_of(HERE, number=2, path=(ROOT, "up")))
    [advert] = node.said_to("a", Advert)
    assert advert.beacon == (1, 2)


def test_asks_from_outside_and_from_who_is_gone_are_not_kept() -> None:
    node = on_time("a", "b")
    node.receive("a", Ask(1, 3, BeaconId(1, 1), ladder=True))
    node.receive("b", Ask(1, 3, BeaconId(1, 1), ladder=False))
    node.lose("b")
    node.receive("up", frames_of(H[3]))
    assert not node.said(Advert)


# -- moving


def test_a_late_node_takes_only_who_has_something_newer() -> None:
    node = late("a", "b", "c")
    node.said()
    node.receive("a", advert_of(HERE, beacon=(1, 1), latency_ms=99))
    assert not node.said()
    node.receive("b", advert_of(HERE, beacon=(1, 2), latency_ms=900))
    assert node.said() == [("b", Subscribe(HERE, True))]
    assert node.parents == ["up", "b"], "subscribes there before it leaves"


def test_a_late_node_takes_nobody_whose_way_to_the_root_leads_through_itself() -> None:
    node = late("a")
    node.said()
    node.receive("a", advert_of(AHEAD, beacon=(1, 2), latency_ms=900, path=(ROOT, "me")))
    assert not node.said(Subscribe)
    node.receive("a", advert_of(AHEAD, beacon=(1, 2), latency_ms=900, path=(ROOT, "x")))
    assert node.told(Subscribe) == ["a"]


def test_parents_are_added_one_after_another_and_at_most_three() -> None:
    node = late("a", "b", "c", "d", rtt_ms=80)
    for name in "abcd":
        node.receive(name, advert_of(AHEAD, beacon=(1, 2), latency_ms=100))
    assert node.parents == ["up", "a"]
    node.wait(159)
    assert node.parents == ["up", "a"]
    node.wait(1)
    assert len(node.parents) == 3, "two round trips later"
    node.wait(200)
    assert len(node.parents) == 3


def test_a_late_node_says_so_to_a_nearer_neighbour_too() -> None:
    """An advert was first weighed as one that comes on time: a clearly nearer neighbour was taken as a successor,
    without saying that it was urgent, and refused the late node as FULL.
    """
    node = late("near")
    node.said()
    node.receive("near", advert_of(AHEAD, beacon=(1, 2), latency_ms=20))
    assert node.said(Subscribe) == [("near", Subscribe(HERE, True))]


def test_a_nearer_neighbour_that_has_nothing_newer_is_no_help_to_a_late_node() -> None:
    """It was taken as a successor nevertheless, and held the place of one that would have helped."""
    node = late("near", "a")
    node.said()
    node.receive("near", advert_of(HERE, beacon=(1, 1), latency_ms=20))
    assert not node.said(Subscribe)
    node.receive("a", advert_of(AHEAD, beacon=(1, 2), latency_ms=500))
    assert node.told(Subscribe) == ["a"]


def test_nearer_neighbours_are_added_one_after_another_as_well() -> None:
    """The first became a successor, the second a further parent in the same moment: everything was fetched twice,
    and a third time from the old parent.
    """
    node = late("a", "b", rtt_ms=80)
    node.said()
    for name in "ab":
        node.receive(name, advert_of(AHEAD, beacon=(1, 2), latency_ms=20))
    assert node.parents == ["up", "a"]
    node.wait(159)
    assert node.parents == ["up", "a"]
    node.receive("a", frames_of(H[3], H[4]), beacon_of(AHEAD, number=2, path=(ROOT, "a")))
    assert not node.is_late
    node.wait(10)
    assert node.told(Subscribe) == ["a"], "one copy was enough"


def test_a_late_node_that_is_asked_to_move_still_takes_whoever_will_do() -> None:
    node = late("a")
    node.receive("up", Move())
    node.said()
    node.receive("a", advert_of(HERE, beacon=(1, 1), latency_ms=300))
    assert node.said(Subscribe) == [("a", Subscribe(HERE, False))]


def test_a_third_silent_parent_makes_room_for_one_that_answers() -> None:
    node = late("a", "b", "c", rtt_ms=20)
    node.receive("a", advert_of(AHEAD, beacon=(1, 2), latency_ms=200))
    node.wait(150)
    node.receive("b", advert_of(AHEAD, beacon=(1, 2), latency_ms=200))
    assert node.parents == ["up", "a", "b"]
    node.wait(1200)
    node.said()
    node.receive("c", advert_of(AHEAD, beacon=(1, 2), latency_ms=200))
    assert node.said(Subscribe, Unsubscribe) == [("up", Unsubscribe()), ("c", Subscribe(HERE, True))]


def test_for_100_ms_a_full_node_is_not_taken_and_then_it_is() -> None:
    node = late("a")
    node.said()
    node.receive("a", advert_of(HERE, beacon=(1, 2), full=True))
    node.wait(99)
    assert not node.told(Subscribe)
    node.wait(1)
    assert node.told(Subscribe) == ["a"]


def test_a_late_node_goes_on_asking_when_it_is_refused() -> None:
    node = on_time("a", "b")
    node.lose("up")
    node.receive("a", advert_of(AHEAD, beacon=(1, 2)))
    node.said()
    node.receive("a", refused(Reason.HORIZON, AHEAD))
    assert node.told(Ask) == ["a"], "b keeps what it was asked just before"
    node.receive("a", advert_of(AHEAD, beacon=(1, 2)))
    assert not node.told(Subscribe), "not again for five seconds"
    node.receive("b", advert_of(AHEAD, beacon=(1, 2)))
    assert node.told(Subscribe) == ["b"], "at once: only a second parent is taken with deliberation"


def test_who_keeps_an_ask_is_not_asked_the_same_again_for_a_second() -> None:
    """Sixty replicas that started over at once lost one parent after the other, and asked thirty neighbours each
    time: 177 messages a node in a second (swarm, safety, seed 753); 113 since.
    """
    node = on_time("a", "b")
    node.lose("up")
    assert sorted(node.told(Ask)) == ["a", "b"]
    node.wait(300)
    node.receive("a", advert_of(AHEAD, beacon=(1, 2)))
    node.said()
    node.lose("a")
    assert not node.told(Ask), "b has the same ask still"
    node.link("a")
    assert node.told(Ask) == ["a"], "a new link has none"


# -- the ladder


def test_the_ladder_leaves_the_neighbourhood_a_rung_a_second() -> None:
    node = late("a", members=MEMBERS)
    rungs: list[list[str]] = []
    node.dialled()
    for _ in range(80):
        node.wait(50)
        rung = node.replica.lateness._rung
        dials = [name for name in node.dialled() if name not in node.replica.overlay.wanted]
        if rung > len(rungs):
            rungs.append(dials)
    assert len(rungs) >= 3
    members, coordinators, root = rungs[:3]
    assert len(members) == 2
    assert set(members) < {*MEMBERS} - {"me", "a"}
    assert len(coordinators) == 2
    assert set(coordinators) < {"x", "y", "z"}
    assert root == [ROOT]


def test_the_second_rung_names_neither_a_parent_nor_a_child() -> None:
    """A node beside the coordinator has its neighbours for parents and children. One of the two places of the rung
    went to the parent that had fallen silent, the other to the child that had everything from the node itself.
    """
    node = Conversation(history=H[:3], members=MEMBERS, root_links=("x", "y", "z"))
    node.link("x", "y")
    node.adopt("x")
    node.receive("y", subscribe(HERE))
    node.wait(500)
    assert node.is_late
    node.said()
    node.dialled()
    dialled: list[str] = []
    asked: list[str] = []
    while node.replica.lateness._rung < 2:
        node.wait(10)
        dialled += node.dialled()
        asked += [peer for peer, ask in node.said(Ask) if ask.ladder]
    assert not asked
    assert "z" in dialled


def test_a_rung_that_stands_is_asked_and_answers_bring_a_parent() -> None:
    node = late("a", members=MEMBERS)
    while ROOT not in node.dialled():
        node.wait(50)
        node.said()
    node.link(ROOT)
    assert [ask.ladder for ask in node.said_to(ROOT, Ask)] == [True]
    node.receive(ROOT, advert_of(AHEAD, beacon=(1, 2), latency_ms=0.0, path=()))
    assert ROOT in node.parents


def test_an_unused_ladder_link_closes_after_ten_seconds_whatever_its_other_end_asks() -> None:
    """Every ask of the other end counted as a use, and late nodes ask all their links: none was ever closed."""
    node = late("a", members=MEMBERS)
    while ROOT not in node.dialled():
        node.wait(50)
    node.link(ROOT)
    closed = []
    for _ in range(24):
        node.receive(
            "up", beacon_of(HERE, number=node.state.beacon.number + 1, path=(ROOT, "up"), interval_ms=500)
        )
        node.receive(ROOT, Ask(1, 9, BeaconId(9, 9), ladder=False))
        node.wait(500)
        closed += node.disconnected()
    assert closed == [ROOT]


def test_own_neighbours_are_asked_again_at_every_eighth_rung_only() -> None:
    node = late("a", "b", members=MEMBERS)
    node.wait(500)
    node.said()
    asks: Counter[str] = Counter()
    for _ in range(8):
        node.wait(1000)
        asks.update(peer for peer in node.told(Ask) if peer in "ab")
    assert set(asks) == {"a", "b"}
    assert asks["a"] <= 2
    assert asks["b"] <= 2


def test_in_an_outage_the_tree_stays_for_when_it_is_over() -> None:
    """A silent parent was dropped at the first rung, so that the whole tree had to be found again."""
    node = late("a")
    node.wait(20_000)
    assert node.parents == ["up"]
    node.receive("up", beacon_of(HERE, number=2, path=(ROOT, "up")))
    assert not node.is_late
