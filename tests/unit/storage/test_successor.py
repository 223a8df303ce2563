"""A replica made of pages and of the frames that came meanwhile, beside the one that readers see."""

from __future__ import annotations

import random

import pytest

from kvnet.core.versions import GENESIS
from kvnet.errors import Divergence, PageDamaged
from kvnet.storage.pages import pack, unpack
from kvnet.storage.store import Durability
from tests.support.frames import FrameMaker
from tests.support.stores import assert_is_fold, bootstrap, open_store, pages_of, prove

SMALL = 300


@pytest.fixture
def donor(tmp_path):
    donor = open_store(tmp_path / "donor")
    yield donor
    donor.close()


def write(donor, maker, *namespaces, count=20, rng=random.Random(0)):  # noqa: B008 - one history for all
    for _ in range(count):
        namespace = rng.choice(namespaces)
        key = b"%d" % rng.randrange(60) * rng.choice((1, 1, 400))
        if rng.random() < 0.3:
            maker.delete(namespace, key)
        else:
            expires_at, metadata = rng.choice((0, 1 << 40)), rng.choice((b"", b'{"a":1}'))
            maker.put(namespace, key, bytes(rng.randrange(80)), metadata=metadata, expires_at=expires_at)
    donor.apply([maker.cut()])


def test_pages_of_one_position_give_the_same_replica(donor, store, maker):
    namespace, empty = maker.create_namespace("a"), maker.create_namespace("empty")
    for _ in range(5):
        write(donor, maker, namespace)
    pages = list(pages_of(donor, SMALL))
    assert len(pages) > 10
    assert bootstrap(store, pages, []) == maker.position
    assert store.verified
    assert store.bootstrap is None
    assert_is_fold(store, maker)
    assert store.stats()["bytes"] == donor.stats()["bytes"]
    maker.put(empty, b"key", b"the namespace was known by its record alone")
    store.apply([maker.cut()])
    assert_is_fold(store, maker)


def test_an_empty_donor_gives_an_empty_replica(donor, store):
    assert bootstrap(store, pages_of(donor), []) == GENESIS
    assert store.verified


@pytest.mark.parametrize("seed", range(30))
def test_pages_of_many_positions_and_donors_come_to_the_coordinators_digest(tmp_path, seed):
    """Donors are before and behind each other, namespaces come and go, and the tail arrives in any portions."""
    rng = random.Random(seed)
    maker = FrameMaker()
    maker.open_epoch()
    namespaces = [maker.create_namespace("a"), maker.create_namespace("b")]
    donors = [open_store(tmp_path / f"donor-{number}") for number in range(2)]
    store = open_store(tmp_path / "store", journal_bytes_max=2000)

    def go_on():
        if rng.random() < 0.2:
            maker.delete_namespace(namespaces.pop(rng.randrange(len(namespaces))))
            namespaces.append(maker.create_namespace(str(rng.random())))
        if rng.random() < 0.1:
            if maker.next_seq > maker.position.seq + 1:
                maker.cut()
            maker.open_epoch()
        write(Nobody(), maker, *namespaces, count=rng.randrange(1, 30), rng=rng)

    class Nobody:
        def apply(self, frames):
            """The frames are the maker's."""

    for _ in range(8):
        go_on()
    old = rng.randrange(len(maker.frames))
    if old:
        store.apply(maker.frames[:old])  # too old, and serving
    served = store.position
    start = maker.frames[rng.randrange(2, 6)].position
    store.begin_successor(start)
    after = None
    while after != b"":
        donor = rng.choice(donors)
        least = max(donor.position.seq, start.seq)
        some = [frame for frame in maker.frames if frame.first_seq > donor.position.seq]
        until = rng.randrange(least, maker.position.seq + 1)
        some = [frame for frame in some if frame.last_seq <= max(until, start.seq)]
        if some:
            donor.apply(some)
        page = donor.read_page(after or b"", rng.choice((1, 200, 3000)))
        store.store_page(page)
        after = page.until
        if rng.random() < 0.3:
            tail = [frame for frame in maker.frames if frame.first_seq > store.journal.position.seq]
            if tail:
                store.apply(tail[: rng.randrange(1, len(tail) + 1)])
        if rng.random() < 0.2:
            go_on()
        if rng.random() < 0.1:
            store.close(clean=False)
            store = open_store(tmp_path / "store", journal_bytes_max=2000)
        assert store.position == served, "readers see what they saw"
    assert prove(store, maker.frames, budget=rng.choice((1, 20, 1000))) == maker.position
    assert_is_fold(store, maker)
    go_on()
    store.apply([frame for frame in maker.frames if frame.first_seq > store.position.seq])
    assert_is_fold(store, maker)
    for each in (store, *donors):
        each.close()


def test_a_replica_in_the_making_goes_on_after_a_restart(folder, donor, maker):
    namespace = maker.create_namespace("a")
    for _ in range(3):
        write(donor, maker, namespace)
    pages = list(pages_of(donor, SMALL))
    write(donor, maker, namespace)
    store = open_store(folder)
    store.begin_successor(pages[0].position)
    for page in pages[:5]:
        store.store_page(page)
    store.apply(maker.frames[-1:])
    before = store.bootstrap
    store.close(clean=False)
    store = open_store(folder)
    assert store.bootstrap == before
    assert store.journal.position == maker.position
    assert store.journal.frames_after(before.start.seq, 1 << 20) == maker.frames[-1:]
    bootstrap(store, pages[5:], [])
    assert_is_fold(store, maker)
    store.close()


def test_what_is_missing_or_too_much_in_a_page_shows_at_the_proof(donor, store, maker):
    """A donor that lies about its records, with checksums in order, is found out by the coordinator's digest."""
    namespace = maker.create_namespace("a")
    write(donor, maker, namespace)
    pages = list(pages_of(donor, SMALL))
    *groups, (name, keys, stored) = unpack(pages[2].body)
    short = [*groups, (name, list(zip(keys, stored, strict=True))[:-1])]
    pages[2] = pages[2]._replace(body=pack(short))
    store.begin_successor(pages[0].position)
    for page in pages:
        store.store_page(page)
    write(donor, maker, namespace)
    with pytest.raises(Divergence):
        prove(store, maker.frames)
    assert store.position == GENESIS
    store.abandon_successor()
    assert bootstrap(store, pages_of(donor), []) == maker.position


def test_a_page_that_does_not_come_next_is_refused_and_nothing_changes(donor, store, maker):
    namespace = maker.create_namespace("a")
    write(donor, maker, namespace)
    older = donor.read_page(b"", SMALL)
    write(donor, maker, namespace)
    first, second, third, *rest = pages_of(donor, SMALL)
    store.begin_successor(first.position)
    store.store_page(first)
    wrong = [
        first,
        third,
        older._replace(after=first.until),
        second._replace(until=second.after),
        second._replace(until=second.until[:-1]),
        second._replace(body=third.body),
        second._replace(body=first.body),
        second._replace(body=b""),
    ]
    for page in wrong:
        before = store.bootstrap
        with pytest.raises(PageDamaged):
            store.store_page(page)
        assert store.bootstrap == before
    bootstrap(store, (second, third, *rest), [])
    assert_is_fold(store, maker)


def test_reset_ends_the_old_and_the_new(folder, donor, maker):
    namespace = maker.create_namespace("a")
    write(donor, maker, namespace)
    store = open_store(folder)
    store.apply(maker.frames)
    store.begin_successor(maker.position)
    store.store_page(donor.read_page(b"", SMALL))
    store.reset()
    assert store.bootstrap is None
    assert (store.position, store.journal.position, store.verified) == (GENESIS, GENESIS, False)
    assert len(list(folder.glob("replica*"))) == 1
    assert bootstrap(store, pages_of(donor), []) == maker.position
    store.close()
    store = open_store(folder)
    assert_is_fold(store, maker)
    store.close()


@pytest.mark.parametrize("durability", Durability)
def test_a_successor_begun_again_forgets_the_one_before(folder, donor, maker, durability):
    namespace = maker.create_namespace("a")
    write(donor, maker, namespace)
    store = open_store(folder, durability=durability)
    for _ in range(2):
        store.begin_successor(maker.position)
        store.store_page(donor.read_page(b"", SMALL))
    store.begin_successor(maker.position)
    bootstrap(store, pages_of(donor), [])
    assert_is_fold(store, maker)
    assert len(list(folder.glob("replica*"))) == 1
    store.close()
