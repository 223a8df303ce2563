"""Whatever peers say, in whatever order: no node stops, breaks its invariants or its journal's chain."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from kvnet.core.events import DialFailed, Diverged, LinkWritable
from kvnet.core.messages import (
    Advert,
    Ask,
    Beacon,
    BeaconId,
    Frames,
    Move,
    Reason,
    Refused,
    Subscribe,
    Unsubscribe,
    decode,
    encode,
)
from kvnet.core.versions import GENESIS, Position
from tests.support.conversation import ROOT, Conversation, history

HISTORIES = [history(6, epoch=2), history(6, mark=b"other", epoch=2), history(4, epoch=3)]
FRAMES = [frame for frames in HISTORIES for frame in frames]
PEERS = st.sampled_from(["a", "b", "c", "d", ROOT])
POSITIONS = st.one_of(
    st.sampled_from([GENESIS, *(frame.position for frame in FRAMES)]),
    st.builds(Position, st.integers(0, 4), st.integers(0, 12), st.just(bytes(16))),
)
BEACONS = st.builds(BeaconId, st.integers(0, 4), st.integers(0, 9))
TIMES = st.sampled_from([-1.0, 0.0, 10.0, 100.0, 1e9])
PATHS = st.lists(st.sampled_from([ROOT, "a", "b", "me"]), max_size=3).map(tuple)
RUNS = st.builds(
    lambda frames, first, count: Frames(tuple(frame.data for frame in frames[first : first + count])),
    st.sampled_from(HISTORIES),
    st.integers(0, 7),
    st.integers(0, 8),
)
MESSAGES = st.one_of(
    RUNS,
    st.builds(
        Frames,
        st.lists(st.one_of(st.binary(max_size=80), st.sampled_from(FRAMES).map(lambda f: f.data))).map(tuple),
    ),
    st.builds(Beacon, BEACONS, st.integers(0, 9), TIMES, st.sampled_from([1, 250, 500]), TIMES, TIMES, PATHS),
    st.builds(
        Advert,
        POSITIONS,
        BEACONS,
        TIMES,
        PATHS,
        st.integers(0, 9),
        st.booleans(),
        TIMES,
        TIMES,
        TIMES,
        st.booleans(),
    ),
    st.builds(Ask, st.integers(0, 4), st.integers(0, 12), BEACONS, st.booleans()),
    st.builds(Subscribe, POSITIONS, st.booleans()),
    st.builds(Refused, st.sampled_from(Reason), POSITIONS, st.integers(0, 4)),
    st.sampled_from([Unsubscribe(), Move()]),
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("receive"), PEERS, MESSAGES),
        st.tuples(st.just("receive"), PEERS, MESSAGES),
        st.tuples(st.just("link"), PEERS, TIMES),
        st.tuples(st.just("lose"), PEERS, st.none()),
        st.tuples(st.just("dial failed"), PEERS, st.none()),
        st.tuples(st.just("writable"), PEERS, st.booleans()),
        st.tuples(st.just("wait"), PEERS, st.sampled_from([1.0, 70.0, 300.0, 1000.0, 11_000.0])),
        st.tuples(st.just("disk"), PEERS, st.booleans()),
        st.tuples(st.just("diverge"), PEERS, st.none()),
    ),
    max_size=60,
)


@given(st.sampled_from(["me", ROOT]), st.integers(0, 6), STEPS)
@settings(deadline=None, max_examples=200)
def test_nothing_that_peers_say_stops_a_node(name: str, held: int, steps: list[tuple[str, str, object]]) -> None:
    node = Conversation(
        name,
        history=HISTORIES[0][:held],
        members=("me", "a", "b", "c", "d"),
        root_links=("a", "b"),
        fresh=held == 0,
    )
    node.link("a", "b")
    for what, peer, detail in steps:
        if peer == name:
            continue  # the handshake knows its own name
        match what:
            case "receive":
                node.receive(peer, detail)
            case "link":
                node.link(peer, rtt_ms=detail)
            case "lose":
                node.lose(peer)
            case "dial failed":
                node.hear(DialFailed(peer))
            case "writable":
                node.unsent[peer] = 0 if detail else 1 << 20
                node.hear(LinkWritable(peer))
            case "wait":
                node.wait(detail)
            case "disk":
                node.commits = detail
                if detail:
                    node.commit()
            case "diverge":
                node.uncommitted.clear()
                node.hear(Diverged("the digest differs"))
    assert node.journal.position.seq <= node.state.tip.seq
    for _, message in node.said():
        assert decode(encode([message])), "nobody could read it, and its link would end"
