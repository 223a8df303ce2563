"""The one port of a node: starts the HTTP server, passes peers to who serves them, stops in order."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from aiohttp import web

from kvnet.errors import ConfigError

BACKLOG: Final = 512
GRACE_S: Final = 2.0
"""How long requests that are being answered may take once the node stops."""

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class PeerRoutes:
    """What stands under /peer: exact paths, each with its handler."""

    def __init__(self, routes: Mapping[str, Handler]) -> None:
        self._routes = dict(routes)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer a peer; 404 where this node has nothing for peers."""
        handler = self._routes.get(request.path)
        if handler is None:
            return web.Response(status=404, text=f"no such path for peers: {request.path}\n")
        return await handler(request)


class NodeServer:
    """One listening port."""

    def __init__(self, server: web.Server, host: str, port: int) -> None:
        """`server` is the protocol factory; it answers clients and hands peers to `PeerRoutes`."""
        self._server = server
        self._host = host
        self._port = port
        self._listening: asyncio.Server | None = None

    async def start(self) -> None:
        """Accept connections.

        Raises:
            ConfigError: the port is taken or the address is not this host's.
        """
        loop = asyncio.get_running_loop()
        try:
            self._listening = await loop.create_server(
                self._server, self._host, self._port, backlog=BACKLOG, reuse_address=True
            )
        except socket.gaierror as error:
            raise ConfigError(
                f"can't listen on {self._host!r} ({error.strerror}): write an address of this host as listen.host"
            ) from None
        except OSError as error:
            raise ConfigError(self._why(error)) from None

    def _why(self, error: OSError) -> str:
        address = f"{self._host}:{self._port}"
        if error.errno == errno.EADDRINUSE:
            return f"{address} is taken: stop what runs there, or choose another block with --port-base"
        if error.errno == errno.EADDRNOTAVAIL:
            return f"can't listen on {address}: write an address of this host as listen.host, such as 0.0.0.0"
        if error.errno == errno.EACCES:
            return f"not allowed to listen on {address}: choose ports from 1024 with --port-base"
        return f"can't listen on {address}: {error.strerror or error}"

    async def stop(self) -> None:
        """Take nothing new, let what is being answered end within the grace, then close everything."""
        if self._listening is None:
            return
        self._listening.close()
        self._server.pre_shutdown()
        await self._server.shutdown(GRACE_S)
        self._listening = None
