"""Who hears what when, and how often, changes nothing about what all come to: the last writes of one history."""

from __future__ import annotations

from typing import Any

from hypothesis import event, given, settings
from hypothesis import strategies as st

from kvnet.core.frames import Frame
from kvnet.core.versions import GENESIS
from tests.support.conversation import ROOT, Conversation, advert_of, frames_of
from tests.support.exchange import Exchange
from tests.support.fold import Author, Fold, last_writes

PICK = st.integers(0, 99)
KEYS = st.sampled_from([b"x", b"y", b"z"])
VALUES = st.sampled_from([b"", b"1", b"2"])
EDGES = ("a", "b", "c")


def runs_of(step: st.SearchStrategy[Any], max_size: int) -> st.SearchStrategy[list[Any]]:
    """Short runs and, as often, long ones: a list that may be empty hardly ever has more than ten of them."""
    return st.lists(step, max_size=max_size) | st.lists(step, min_size=max_size // 2, max_size=max_size)


# -- one node, several parents

WRITES = runs_of(
    st.one_of(
        st.tuples(st.just("put"), KEYS, VALUES),
        st.tuples(st.just("delete"), KEYS, st.none()),
        st.tuples(st.sampled_from(["cut", "cut", "epoch"]), st.none(), st.none()),
    ),
    max_size=20,
)
PIECES = runs_of(
    st.one_of(
        st.tuples(st.just("frames"), st.sampled_from(EDGES), PICK, st.integers(1, 6)),
        st.tuples(st.just("frames"), st.sampled_from(EDGES), PICK, st.integers(1, 6)),
        st.tuples(st.just("next"), st.sampled_from(EDGES), st.just(0), st.integers(1, 3)),
        st.tuples(st.sampled_from(["restart", "slow disk", "quick disk"]), st.none(), st.none(), st.none()),
    ),
    max_size=20,
)


def written(writes: list[Any]) -> list[Frame]:
    author = Author()
    author.open_epoch(1)
    namespace = author.create_namespace(1)
    for what, key, value in writes:
        match what:
            case "put":
                author.put(namespace, key, value)
            case "delete":
                author.delete(namespace, key)
            case _:
                author.cut()
                if what == "epoch":
                    author.open_epoch(author.head.epoch + 1)
    author.cut()
    return author.frames


def with_parents(frames: list[Frame], have: list[Frame]) -> Conversation:
    """A node that was started with some of these frames and subscribed to all three peers."""
    node = Conversation(history=have, members=EDGES)
    node.link(*EDGES)
    for peer in EDGES:
        node.receive(peer, advert_of(frames[-1].position, beacon=(frames[-1].epoch, 1)))
        node.wait(200)
    assert node.parents == list(EDGES)
    return node


@given(WRITES, PIECES, st.sampled_from(EDGES))
@settings(deadline=None, max_examples=150)
def test_the_last_writer_wins_whatever_pieces_came_from_whom_before(
    writes: list[Any], pieces: list[Any], last: str
) -> None:
    frames = written(writes)
    node = with_parents([*frames], [])
    for what, peer, first, count in pieces:
        behind = len(node.journal.frames) + len(node.uncommitted)
        match what:
            case "frames":
                start = first % len(frames)
                node.receive(peer, frames_of(*frames[start : start + count]))
            case "next" if behind < len(frames):
                node.receive(peer, frames_of(*frames[behind : behind + count]))
                assert len(node.journal.frames) + len(node.uncommitted) > behind, "the next frame isn't taken"
            case "restart" if node.journal.position != frames[-1].position:
                node = with_parents(frames, node.journal.frames)
            case "slow disk":
                node.commits = False
            case "quick disk":
                node.commits = True
                node.commit()
        assert node.journal.frames == frames[: len(node.journal.frames)], "a journal has no gaps and no others"
    node.commits = True
    node.receive(last, frames_of(*frames))
    node.commit()
    assert node.journal.position == frames[-1].position
    records = Fold(node.journal.frames).records
    assert records == Fold(frames).records
    for place, value in last_writes(reversed(frames)).items():
        assert value == (records[place].value if place in records else None)
    assert not node.reports["mismatch"]


# -- a few nodes

STEPS = runs_of(
    st.one_of(
        st.tuples(st.just("deliver"), PICK, st.integers(1, 6)),
        st.tuples(st.just("deliver"), PICK, st.integers(1, 6)),
        st.tuples(st.just("deliver twice"), PICK, st.just(1)),
        st.tuples(st.just("deliver twice"), PICK, st.just(1)),
        st.tuples(st.just("put"), KEYS, VALUES),
        st.tuples(st.just("delete"), KEYS, st.none()),
        st.tuples(st.just("wait"), st.sampled_from([1.0, 60.0, 300.0, 700.0, 1500.0]), st.none()),
        st.tuples(st.just("wait"), st.sampled_from([1.0, 60.0, 300.0, 700.0, 1500.0]), st.none()),
        st.tuples(st.just("restart"), st.sampled_from([*EDGES, ROOT]), st.none()),
        st.tuples(st.sampled_from(["cut", "heal"]), PICK, PICK),
        st.tuples(st.just("disk"), st.sampled_from(EDGES), st.booleans()),
    ),
    max_size=80,
)


def play(steps: list[Any], *, repeats: bool = True, turn: int = 0) -> Exchange:
    """Follow the steps; without `repeats` nothing arrives twice, another `turn` lets other links go first."""
    exchange = Exchange(EDGES)
    exchange.wait(600.0)
    exchange.come_to_rest()
    namespace = exchange.author.create_namespace(1)
    exchange.hand_out(exchange.author.cut())
    for what, detail, more in steps:
        match what:
            case "deliver" | "deliver twice":
                for _ in range(more):
                    if links := exchange.busy():
                        again = repeats and what == "deliver twice"
                        exchange.deliver(links[(detail + turn) % len(links)], again_later=again)
            case "put" if exchange.is_open:
                exchange.author.put(namespace, detail, more)
                exchange.hand_out(exchange.author.cut())
            case "delete" if exchange.is_open:
                exchange.author.delete(namespace, detail)
                exchange.hand_out(exchange.author.cut())
            case "wait":
                exchange.wait(detail)
            case "restart":
                exchange.start(detail)
            case "cut" | "heal":
                one, other = (exchange.names[pick % len(exchange.names)] for pick in (detail, more))
                if one != other and what == "cut":
                    exchange.unlink(one, other)
                    exchange.cuts.add(frozenset((one, other)))
                exchange.cuts = exchange.cuts if what == "cut" else set()
            case "disk":
                exchange.nodes[detail].commits = more
                exchange.nodes[detail].commit()
        exchange.collect()
    return exchange


@given(STEPS)
@settings(deadline=None, max_examples=150)
def test_no_schedule_and_no_repetition_changes_what_all_come_to(steps: list[Any]) -> None:
    exchange = play(steps)
    event("repeated messages" if exchange.repeated else "nothing repeated")
    exchange.come_to_rest()
    expected = last_writes(exchange.author.frames)
    for name, fold in exchange.folds():
        node = exchange.nodes[name]
        assert fold.position == exchange.author.head != GENESIS
        assert fold.records == exchange.author.fold.records
        for place, value in expected.items():
            assert value == (fold.records[place].value if place in fold.records else None), (name, place)
        assert not {"mismatch", "forked", "malformed"} & node.reports.keys(), f"{name}: {node.reports}"


@given(STEPS, PICK)
@settings(deadline=None, max_examples=150)
def test_repeating_and_reordering_change_no_final_state(steps: list[Any], turn: int) -> None:
    """In one life of the coordinator its frames depend on the writes alone, and all else comes to the same."""
    steps = [step for step in steps if step[:2] != ("restart", ROOT)]
    once, again = play(steps, repeats=False), play(steps, repeats=True, turn=turn)
    for exchange in (once, again):
        exchange.come_to_rest()
    assert once.author.frames == again.author.frames
    for (name, fold), (_, other) in zip(once.folds(), again.folds(), strict=True):
        assert fold.position == other.position, name
        assert fold.records == other.records, name
