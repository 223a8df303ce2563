from __future__ import annotations

import random

import pytest

from kvnet.core.entries import DIGEST_MODULUS, SYSTEM_NAMESPACE
from kvnet.core.frames import Frame
from kvnet.core.manifest import Manifest, hash_chunk
from kvnet.core.versions import GENESIS, Version
from kvnet.errors import BeyondHorizon, ChunksMissing, Divergence, StorageFull
from kvnet.simulator.disk import SimulatedDisk
from kvnet.simulator.journal import Kept
from tests.support.frames import FrameMaker


class Story(FrameMaker):
    """A history with one namespace, and a disk that has it so far."""

    def __init__(self, **options: object) -> None:
        super().__init__()
        self.open_epoch()
        self.space = self.create_namespace("space")
        self.disk = SimulatedDisk(**options)
        self.disk.apply([self.cut()])

    def written(self, key: bytes, value: bytes = b"v") -> Frame:
        """Return the frame of one more pair."""
        self.put(self.space, key, value)
        return self.cut()

    def agrees(self) -> bool:
        """Whether the disk holds what the history adds up to."""
        held = {
            space: {key: (record.value, record.version) for key, record in records.items()}
            for space, records in self.disk.records.items()
        }
        expected = {
            space: {key: (put.value, version) for key, (put, version) in records.items()}
            for space, records in self.records.items()
        }
        return held == expected and self.disk.digest == self.digest and self.disk.position == self.position


def test_what_was_applied_can_be_read_and_the_digest_is_the_coordinator_s() -> None:
    story = Story()
    first = story.written(b"a", b"1")
    story.put(story.space, b"a", b"2")
    story.put(story.space, b"b", b"1")
    version = story.delete(story.space, b"b")
    story.disk.apply([first, story.cut()], [(b"id", version, 5)])
    assert story.agrees()
    assert story.disk.get(story.space, b"a").value == b"2"
    assert story.disk.get(story.space, b"b") is None
    assert story.disk.get(b"elsewhere", b"a") is None
    assert story.disk.request_outcome(b"id") == version
    assert story.disk.request_outcome(b"another id") is None
    assert story.disk.stamp == story.stamp
    parts = [story.disk.namespace_digest(space) for space in (SYSTEM_NAMESPACE, story.space)]
    assert sum(parts) % DIGEST_MODULUS == story.digest


def test_a_deleted_namespace_takes_its_records_and_their_digest_along() -> None:
    story = Story()
    story.disk.apply([story.written(b"a")])
    story.delete_namespace(story.space)
    story.disk.apply([story.cut()])
    assert story.agrees()
    assert story.disk.records == {SYSTEM_NAMESPACE: {}}
    assert not story.disk.namespaces
    assert story.disk.digest == 0


def test_a_frame_whose_digest_is_another_diverges_and_only_emptying_helps() -> None:
    story = Story()
    before = story.disk.position
    story.put(story.space, b"a", b"1")
    story.digest += 1
    with pytest.raises(Divergence, match="is not the coordinator's"):
        story.disk.apply([story.cut()])
    assert story.disk.position == before
    story.disk.wipe()
    assert story.disk.position == GENESIS
    again = Story()
    story.disk.apply(again.frames)
    assert story.disk.digest == again.digest


def test_a_pair_of_a_namespace_that_is_not_there_diverges() -> None:
    story, other = Story(), Story()
    space = other.create_namespace("another")
    other.cut()
    other.put(space, b"a", b"1")
    story.records[space] = {}
    story.put(space, b"a", b"1")
    with pytest.raises(Divergence, match="doesn't exist here"):
        story.disk.apply([story.cut()])


@pytest.mark.parametrize("spoilt", ["a gap", "another history", "an epoch that goes back"])
def test_a_journal_takes_only_what_goes_on_from_its_end(spoilt: str) -> None:
    story = Story()
    frame = story.written(b"a")
    match spoilt:
        case "a gap":
            frame = story.written(b"b")
        case "another history":
            frame = Frame(**{**fields(frame), "chain_before": bytes(16)})
        case _:
            frame = Frame(**{**fields(frame), "epoch": 0})
    with pytest.raises(AssertionError, match=spoilt):
        story.disk.journal.append(frame)


def fields(frame: Frame) -> dict[str, object]:
    return {name: getattr(frame, name) for name in frame.__struct_fields__}


def test_a_full_disk_takes_nothing_and_goes_on_when_there_is_room() -> None:
    story = Story()
    frame = story.written(b"a")
    before = story.disk.position
    story.disk.is_full = True
    with pytest.raises(StorageFull):
        story.disk.apply([frame], [(b"id", Version(1, 3), 0)])
    assert story.disk.position == before
    assert story.disk.request_outcome(b"id") is None
    story.disk.is_full = False
    story.disk.apply([frame])
    assert story.agrees()


def test_an_old_journal_ends_at_its_horizon() -> None:
    story = Story(kept=Kept(600))
    for number in range(20):
        story.disk.apply([story.written(b"%d" % number)])
    horizon = story.disk.horizon_seq
    assert 0 < horizon < story.disk.position.seq
    assert sum(len(frame.data) for frame in story.disk.journal.frames) <= 600
    with pytest.raises(BeyondHorizon):
        story.disk.journal.frames_after(horizon - 1, 1000)
    assert story.disk.journal.frames_after(horizon, 1 << 20) == story.frames[-len(story.disk.journal.frames) :]
    base = next(frame.position for frame in story.frames if frame.last_seq == horizon)
    assert story.disk.holds(base)
    assert story.disk.journal.end_before(horizon) == base
    assert story.disk.journal.end_before(horizon - 1) is None
    assert not story.disk.holds(story.frames[0].position)
    assert story.agrees(), "the records stay"


def test_frames_are_handed_out_up_to_a_size_and_one_at_least() -> None:
    story = Story()
    frames = [story.written(b"%d" % number) for number in range(5)]
    story.disk.apply(frames)
    size = len(frames[0].data)
    start = frames[0].first_seq - 1
    assert story.disk.journal.frames_after(start, 1) == frames[:1]
    assert story.disk.journal.frames_after(start, 2 * size) == frames[:2]
    assert story.disk.journal.frames_after(start, 3 * size - 1) == frames[:2]
    assert story.disk.journal.frames_after(story.position.seq, 1 << 20) == []


def test_a_frame_s_end_is_found_for_any_seq_within_it() -> None:
    story = Story()
    for number in range(3):
        story.put(story.space, b"%d" % number, b"v")
    frame = story.cut()
    story.disk.apply([frame])
    assert story.disk.journal.end_before(frame.last_seq) == frame.position
    assert story.disk.journal.end_before(frame.last_seq - 1) == story.frames[0].position
    assert story.disk.journal.end_before(0) == GENESIS
    assert story.disk.holds(frame.position)
    assert not story.disk.holds(frame.position._replace(seq=frame.last_seq - 1))


class Heads:
    """A coin that always says the same."""

    def __init__(self, number: float) -> None:
        self.number = number

    def random(self) -> float:
        return self.number


LOST, KEPT = Heads(0.99), Heads(0.0)


def a_story_half_synced() -> Story:
    story = Story()
    story.disk.apply([story.written(b"a")], [(b"old", Version(1, 3), 0)])
    story.disk.sync()
    story.disk.apply([story.written(b"b"), story.written(b"a", b"2")], [(b"new", Version(1, 5), 0)])
    return story


def test_what_was_not_synced_is_lost_with_the_power_as_a_whole() -> None:
    story = a_story_half_synced()
    digest = story.disk.copied()
    assert story.disk.lose_power(LOST) == 2
    assert story.disk.position == story.frames[1].position
    assert story.disk.get(story.space, b"b") is None
    assert story.disk.get(story.space, b"a").value == b"v"
    assert story.disk.request_outcome(b"old") == (1, 3)
    assert story.disk.request_outcome(b"new") is None
    assert story.disk.digest != digest.digest
    story.disk.apply(story.frames[2:])
    assert story.agrees(), "what was lost comes again"


def test_the_kernel_may_have_written_what_nobody_synced() -> None:
    story = a_story_half_synced()
    assert story.disk.lose_power(KEPT) == 0
    assert story.agrees()
    assert story.disk.lose_power(LOST) == 0, "and then it is there for good"


def test_what_was_synced_survives_the_power() -> None:
    story = a_story_half_synced()
    story.disk.sync()
    assert story.disk.lose_power(LOST) == 0
    assert story.agrees()


def test_a_lying_disk_loses_what_it_said_was_synced() -> None:
    story = Story()
    story.disk.sync()
    story.disk.is_lying = True
    story.disk.apply([story.written(b"a")])
    story.disk.sync()
    assert story.disk.lose_power(KEPT) == 1
    assert story.disk.position == story.frames[0].position


def test_a_disk_whose_journal_begins_later_goes_back_to_what_it_had_synced() -> None:
    """Its records can't be derived from its journal, and were on the medium with it."""
    story = Story(kept=Kept(600))
    for number in range(20):
        story.disk.apply([story.written(b"%d" % number)])
    story.disk.sync()
    synced, records = story.disk.position, {space: dict(held) for space, held in story.disk.records.items()}
    story.disk.apply([story.written(b"last")])
    assert story.disk.horizon_seq > 0
    assert story.disk.lose_power(LOST) == 1
    assert story.disk.position == synced
    assert story.disk.records == records


def test_a_full_disk_may_lose_power() -> None:
    """It was derived again from its journal as if that were new writes, for which there was no room."""
    story = a_story_half_synced()
    story.disk.is_full = True
    assert story.disk.lose_power(LOST) == 2
    assert story.disk.is_full
    assert story.disk.position == story.frames[1].position


def test_a_copy_goes_its_own_way_on_a_sound_medium() -> None:
    story = Story()
    story.disk.is_full = story.disk.is_lying = True
    copy = story.disk.copied()
    assert not copy.is_full
    assert not copy.is_lying
    frame = story.written(b"a")
    copy.apply([frame], [(b"id", Version(1, 3), 0)])
    copy.namespaces.clear()
    assert story.disk.position == story.frames[0].position
    assert story.disk.get(story.space, b"a") is None
    assert story.disk.request_outcome(b"id") is None
    assert story.disk.namespaces
    story.disk.is_full = False
    story.disk.apply([frame])
    assert story.agrees()


def test_a_disk_that_only_measures_keeps_the_journal_alone() -> None:
    story = Story(folds=False)
    story.disk.apply([story.written(b"a")])
    assert story.disk.position == story.position
    assert story.disk.records == {SYSTEM_NAMESPACE: {}}


def test_power_is_lost_by_the_dice_that_were_given() -> None:
    lost = {seed: a_story_half_synced().disk.lose_power(random.Random(seed)) for seed in range(20)}
    assert set(lost.values()) == {0, 2}


def a_story_on_a_lying_disk() -> Story:
    """A replica that was made anew while its medium lied; the one before it is what is synced."""
    story = Story()
    story.disk.sync()
    donor = Story()
    donor.disk.apply([donor.written(b"a"), donor.written(b"b")])
    story.disk.is_lying = True
    page = donor.disk.read_page(b"")
    assert page.until == b""
    story.disk.begin_successor(page.position)
    story.disk.store_page(page)
    assert story.disk.finish(page.position, page.digest) == donor.position
    return story


def test_a_replica_made_anew_on_a_lying_disk_is_the_one_before_it_when_the_power_fails() -> None:
    """Its journal was cut where the old one had ended, and what was left of the two was a mixture."""
    story = a_story_on_a_lying_disk()
    assert story.disk.verified
    assert story.disk.lose_power(KEPT) > 0
    assert story.agrees()
    assert not story.disk.verified
    story.disk.apply([story.written(b"c")])
    assert story.agrees()


def test_a_replica_made_anew_on_a_sound_disk_stays() -> None:
    story = Story()
    page = story.disk.read_page(b"")
    story.disk.begin_successor(page.position)
    story.disk.store_page(page)
    story.disk.finish(page.position, page.digest)
    assert story.disk.lose_power(LOST) == 0
    assert story.agrees()
    assert story.disk.verified


@pytest.mark.parametrize(("coin", "stays"), [(KEPT, True), (LOST, False)])
def test_a_replica_in_the_making_may_outlive_the_power(coin: Heads, stays: bool) -> None:
    story = Story()
    story.disk.sync()
    page = story.disk.read_page(b"")
    story.disk.begin_successor(page.position)
    story.disk.store_page(page)
    assert story.disk.lose_power(coin) == 0
    progress = story.disk.port.bootstrap
    assert (progress is not None) is stays
    if progress is not None:
        assert progress.whole


def test_the_time_that_was_reached_goes_with_the_power_and_not_with_the_replica() -> None:
    story = Story()
    story.disk.note_time(17.9)
    story.disk.reset()
    assert story.disk.reached_s == 17
    story.disk.note_time(12)
    assert story.disk.reached_s == 17
    story.disk.lose_power(LOST)
    assert story.disk.reached_s == 0
    assert story.disk.clocks_lost == 1


def test_a_journal_drops_what_is_older_than_it_keeps_beside_its_newest_frame() -> None:
    story = Story(kept=Kept(age_ms=1000))
    for _ in range(5):
        story.stamp += 400 << 16
        story.disk.apply([story.written(b"a")])
    stamps = [frame.stamp >> 16 for frame in story.disk.journal.frames]
    assert len(stamps) > 1
    assert stamps[-1] - stamps[0] <= 1000
    assert story.disk.horizon_seq > 0
    story.stamp += 100_000 << 16
    story.disk.apply([story.written(b"b")])
    assert len(story.disk.journal.frames) == 1, "the last one stays"


def large(data: bytes) -> tuple[bytes, bytes]:
    """A chunk's name, and the manifest of the value that it is."""
    return hash_chunk(data), Manifest(len(data), (hash_chunk(data),)).pack()


def test_a_chunk_is_kept_while_a_record_names_it_and_for_a_while_before_and_after() -> None:
    story = Story(chunk_life_ms=10_000.0)
    now = [0.0]
    story.disk.now_ms = lambda: now[0]
    name, manifest = large(b"a chunk")
    unseen, _ = large(b"another chunk")
    assert story.disk.put_chunk(name, b"a chunk")
    assert story.disk.put_chunk(unseen, b"another chunk")
    assert not story.disk.put_chunk(name, b"something else")
    story.put_large(story.space, b"large", manifest)
    story.disk.apply([story.cut()])
    for at in (9000.0, 20_000.0):
        now[0] = at
        story.disk.apply([story.written(b"%d" % at)])
    assert story.disk.lacking_chunks([name, unseen]) == [unseen], "nothing named the other one for 10 s"
    story.delete(story.space, b"large")
    now[0] = 22_000.0
    story.disk.apply([story.cut()])
    now[0] = 31_000.0
    story.disk.apply([story.written(b"x")])
    assert not story.disk.lacking_chunks([name]), "somebody may still be reading it"
    now[0] = 33_000.0
    story.disk.apply([story.written(b"y")])
    assert story.disk.lacking_chunks([name]) == [name]


def test_an_entry_whose_chunks_are_not_here_is_not_applied_and_those_before_it_may_be() -> None:
    story = Story()
    name, manifest = large(b"a chunk")
    first = story.written(b"a")
    story.put_large(story.space, b"large", manifest)
    frames = [first, story.cut()]
    before = story.disk.position
    with pytest.raises(ChunksMissing) as missing:
        story.disk.apply(frames)
    assert missing.value.hashes == (name,)
    assert missing.value.applicable == 1
    assert story.disk.position == before
    story.disk.put_chunk(name, b"a chunk")
    story.disk.apply(frames)
    assert story.disk.position == story.position


def test_chunks_that_were_not_synced_are_lost_with_what_names_them() -> None:
    story = Story()
    story.disk.sync()
    name, manifest = large(b"a chunk")
    story.disk.put_chunk(name, b"a chunk")
    story.put_large(story.space, b"large", manifest)
    story.disk.apply([story.cut()])
    assert story.disk.lose_power(LOST) == 1
    assert story.disk.lacking_chunks([name]) == [name]
    assert not story.disk.lacking_named()
