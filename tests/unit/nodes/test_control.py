from __future__ import annotations

import asyncio
import socket
import stat

import pytest

from kvnet.errors import ConfigError, KvnetError
from nodes.control import ControlClient, ControlServer, NoLauncher, short_path


async def handle(request):
    match request["command"]:
        case "echo":
            return {"said": request["text"]}
        case "refuse":
            raise ConfigError("no")
        case _:
            raise KvnetError("failed")


@pytest.fixture
async def control(tmp_path):
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    deep.mkdir(parents=True)
    server = ControlServer(handle)
    await server.open(deep / "control.sock")
    yield deep / "control.sock"
    await server.close()


async def ask(path, *commands):
    def talk():
        with ControlClient(path, timeout_s=5) as client:
            return [client.ask(command, text="hi") for command in commands]

    return await asyncio.to_thread(talk)


async def test_requests_are_answered_however_deep_the_folder(control):
    assert await ask(control, "echo", "echo") == [{"said": "hi"}, {"said": "hi"}]


async def test_errors_travel_as_themselves(control):
    with pytest.raises(ConfigError, match="no"):
        await ask(control, "refuse")
    with pytest.raises(KvnetError, match="failed"):
        await ask(control, "fail")


async def test_socket_is_for_its_owner_alone(control):
    assert stat.S_IMODE(control.stat().st_mode) == 0o600


@pytest.mark.parametrize("noise", [b"\xff\xfe\n", b"{\n", b"[1]\n", b"x" * 200_000 + b"\n"])
async def test_noise_harms_nobody_else(control, noise):
    def shout():
        with socket.socket(socket.AF_UNIX) as stranger, short_path(control) as name:
            stranger.connect(name)
            stranger.settimeout(5)
            try:
                stranger.sendall(noise)
                return stranger.recv(1000)
            except ConnectionError:
                return b""

    answer = await asyncio.to_thread(shout)
    assert answer == b"" or b'"ok": false' in answer
    assert await ask(control, "echo") == [{"said": "hi"}]


async def test_end_of_the_launcher_is_heard(tmp_path):
    server = ControlServer(handle)
    await server.open(tmp_path / "control.sock")

    def listen():
        with ControlClient(tmp_path / "control.sock", timeout_s=5) as client:
            client.ask("echo", text="still there?")
            loop.call_soon_threadsafe(asked.set)
            client.wait_for_end()

    loop, asked = asyncio.get_running_loop(), asyncio.Event()
    listening = asyncio.create_task(asyncio.to_thread(listen))
    await asked.wait()
    assert not listening.done()
    await server.close()
    await listening


def test_nobody_there_names_the_cure(tmp_path):
    with pytest.raises(NoLauncher, match="kvnet up"):
        ControlClient(tmp_path / "control.sock")
