"""Which links a node wants, and what it does when they stay down."""

from __future__ import annotations

from dataclasses import replace

from kvnet.core.events import DialFailed, Started
from kvnet.core.messages import Advert, Ask, BeaconId
from kvnet.core.versions import GENESIS
from tests.support.conversation import ROOT, Conversation, advert_of, history, subscribe

H = history(3)

NEAREST = tuple(f"near-{number}" for number in range(8))
FAR = tuple(f"far-{number}" for number in range(20))


def edge() -> Conversation:
    node = Conversation(members=("me", *NEAREST, *FAR), start=False)
    node.state.config = replace(node.state.config, nearest=NEAREST)
    node.hear(Started())
    return node


def test_an_edge_wants_four_nearest_and_four_random_links() -> None:
    node = edge()
    dialled = node.dialled()
    assert dialled[:4] == list(NEAREST[:4])
    assert len(set(dialled)) == 8
    assert "me" not in dialled


def test_a_link_that_is_lost_is_dialled_again_soon() -> None:
    node = edge()
    node.link("near-0")
    node.dialled()
    node.lose("near-0")
    node.wait(100)
    assert "near-0" in node.dialled()


def test_a_link_that_stays_down_is_replaced_but_the_pinned_one_never() -> None:
    node = edge()
    first = node.dialled()
    [pinned] = [wanted.name for wanted in node.replica.overlay.wanted.values() if wanted.pinned]
    assert pinned in first[4:]
    node.wait(7000)
    wanted = list(node.replica.overlay.wanted)
    assert set(first) & set(wanted) == {pinned}
    assert len(wanted) == 8
    assert len(set(NEAREST[4:]) & set(wanted)) >= 3, "the next nearest take the places of the nearest"
    node.dialled()
    dials = 0
    for _ in range(60):
        node.wait(1000)
        if pinned in node.dialled():
            dials += 1
            node.hear(DialFailed(pinned))
    assert dials >= 8


def test_a_replaced_link_is_tried_again_and_gets_its_place_back() -> None:
    node = edge()
    node.link(*(name for name in node.dialled() if name != "near-0"))
    node.wait(7000)
    assert "near-0" not in node.replica.overlay.wanted
    assert "near-4" in node.dialled()
    node.link("near-4")
    node.wait(75_000)
    assert "near-0" in node.dialled()
    node.link("near-0")
    assert "near-0" in node.replica.overlay.wanted
    assert "near-4" not in node.replica.overlay.wanted
    assert node.disconnected() == ["near-4"]


def test_a_substitute_that_serves_us_keeps_its_link_when_the_replaced_peer_is_back() -> None:
    node = edge()
    node.link(*(name for name in node.dialled() if name != "near-0"))
    node.wait(7000)
    node.link("near-4")
    node.receive("near-4", advert_of(H[0].position, beacon=(1, 1)))
    assert node.parents == ["near-4"]
    node.wait(75_000)
    node.link("near-0")
    assert "near-0" in node.replica.overlay.wanted
    assert "near-4" not in node.disconnected()
    assert node.parents == ["near-4"]


def test_the_coordinator_replaces_a_link_by_a_random_one() -> None:
    node = Conversation(ROOT, members=(*FAR, *NEAREST), root_links=FAR[:8], fresh=True, start=False)
    node.state.config = replace(node.state.config, nearest=("near-0",))
    node.hear(Started())
    assert node.dialled() == list(FAR[:8])
    node.link(*FAR[1:8])
    node.wait(7000)
    wanted = list(node.replica.overlay.wanted)
    assert len(wanted) == 8
    assert FAR[0] not in wanted
    assert "near-0" not in wanted, "it wants them spread, not near"


def test_a_new_link_to_the_same_peer_ends_what_was_subscribed_over_the_old_one() -> None:
    node = edge()
    node.link("near-0", "near-1")
    node.receive("near-0", advert_of(H[0].position, beacon=(1, 1)))
    node.receive("near-1", subscribe(GENESIS))
    assert (node.parents, node.children) == (["near-0"], ["near-1"])
    node.link("near-0", "near-1")
    assert (node.parents, node.children) == ([], [])


def test_what_comes_from_a_peer_without_a_link_is_not_heard() -> None:
    node = edge()
    node.receive("near-0", subscribe(GENESIS), Ask(0, 0, BeaconId(0, 0), ladder=False))
    node.receive("near-0", advert_of(H[0].position, beacon=(1, 1), wants_echo=True))
    assert not node.said()
    assert not node.children


def test_links_that_come_back_to_no_place_are_closed_again() -> None:
    """Each substitute that had failed too was dialled for ever, and kept as a ninth, tenth, … link: after a long
    partition a node had one to almost everybody.
    """
    node = edge()
    for _ in range(30):
        node.wait(1000)
    gone = [name for name in (*NEAREST, *FAR) if name not in node.replica.overlay.wanted]
    assert len(gone) > 8
    node.dialled()
    node.link(*gone)
    wanted = set(node.replica.overlay.wanted)
    node.link(*(wanted - set(node.state.neighbours)))
    node.wait(20_000)
    surplus = set(gone) - wanted
    assert surplus
    assert set(node.disconnected()) >= surplus


def test_adverts_go_out_over_a_new_link_and_then_every_five_seconds() -> None:
    node = edge()
    node.link("near-0")
    assert node.told(Advert) == ["near-0"]
    node.wait(6000)
    assert node.told(Advert).count("near-0") == 1
    node.wait(50_000)
    assert 8 <= node.told(Advert).count("near-0") <= 13


def test_an_advert_answers_when_asked_and_its_echo_is_a_round_trip() -> None:
    node = edge()
    node.link("near-0", rtt_ms=100.0)
    node.said()
    node.receive("near-0", advert_of(GENESIS, wants_echo=True)._replace(sent_ms=777.0))
    [answer] = node.said_to("near-0", Advert)
    assert (answer.echo_ms, answer.echo_hold_ms) == (777.0, 0.0)
    sent = node.now
    node.wait(130)
    node.receive("near-0", advert_of(GENESIS)._replace(echo_ms=sent, echo_hold_ms=100.0))
    assert node.state.neighbours["near-0"].rtt_ms == 30.0
    node.receive("near-0", advert_of(GENESIS)._replace(echo_ms=sent, echo_hold_ms=0.0))
    assert node.state.neighbours["near-0"].rtt_ms == 30.0, "the least of the last minute"
    node.wait(60_001)
    node.receive("near-0", advert_of(GENESIS)._replace(echo_ms=node.now - 200, echo_hold_ms=0.0))
    assert node.state.neighbours["near-0"].rtt_ms == 200.0
