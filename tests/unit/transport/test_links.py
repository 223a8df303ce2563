from __future__ import annotations

import asyncio
import logging

import msgpack
import pytest
from aiohttp import WSMsgType

from kvnet.core.events import UNSENT_BYTES_MAX
from kvnet.core.messages import (
    Ask,
    BeaconId,
    Chunk,
    ChunksWanted,
    Frames,
    Move,
    PagesCredit,
    Unsubscribe,
    encode,
)
from kvnet.transport.handshake import Answer, Dial, Purpose
from kvnet.transport.links import BULK_PATH, PATH
from tests.support.peers import Peers, identity, topology, until


def ask(seq: int) -> Ask:
    return Ask(1, seq, BeaconId(1, 1), ladder=False)


async def linked(peers, **second):
    a, heard_by_a = await peers.links("ams")
    b, heard_by_b = await peers.links("fra", **second)
    a.connect("fra")
    await until(lambda: heard_by_a.is_up("fra") and heard_by_b.is_up("ams"))
    return a, heard_by_a, b, heard_by_b


async def test_a_link_comes_up_at_both_ends_and_carries_messages_in_order_both_ways(peers):
    a, heard_by_a, b, heard_by_b = await linked(peers)
    for i in range(500):
        a.send("fra", ask(i))
        b.send("ams", ask(-i))
        if i % 7 == 0:
            a.flush()
            b.flush()
        if i % 100 == 0:
            await asyncio.sleep(0)
    a.flush()
    b.flush()
    await until(lambda: len(heard_by_b.messages.get("ams", ())) == len(heard_by_a.messages.get("fra", ())) == 500)
    assert heard_by_b.messages["ams"] == [ask(i) for i in range(500)]
    assert heard_by_a.messages["fra"] == [ask(-i) for i in range(500)]


async def test_what_is_collected_leaves_in_one_message_per_link(peers):
    a, _, b, heard = await linked(peers)
    for i in range(10):
        a.send("fra", ask(i))
    assert a.counters["messages_sent"] == 0
    a.flush()
    await until(lambda: len(heard.messages.get("ams", ())) == 10)
    assert a.counters["messages_sent"] == b.counters["messages_received"] == 1


async def test_messages_of_different_kinds_that_are_equal_as_tuples_stay_what_they_are(peers):
    """What is encoded once is sent to several peers; `Move() == Unsubscribe()`, as both are empty tuples."""
    a, _, _, heard_by_b = await linked(peers)
    _, heard_by_c = await peers.links("nrt")
    a.connect("nrt")
    await until(lambda: heard_by_c.is_up("ams"))
    a.send("fra", Move())
    a.send("nrt", Unsubscribe())
    a.flush()
    await until(lambda: heard_by_b.messages and heard_by_c.messages)
    assert [type(message) for message in heard_by_b.messages["ams"]] == [Move]
    assert [type(message) for message in heard_by_c.messages["ams"]] == [Unsubscribe]


async def test_the_handshake_measures_the_round_trip_of_the_wan():
    peers = Peers(topology("internet"))
    try:
        _, heard_by_a, _, heard_by_b = await linked(peers)
        wan = peers.shaper("ams").wan
        assert heard_by_a.rtts["fra"] >= wan.rtt_ms("ams", "fra") - 2
        assert heard_by_b.rtts["ams"] >= wan.rtt_ms("ams", "fra") - 2
    finally:
        await peers.close()


async def test_both_ends_keep_the_same_link_when_they_dial_each_other_at_once():
    peers = Peers(topology("internet", jitter=0.5))
    try:
        nodes = {name: await peers.links(name) for name in ("ams", "fra", "nrt")}
        for links, _ in nodes.values():
            for other in nodes:
                if links is not nodes[other][0]:
                    links.connect(other)
        pairs = [(a, b) for a in nodes for b in nodes if a != b]
        await until(lambda: all(nodes[a][1].is_up(b) for a, b in pairs))
        for a, b in pairs:
            nodes[a][0].send(b, ask(7))
        for links, _ in nodes.values():
            links.flush()
        await until(lambda: all(nodes[b][1].messages.get(a) == [ask(7)] for a, b in pairs))
        for a, b in pairs:
            assert [what for what, who in nodes[a][1].events if who == b] == ["up"], "no link may flap"
        crossed = sum(links.counters["refused_duplicate"] for links, _ in nodes.values())
        assert crossed > 0, "none of them crossed, so nothing was tested"
    finally:
        await peers.close()


async def test_connecting_again_does_nothing(peers):
    a, heard, b, _ = await linked(peers)
    a.connect("fra")
    b.connect("ams")
    a.send("fra", ask(1))
    a.flush()
    await until(lambda: b.counters["messages_received"] == 1)
    assert heard.events == [("up", "fra")]
    assert a.counters["links_up"] == b.counters["links_up"] == 1


async def test_a_restarted_peer_replaces_its_old_link(peers):
    a, heard_by_a, _, _ = await linked(peers)
    again, heard_again = await peers.links("fra", start=2)
    again.connect("ams")
    await until(lambda: heard_again.is_up("ams"))
    await until(lambda: heard_by_a.events[-2:] == [("lost", "fra"), ("up", "fra")])
    a.send("fra", ask(1))
    a.flush()
    await until(lambda: heard_again.messages.get("ams") == [ask(1)])


async def test_a_link_that_only_one_end_has_lost_is_made_anew(peers):
    a, heard_by_a, b, heard_by_b = await linked(peers)
    link = b._links["ams"]  # as if the connection had died without a word to ams
    b._lose(link)
    b.connect("ams")
    await until(lambda: heard_by_b.events == [("up", "ams"), ("lost", "ams"), ("up", "ams")])
    await until(lambda: heard_by_a.events == [("up", "fra"), ("lost", "fra"), ("up", "fra")])
    a.send("fra", ask(1))
    a.flush()
    await until(lambda: heard_by_b.messages.get("ams") == [ask(1)])


@pytest.mark.parametrize("other", [{"secret": b"wrong"}, {"cluster": "another"}])
async def test_a_node_of_another_cluster_is_refused_counted_and_logged_once(peers, caplog, other):
    a, heard_by_a = await peers.links("ams")
    _, heard_by_b = await peers.links("fra", **other)
    for i in range(3):
        a.connect("fra")
        await until(lambda n=i + 1: len(heard_by_a.events) == n)
    assert heard_by_a.events == [("failed", "fra")] * 3
    assert heard_by_b.events == []
    refusals = [count for name, count in a.counters.items() if name.startswith("refused_")]
    assert refusals == [3]
    lines = [record for record in caplog.records if record.levelno >= logging.WARNING and "fra" in record.message]
    assert len(lines) == 1


async def test_the_wrong_node_at_an_address_is_refused(peers):
    a, heard_by_a = await peers.links("ams")
    await peers.links("nrt", as_name="fra")
    a.connect("fra")
    await until(lambda: heard_by_a.events == [("failed", "fra")])
    assert a.counters["refused_address"] == 1


async def test_two_nodes_of_one_name_dont_link(peers):
    _, heard = await peers.links("ams")
    twin, heard_by_twin = await peers.links("ams", start=2, as_name="fra")
    peers.urls["fra"], peers.urls["ams"] = peers.urls["ams"], peers.urls["fra"]
    twin.connect("fra")
    await until(lambda: heard_by_twin.events == [("failed", "fra")])
    assert heard.events == []


async def test_dialling_where_nobody_is_fails_at_once(peers):
    a, heard = await peers.links("ams")
    peers.urls["fra"] = "http://127.0.0.1:1"
    a.connect("fra")
    a.connect("fra")
    await until(lambda: heard.events)
    assert heard.events == [("failed", "fra")]


async def dialled(peers, name: str, peer: str, purpose: Purpose = Purpose.GOSSIP):
    """A proven connection whose other end does as the test likes."""
    path = BULK_PATH if purpose is Purpose.BULK else PATH
    socket = await peers.session.ws_connect(peers.urls[peer] + path)
    dial = Dial(identity(name, start=9), peer, purpose, b"n" * 16)
    await socket.send_bytes(dial.hello())
    await socket.send_bytes(dial.on_challenge((await socket.receive()).data))
    dial.on_welcome((await socket.receive()).data)
    return socket


@pytest.mark.parametrize("junk", [b"\xc1", msgpack.packb({"no": "array"}), msgpack.packb([[99]])])
async def test_a_malformed_message_is_dropped_counted_and_ends_only_its_link(peers, junk):
    a, heard, _, _ = await linked(peers)
    socket = await dialled(peers, "nrt", "ams")
    await until(lambda: heard.is_up("nrt"))
    await socket.send_bytes(junk)
    await until(lambda: ("lost", "nrt") in heard.events)
    assert a.counters["messages_malformed"] == 1
    assert heard.messages == {}
    assert heard.is_up("fra")
    assert (await socket.receive()).type in {WSMsgType.CLOSE, WSMsgType.CLOSED}


async def test_text_instead_of_bytes_ends_the_link(peers):
    _, heard = await peers.links("ams")
    socket = await dialled(peers, "nrt", "ams")
    await until(lambda: heard.is_up("nrt"))
    await socket.send_str("hello")
    await until(lambda: heard.events == [("up", "nrt"), ("lost", "nrt")])


async def test_nothing_is_heard_of_a_dialler_without_proof(peers):
    a, heard = await peers.links("ams")
    socket = await peers.session.ws_connect(peers.urls["ams"] + PATH)
    dial = Dial(identity("nrt", secret=b"wrong"), "ams", Purpose.GOSSIP, b"n" * 16)
    await socket.send_bytes(dial.hello())
    await socket.receive()
    await socket.send_bytes(msgpack.packb(["proof", bytes(32)]))
    assert msgpack.unpackb((await socket.receive()).data) == ["refused", "secret"]
    assert heard.events == []
    assert a.counters["refused_secret"] == 1


async def test_a_claim_of_a_linked_peers_name_doesnt_disturb_its_link(peers):
    _, heard, b, _ = await linked(peers)
    socket = await peers.session.ws_connect(peers.urls["ams"] + PATH)
    await socket.send_bytes(Dial(identity("fra", secret=b"wrong"), "ams", Purpose.GOSSIP, b"n" * 16).hello())
    await socket.receive()
    await socket.send_bytes(msgpack.packb(["proof", bytes(32)]))
    await socket.receive()
    b.send("ams", ask(1))
    b.flush()
    await until(lambda: heard.messages.get("fra") == [ask(1)])
    assert heard.events == [("up", "fra")]


async def test_an_acceptor_without_the_secret_gets_no_proof(peers):
    a, heard = await peers.links("ams")
    told = []

    async def impostor(request):
        from aiohttp import web

        socket = web.WebSocketResponse()
        await socket.prepare(request)
        answer = Answer(identity("fra", secret=b"wrong"), ("ams",), Purpose.GOSSIP, b"a" * 16)
        await socket.send_bytes(answer.on_hello((await socket.receive()).data))
        told.append(await socket.receive())
        return socket

    await peers.listen("fra", impostor)
    a.connect("fra")
    await until(lambda: heard.events == [("failed", "fra")] and told)
    assert told[0].type is not WSMsgType.BINARY


async def test_disconnecting_delivers_what_was_sent_before(peers):
    a, heard_by_a, _, heard_by_b = await linked(peers)
    a.send("fra", ask(1))
    a.disconnect("fra", "test")
    assert heard_by_a.events == [("up", "fra"), ("lost", "fra")]
    await until(lambda: heard_by_b.events == [("up", "ams"), ("lost", "ams")])
    assert heard_by_b.messages == {"ams": [ask(1)]}


async def test_disconnecting_while_dialling_ends_the_dial(peers):
    a, heard_by_a = await peers.links("ams")
    _, heard_by_b = await peers.links("fra")
    a.connect("fra")
    a.disconnect("fra", "test")
    assert heard_by_a.events == [("failed", "fra")]
    a.connect("fra")
    await until(lambda: heard_by_a.is_up("fra") and heard_by_b.is_up("ams"))
    assert heard_by_a.events == [("failed", "fra"), ("up", "fra")]


async def test_a_cut_of_five_seconds_ends_the_link():
    peers = Peers(topology("internet"))
    try:
        a, heard, _, _ = await linked(peers)
        link = a._links["fra"]
        state = a._shaper.wan.state
        a._shaper.apply_wan_state(state.with_cut(("ams",), ("fra",)))
        a.send("fra", ask(1))
        a.flush()
        assert link.unsent_bytes() > 0
        await until(lambda: heard.events == [("up", "fra"), ("lost", "fra")])
    finally:
        await peers.close()


async def test_room_is_told_once_and_only_when_there_is_some():
    peers = Peers(topology("internet", mbps=8))  # 1,000 bytes a millisecond
    try:
        a, heard, _, heard_by_b = await linked(peers)
        a.send("fra", Frames((bytes(4 * UNSENT_BYTES_MAX),)))
        assert a.unsent_bytes("fra") >= 4 * UNSENT_BYTES_MAX, "what is collected counts as well"
        a.flush()
        a.await_writable("fra")
        await asyncio.sleep(0)
        assert ("writable", "fra") not in heard.events
        await until(lambda: ("writable", "fra") in heard.events)
        assert a.unsent_bytes("fra") < UNSENT_BYTES_MAX
        await until(lambda: heard_by_b.messages)
        assert heard.events.count(("writable", "fra")) == 1
    finally:
        await peers.close()


async def test_room_that_is_there_already_is_told_in_a_later_turn(peers):
    a, heard, _, _ = await linked(peers)
    a.await_writable("fra")
    assert ("writable", "fra") not in heard.events
    await until(lambda: ("writable", "fra") in heard.events)


async def test_a_reader_that_reads_nothing_makes_its_link_full_not_the_process(peers):
    a, heard = await peers.links("ams")
    socket = await dialled(peers, "nrt", "ams")
    await until(lambda: heard.is_up("nrt"))
    sent = 0
    while a.unsent_bytes("nrt") < UNSENT_BYTES_MAX:
        a.send("nrt", Frames((bytes(65_536),)))
        a.flush()
        sent += 1
        await asyncio.sleep(0)
        assert sent < 1000, "a socket that nobody reads never filled"
    a.await_writable("nrt")
    await asyncio.sleep(0)
    assert ("writable", "nrt") not in heard.events
    for _ in range(sent):
        assert (await asyncio.wait_for(socket.receive(), 10)).type is WSMsgType.BINARY
    await until(lambda: ("writable", "nrt") in heard.events)
    assert a.unsent_bytes("nrt") < UNSENT_BYTES_MAX


async def test_sending_to_nobody_is_harmless(peers):
    a, _ = await peers.links("ams")
    a.send("fra", ask(1))
    a.flush()
    a.disconnect("fra", "never was")
    assert a.unsent_bytes("fra") == 0


async def test_closing_is_quiet_here_and_seen_there(peers):
    a, heard_by_a, _, heard_by_b = await linked(peers)
    await a.close()
    a.connect("fra")
    await until(lambda: heard_by_b.events == [("up", "ams"), ("lost", "ams")])
    assert heard_by_a.events == [("up", "fra")]


async def test_a_plain_request_is_told_what_belongs_there(peers):
    await peers.links("ams")
    async with peers.session.get(peers.urls["ams"] + PATH) as response:
        assert response.status == 400
        assert "WebSocket" in await response.text()


async def test_bulk_links_carry_chunks_in_order_on_a_path_of_their_own(peers):
    a, heard_by_a = await peers.links("ams", purpose=Purpose.BULK)
    _, heard_by_b = await peers.links("fra", purpose=Purpose.BULK)
    a.connect("fra")
    await until(lambda: heard_by_a.is_up("fra") and heard_by_b.is_up("ams"))
    names = [i.to_bytes(32, "big") for i in range(6)]
    said = [ChunksWanted(tuple(names)), *(Chunk(name, name * 8192) for name in names)]
    for message in said:
        a.send("fra", message)
        a.flush()
    await until(lambda: len(heard_by_b.messages.get("ams", ())) == len(said))
    assert heard_by_b.messages["ams"] == said


async def test_what_is_collected_of_a_chunk_counts_as_unsent(peers):
    a, heard_by_a = await peers.links("ams", purpose=Purpose.BULK)
    await peers.links("fra", purpose=Purpose.BULK)
    a.connect("fra")
    await until(lambda: heard_by_a.is_up("fra"))
    a.send("fra", Chunk(bytes(32), bytes(1000)))
    assert a.unsent_bytes("fra") == 1000


@pytest.mark.parametrize(
    ("purpose", "stray"), [(Purpose.GOSSIP, PagesCredit(1)), (Purpose.BULK, ask(1))], ids=["gossip", "bulk"]
)
async def test_a_message_that_belongs_on_the_other_link_is_dropped_counted_and_ends_its_link(
    peers, purpose, stray
):
    links, heard = await peers.links("ams", purpose=purpose)
    socket = await dialled(peers, "nrt", "ams", purpose)
    await until(lambda: heard.is_up("nrt"))
    await socket.send_bytes(encode([stray]))
    await until(lambda: ("lost", "nrt") in heard.events)
    assert links.counters["messages_malformed"] == 1
    assert not heard.messages


async def test_a_bulk_link_refuses_a_handshake_for_gossip(peers):
    links, heard = await peers.links("ams", purpose=Purpose.BULK)
    socket = await peers.session.ws_connect(peers.urls["ams"] + BULK_PATH)
    await socket.send_bytes(Dial(identity("nrt"), "ams", Purpose.GOSSIP, b"n" * 16).hello())
    assert msgpack.unpackb((await socket.receive()).data) == ["refused", "purpose"]
    await until(lambda: links.counters["refused_purpose"] == 1)
    assert not heard.events


async def test_a_bulk_link_has_the_delay_of_the_wan():
    peers = Peers(topology("internet"))
    try:
        a, heard_by_a = await peers.links("ams", purpose=Purpose.BULK)
        await peers.links("nrt", purpose=Purpose.BULK)
        a.connect("nrt")
        await until(lambda: heard_by_a.is_up("nrt"))
        assert heard_by_a.rtts["nrt"] >= peers.shaper("ams").wan.rtt_ms("ams", "nrt") - 2
    finally:
        await peers.close()
