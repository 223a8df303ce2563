from __future__ import annotations

import random

import pytest

from kvnet.core.events import MessageReceived
from kvnet.core.manifest import hash_chunk
from kvnet.core.messages import Advert, Chunk, ChunksWanted, Message, Move, Page, Unsubscribe
from kvnet.core.replica import Replica
from kvnet.errors import PageDamaged
from kvnet.simulator.faults import Alter, Tamper
from kvnet.simulator.network import Direction
from kvnet.simulator.records import unpack_page
from kvnet.simulator.tampering import REORDER_MS_MAX, BulkTamperer, Tamperer
from kvnet.simulator.world import World
from tests.support.worlds import make_world, settle, start, write_for

ALL = 0.999_999_999


class Tampered:
    """One direction of a link in a small world, its messages, and what its receiver is told of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **shares: object) -> None:
        self.world = world = make_world(4, 1)
        start(world)
        world.run_until(world.now + 1000)
        self.tamperer = Tamperer(world, Tamper(at_ms=0, **shares), random.Random(1))
        node = world.root
        peer = next(iter(node.links))
        self.link = node.links[peer]
        self.direction: Direction = self.link.direction(node)
        self.heard: list[tuple[float, Message]] = []
        handle = Replica.handle

        def hear(core: Replica, event: object, now: float) -> list:
            if type(event) is MessageReceived and type(event.message) is Move and core.name == peer:
                self.heard.append((world.now - self.began, event.message))
            return handle(core, event, now)

        self.began = world.now
        monkeypatch.setattr(Replica, "handle", hear)

    def tamper(self, *messages: Message) -> list[Message]:
        return self.tamperer.tamper(self.direction, list(messages))


def test_nothing_happens_to_messages_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    tampered = Tampered(monkeypatch)
    assert tampered.tamper(Move(), Unsubscribe()) == [Move(), Unsubscribe()]
    assert not any(tampered.tamperer.counts.values())


def test_a_dropped_message_is_gone_and_the_rest_arrives(monkeypatch: pytest.MonkeyPatch) -> None:
    tampered = Tampered(monkeypatch, drop=0.5)
    carried = tampered.tamper(*[Move()] * 1000)
    assert 400 < len(carried) < 600
    assert tampered.tamperer.counts["dropped"] == 1000 - len(carried)
    tampered.world.run_until(tampered.world.now + 20_000)
    assert not tampered.heard


def test_a_duplicated_message_is_carried_twice_in_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    tampered = Tampered(monkeypatch, duplicate=ALL)
    assert tampered.tamper(Move(), Unsubscribe()) == [Move(), Move(), Unsubscribe(), Unsubscribe()]
    assert tampered.tamperer.counts["duplicated"] == 2


def test_a_reordered_message_comes_once_and_soon_but_out_of_its_order(monkeypatch: pytest.MonkeyPatch) -> None:
    tampered = Tampered(monkeypatch, reorder=ALL)
    assert tampered.tamper(*[Move()] * 20) == []
    assert tampered.tamperer.counts["reordered"] == 20
    tampered.world.run_until(tampered.world.now + REORDER_MS_MAX)
    times = [at for at, _ in tampered.heard]
    assert len(times) == 20
    assert len(set(times)) == 20
    assert 0 <= min(times) < max(times) <= REORDER_MS_MAX


def test_a_replayed_message_is_carried_and_said_again_much_later(monkeypatch: pytest.MonkeyPatch) -> None:
    tampered = Tampered(monkeypatch, replay=ALL, replay_after_ms=(5000.0, 9000.0))
    assert tampered.tamper(Move()) == [Move()]
    assert tampered.tamperer.counts["replayed"] == 1
    tampered.world.run_until(tampered.world.now + 20_000)
    assert [5000 <= at <= 9000 for at, _ in tampered.heard] == [True]


def test_a_stray_message_is_lost_when_its_nodes_have_no_link(monkeypatch: pytest.MonkeyPatch) -> None:
    tampered = Tampered(monkeypatch, reorder=ALL)
    tampered.tamper(Move())
    tampered.world.crash(tampered.direction.receiver.id)
    tampered.world.run_until(tampered.world.now + REORDER_MS_MAX)
    assert not tampered.heard


def test_a_corrupted_message_costs_the_connection_and_is_never_read(monkeypatch: pytest.MonkeyPatch) -> None:
    tampered = Tampered(monkeypatch, corrupt=ALL)
    for number in range(300):
        tampered.tamperer.rng = random.Random(number)
        assert tampered.tamper(Move(), Unsubscribe()) == []
    assert tampered.tamperer.counts["corrupted"] == 300
    assert tampered.link.alive
    tampered.world.run_until(tampered.world.now)
    assert not tampered.link.alive


def test_no_core_hears_what_nobody_said_though_everything_is_corrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    world = make_world(8, 1)
    start(world)
    said: set[Message] = set()
    heard: list[Message] = []
    send, handle = World.send, Replica.handle

    def say(world: World, node: object, peer: str, messages: list[Message]) -> None:
        said.update(messages)
        send(world, node, peer, messages)

    def hear(core: Replica, event: object, now: float) -> list:
        if type(event) is MessageReceived:
            heard.append(event.message)
        return handle(core, event, now)

    write_for(world, 500)
    under_way = world.now + 1000
    world.run_until(under_way)
    monkeypatch.setattr(World, "send", say)
    world.run_until(world.now + 6000)
    monkeypatch.setattr(Replica, "handle", hear)
    shares = Tamper(at_ms=0, corrupt=0.3, drop=0.1, duplicate=0.1, reorder=0.1, replay=0.1)
    world.tampering = tamperer = Tamperer(world, shares, random.Random(1))
    write_for(world, 5000)
    assert all(tamperer.counts.values()), tamperer.counts
    assert tamperer.counts["corrupted"] > 50
    assert any(type(message) is Advert for message in heard)
    assert said.issuperset(heard)


def test_a_network_converges_after_all_of_it() -> None:
    world = make_world(8, 3)
    start(world)
    shares = Tamper(at_ms=0, corrupt=0.05, drop=0.05, duplicate=0.1, reorder=0.1)
    world.tampering = tamperer = Tamperer(world, shares, random.Random(3))
    write_for(world, 5000)
    assert all(count for what, count in tamperer.counts.items() if what != "replayed")
    world.tampering = None
    for node in world.live():  # whatever was lost within a connection ends with it
        for link in list(node.links.values()):
            world.close(link)
    settle(world)


def bulk(**shares: object) -> BulkTamperer:
    return BulkTamperer(Alter(at_ms=0, **{"pages": 0.0, **shares}), random.Random(1))


def a_page() -> Page:
    world = make_world(4, 1)
    start(world)
    world.write()
    return world.root.disk.read_page(b"")


def test_a_page_that_was_altered_is_not_what_its_checksum_says() -> None:
    tamperer, page = bulk(pages=ALL), a_page()
    [altered] = tamperer.tamper(None, [page])
    assert altered.body != page.body
    with pytest.raises(PageDamaged, match="altered on its way"):
        unpack_page(altered.body)
    assert tamperer.counts == {"altered": 1, "forged": 0, "chunks": 0}


def test_a_forged_page_lacks_a_record_and_its_checksum_fits() -> None:
    tamperer, page = bulk(pages=ALL, forged=True), a_page()
    [forged] = tamperer.tamper(None, [page])
    assert len(unpack_page(forged.body)) == len(unpack_page(page.body)) - 1
    assert forged[:4] == page[:4]
    assert tamperer.counts["forged"] == 1


def test_a_chunk_that_was_altered_is_not_what_its_name_says() -> None:
    tamperer = bulk(chunks=ALL)
    chunk = Chunk(hash_chunk(b"data"), b"data")
    [altered] = tamperer.tamper(None, [chunk])
    assert hash_chunk(altered.data) != altered.hash == chunk.hash


def test_other_messages_of_the_bulk_lane_are_left_alone() -> None:
    wanted = ChunksWanted((bytes(32),))
    assert bulk(pages=ALL, chunks=ALL).tamper(None, [wanted]) == [wanted]
