"""Signed HTTP requests between nodes: forwarded writes, verification.

    KV-Peer: <node> <unix_ms> <nonce> <hmac>

The HMAC-SHA256, in hex, is over the cluster, the node, the time, the nonce, the method, the path and the body's
hash. A request is good for a minute around its time; whoever could repeat one within it only repeats a request
id, which is answered and not done again.
"""

from __future__ import annotations

import hmac
import os
import re
import time
from collections.abc import Callable, Container
from hashlib import sha256
from typing import Final, NamedTuple

from kvnet.errors import RequestError
from kvnet.transport.handshake import Identity

HEADER: Final = "KV-Peer"
WINDOW_MS: Final = 60_000
_FORM: Final = re.compile(r"(\S{1,64}) ([0-9]{1,15}) ([0-9a-f]{16}) ([0-9a-f]{64})")


class BodyDigest(NamedTuple):
    """The SHA-256 of a body that is too long to be held in one piece."""

    hex: str


def _wall_ms() -> int:
    return int(time.time() * 1000)


def sign(
    me: Identity, method: str, path: str, body: bytes | BodyDigest, *, wall_ms: Callable[[], int] = _wall_ms
) -> str:
    """Return the value of `KV-Peer` for this request."""
    told = f"{me.name} {wall_ms()} {os.urandom(8).hex()}"
    return f"{told} {_mac(me, told, method, path, body)}"


def check(
    me: Identity,
    known: Container[str],
    header: str | None,
    method: str,
    path: str,
    body: bytes | BodyDigest,
    *,
    wall_ms: Callable[[], int] = _wall_ms,
) -> str:
    """Return the name of the node that sent this request.

    Raises:
        RequestError: 401; no signature, a wrong or an old one, or from a node that isn't ours.
    """
    match = _FORM.fullmatch(header or "")
    if match is None:
        raise _refused("this address is for nodes of the cluster, which sign their requests")
    name, at_ms, nonce, mac = match.groups()
    if not hmac.compare_digest(mac, _mac(me, f"{name} {at_ms} {nonce}", method, path, body)):
        raise _refused("the signature is wrong: give every node the same secret and the same topology")
    if name not in known:
        raise _refused("the topology has no such node")
    if abs(wall_ms() - int(at_ms)) > WINDOW_MS:
        raise _refused("the request is older than a minute or ahead of time: set the clocks of both hosts")
    return name


def _mac(me: Identity, told: str, method: str, path: str, body: bytes | BodyDigest) -> str:
    digest = body.hex if isinstance(body, BodyDigest) else sha256(body).hexdigest()
    text = f"kvnet request\n{me.cluster_id}\n{told}\n{method}\n{path}\n{digest}"
    return hmac.digest(me.secret, text.encode(), "sha256").hex()


def _refused(why: str) -> RequestError:
    return RequestError(401, 10000, f"Authentication error: {why}")
