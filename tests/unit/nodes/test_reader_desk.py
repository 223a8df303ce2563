"""What a node hears of its readers, and whose its port is."""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket

import pytest

from kvnet.core.usage import UsageMeter
from kvnet.errors import ConfigError
from kvnet.runtime.channel import DAMAGED, HELLO, STOP, USAGE, Channel
from kvnet.runtime.handing import HandOver
from kvnet.runtime.unix_socket import short_path
from nodes import reader_desk
from nodes.reader_desk import LOCK_NAME, SOCKET_NAME, ReaderDesk

DEADLINE_S = 10.0
NAMESPACE = bytes(range(16))


class Echo(asyncio.Protocol):
    def connection_made(self, transport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(b"node: " + data)


class Reader:
    """A reader's end, as a reader does it."""

    def __init__(self, folder) -> None:
        connecting = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with short_path(folder / SOCKET_NAME) as name:
            connecting.connect(name)
        self.heard: asyncio.Queue[bytes] = asyncio.Queue()
        self.channel = Channel(connecting, lambda kind, *_: self.heard.put_nowait(kind), lambda: None)


class Desk(ReaderDesk):
    def __init__(self, folder) -> None:
        self.meter = UsageMeter()
        self.meter.turn(1_800_000_000)
        self.damages: list[str] = []
        self.noted = 0
        super().__init__(
            folder,
            Echo,
            count=2,
            meter=self.meter,
            now_s=self._note,
            damaged=lambda damage: self.damages.append(str(damage)),
        )

    def _note(self) -> float:
        self.noted += 1
        return 0.0


async def until(condition) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110 - what is heard sets no event
            await asyncio.sleep(0.001)


@pytest.fixture
async def desk(tmp_path):
    desk = Desk(tmp_path)
    desk.start()
    yield desk
    await desk.stop()


async def test_readers_are_known_while_they_are_there(desk, tmp_path):
    reader = Reader(tmp_path)
    reader.channel.send(HELLO, b"123")
    await until(lambda: desk.status()["pids"] == [123])
    reader.channel.close()
    await until(lambda: desk.status()["pids"] == [])


async def test_what_they_count_is_added_and_the_time_of_it_noted(desk, tmp_path):
    reader = Reader(tmp_path)
    desk.meter.of(NAMESPACE).reads = 1
    for _ in range(2):
        reader.channel.send(USAGE, b'{"%b": [10, 3]}' % NAMESPACE.hex().encode())
    await until(lambda: desk.noted == 2)
    counted = desk.meter.of(NAMESPACE)
    assert (counted.reads, counted.lists) == (21, 6)
    reader.channel.close()


async def test_damage_that_one_finds_is_the_nodes_to_mend(desk, tmp_path):
    reader = Reader(tmp_path)
    reader.channel.send(DAMAGED, b"a flipped bit")
    await until(lambda: desk.damages == ["a flipped bit"])
    reader.channel.close()


async def test_a_connection_that_one_hands_over_is_served(desk, tmp_path):
    reader = Reader(tmp_path)
    client, served = socket.socketpair()
    hand_over = HandOver(lambda _: b"away")
    hand_over.connect(reader.channel)
    hand_over.take(served.fileno(), b"first")
    served.close()
    client.setblocking(False)
    loop = asyncio.get_running_loop()
    assert await asyncio.wait_for(loop.sock_recv(client, 100), DEADLINE_S) == b"node: first"
    await loop.sock_sendall(client, b"second")
    assert await asyncio.wait_for(loop.sock_recv(client, 100), DEADLINE_S) == b"node: second"
    assert desk.status()["connections_taken"] == 1
    client.close()
    reader.channel.close()


async def test_at_the_end_it_hears_them_out(desk, tmp_path):
    reader = Reader(tmp_path)
    reader.channel.send(HELLO, b"123")
    await until(lambda: desk.status()["pids"])
    stopping = asyncio.ensure_future(desk.stop())
    assert await asyncio.wait_for(reader.heard.get(), DEADLINE_S) == STOP
    assert not stopping.done()
    reader.channel.send(USAGE, b'{"%b": [7, 0]}' % NAMESPACE.hex().encode())
    reader.channel.close()
    await asyncio.wait_for(stopping, DEADLINE_S)
    assert desk.meter.of(NAMESPACE).reads == 7
    assert not (tmp_path / SOCKET_NAME).exists()


async def test_one_that_doesnt_end_keeps_nobody_waiting_for_ever(desk, tmp_path, monkeypatch):
    monkeypatch.setattr(reader_desk, "END_S_MAX", 0.01)
    reader = Reader(tmp_path)
    reader.channel.send(HELLO, b"123")
    await until(lambda: desk.status()["pids"])
    await asyncio.wait_for(desk.stop(), DEADLINE_S)
    reader.channel.close()


def test_a_port_that_another_program_shares_is_taken_and_one_of_its_own_readers_isnt(tmp_path):
    """With SO_REUSEPORT the kernel would let two networks of one user have one port, and each some requests."""
    desk = Desk(tmp_path)
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"port {port} is taken"):
            desk.check_port("127.0.0.1", port)
        lock = os.open(tmp_path / LOCK_NAME, os.O_RDWR)
        fcntl.flock(lock, fcntl.LOCK_SH)
        desk.check_port("127.0.0.1", port)
        os.close(lock)
    desk.check_port("127.0.0.1", port)
