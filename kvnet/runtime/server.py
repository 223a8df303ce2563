"""A node's port, and its socket in the node's folder: one HTTP server behind both, which stops in order."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Final, Protocol

from aiohttp import web

from kvnet.errors import ConfigError
from kvnet.runtime.unix_socket import bound_socket

BACKLOG: Final = 512
GRACE_S: Final = 2.0
"""How long requests that are being answered may take once the node stops."""

_log = logging.getLogger(__name__)

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


class Server(Protocol):
    """A protocol factory for a listening socket, with an end."""

    def __call__(self) -> asyncio.BaseProtocol: ...
    def pre_shutdown(self) -> None:
        """Take no further request."""

    async def shutdown(self, timeout_s: float) -> None:
        """Close every connection; what is being answered has so long."""


class NodeServer:
    """One listening port, and beside it a Unix socket for who is on the same host."""

    def __init__(
        self, server: Server, host: str, port: int, socket_path: Path | None = None, *, shared: bool = False
    ) -> None:
        """`server` is the protocol factory; it answers clients and hands peers to `PeerRoutes`.

        On a `shared` port other processes of this user may listen as well, if they say so too.
        """
        self._server = server
        self._host = host
        self._port = port
        self._socket_path = socket_path
        self._shared = shared
        self._listening: list[asyncio.Server] = []

    async def start(self) -> None:
        """Accept connections.

        Raises:
            ConfigError: the port is taken or the address is not this host's.
        """
        loop = asyncio.get_running_loop()
        try:
            self._listening.append(
                await loop.create_server(
                    self._server,
                    self._host,
                    self._port,
                    backlog=BACKLOG,
                    reuse_address=True,
                    reuse_port=self._shared or None,
                )
            )
        except socket.gaierror as error:
            raise ConfigError(
                f"can't listen on {self._host!r} ({error.strerror}): write an address of this host as listen.host"
            ) from None
        except OSError as error:
            raise ConfigError(self._why(error)) from None
        if self._socket_path is None:
            return
        try:
            bound = bound_socket(self._socket_path)
        except OSError as error:  # a file system without sockets: the port is what counts
            _log.warning("no socket at %s: %s", self._socket_path, error)
            self._socket_path = None
            return
        self._listening.append(await loop.create_unix_server(self._server, sock=bound, backlog=BACKLOG))

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
        if not self._listening:
            return
        for listening in self._listening:
            listening.close()
        if self._socket_path is not None:
            self._socket_path.unlink(missing_ok=True)
        self._server.pre_shutdown()
        await self._server.shutdown(GRACE_S)
        self._listening = []
