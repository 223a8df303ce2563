"""Node mains that do no more than the launcher can see: listen, say so, count their starts, misbehave on request.

A file `mode` in a node's folder makes it misbehave: `refuse` (a configuration error), `die` (killed before it
listens), `mute` (it never takes part), `stubborn` (it ignores SIGTERM), `crash` (a bug).
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys

from kvnet.core.versions import Version
from kvnet.errors import ConfigError
from nodes.context import NodeContext

MAINS = dict.fromkeys(("coordinator", "monitor", "edge"), "tests.support.fake_nodes:main")


def main(context: NodeContext) -> int:
    mode_file = context.folder / "mode"
    mode = mode_file.read_text().strip() if mode_file.exists() else ""
    with (context.folder / "starts").open("a") as file:
        file.write(f"{os.getpid()}\n")
    match mode:
        case "refuse":
            raise ConfigError("it will not: mend its mode")
        case "crash":
            raise ZeroDivisionError("a bug")
        case "die":
            os.kill(os.getpid(), signal.SIGKILL)
    return asyncio.run(_serve(context, mode))


async def _serve(context: NodeContext, mode: str) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, (lambda: None) if mode == "stubborn" else stop.set)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = json.dumps(_status(context)).encode()
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        writer.write(head.encode() + b"Connection: close\r\n\r\n" + body)
        await writer.drain()
        writer.close()

    port = context.topology.port_of(context.name)
    async with await asyncio.start_server(answer, context.topology.listen.host, port):
        sys.stderr.write(f"{context.name} listens on {port}\n")
        context.say_ready()
        if context.name != "monitor" and mode != "mute":
            context.say_formed(Version(1, 3))
        await stop.wait()
    sys.stderr.write(f"{context.name} stopped\n")
    return 0


def _status(context: NodeContext) -> dict[str, object]:
    return {
        "name": context.name,
        "position": "1-3",
        "parent": None if context.name == "coordinator" else "coordinator",
        "staleness_ms": 12.5,
        "children": 0,
        "digest": "00",
        "recomputed": "00",
        "differing": [],
    }
