"""The client for programs without an event loop."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading

import pytest

import kvnet
from kvnet.client import NewPair
from kvnet.errors import RequestError


@pytest.fixture
def waited_for(cluster):
    """Runs a test's own lines in a thread, as the fake edges live on this one's loop."""

    async def run(test) -> None:
        def connected() -> None:
            with kvnet.connect_sync(cluster=cluster, near="Tokyo") as net:
                test(net)

        await asyncio.to_thread(connected)

    return run


async def test_each_call_is_waited_for(waited_for):
    def test(net):
        assert net.edge.code == "nrt"
        settings = net.create_namespace("settings")
        version = settings.put("theme", '{"dark": 1}', expiration_ttl=60, metadata={"by": "ada"})
        assert settings.get("theme") == '{"dark": 1}'
        assert settings.get("theme", "json", at_least=version) == {"dark": 1}
        assert settings.get(["theme", "missing"], {"type": "text"}) == {"theme": '{"dark": 1}', "missing": None}
        found = settings.getWithMetadata("theme")
        assert (found.metadata, found.version) == ({"by": "ada"}, version)
        assert settings.list(prefix="th").list_complete
        settings.put_many([NewPair(key=f"k{i}", value=b"v") for i in range(12)])
        assert len(list(settings.keys(prefix="k"))) == 12
        assert [key.name for key in settings.keys(prefix="k", limit=2)] == ["k0", "k1"]
        settings.delete("theme")
        assert settings.get("theme") is None
        assert [each.title for each in net.namespaces()] == ["settings"]
        settings.rename("preferences")
        assert (settings.name, settings.info().title) == ("preferences", "preferences")
        settings.drop()
        assert net.namespaces() == []
        with pytest.raises(RequestError, match="create it with"):
            net.namespace("preferences").get("theme")

    await waited_for(test)


async def test_a_value_comes_as_a_stream_of_bytes(waited_for):
    def test(net):
        settings = net.create_namespace("settings")
        value = b"0123456789abcdef" * 60_000
        settings.put("large", value)
        assert b"".join(settings.get("large", "stream")) == value
        stream = settings.get("large", "stream")
        assert value.startswith(next(stream))
        stream.close()

    await waited_for(test)


async def test_threads_share_one(waited_for):
    def test(net):
        settings = net.create_namespace("settings")

        def write(number: int) -> None:
            for each in range(5):
                settings.put(f"{number}.{each}", "v")

        threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(settings.list().keys) == 20

    await waited_for(test)


async def test_nothing_is_left_running(cluster):
    def connected() -> None:
        with kvnet.connect_sync(cluster=cluster, near="Tokyo") as net:
            assert "kvnet client" in {thread.name for thread in threading.enumerate()}
            net.create_namespace("settings")

    await asyncio.to_thread(connected)
    assert "kvnet client" not in {thread.name for thread in threading.enumerate()}


async def test_an_address_that_nobody_answers_at_is_told_and_leaves_no_thread():
    def connected() -> None:
        urls = ["http://127.0.0.1:9"]
        with kvnet.connect_sync(urls=urls, token="t", account_id="a" * 32, timeout_s=0.5) as net:
            net.namespaces()

    with pytest.raises(RequestError, match="no edge answered"):
        await asyncio.to_thread(connected)
    assert "kvnet client" not in {thread.name for thread in threading.enumerate()}


async def test_a_program_of_a_few_lines_ends_by_itself(cluster, tmp_path):
    (tmp_path / "cluster.json").write_text(json.dumps(cluster))
    program = (
        "import kvnet\n"
        f"with kvnet.connect_sync(data={str(tmp_path)!r}, near='Tokyo') as net:\n"
        "    net.create_namespace('a').put('k', 'v')\n"
        "    print(net.namespace('a').get('k'))\n"
    )
    ended = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert (ended.stdout, ended.stderr) == ("v\n", "")
