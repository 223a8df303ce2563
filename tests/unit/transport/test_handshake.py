from __future__ import annotations

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvnet.transport.handshake import (
    HANDSHAKE_BYTES_MAX,
    PROTOCOL_VERSION,
    Answer,
    Dial,
    HandshakeRefused,
    Identity,
    Purpose,
    Refusal,
    refusal,
)
from tests.support.peers import identity

KNOWN = ("coordinator", "monitor", "ams", "fra")
nonces = st.binary(min_size=16, max_size=16)


def dial(me: Identity | None = None, *, peer="fra", purpose=Purpose.GOSSIP, nonce=b"d" * 16, previous=b"") -> Dial:
    return Dial(me or identity("ams"), peer, purpose, nonce, previous)


def answer(me: Identity | None = None, *, purpose=Purpose.GOSSIP, nonce=b"a" * 16) -> Answer:
    return Answer(me or identity("fra", start=2), KNOWN, purpose, nonce)


def refused(reason: Refusal, step, *arguments) -> HandshakeRefused:
    with pytest.raises(HandshakeRefused) as raised:
        step(*arguments)
    assert raised.value.reason is reason
    return raised.value


def test_both_sides_prove_themselves_and_learn_who_the_other_is():
    dialler, acceptor = dial(previous=b"p" * 16), answer()
    dialler.on_welcome(acceptor.on_proof(dialler.on_challenge(acceptor.on_hello(dialler.hello()))))
    assert dialler.peer_start_id == (2).to_bytes(8, "big")
    assert (acceptor.peer, acceptor.peer_start_id) == ("ams", (1).to_bytes(8, "big"))
    assert acceptor.link_id == dialler.link_id == b"d" * 16
    assert acceptor.previous == b"p" * 16


@pytest.mark.parametrize(
    ("dialler", "reason"),
    [
        (dial(identity("ams", cluster="other")), Refusal.CLUSTER),
        (dial(purpose=Purpose.STAMPS), Refusal.PURPOSE),
        (dial(peer="nrt"), Refusal.ADDRESS),
        (dial(identity("fra")), Refusal.OWN_NAME),
        (dial(identity("zzz")), Refusal.UNKNOWN_NODE),
    ],
)
def test_a_hello_that_can_lead_to_no_link_is_refused_with_its_reason(dialler, reason):
    refused(reason, answer().on_hello, dialler.hello())


def test_another_protocol_version_is_refused_whatever_else_it_says():
    hello = msgpack.packb(["hello", PROTOCOL_VERSION + 1, {"new": "form"}])
    refused(Refusal.VERSION, answer().on_hello, hello)


def test_the_dialler_is_told_why_it_was_refused():
    error = refused(Refusal.DUPLICATE, dial().on_challenge, refusal(Refusal.DUPLICATE))
    assert error.told


@given(secret=st.binary(min_size=1, max_size=40).filter(lambda secret: secret != b"secret"))
def test_no_dialler_is_let_in_without_the_secret(secret):
    acceptor = answer()
    dialler = dial(identity("ams", secret=secret))
    challenge = acceptor.on_hello(dialler.hello())
    refused(Refusal.SECRET, dialler.on_challenge, challenge)  # the honest one doesn't even answer
    transcript_of_its_own = Answer(identity("fra", secret=secret, start=2), KNOWN, Purpose.GOSSIP, b"a" * 16)
    proof = dialler.on_challenge(transcript_of_its_own.on_hello(dialler.hello()))
    refused(Refusal.SECRET, acceptor.on_proof, proof)


@given(nonces, nonces)
def test_a_proof_is_worth_nothing_in_another_session(first, second):
    """Hypothesis draws equal nonces as well: only then is it the same session."""
    dialler = dial()
    proof = dialler.on_challenge(answer(nonce=first).on_hello(dialler.hello()))
    other = answer(nonce=second)
    other.on_hello(dialler.hello())
    if first == second:
        other.on_proof(proof)
    else:
        refused(Refusal.SECRET, other.on_proof, proof)


def test_a_proof_for_stamps_is_worth_nothing_for_gossip():
    stamps = dial(purpose=Purpose.STAMPS)
    proof = stamps.on_challenge(answer(purpose=Purpose.STAMPS).on_hello(stamps.hello()))
    gossip = answer()
    gossip.on_hello(dial().hello())
    refused(Refusal.SECRET, gossip.on_proof, proof)


def test_a_nodes_own_proof_reflected_to_it_is_refused():
    acceptor, dialler = answer(), dial()
    _, _, _, proof = msgpack.unpackb(acceptor.on_hello(dialler.hello()))
    refused(Refusal.SECRET, acceptor.on_proof, msgpack.packb(["proof", proof]))


@given(
    st.binary(max_size=80)
    | st.lists(st.integers(0, 2**64 - 1) | st.text(max_size=5) | st.binary(max_size=9)).map(msgpack.packb)
)
def test_noise_is_refused_at_every_step(noise):
    with pytest.raises(HandshakeRefused):
        answer().on_hello(noise)
    with pytest.raises(HandshakeRefused):
        dial().on_challenge(noise)
    acceptor = answer()
    acceptor.on_hello(dial().hello())
    with pytest.raises(HandshakeRefused):
        acceptor.on_proof(noise)


def test_an_oversized_handshake_is_not_even_parsed():
    refused(Refusal.MALFORMED, answer().on_hello, msgpack.packb(["x" * HANDSHAKE_BYTES_MAX]))


def test_the_secret_is_never_shown():
    assert "secret" not in repr(identity("fra", secret=b"secret"))
