"""Messages between a node and its readers, and connections that go from one to the other with every byte."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable

import pytest

from kvnet.runtime import handing
from kvnet.runtime.channel import MESSAGE_BYTES_MAX, UNSENT_MAX, USAGE, Channel
from kvnet.runtime.handing import HandOver, go_on_with, read_connection

DEADLINE_S = 10.0


class End:
    """One end of a channel, and what it heard."""

    def __init__(self, own: socket.socket) -> None:
        self.heard: list[tuple[bytes, bytes]] = []
        self.connections: list[tuple[socket.socket, bytes]] = []
        self.lost = 0
        self.channel = Channel(own, self._on_message, self._on_closed)

    def _on_message(self, kind: bytes, content: bytes, files: list[int]) -> None:
        if files:
            arrived = read_connection(kind, content, files)
            assert arrived is not None
            self.connections.append(arrived)
        else:
            self.heard.append((kind, content))

    def _on_closed(self) -> None:
        self.lost += 1


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110 - some conditions are of a socket, which sets no event
            await asyncio.sleep(0.001)


@pytest.fixture
async def ends():
    one, other = (End(each) for each in socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET))
    yield one, other
    for end in (one, other):
        end.channel.close()
        for connection, _ in end.connections:
            connection.close()


@pytest.fixture
def pair():
    client, served = socket.socketpair()
    client.settimeout(DEADLINE_S)
    yield client, served
    client.close()
    served.close()


async def test_messages_come_whole_and_in_order_however_many_wait(ends):
    one, other = ends
    other.channel._loop.remove_reader(other.channel._socket.fileno())
    sent = [b"%d" % number * 100 for number in range(UNSENT_MAX)]
    for content in sent:
        one.channel.send(USAGE, content)
    assert one.channel._unsent, "none had to wait"
    other.channel._loop.add_reader(other.channel._socket.fileno(), other.channel._readable)
    await until(lambda: len(other.heard) == len(sent))
    assert other.heard == [(USAGE, content) for content in sent]


async def test_an_end_that_takes_nothing_is_given_up_and_its_descriptors_are_closed(ends, pair):
    one, other = ends
    other.channel._loop.remove_reader(other.channel._socket.fileno())
    kept = []
    while one.channel.is_open:
        kept.append(os.dup(pair[1].fileno()))
        one.channel.send(USAGE, b"x" * 1000, [kept[-1]])
    assert one.lost == 1
    for file in kept:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(file)


async def test_the_end_of_the_other_is_told_once(ends):
    one, other = ends
    other.channel.close()
    await until(lambda: one.lost == 1)
    one.channel.send(USAGE, b"to nobody")
    assert (one.lost, other.lost, one.channel.is_open) == (1, 0, False)


@pytest.mark.parametrize("size", [0, 1, MESSAGE_BYTES_MAX - 1, MESSAGE_BYTES_MAX, 1_000_000])
async def test_a_connection_arrives_with_what_came_of_it(ends, pair, size):
    one, other = ends
    client, served = pair
    hand_over = HandOver(lambda _: b"away")
    hand_over.connect(one.channel)
    received = os.urandom(size)
    hand_over.take(served.fileno(), received)
    served.close()
    await until(lambda: bool(other.connections))
    [(arrived, came)] = other.connections
    assert came == received
    arrived.send(b"answer")
    assert client.recv(10) == b"answer"


async def test_what_waits_for_a_node_is_handed_to_the_next_one_in_order(ends, pair):
    one, other = ends
    hand_over = HandOver(lambda _: b"away")
    for received in (b"1", b"2", b"3"):
        hand_over.take(pair[1].fileno(), received)
    hand_over.connect(one.channel)
    await until(lambda: len(other.connections) == 3)
    assert [came for _, came in other.connections] == [b"1", b"2", b"3"]
    hand_over.close()


async def test_who_waits_too_long_is_told(pair, monkeypatch):
    monkeypatch.setattr(handing, "WAIT_S", 0.02)
    client, served = pair
    client.setblocking(False)
    hand_over = HandOver(lambda received: b"not now: " + received)
    client.send(b"the rest of it")
    hand_over.take(served.fileno(), b"PUT")
    served.close()
    loop = asyncio.get_running_loop()
    assert await asyncio.wait_for(loop.sock_recv(client, 100), DEADLINE_S) == b"not now: PUT"
    assert await asyncio.wait_for(loop.sock_recv(client, 100), DEADLINE_S) == b""
    hand_over.close()


async def test_no_more_wait_than_there_is_room_for(pair, monkeypatch):
    monkeypatch.setattr(handing, "WAITING_MAX", 1)
    client, served = pair
    other, served_other = socket.socketpair()
    hand_over = HandOver(lambda received: b"no: " + received)
    hand_over.take(served.fileno(), b"1")
    hand_over.take(served_other.fileno(), b"2")
    assert other.recv(100) == b"no: 2"
    hand_over.close()
    assert client.recv(100) == b"no: 1"
    other.close()
    served_other.close()


async def test_what_came_before_is_served_before_what_comes_after():
    listening = socket.create_server(("127.0.0.1", 0))
    client = socket.create_connection(listening.getsockname())
    served, _ = listening.accept()
    client.sendall(b" and what came after")
    heard = bytearray()

    class Protocol(asyncio.Protocol):
        def connection_made(self, transport):
            self.transport = transport

        def data_received(self, data: bytes) -> None:
            heard.extend(data)
            if heard.endswith(b"after"):
                self.transport.write(bytes(heard))
                self.transport.close()

    await go_on_with(Protocol, served, b"what came before")
    client.setblocking(False)
    loop = asyncio.get_running_loop()
    answer = await asyncio.wait_for(loop.sock_recv(client, 100), DEADLINE_S)
    assert answer == b"what came before and what came after"
    client.close()
    listening.close()
