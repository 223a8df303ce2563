"""Carries the handshake over a connection: as the dialler, or as the acceptor, each through its shaped wire."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import NamedTuple

from kvnet.transport.handshake import NONCE_BYTES, Answer, Dial, HandshakeRefused, Identity, Purpose, refusal
from kvnet.transport.shaping import Wire, monotonic_ms
from kvnet.transport.sockets import Connection


class Greeted(NamedTuple):
    """A connection whose both sides have proven themselves."""

    peer: str
    start_id: bytes
    """The peer's."""
    link_id: bytes
    rtt_ms: float
    """The shortest round trip of the handshake."""
    wire: Wire


async def greet(
    me: Identity, peer: str, purpose: Purpose, connection: Connection, wire: Wire, previous: bytes = b""
) -> Greeted:
    """Shake hands as the dialler.

    Raises:
        HandshakeRefused: by either side.
        ConnectionResetError: the connection ended first.
    """
    dial = Dial(me, peer, purpose, os.urandom(NONCE_BYTES), previous)
    asked = monotonic_ms()
    wire.send(dial.hello())
    proof = dial.on_challenge(await _next(connection))
    connection.trust()
    proven = monotonic_ms()
    wire.send(proof)
    dial.on_welcome(await _next(connection))
    rtt_ms = min(proven - asked, monotonic_ms() - proven)
    return Greeted(peer, dial.peer_start_id, dial.link_id, rtt_ms, wire)


async def answer_greeting(
    answer: Answer,
    connection: Connection,
    open_wire: Callable[[str], Wire],
    check: Callable[[Answer], None] = lambda _: None,
) -> Greeted:
    """Shake hands as the acceptor; a refusal is told to the dialler, and the connection is then at its end.

    `open_wire` gets the name that the dialler claims. `check` may raise HandshakeRefused, once for the claim and
    once for the proven name.

    Raises:
        HandshakeRefused: by either side.
        ConnectionResetError: the connection ended first.
    """
    wire: Wire | None = None
    try:
        challenge = answer.on_hello(await _next(connection))
        wire = open_wire(answer.peer)
        check(answer)
        asked = monotonic_ms()
        wire.send(challenge)
        welcome = answer.on_proof(await _next(connection))
        connection.trust()
        rtt_ms = monotonic_ms() - asked
        check(answer)
    except HandshakeRefused as refused:
        if wire is None:
            connection.write(refusal(refused.reason))
        else:
            wire.send(refusal(refused.reason))
            wire.finish(connection.close)
            while await connection.read() is not None:
                pass  # nothing it says counts any more
        raise
    except BaseException:
        if wire is not None:
            wire.close()
        raise
    wire.send(welcome)
    return Greeted(answer.peer, answer.peer_start_id, answer.link_id, rtt_ms, wire)


async def _next(connection: Connection) -> bytes:
    data = await connection.read()
    if data is None:
        raise ConnectionResetError("closed during the handshake")
    return data
