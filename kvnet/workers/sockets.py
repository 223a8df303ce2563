"""The sockets on which clients reach a Worker, one for each PoP: open before the runtime is, and during reloads.

A port that is taken is known before anything else happens, and a request that comes during a reload waits.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

from kvnet.errors import ConfigError
from kvnet.workers.configuration import HOST
from nodes.preflight import BLOCK_STEP, who_has

PORT_BASE: Final = 26_200
"""Where the search for a free block begins: away from a network's own."""
PORT_LIMIT: Final = 32_768
"""From here on the kernel hands out ports by itself."""
BACKLOG: Final = 1024

Sockets = dict[str, socket.socket]


def listen(offsets: Mapping[str, int], port_base: int | None) -> Sockets:
    """Return a listening socket for each PoP, on `port_base` plus its offset, or in the first block that is free.

    Raises:
        ConfigError: a port is taken, or no block is free.
    """
    size = max(offsets.values()) + 1
    if port_base is not None:
        if not 1 <= port_base <= 65_536 - size:
            raise ConfigError(f"--port-base {port_base} won't do: choose one from 1024 to {65_536 - size}")
        return _listen(offsets, port_base)
    refusal: ConfigError | None = None
    for base in range(PORT_BASE, PORT_LIMIT - size, -(-size // BLOCK_STEP) * BLOCK_STEP):
        try:
            return _listen(offsets, base)
        except ConfigError as error:
            refusal = refusal or error
    raise refusal or ConfigError(f"no block of {size} ports: choose fewer PoPs with --at, or --port-base")


def _listen(offsets: Mapping[str, int], base: int) -> Sockets:
    found: Sockets = {}
    try:
        for code, offset in offsets.items():
            found[code] = _open(base + offset)
    except ConfigError:
        close(found)
        raise
    return found


def _open(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((HOST, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        if error.errno == errno.EACCES:
            raise ConfigError(f"port {port} is not for this user: choose --port-base 1024 or above") from None
        if error.errno != errno.EADDRINUSE:
            raise
        raise ConfigError(f"{who_has(port)}: choose another block with --port-base") from None
    listener.setblocking(False)  # while one runtime takes over from another, both accept
    return listener


def close(sockets: Sockets) -> None:
    """Close all of them."""
    for listener in sockets.values():
        with suppress(OSError):
            listener.close()
