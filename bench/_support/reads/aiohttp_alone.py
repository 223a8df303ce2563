"""aiohttp answering a constant: `python -m bench._support.reads.aiohttp_alone PORT`."""

from __future__ import annotations

import asyncio
import sys

import uvloop
from aiohttp import web

BODY = b"v" * 100


async def answer(_: web.BaseRequest) -> web.Response:
    return web.Response(body=BODY)


async def main(port: int) -> None:
    """Answer until killed."""
    await asyncio.get_running_loop().create_server(web.Server(answer, access_log=None), "127.0.0.1", port)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
