from __future__ import annotations

import asyncio
import random

import pytest

from kvnet.core.events import (
    AbandonBootstrap,
    Applied,
    Apply,
    AwaitWritable,
    BeginBootstrap,
    BootstrapFailed,
    Bootstrapped,
    BulkSend,
    ChunksLacking,
    ChunkStored,
    Connect,
    DeadlineReached,
    DialFailed,
    Disconnect,
    Diverged,
    DropUnapplied,
    Empty,
    FinishBootstrap,
    FramesCut,
    LinkWritable,
    MessageReceived,
    OfferSettled,
    OpenEpoch,
    PageSent,
    PageStored,
    PageUnusable,
    PeerLost,
    PeerUp,
    RefuseWrites,
    Report,
    Send,
    SendChunk,
    SendPage,
    SetDeadline,
    Started,
    StoreChunk,
    StorePage,
)
from kvnet.core.manifest import Manifest, hash_chunk
from kvnet.core.messages import Frames, Move, PagesCredit, Unsubscribe
from kvnet.core.versions import GENESIS, Version
from kvnet.errors import Divergence, ProtocolError, StorageDamaged, StorageFull
from kvnet.runtime import driver as driver_module
from kvnet.runtime.driver import Driver
from tests.support.frames import FrameMaker
from tests.support.peers import until
from tests.support.stores import assert_is_fold, open_store


class ScriptedCore:
    """Answers each kind of event with the effects the test has written for it."""

    name = "fra"

    def __init__(self, log):
        self.log = log
        self.script = {}

    def handle(self, event, now_ms):
        self.log.append(event)
        effects = self.script.get(type(event), [])
        return effects(event, now_ms) if callable(effects) else effects


class FakeLinks:
    def __init__(self, log):
        self.log = log

    def listen(self, events):
        self.events = events

    def connect(self, peer):
        self.log.append(f"connect {peer}")

    def disconnect(self, peer, why):
        self.log.append(f"disconnect {peer}")
        self.events.on_lost(peer)

    def send(self, peer, message):
        self.log.append(f"send {peer} {type(message).__name__}")

    def flush(self):
        self.log.append("flush")

    def await_writable(self, peer):
        self.log.append(f"await {peer}")


class FakeBulk:
    def __init__(self, log):
        self.log = log

    def listen(self, feed):
        self.feed = feed

    def send(self, peer, message):
        self.log.append(f"bulk {peer} {type(message).__name__}")
        self.said = message

    def send_chunk(self, peer, name):
        self.log.append(f"chunk {peer} {name[:4].hex()}")

    def flush(self):
        """Nothing waits here."""


class Commands:
    def __init__(self, log):
        self.log = log

    def open_epoch(self, epoch):
        self.log.append(f"open {epoch}")

    def refuse_writes(self, why):
        self.log.append(f"refuse {why}")

    def offer_settled(self, id_):
        self.log.append(f"settled {id_!r}")

    def emptied(self):
        self.log.append("emptied")

    def broken(self, error):
        self.log.append(f"broken {type(error).__name__}")


class FailingStore:
    """A store whose next commits end in these errors."""

    def __init__(self, store, log):
        self._store = store
        self._log = log
        self.errors = []
        self.bites = 0

    def __getattr__(self, name):
        return getattr(self._store, name)

    def apply(self, frames):
        self._log.append(f"apply {[frame.last_seq for frame in frames]}")
        if self.errors:
            raise self.errors.pop(0)
        return self._store.apply(frames)

    def reset(self):
        self._log.append("reset")
        self._store.reset()

    def erase_some(self, budget=1000):
        self.bites += 1
        return self._store.erase_some(budget)


class Node:
    def __init__(self, folder):
        self.log = []
        self.now = 1000.0
        self.core = ScriptedCore(self.log)
        self.links = FakeLinks(self.log)
        self.bulk = FakeBulk(self.log)
        self.disk = open_store(folder)
        self.store = FailingStore(self.disk, self.log)
        self.commits = []
        self.driver = Driver(
            self.core,
            self.store,
            self.links,
            self.bulk,
            Commands(self.log),
            on_applied=lambda frames, position, wall_ms: self.commits.append((len(frames), position, wall_ms)),
            now_ms=lambda: self.now,
        )

    def take_frames(self, frames):
        """Script: the core applies these frames when a peer's message comes."""
        self.core.script[MessageReceived] = [Apply(tuple(frames))]
        self.driver.on_messages("nrt", [Frames(tuple(frame.data for frame in frames))])


@pytest.fixture
async def node(tmp_path):
    made = Node(tmp_path / "fra")
    made.driver.start()
    made.log.clear()
    yield made
    made.driver.stop()
    made.disk.close()


def frames_of_a_history(count: int):
    maker = FrameMaker()
    maker.open_epoch()
    frames = [maker.cut()]
    namespace = maker.create_namespace("test")
    for i in range(count - 1):
        maker.put(namespace, b"key %d" % i, b"value")
        frames.append(maker.cut())
    return maker, frames


async def test_starting_listens_and_lets_the_core_dial(tmp_path):
    node = Node(tmp_path / "fra")
    node.core.script[Started] = [Connect("ams"), Connect("nrt")]
    node.driver.start()
    assert node.links.events is node.driver
    assert node.log == [Started(), "connect ams", "connect nrt"]
    node.driver.stop()
    node.disk.close()


async def test_what_links_tell_reaches_the_core_as_events(node):
    node.driver.on_up("ams", 12.5)
    node.driver.on_messages("ams", [Move(), Unsubscribe()])
    node.driver.on_writable("ams")
    node.driver.on_lost("ams")
    node.driver.on_dial_failed("nrt")
    assert node.log == [
        PeerUp("ams", 12.5),
        MessageReceived("ams", Move()),
        MessageReceived("ams", Unsubscribe()),
        LinkWritable("ams"),
        PeerLost("ams"),
        DialFailed("nrt"),
    ]


async def test_a_turn_sends_first_commits_once_and_only_then_speaks_of_the_position(node):
    maker, frames = frames_of_a_history(3)
    node.core.script[MessageReceived] = lambda event, _: [
        Send("ams", event.message),
        Apply(tuple(frame for frame in frames if frame.data in event.message.frames)),
    ]
    node.core.script[Applied] = [Send("nrt", Move())]
    for frame in frames:
        node.driver.on_messages("nrt", [Frames((frame.data,))])
    await until(lambda: node.log[-1] == "flush" and "send nrt Move" in node.log)
    assert [line for line in node.log if not isinstance(line, MessageReceived)] == [
        "send ams Frames",
        "send ams Frames",
        "send ams Frames",
        "flush",
        "apply [1, 3, 4]",
        Applied(maker.position),
        "send nrt Move",
        "flush",
    ]
    assert_is_fold(node.disk, maker)
    ((count, position, wall_ms),) = node.commits
    assert (count, position) == (3, maker.position)
    assert wall_ms > 0


async def test_events_that_come_while_one_is_handled_wait_their_turn(node):
    """Disconnecting tells of the lost link at once; the core must not be entered twice."""
    node.core.script[PeerUp] = [Disconnect("ams", "test"), Connect("nrt")]
    node.driver.on_up("ams", 1.0)
    assert node.log == [PeerUp("ams", 1.0), "disconnect ams", "connect nrt", PeerLost("ams")]


async def test_orders_go_where_they_belong(node):
    node.core.script[PeerUp] = [
        AwaitWritable("ams"),
        OpenEpoch(3),
        RefuseWrites("why"),
        Report("late", "no beacon"),
    ]
    node.driver.on_up("ams", 1.0)
    assert node.log[1:] == ["await ams", "open 3", "refuse why"]
    assert node.driver.status()["reports"] == {"late": 1}


async def test_emptying_forgets_what_was_to_be_applied_before(node):
    _, frames = frames_of_a_history(3)
    node.take_frames(frames)
    await until(lambda: node.disk.position.seq == 4)
    node.log.clear()
    node.core.script[PeerLost] = [Apply((frames[0],)), Empty()]
    node.driver.on_lost("ams")
    await until(lambda: Applied(GENESIS) in node.log)
    assert node.log == [PeerLost("ams"), "flush", "reset", "emptied", Applied(GENESIS)]
    assert node.disk.position == GENESIS


@pytest.mark.parametrize("error", [Divergence("digest"), ProtocolError("body")])
async def test_a_diverged_replica_tells_the_core_and_starts_over(node, error):
    maker, frames = frames_of_a_history(3)
    node.store.errors.append(error)
    node.core.script[Diverged] = [Empty()]
    node.take_frames(frames)
    await until(lambda: Applied(GENESIS) in node.log)
    assert node.log[2:] == ["apply [1, 3, 4]", Diverged(str(error)), "flush", "reset", "emptied", Applied(GENESIS)]
    assert node.driver.status()["reports"] == {"diverged": 1}
    node.take_frames(frames)
    await until(lambda: node.disk.position == maker.position)


async def test_a_full_disk_keeps_the_frames_and_takes_them_when_there_is_room(node, monkeypatch):
    monkeypatch.setattr(driver_module, "FULL_RETRY_FIRST_S", 0.01)
    node.driver._retry_s = 0.01
    maker, frames = frames_of_a_history(4)
    node.store.errors += [StorageFull("no room")] * 3
    node.take_frames(frames[:2])
    await until(lambda: node.driver.full)
    assert node.driver.status()["storage_full"]
    assert node.driver.status()["frames_pending"] == 2
    node.take_frames(frames[2:])
    await until(lambda: node.disk.position == maker.position)
    assert not node.driver.full
    assert node.driver.reports["storage_full"] == 3
    assert node.log.count(Applied(maker.position)) == 1
    assert_is_fold(node.disk, maker)


async def test_a_full_disk_bounds_the_frames_in_memory_by_letting_go_of_whoever_sends(node, monkeypatch):
    monkeypatch.setattr(driver_module, "PENDING_BYTES_MAX", 100)
    _, frames = frames_of_a_history(4)
    node.store.errors += [StorageFull("no room")] * 100
    node.take_frames(frames[:2])
    await until(lambda: node.driver.full)
    node.take_frames(frames[2:])
    assert node.log[-2:] == ["disconnect nrt", PeerLost("nrt")]
    assert node.driver.status()["frames_pending"] == 2
    node.driver.on_messages("ams", [Move()])
    assert node.log[-1] == MessageReceived("ams", Move()), "control messages do no harm"


async def test_the_deadline_is_kept_by_one_timer_and_not_reached_early(node):
    loop = asyncio.get_running_loop()
    node.driver._now_ms = lambda: loop.time() * 1000
    reached = []

    def on_deadline(event, now_ms):
        reached.append(now_ms)
        return []

    node.core.script[DeadlineReached] = on_deadline
    due = loop.time() * 1000 + 30
    node.core.script[PeerUp] = [SetDeadline(due - 20), SetDeadline(due)]
    node.driver.on_up("ams", 1.0)
    await until(lambda: reached)
    assert reached[0] >= due
    node.core.script[PeerUp] = [SetDeadline(due + 1e9), SetDeadline(due)]
    node.driver.on_up("ams", 1.0)
    await until(lambda: len(reached) == 2)


async def test_clients_wait_for_what_is_applied_and_for_what_is_cut_here(node):
    maker, frames = frames_of_a_history(3)
    namespace = next(reversed(maker.records))
    waiting = asyncio.ensure_future(node.driver.wait_for(Version(1, 4), 20_000))
    await asyncio.sleep(0)
    node.take_frames(frames)
    assert await waiting
    assert not await node.driver.wait_for(Version(1, 5), 1)
    maker.put(namespace, b"k", b"v")
    frame = maker.cut()
    waiting = asyncio.ensure_future(node.driver.wait_for(Version(1, 5), 20_000))
    await asyncio.sleep(0)
    node.disk.apply([frame])
    node.driver.feed(FramesCut((frame,)))
    assert await waiting


async def test_a_broken_invariant_stops_the_driver_for_good(node):
    def broken(event, now_ms):
        raise AssertionError("applied what was never taken")

    node.core.script[PeerUp] = broken
    node.driver.on_up("ams", 1.0)
    node.driver.on_lost("ams")
    assert node.log == [PeerUp("ams", 1.0), "broken AssertionError"]


async def test_stopping_commits_what_is_pending(node):
    maker, frames = frames_of_a_history(2)
    node.take_frames(frames)
    node.driver.stop()
    assert node.disk.position == maker.position


async def test_deleted_namespaces_are_erased_bite_by_bite(node, monkeypatch):
    monkeypatch.setattr(driver_module, "ERASE_INTERVAL_S", 0.001)
    maker, frames = frames_of_a_history(1)
    namespace = maker.create_namespace("short-lived")
    rng = random.Random(1)
    for _ in range(2500):
        maker.put(namespace, rng.randbytes(8), b"value")
    frames.append(maker.cut())
    maker.delete_namespace(namespace)
    frames.append(maker.cut())
    node.take_frames(frames)
    await until(lambda: node.disk.position == maker.position)
    await until(lambda: not node.disk.erase_some(0))
    assert node.store.bites >= 3


# -- a successor, pages and chunks


def order(node, *effects):
    """Have the core order these, as when a link comes up."""
    node.core.script[PeerUp] = list(effects)
    node.driver.on_up("ams", 1.0)
    node.core.script[PeerUp] = []


@pytest.fixture
def donor(tmp_path):
    """A store with a history, of which pages can be had."""
    maker, frames = frames_of_a_history(6)
    store = open_store(tmp_path / "donor")
    store.apply(frames)
    yield store, maker
    store.close()


async def test_a_replica_is_made_anew_and_readers_see_it_when_it_is_proven(node, donor):
    store, maker = donor
    page = store.read_page(b"")
    order(node, BeginBootstrap(page.position), StorePage(page))
    await until(lambda: PageStored(b"") in node.log)
    assert node.disk.position == GENESIS, "readers see the old one"
    assert node.disk.journal.position == page.position
    namespace = next(reversed(maker.records))
    maker.put(namespace, b"later", b"value")
    node.take_frames([maker.cut()])
    await until(lambda: Applied(maker.position) in node.log)
    assert node.disk.position == GENESIS
    assert not node.commits, "nobody could read these"
    waiting = asyncio.ensure_future(node.driver.wait_for(maker.position.version, 20_000))
    order(node, FinishBootstrap(page.position, page.digest))
    await until(lambda: Bootstrapped(maker.position) in node.log)
    assert_is_fold(node.disk, maker)
    assert node.disk.verified
    assert [(count, position) for count, position, _ in node.commits] == [(0, maker.position)]
    assert await waiting


async def test_a_page_that_was_altered_is_told_and_so_is_the_one_behind_it(node, donor):
    store, _ = donor
    page = store.read_page(b"", 1)
    bad = page._replace(body=page.body[:-1])
    order(node, BeginBootstrap(page.position), StorePage(bad), StorePage(store.read_page(page.until)))
    await until(lambda: sum(type(each) is PageUnusable for each in node.log) == 2)
    assert PageStored(b"") not in node.log
    order(node, StorePage(page))
    await until(lambda: PageStored(page.until) in node.log)


async def test_a_successor_with_another_digest_is_told_of_and_never_served(node, donor):
    store, _ = donor
    page = store.read_page(b"")
    order(node, BeginBootstrap(page.position), StorePage(page), FinishBootstrap(page.position, bytes(16)))
    await until(lambda: any(type(each) is BootstrapFailed for each in node.log))
    assert node.disk.position == GENESIS
    order(node, AbandonBootstrap())
    assert node.disk.bootstrap is None
    assert node.disk.journal.position == GENESIS


async def test_what_is_given_up_leads_to_nothing_any_more(node, donor):
    store, _ = donor
    page = store.read_page(b"")
    order(node, BeginBootstrap(page.position), StorePage(page), AbandonBootstrap())
    order(
        node, BeginBootstrap(page.position), StorePage(page), FinishBootstrap(page.position, page.digest), Empty()
    )
    await until(lambda: Applied(GENESIS) in node.log)
    await asyncio.sleep(0.02)
    assert not [each for each in node.log if type(each) in {PageStored, Bootstrapped, BootstrapFailed}]
    assert node.disk.bootstrap is None


async def test_pages_are_read_one_after_another_for_who_wants_them(node, donor):
    _, maker = donor
    node.take_frames(maker.frames)
    await until(lambda: node.disk.position == maker.position)
    order(node, SendPage("nrt", b""), SendPage("gru", b""))
    await until(lambda: PageSent("gru", b"") in node.log)
    given = [each for each in node.log if each == "bulk nrt Page" or type(each) is PageSent or "gru" in str(each)]
    assert given == ["bulk nrt Page", PageSent("nrt", b""), "bulk gru Page", PageSent("gru", b"")]
    assert node.bulk.said.position == maker.position
    assert node.bulk.said.digest == maker.digest.to_bytes(16, "big")


async def test_a_replica_that_is_found_damaged_gives_no_page_and_starts_over(node, monkeypatch):
    def read_page(after):
        raise StorageDamaged("a record isn't what was written")

    node.store.read_page = read_page
    node.core.script[Diverged] = [Empty()]
    order(node, SendPage("nrt", b""))
    await until(lambda: Applied(GENESIS) in node.log)
    assert "bulk nrt Page" not in node.log
    assert Diverged("a record isn't what was written") in node.log
    assert node.driver.reports["damaged"] == 1


async def test_a_journal_that_is_found_damaged_makes_the_replica_start_over(node, monkeypatch):
    """A node once ended of it, and again each time a neighbour asked for that frame."""
    handle = node.core.handle

    def damaged_once(event, now_ms):
        if isinstance(event, PeerLost):
            raise StorageDamaged("a frame of the journal can't be read")
        return handle(event, now_ms)

    monkeypatch.setattr(node.core, "handle", damaged_once)
    node.core.script[Diverged] = [Empty()]
    node.driver.feed(PeerLost("nrt"))
    await until(lambda: Applied(GENESIS) in node.log)
    assert Diverged("a frame of the journal can't be read") in node.log
    assert node.driver.reports["damaged"] == 1
    assert node.driver.damage


async def test_a_frame_waits_for_its_chunks_and_those_before_it_do_not(node):
    maker, frames = frames_of_a_history(3)
    namespace = next(reversed(maker.records))
    data = b"chunk" * 20_000
    name = hash_chunk(data)
    maker.put_large(namespace, b"large", Manifest(len(data), (name,)).pack())
    frames.append(maker.cut())
    node.take_frames(frames)
    await until(lambda: ChunksLacking((name,)) in node.log)
    assert Applied(frames[-2].position) in node.log
    assert node.disk.position == frames[-2].position
    assert node.driver.status()["chunks_lacking"] == 1
    order(node, StoreChunk(name, b"something else"))
    await until(lambda: ChunkStored(name, False) in node.log)
    assert node.disk.position == frames[-2].position
    order(node, StoreChunk(name, data))
    await until(lambda: Applied(maker.position) in node.log)
    assert node.log.index(ChunkStored(name, True)) < node.log.index(Applied(maker.position))
    assert node.disk.chunk(name) == data
    assert node.log.count(ChunksLacking((name,))) == 1


async def test_what_waits_for_chunks_is_taken_back_and_what_follows_goes_on_from_what_was_applied(node):
    maker, frames = frames_of_a_history(3)
    namespace = next(reversed(maker.records))
    data = b"chunk" * 20_000
    name = hash_chunk(data)
    maker.put_large(namespace, b"large", Manifest(len(data), (name,)).pack())
    node.take_frames([*frames, maker.cut()])
    await until(lambda: ChunksLacking((name,)) in node.log)
    order(node, DropUnapplied())
    assert node.driver.status()["frames_pending"] == 0
    assert node.driver.status()["chunks_lacking"] == 0
    assert node.disk.position == frames[-1].position
    instead, _ = frames_of_a_history(3)
    instead.put(namespace, b"another", b"value")
    node.take_frames([instead.cut()])
    await until(lambda: Applied(instead.position) in node.log)
    assert node.disk.position == instead.position


async def test_chunks_of_one_turn_are_stored_together_but_for_one_that_was_altered(node):
    chunks = [b"%d" % number * 1000 for number in range(3)]
    effects = [StoreChunk(hash_chunk(data), data) for data in chunks]
    order(node, effects[0], StoreChunk(effects[1].hash, b"altered"), effects[2])
    await until(lambda: sum(type(each) is ChunkStored for each in node.log) == 3)
    assert [each.ok for each in node.log if type(each) is ChunkStored] == [True, False, True]
    assert node.disk.lacking_chunks([effect.hash for effect in effects]) == [effects[1].hash]


async def test_bulk_orders_go_to_the_bulk_lane_and_settled_offers_to_the_writer(node):
    order(node, BulkSend("nrt", PagesCredit(2)), SendChunk("gru", b"name" * 8), OfferSettled(b"id"))
    assert node.log[1:] == ["bulk nrt PagesCredit", "chunk gru 6e616d65", "settled b'id'"]


async def test_a_replica_that_must_go_and_can_not_is_shown_to_nobody_until_there_is_room(node, monkeypatch):
    monkeypatch.setattr(driver_module, "FULL_RETRY_MAX_S", 0.01)
    maker, frames = frames_of_a_history(3)
    node.take_frames(frames)
    await until(lambda: node.disk.position == maker.position)
    failures = [StorageFull("no room"), StorageFull("no room")]
    reset = node.store.reset

    def reset_later():
        if failures:
            raise failures.pop()
        reset()

    node.store.reset = reset_later
    node.core.script[Diverged] = [Empty()]
    node.driver.damaged(StorageDamaged("a record isn't what was written"))
    await until(lambda: len(failures) == 1)
    assert node.driver.is_emptying
    assert "emptied" not in node.log
    await until(lambda: Applied(GENESIS) in node.log)
    assert not node.driver.is_emptying
    assert node.disk.position == GENESIS
