"""The handshake of a link: both sides prove that they know the cluster's secret, and neither says it.

    dialler                                            acceptor
    hello      version, cluster, purpose, names,    ->
               start id, nonce, previous link
                                                    <- challenge  start id, nonce, proof
    proof      proof                                ->
                                                    <- welcome    or, at any step, refused with a reason

A proof is HMAC-SHA256 over everything either side has said, under a label per side: it is good for one
connection, one direction and one purpose only. Pure: bytes in, bytes out; nonces are given. Whoever can read
and change the packets of a link can still take it over afterwards; between sites, links belong in TLS.
"""

from __future__ import annotations

import hmac
from collections.abc import Container
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import msgpack

from kvnet.errors import ProtocolError

PROTOCOL_VERSION: Final = 4
NONCE_BYTES: Final = 16
START_ID_BYTES: Final = 8
HANDSHAKE_BYTES_MAX: Final = 1024
"""No message of a handshake is longer."""


class Purpose(StrEnum):
    """What a connection is for; a proof for one is worth nothing for the other."""

    GOSSIP = "gossip"
    STAMPS = "stamps"
    BULK = "bulk"


class Refusal(StrEnum):
    """Why a connection isn't taken."""

    MALFORMED = "malformed"
    VERSION = "version"
    CLUSTER = "cluster"
    PURPOSE = "purpose"
    ADDRESS = "address"
    """The name that was dialled is not mine."""
    OWN_NAME = "own-name"
    """The dialler claims to be me."""
    UNKNOWN_NODE = "unknown-node"
    SECRET = "secret"  # noqa: S105 - a reason, not one
    DUPLICATE = "duplicate"
    """Another connection between us is being made, or stands."""
    BUSY = "busy"
    """Too many handshakes at once, or shutting down."""


_TEXTS: Final = {
    Refusal.MALFORMED: "a handshake that can't be read",
    Refusal.VERSION: f"another protocol version than {PROTOCOL_VERSION}: run the same release everywhere",
    Refusal.CLUSTER: "another cluster: both nodes need the same topology",
    Refusal.PURPOSE: "not what this address is for",
    Refusal.ADDRESS: "another node answers at this address: compare the urls and ports of the topology",
    Refusal.OWN_NAME: "two nodes run under one name: stop one of them",
    Refusal.UNKNOWN_NODE: "a node that the topology doesn't have",
    Refusal.SECRET: "another secret: give every node the same file in KVNET_SECRET_FILE",
    Refusal.DUPLICATE: "another connection between these nodes goes first",
    Refusal.BUSY: "no room for another connection",
}


class HandshakeRefused(ProtocolError):
    """The connection is not taken. `told` is True when the other side said so."""

    def __init__(self, reason: Refusal, *, told: bool = False) -> None:
        super().__init__(_TEXTS[reason])
        self.reason = reason
        self.told = told


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who this process is to its peers."""

    name: str
    start_id: bytes
    """8 bytes, drawn at each start."""
    cluster_id: str
    """What all nodes of one network share and no other network has: the topology's digest."""
    secret: bytes

    def __post_init__(self) -> None:
        assert len(self.start_id) == START_ID_BYTES
        assert self.secret, "an empty secret proves nothing"

    def __repr__(self) -> str:
        return f"Identity({self.name!r}, start_id={self.start_id.hex()})"  # never the secret


def refusal(reason: Refusal) -> bytes:
    """Return the message that tells the other side."""
    return _pack(["refused", reason.value])


class Dial:
    """The dialler's side of one connection.

    `previous` is the id of the last link with this peer that stood here, or b"": by it the peer tells a
    connection that replaces a lost one from one that merely crossed its own. A link's id is its dialler's nonce.
    """

    def __init__(self, me: Identity, peer: str, purpose: Purpose, nonce: bytes, previous: bytes = b"") -> None:
        assert len(nonce) == NONCE_BYTES
        self._me = me
        self._peer = peer
        self._hello = [
            PROTOCOL_VERSION, me.cluster_id, purpose.value, me.name, peer, me.start_id, nonce, previous,
        ]  # fmt: skip
        self.link_id = nonce
        self.peer_start_id = b""
        """Known, and proven, after `on_challenge`."""

    def hello(self) -> bytes:
        return _pack(["hello", *self._hello])

    def on_challenge(self, data: bytes) -> bytes:
        """Check the acceptor's proof and return ours.

        Raises:
            HandshakeRefused: by it, or by us because it doesn't know the secret.
        """
        match _unpack(data):
            case ["challenge", bytes() as start_id, bytes() as nonce, bytes() as proof]:
                transcript = _transcript(self._hello, start_id, nonce)
                if not hmac.compare_digest(proof, _proof(self._me.secret, b"acceptor", transcript)):
                    raise HandshakeRefused(Refusal.SECRET)
                self.peer_start_id = start_id
                return _pack(["proof", _proof(self._me.secret, b"dialler", transcript)])
            case fields:
                raise _not_expected(fields)

    def on_welcome(self, data: bytes) -> None:
        """The link stands.

        Raises:
            HandshakeRefused: the acceptor has changed its mind.
        """
        fields = _unpack(data)
        if fields != ["welcome"]:
            raise _not_expected(fields)


class Answer:
    """The acceptor's side of one connection; `peer` is proven once `on_proof` has returned."""

    def __init__(self, me: Identity, known: Container[str], purpose: Purpose, nonce: bytes) -> None:
        assert len(nonce) == NONCE_BYTES
        self._me = me
        self._known = known
        self._purpose = purpose
        self._nonce = nonce
        self._transcript = b""
        self.peer = ""
        self.peer_start_id = b""
        self.link_id = b""
        self.previous = b""

    def on_hello(self, data: bytes) -> bytes:
        """Return the challenge.

        Raises:
            HandshakeRefused: with what this dialler claims, no link can come of it.
        """
        fields = _unpack(data)
        match fields:
            case ["hello", int() as version, *_] if version != PROTOCOL_VERSION:
                raise HandshakeRefused(Refusal.VERSION)
            case [
                "hello", int(), str() as cluster, str() as purpose, str() as peer, str() as to,
                bytes() as start_id, bytes() as nonce, bytes() as previous,
            ] if len(start_id) == START_ID_BYTES and len(nonce) == NONCE_BYTES:  # fmt: skip
                self._check(cluster, purpose, peer, to)
            case _:
                raise _not_expected(fields)
        self.peer, self.peer_start_id, self.link_id, self.previous = peer, start_id, nonce, previous
        self._transcript = _transcript(fields[1:], self._me.start_id, self._nonce)
        proof = _proof(self._me.secret, b"acceptor", self._transcript)
        return _pack(["challenge", self._me.start_id, self._nonce, proof])

    def on_proof(self, data: bytes) -> bytes:
        """Check the dialler's proof and return the welcome.

        Raises:
            HandshakeRefused: it doesn't know the secret, or gave up.
        """
        assert self._transcript, "a proof before the hello"
        match _unpack(data):
            case ["proof", bytes() as proof]:
                if not hmac.compare_digest(proof, _proof(self._me.secret, b"dialler", self._transcript)):
                    raise HandshakeRefused(Refusal.SECRET)
                return _pack(["welcome"])
            case fields:
                raise _not_expected(fields)

    def _check(self, cluster: str, purpose: str, peer: str, to: str) -> None:
        if cluster != self._me.cluster_id:
            raise HandshakeRefused(Refusal.CLUSTER)
        if purpose != self._purpose:
            raise HandshakeRefused(Refusal.PURPOSE)
        if to != self._me.name:
            raise HandshakeRefused(Refusal.ADDRESS)
        if peer == self._me.name:
            raise HandshakeRefused(Refusal.OWN_NAME)
        if peer not in self._known:
            raise HandshakeRefused(Refusal.UNKNOWN_NODE)


def _proof(secret: bytes, side: bytes, transcript: bytes) -> bytes:
    return hmac.digest(secret, b"kvnet " + side + b"\n" + transcript, "sha256")


def _transcript(hello: list[Any], acceptor_start_id: bytes, acceptor_nonce: bytes) -> bytes:
    return _pack([*hello, acceptor_start_id, acceptor_nonce])


def _pack(fields: list[Any]) -> bytes:
    packed: bytes = msgpack.packb(fields)
    return packed


def _unpack(data: bytes) -> list[Any]:
    if len(data) > HANDSHAKE_BYTES_MAX:
        raise HandshakeRefused(Refusal.MALFORMED)
    try:
        fields = msgpack.unpackb(data)
    except (ValueError, msgpack.UnpackException):
        raise HandshakeRefused(Refusal.MALFORMED) from None
    if not isinstance(fields, list):
        raise HandshakeRefused(Refusal.MALFORMED)
    return fields


def _not_expected(fields: list[Any]) -> HandshakeRefused:
    match fields:
        case ["refused", str() as reason] if reason in set(Refusal):
            return HandshakeRefused(Refusal(reason), told=True)
        case _:
            return HandshakeRefused(Refusal.MALFORMED)
