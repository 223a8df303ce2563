from __future__ import annotations

from hashlib import blake2b

import pytest

from kvnet.core.entries import SYSTEM_NAMESPACE
from kvnet.core.versions import GENESIS, Version
from kvnet.simulator.history import FOLDS_KEPT, History
from tests.support.frames import FrameMaker

SPACE = blake2b(b"space/1-2", digest_size=16).digest()
"""What `create_namespace` calls it."""


def a_maker() -> FrameMaker:
    maker = FrameMaker()
    maker.open_epoch()
    assert maker.create_namespace("space") == SPACE
    maker.cut()
    return maker


def told(maker: FrameMaker) -> History:
    history = History()
    for at, frame in enumerate(maker.frames):
        history.add(frame, float(at), "coordinator")
    return history


def in_space(history: History, chain: bytes) -> dict[bytes, tuple[bytes, Version]]:
    records = history.fold(chain)
    return {key: (record.value, record.version) for (space, key), record in records.items() if space == SPACE}


def test_the_last_writer_of_a_key_wins_and_what_is_deleted_is_gone() -> None:
    maker = a_maker()
    maker.put(SPACE, b"a", b"1")
    maker.put(SPACE, b"b", b"1")
    before = maker.cut()
    second = maker.put(SPACE, b"a", b"2")
    maker.delete(SPACE, b"b")
    after = maker.cut()
    history = told(maker)
    assert in_space(history, before.chain_after) == {b"a": (b"1", Version(1, 3)), b"b": (b"1", Version(1, 4))}
    assert in_space(history, after.chain_after) == {b"a": (b"2", second)}
    assert history.fold(GENESIS.chain) == {}


def test_a_fold_that_is_remembered_is_not_changed_by_one_that_goes_on_from_it() -> None:
    maker = a_maker()
    maker.put(SPACE, b"a", b"1")
    first = maker.cut()
    history = told(maker)
    kept = dict(history.fold(first.chain_after))
    maker.put(SPACE, b"a", b"2")
    history.add(maker.cut(), 9.0, "coordinator")
    assert in_space(history, maker.position.chain) == {b"a": (b"2", Version(1, 4))}
    assert history.fold(first.chain_after) == kept


def test_only_so_many_folds_are_remembered_and_any_is_found_again() -> None:
    maker = a_maker()
    for number in range(3 * FOLDS_KEPT):
        maker.put(SPACE, b"a", b"%d" % number)
        maker.cut()
    history = told(maker)
    for frame in maker.frames:
        history.fold(frame.chain_after)
    assert len(history._folds) == FOLDS_KEPT
    assert in_space(history, maker.frames[1].chain_after) == {b"a": (b"0", Version(1, 3))}


def test_a_deleted_namespace_takes_its_keys_along() -> None:
    maker = a_maker()
    maker.put(SPACE, b"a", b"1")
    maker.cut()
    maker.delete_namespace(SPACE)
    after = maker.cut()
    assert not [space for space, _ in told(maker).fold(after.chain_after) if space != SYSTEM_NAMESPACE]


def forked() -> tuple[History, FrameMaker, FrameMaker]:
    """Two makers that go on from the same frames."""
    mine, theirs = a_maker(), a_maker()
    assert mine.position == theirs.position
    mine.put(SPACE, b"a", b"mine")
    mine.cut()
    theirs.put(SPACE, b"a", b"theirs")
    theirs.cut()
    history = told(mine)
    for frame in theirs.frames:
        history.add(frame, 5.0, "twin")
    return history, mine, theirs


def test_a_frame_beside_another_is_a_branch_and_a_repeated_one_is_none() -> None:
    history, mine, theirs = forked()
    assert history.branches == 1
    assert history.frames[mine.frames[0].chain_after].by == "coordinator"
    assert history.frames[theirs.position.chain].by == "twin"
    assert in_space(history, mine.position.chain)[b"a"][0] == b"mine"
    assert in_space(history, theirs.position.chain)[b"a"][0] == b"theirs"
    assert told(mine).branches == 0


def test_a_path_leads_from_one_frame_to_another_of_the_same_branch() -> None:
    history, mine, theirs = forked()
    assert history.path(mine.position.chain) == mine.frames
    assert history.path(mine.position.chain, after=mine.frames[0].chain_after) == mine.frames[1:]
    assert history.path(mine.position.chain, after=theirs.position.chain) == mine.frames
    assert history.path(GENESIS.chain) == []


def test_a_position_leads_to_those_that_go_on_from_it_and_to_no_others() -> None:
    history, mine, theirs = forked()
    assert history.leads(mine.frames[0].chain_after, mine.position.chain)
    assert history.leads(mine.frames[0].chain_after, theirs.position.chain)
    assert history.leads(GENESIS.chain, mine.position.chain)
    assert not history.leads(mine.position.chain, mine.frames[0].chain_after)
    assert not history.leads(theirs.position.chain, mine.position.chain)


def test_a_frame_after_what_nobody_wrote_is_no_history() -> None:
    maker = a_maker()
    maker.put(SPACE, b"a", b"1")
    frame = maker.cut()
    with pytest.raises(AssertionError, match="after what nobody wrote"):
        History().add(frame, 0.0, "coordinator")
    assert not History().knows(frame.chain_before)
    assert told(maker).knows(frame.chain_before)
    assert History().knows(GENESIS.chain)
