from __future__ import annotations

import random
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from kvnet.core.sampling import TRIES_SPARE, sample

MANY = tuple(f"pop{i}" for i in range(10_000))


class Watched(tuple[str, ...]):
    """Names that count how often one of them is read."""

    __slots__ = ()
    reads = 0

    def __getitem__(self, index: int) -> str:  # type: ignore[override]  # slices aren't used
        Watched.reads += 1
        return super().__getitem__(index)

    def __iter__(self) -> None:  # type: ignore[override]  # whoever lists them all is found out
        raise AssertionError("all names were read")


names = st.integers(0, 80).map(lambda size: MANY[:size])


@given(names, st.integers(0, 90), st.sets(st.sampled_from(MANY[:80])), st.integers(0, 1 << 32))
def test_as_many_as_asked_for_are_drawn_each_once_and_none_excluded(
    members: tuple[str, ...], count: int, excluded: set[str], seed: int
) -> None:
    drawn = sample(random.Random(seed), members, count, excluded, ("pop0",))
    free = set(members) - excluded - {"pop0"}
    assert len(drawn) == len(set(drawn)) == min(count, len(free))
    assert set(drawn) <= free


@given(st.integers(0, 1 << 32), st.integers(0, 8))
def test_the_same_generator_draws_the_same(seed: int, count: int) -> None:
    assert sample(random.Random(seed), MANY, count) == sample(random.Random(seed), MANY, count)


def test_a_few_of_many_are_drawn_without_reading_all() -> None:
    Watched.reads = 0
    assert len(sample(random.Random(1), Watched(MANY), 4, MANY[:1000])) == 4
    assert Watched.reads <= 4 * 4 + TRIES_SPARE


def test_the_last_free_ones_of_many_are_found() -> None:
    assert sorted(sample(random.Random(1), MANY, 4, MANY[2:])) == ["pop0", "pop1"]


def test_nobody_is_drawn_where_nobody_is_free() -> None:
    assert sample(random.Random(1), MANY, 4, frozenset(MANY)) == []
    assert sample(random.Random(1), (), 4) == []


def test_every_free_name_is_as_likely_as_another_whether_listed_or_tried() -> None:
    """With three of four excluded, some draws succeed by trying and some fall back to the list."""
    rng = random.Random(1)
    members, excluded = MANY[:40], frozenset(MANY[:30])
    counts = Counter(name for _ in range(4000) for name in sample(rng, members, 4, excluded))
    assert set(counts) == set(MANY[30:40])
    assert all(1450 < times < 1750 for times in counts.values()), counts
