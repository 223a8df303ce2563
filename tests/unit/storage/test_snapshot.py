"""Snapshot files: what they bring back, what isn't taken, and what may happen while one is saved."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kvnet.core.manifest import Manifest, hash_chunk, split
from kvnet.errors import KvnetError, PageDamaged, StorageDamaged, StorageError
from kvnet.storage import saving
from kvnet.storage.restoring import restore
from kvnet.storage.saving import save
from kvnet.storage.snapshot import Chunk, Encoder, Header, Parser, SavedPage, check_snapshot, read_items
from tests.support.frames import FrameMaker
from tests.support.stores import CLUSTER_ID, assert_holds, assert_is_fold, open_store, pages_of

NOW_MS = 1_700_000_000_000


@pytest.fixture
def maker():
    maker = FrameMaker()
    maker.open_epoch()
    return maker


@pytest.fixture
def donor(tmp_path, maker):
    """A replica of 3,000 keys in two namespaces, short and long ones, some with metadata and an expiry."""
    namespaces = [maker.create_namespace(title) for title in ("settings", "flags")]
    for number in range(3000):
        key = (b"key-%04d" % number) + (b"x" * 700 if number % 7 == 0 else b"")
        metadata = b'{"n":1}' if number % 3 == 0 else b""
        maker.put(
            namespaces[number % 2],
            key,
            b"value-%d" % number,
            metadata=metadata,
            expires_at=4_000_000_000 if number % 5 == 0 else 0,
        )
        if number % 100 == 0:
            maker.cut()
    maker.cut()
    store = open_store(tmp_path / "donor", node="coordinator")
    store.apply(maker.frames)
    store.mark_verified()
    store.namespaces_made = namespaces
    yield store
    store.close()


def saved(store, **options):
    return b"".join(save(store, cluster_id=CLUSTER_ID, node="fra", created_ms=NOW_MS, **options))


def write(path, data):
    path.write_bytes(data)
    return path


def restored(tmp_path, data, name="restored"):
    """A store of another node that this snapshot was restored into."""
    store = open_store(tmp_path / name, node="another", tracks_expiries=True)
    try:
        restore(store, read_items(write(tmp_path / f"{name}.snapshot", data)))
    except BaseException:
        store.close()
        raise
    return store


def test_what_was_saved_is_restored_proven_and_verified(tmp_path, donor, maker):
    data = saved(donor)
    summary = check_snapshot(write(tmp_path / "file", data))
    assert summary.header == Header(CLUSTER_ID, "fra", maker.position, NOW_MS, summary.end.records)
    assert summary.end.position == maker.position
    assert summary.end.frames == 0
    store = restored(tmp_path, data)
    assert store.verified
    assert store.position == maker.position
    assert_is_fold(store, maker)
    store.close()
    again = open_store(tmp_path / "restored", node="another", tracks_expiries=True)
    assert again.verified
    assert_is_fold(again, maker)
    again.close()


def test_writes_between_the_pages_are_in_it(tmp_path, donor, maker):
    namespace, other = donor.namespaces_made
    pieces = save(donor, cluster_id=CLUSTER_ID, node="fra", created_ms=NOW_MS)
    data = bytearray()
    for number, piece in enumerate(pieces):
        data += piece
        if number % 2 == 0:
            maker.put(namespace, b"key-0000" + b"x" * 700, b"again-%d" % number)
            maker.delete(other, b"key-%04d" % (2 * number + 1))
            maker.put(namespace, b"new-%d" % number, b"new")
            if number == 4:
                maker.create_namespace("late")
            donor.apply([maker.cut()])
    store = restored(tmp_path, bytes(data))
    frames = {frame.position: frame for frame in maker.frames}
    assert store.digest.to_bytes(16, "big") == frames[store.position].digest_after
    assert store.recompute().good
    assert check_snapshot(tmp_path / "restored.snapshot").end.frames > 0
    rest = [frame for frame in maker.frames if frame.first_seq > store.position.seq]
    if rest:
        store.apply(rest)
    assert_is_fold(store, maker)
    store.close()


def put_large(store, maker, namespace, key, value):
    data = [bytes(chunk) for chunk in split(value)]
    store.put_chunks([(hash_chunk(chunk), chunk) for chunk in data])
    maker.put_large(namespace, key, Manifest(len(value), tuple(map(hash_chunk, data))).pack())
    store.apply([maker.cut()])
    return data


def test_large_values_come_with_their_chunks_each_once(tmp_path, donor, maker):
    namespace, _ = donor.namespaces_made
    value = b"large" * 100_000
    chunks = put_large(donor, maker, namespace, b"a", value)
    put_large(donor, maker, namespace, b"zzz", value)
    data = saved(donor)
    items = list(read_items(write(tmp_path / "file", data)))
    assert sorted(item.data for item in items if isinstance(item, Chunk)) == sorted(chunks)
    store = restored(tmp_path, data)
    assert store.lacking_chunks([hash_chunk(chunk) for chunk in chunks]) == []
    assert_holds(store, maker)
    store.close()


def test_a_large_value_that_comes_meanwhile_has_its_chunks_too(tmp_path, donor, maker):
    namespace, _ = donor.namespaces_made
    pieces = save(donor, cluster_id=CLUSTER_ID, node="fra", created_ms=NOW_MS)
    data = next(pieces) + next(pieces)
    first = put_large(donor, maker, namespace, b"a", b"first" * 100_000)  # behind the pages that have passed
    data += b"".join(pieces)
    store = restored(tmp_path, data)
    assert store.get(namespace, b"a") is not None
    assert store.lacking_chunks([hash_chunk(chunk) for chunk in first]) == []
    store.close()


def test_a_snapshot_that_lacks_a_chunk_is_refused(tmp_path, donor, maker, monkeypatch):
    namespace, _ = donor.namespaces_made
    put_large(donor, maker, namespace, b"a", b"large" * 100_000)
    monkeypatch.setattr(donor, "chunk", lambda name: None)
    with pytest.raises(PageDamaged, match="lacks 2 chunks"):
        restored(tmp_path, saved(donor))


def test_a_replica_that_was_replaced_meanwhile_gives_no_snapshot(tmp_path, donor, maker):
    pieces = save(donor, cluster_id=CLUSTER_ID, node="fra", created_ms=NOW_MS)
    next(pieces)
    next(pieces)
    other = FrameMaker()
    other.open_epoch()
    namespace = other.create_namespace("other")
    for number in range(5000):
        other.put(namespace, b"%d" % number, b"")
    other.cut()
    donor.reset()
    donor.apply(other.frames)
    with pytest.raises(StorageError, match="save again"):
        list(pieces)


def test_a_journal_that_was_cut_meanwhile_gives_no_snapshot(tmp_path, maker):
    namespace = maker.create_namespace("settings")
    for number in range(3000):
        maker.put(namespace, b"key-%04d" % number, b"value" * 20)
    store = open_store(tmp_path / "donor", journal_bytes_max=1)
    store.apply([maker.cut()])
    store.mark_verified()
    pieces = save(store, cluster_id=CLUSTER_ID, node="fra", created_ms=NOW_MS)
    next(pieces)
    next(pieces)
    for _ in range(20):
        maker.put(namespace, b"a", b"value" * 10_000)
        store.apply([maker.cut()])
    with pytest.raises(StorageError, match="journal cut"):
        list(pieces)
    store.close()


def test_nothing_is_saved_of_an_empty_or_unverified_replica(tmp_path, maker):
    store = open_store(tmp_path / "donor")
    with pytest.raises(StorageError, match="nothing whole"):
        saved(store)
    store.apply([maker.cut()])
    with pytest.raises(StorageError, match="nothing whole"):
        saved(store)
    store.close()


def test_a_flipped_bit_at_the_donor_is_seen(donor):
    place = donor.tallies[donor.namespaces_made[0]].prefix + b"key-0002"
    with donor.environment.write() as txn:
        stored = txn.get(place)
        txn.put(place, stored[:-6] + bytes([stored[-6] ^ 1]) + stored[-5:])
    with pytest.raises(StorageDamaged):
        saved(donor)


def test_a_snapshot_whose_records_do_not_add_up_is_refused_and_nothing_is_changed(tmp_path, donor, maker):
    """Every checksum is right, and what it holds is not what the coordinator had."""
    encoder = Encoder()
    pages = list(pages_of(donor))
    data = encoder.begin(Header(CLUSTER_ID, "fra", pages[0].position, NOW_MS, 0))
    for page in pages:
        data += encoder.page(page._replace(digest=bytes(16)), 0)
    data += encoder.end()
    target = open_store(tmp_path / "target", node="another")
    target.apply(maker.frames[:3])
    before = target.position
    with pytest.raises(PageDamaged, match="don't add up"):
        restore(target, read_items(write(tmp_path / "file", data)))
    assert target.position == before
    assert target.successor is None
    assert target.recompute().good
    target.close()


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """The bytes of a small snapshot with every kind of record in it."""
    maker = FrameMaker()
    maker.open_epoch()
    namespace = maker.create_namespace("settings")
    for number in range(saving.PAGE_BYTES // 500):
        maker.put(namespace, b"key-%04d" % number, b"%d" % number * 400)
    maker.cut()
    store = open_store(tmp_path_factory.mktemp("small"))
    store.apply(maker.frames)
    store.mark_verified()
    put_large(store, maker, namespace, b"large", b"x" * 3000)
    pieces = save(store, cluster_id=CLUSTER_ID, node="fra", created_ms=NOW_MS)
    data = next(pieces) + next(pieces)
    maker.put(namespace, b"meanwhile", b"new")
    store.apply([maker.cut()])
    data += b"".join(pieces)
    store.close()
    return data


def parse(data, step=4096):
    parser = Parser("file")
    items = [item for at in range(0, len(data), step) for item in parser.feed(data[at : at + step])]
    return items, parser.finish()


def test_a_file_may_come_in_pieces_of_any_length(small):
    whole = parse(small, len(small))
    kinds = {type(item).__name__ for item in whole[0]}
    assert kinds == {"Header", "SavedPage", "Frame", "Chunk", "End"}
    assert parse(small, 1) == parse(small, 7) == whole


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_a_snapshot_cut_anywhere_is_refused(small, data):
    cut = data.draw(st.integers(0, len(small) - 1))
    with pytest.raises(PageDamaged, match="file is cut off"):
        parse(small[:cut])


@settings(max_examples=500, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_a_snapshot_altered_anywhere_is_refused(small, data):
    at = data.draw(st.integers(0, len(small) - 1))
    flip = data.draw(st.integers(1, 255))
    altered = bytearray(small)
    altered[at] ^= flip
    with pytest.raises(KvnetError) as refused:
        parse(bytes(altered))
    assert "\n" not in str(refused.value)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(junk=st.binary(max_size=200), keep=st.integers(0, 3000))
def test_whatever_else_a_file_holds_is_refused(small, junk, keep):
    altered = small[:keep] + junk
    if altered == small:
        return
    with pytest.raises(KvnetError):
        parse(altered)


def test_bytes_behind_the_end_are_refused(small):
    for extra in (b"\0", b"x" * 100, small):
        with pytest.raises(PageDamaged, match="altered"):
            parse(small + extra, len(small))
        with pytest.raises(PageDamaged, match="altered"):
            parse(small + extra, len(small) + len(extra))


def test_records_that_were_left_out_or_swapped_are_refused(small):
    """Each record's own checksum is right."""
    items, _ = parse(small)
    pages = [item for item in items if isinstance(item, SavedPage)]
    assert len(pages) >= 2
    for order in ([pages[1], pages[0]], [pages[0], pages[0]], [pages[0]._replace(page=pages[1].page)]):
        encoder = Encoder()
        data = encoder.begin(items[0])
        for saved_page in order:
            data += encoder.page(saved_page.page, saved_page.records)
        with pytest.raises(PageDamaged, match="altered"):
            parse(data + encoder.end())


def test_a_newer_format_names_the_cure(small, monkeypatch):
    monkeypatch.setattr("kvnet.storage.snapshot.FORMAT", 2)
    newer = Encoder().begin(Header(CLUSTER_ID, "fra", FrameMaker().position, 0, 0))
    monkeypatch.undo()
    with pytest.raises(StorageError, match="upgrade kvnet"):
        parse(newer)


def test_a_file_that_is_none_or_not_there_is_told(tmp_path):
    with pytest.raises(PageDamaged, match="no snapshot of kvnet"):
        check_snapshot(write(tmp_path / "file", b'{"key": "value"}\n' * 100))
    with pytest.raises(PageDamaged, match="cut off at byte 0"):
        check_snapshot(write(tmp_path / "empty", b""))
    with pytest.raises(StorageError, match="can't be read"):
        check_snapshot(tmp_path / "nowhere")
