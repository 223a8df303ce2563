"""Acks go up the tree while somebody waits; transcripts as in test_ensembles.py."""

from __future__ import annotations

import pytest

from kvnet.core.events import AcksCame, Empty
from kvnet.core.messages import Ack, Acks, Beacon, BeaconId
from kvnet.core.receipts import TELL_AGAIN_MS
from kvnet.core.versions import Version
from tests.support.ensemble import ROOT, Ensemble, history

H = history(4)
THEIRS = history(6, mark=b"theirs")


def chain(**more: list[str]) -> Ensemble:
    """A root, its child a, and a's child b."""
    net = Ensemble({"root": ["a"], "a": ["b"], **more})
    assert net.tree()["b"] == ["a"]
    return net


def ack_of(member: str, seq: int, *, life: tuple[int, int] = (1, 1), epoch: int = 1) -> Ack:
    return Ack(member, BeaconId(*life), Version(epoch, seq))


def test_nobody_tells_anything_while_nobody_waits() -> None:
    net = chain()
    net.write(3)
    net.wait(2000)
    assert net.transcript(Acks, AcksCame) == []


def test_the_wish_goes_down_at_once_and_what_members_have_comes_up() -> None:
    net = chain()
    since = net.now
    net.want_receipts(10_000)
    net.wait(0)
    assert net.transcript(Beacon, Acks, AcksCame, since=since) == [
        "    0  root -> a Beacon(1.3, head 1)",
        "    0  a -> b Beacon(1.3, head 1)",
        "    0  a -> root Acks(a 1-1)",
        "    0  root hears a 1-1",
        "    0  b -> a Acks(b 1-1)",
    ]
    net.wait(TELL_AGAIN_MS)
    assert net.transcript(Acks, AcksCame, since=since) == [
        "   50  a -> root Acks(b 1-1)",
        "   50  root hears b 1-1",
    ]
    net.want_receipts(20_000)
    assert net.transcript(Beacon) == [], "it is wanted already"


def test_what_changes_in_quick_succession_is_told_together() -> None:
    net = chain()
    net.want_receipts(10_000)
    net.wait(1000)
    net.transcript()
    since = net.now
    for _ in range(10):
        net.write()
        net.wait(10)
    net.wait(TELL_AGAIN_MS)
    told = net.transcript(Acks, of="root", since=since)
    assert len(told) <= 2 + 100 / TELL_AGAIN_MS
    assert net.heard == {"a": "1-11", "b": "1-11"}


def test_it_ends_when_nobody_waits_any_more() -> None:
    net = chain()
    net.want_receipts(1000)
    net.wait(3000)
    net.transcript()
    net.write(3)
    net.wait(3000)
    assert net.transcript(Acks, AcksCame) == []
    net.want_receipts(1000)
    net.wait(1000)
    assert net.heard == {"a": "1-4", "b": "1-4"}, "what nobody wanted to hear then is told now"


def test_a_node_that_moves_tells_its_new_parent_all_of_its_subtree() -> None:
    net = Ensemble({"root": ["a", "c"], "a": ["b"], "b": ["c", "d"]}, rtt_ms={"b c": 200})
    assert net.tree() == {"a": ["root"], "c": ["root"], "b": ["a"], "d": ["b"]}
    net.want_receipts(60_000)
    net.wait(1000)
    net.transcript()
    net.part("a", "b")
    net.wait(1000)
    assert net.tree()["b"] == ["c"]
    assert net.transcript(Acks, of="b")[0] == "b -> c Acks(b 1-1, d 1-1)"
    net.write()
    net.wait(1000)
    assert net.heard == {"a": "1-2", "b": "1-2", "c": "1-2", "d": "1-2"}


def test_an_ack_that_was_lost_with_its_link_is_told_again() -> None:
    net = chain()
    net.want_receipts(60_000)
    net.wait(1000)
    net.hold("b", "a")
    net.write()
    net.wait(100)
    assert net.heard == {"a": "1-2", "b": "1-1"}
    net.part("a", "b")
    net.lose("b", "a")
    net.link("a", "b")
    net.wait(3000)
    assert net.heard == {"a": "1-2", "b": "1-2"}


def test_a_relay_that_was_restarted_loses_nothing() -> None:
    net = chain()
    net.want_receipts(60_000)
    net.wait(1000)
    net.stop("a")
    net.write()
    net.wait(200)
    net.start("a")
    net.wait(3000)
    assert net.heard == {"a": "1-2", "b": "1-2"}


def test_a_coordinator_that_was_restarted_hears_of_everybody_again() -> None:
    net = chain()
    net.want_receipts(60_000)
    net.wait(1000)
    net.stop(ROOT)
    net.heard.clear()
    net.start(ROOT)
    net.wait(5000)
    assert net.heard == {}
    net.want_receipts(10_000)
    net.wait(1000)
    assert net.heard == {"a": "2-2", "b": "2-2"}


def test_a_replica_that_was_thrown_away_takes_back_what_it_told() -> None:
    net = chain()
    net.write(4)
    net.want_receipts(60_000)
    net.wait(1000)
    before = dict(net.heard)
    net.hold("a", "b")
    net.stop("b")
    net.journal("b").clear()
    net.start("b")
    net.release("a", "b")
    assert before == {"a": "1-5", "b": "1-5"}
    net.wait(3000)
    [life] = {ack.life for ack in net.core(ROOT).receipts._acks.values() if ack.member == "b"}
    assert life > BeaconId(1, 3), "a later life than the one that told before"
    assert net.heard == {"a": "1-5", "b": "1-5"}


def test_the_ack_of_a_later_life_counts_though_it_is_of_less() -> None:
    net = chain()
    net.write(4)
    net.want_receipts(60_000)
    net.wait(1000)
    now = net.core(ROOT).state.beacon
    net.say("a", ROOT, Acks((ack_of("b", 2, life=now),)))
    assert net.heard["b"] == "1-2"
    net.say("a", ROOT, Acks((ack_of("b", 5),)))
    assert net.heard["b"] == "1-2", "the life before is over, whatever is still told of it"


@pytest.mark.parametrize(
    "ack",
    [
        ack_of("b", 9, life=(1, 4)),
        ack_of("b", 1, life=(1, 4), epoch=2),
        ack_of("b", 2, life=(1, 1_000_000)),
        ack_of("b", 2, life=(7, 1)),
    ],
)
def test_what_cannot_be_is_not_believed(ack: Ack) -> None:
    net = chain()
    net.write(1)
    net.want_receipts(60_000)
    net.wait(1000)
    net.say("a", ROOT, Acks((ack,)))
    assert net.heard == {"a": "1-2", "b": "1-2"}
    net.write()
    net.wait(200)
    assert net.heard == {"a": "1-3", "b": "1-3"}, "and hides nothing that comes"


def test_who_is_no_child_is_not_listened_to() -> None:
    net = chain()
    net.want_receipts(60_000)
    net.wait(1000)
    net.transcript()
    net.say("a", "b", Acks((ack_of("x", 1),)))
    net.wait(1000)
    assert "x" not in net.core("b").receipts._acks


def test_names_that_a_peer_makes_up_are_no_members_and_keep_none_out() -> None:
    net = chain()
    for peer, at in (("b", "a"), ("a", ROOT)):
        net.say(peer, at, Acks(tuple(ack_of(f"x{number}", 1) for number in range(1000))))
        assert net.core(at).sizes()["acks"] <= 1
    net.want_receipts(60_000)
    net.wait(1000)
    net.write()
    net.wait(1000)
    assert net.heard == {"a": "1-2", "b": "1-2"}


def test_two_parents_are_told_the_same_and_it_counts_once() -> None:
    net = Ensemble({"root": ["a", "c"], "b": ["a", "c"]}, rtt_ms={"b c": 60})
    net.want_receipts(60_000)
    net.wait(1000)
    net.core("b").tree.add_parent("c", late=False)
    net.transcript()
    net.write()
    net.wait(500)
    assert net.parents("b") == ["a", "c"]
    assert net.heard == {"a": "1-2", "b": "1-2", "c": "1-2"}
    assert "b -> a Acks(b 1-2)" in net.transcript(Acks)


def test_a_replica_that_gives_way_to_another_history_begins_another_life() -> None:
    net = Ensemble({"root": ["a"], "a": ["b"]}, disks={"root": H, "a": H, "b": THEIRS}, start=False)
    net.start("root", "a", "b")
    net.wait(500)
    net.want_receipts(60_000)
    net.wait(5000)
    assert net.transcript(Empty), "b had another history"
    assert net.heard["b"] == net.agreed()
