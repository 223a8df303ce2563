"""The checker finds what it is there for: each promise, broken on purpose."""

from __future__ import annotations

from kvnet.core.versions import Version
from tests.support.history import History


def test_honest_history_has_no_problems():
    history = History()
    history.wrote("a-0-1", Version(1, 5))
    history.wrote("b-0-1", Version(1, 6))
    history.refused.add("a-0-2")
    history.saw("fra", Version(1, 5), "a")
    history.saw("iad", Version(1, 4), "a")
    history.saw("fra", Version(2, 7), "a")
    history.saw_pair("fra", "-0-1", first=True, second=False)
    history.saw_pair("fra", "-0-1", first=True, second=True)
    history.ended("fra", {"a-0-1", "b-0-1", "of unknown outcome"})
    assert history.problems() == []
    assert history.pairs_seen == {"fra": 1}


def test_second_without_the_first_is_found():
    history = History()
    history.saw_pair("fra", "-0-1", first=False, second=True)
    assert history.problems() == ["fra has b-0-1 without a-0-1"]


def test_pop_that_goes_back_is_found():
    history = History()
    history.saw("fra", Version(2, 7), "a")
    history.saw("fra", Version(1, 9), "b")
    assert history.problems() == ["fra went back from 2-7 to 1-9 (b)"]


def test_lost_write_and_refused_write_that_was_made_are_found():
    history = History()
    history.wrote("a-0-1", Version(1, 5))
    history.refused.add("a-0-2")
    history.ended("fra", {"a-0-2"})
    assert history.problems() == [
        "fra lost 1 acknowledged writes, such as a-0-1",
        "fra has 1 writes that were refused, such as a-0-2",
    ]


def test_version_that_two_writes_were_answered_with_is_found():
    history = History()
    history.wrote("a-0-1", Version(1, 5))
    history.wrote("a-1-1", Version(1, 5))
    assert history.problems() == ["['a-0-1', 'a-1-1'] were all answered with 1-5"]
