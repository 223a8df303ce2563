"""The fuzzer: the same requests each time, answers read without trust, and faults that are told."""

from __future__ import annotations

import json
from random import Random

import pytest

from bench._support.json_mutations import mutate_json
from bench._support.raw_exchange import read_answers
from bench._support.raw_judgement import judge
from bench._support.raw_requests import Account, Attempt, Manner, Requests
from bench._support.request_changes import CHANGES
from bench.fuzz_http import Target

ACCOUNT = Account("0" * 32, ("1" * 32, "2" * 32), "token")


def attempt(raw: bytes = b"GET / HTTP/1.1\r\n\r\n") -> Attempt:
    return Attempt(7, (raw,), Manner.WHOLE, 1, ())


def answer(status: int, body: bytes, head: bytes = b"Content-Type: application/json") -> bytes:
    return b"HTTP/1.1 %d Some reason\r\n%b\r\nContent-Length: %d\r\n\r\n%b" % (status, head, len(body), body)


def envelope(code: int) -> bytes:
    return json.dumps({"success": False, "errors": [{"code": code, "message": "m"}], "result": None}).encode()


def told(status: int, body: bytes, raw: bytes = b"", head: bytes = b"Content-Type: application/json") -> list[str]:
    return judge(attempt(raw), read_answers(answer(status, body, head)))


def test_attempt_is_a_function_of_seed_and_number():
    one, same, other = (Requests(seed, ACCOUNT, CHANGES) for seed in (1, 1, 2))
    numbers = range(300)
    assert [one.attempt(number) for number in numbers] == [same.attempt(number) for number in reversed(numbers)][
        ::-1
    ]
    assert [one.attempt(number) for number in numbers] != [other.attempt(number) for number in numbers]


def test_every_change_and_every_manner_is_met():
    requests = Requests(1, ACCOUNT, CHANGES)
    attempts = [requests.attempt(number) for number in range(1000)]
    met = {name for attempt in attempts for name in attempt.changes}
    assert met == {change.name for change in CHANGES} | {"bytes"}
    assert {attempt.manner for attempt in attempts} == set(Manner)
    assert max(attempt.answers for attempt in attempts) == 8  # requests that don't wait for their answers


def test_what_is_deleted_is_never_a_namespace_that_is_used():
    requests = Requests(1, ACCOUNT, CHANGES)
    for number in range(1000):
        attempt = requests.attempt(number)
        if "bytes" not in attempt.changes:
            for namespace in ACCOUNT.namespaces:
                assert f"namespaces/{namespace} HTTP".encode() not in attempt.raw


def test_documents_are_changed_at_every_depth():
    document = {"a": [{"b": {"c": 1}}]}
    changed = {mutate_json(document, Random(seed)) for seed in range(2000)}
    for mutated in (
        b'"\\u0000"',
        b'{"a": "\\u0000"}',
        b'{"a": [{"b": "\\u0000"}]}',
        b'{"a": [{"b": {"c": NaN}}]}',
    ):
        assert mutated in changed


def test_answers_are_read_one_behind_the_other():
    came = (
        answer(200, b"{}") + b"HTTP/1.1 100 Continue\r\n\r\n" + answer(404, b"gone") + answer(200, b"12345")[:-2]
    )
    read = read_answers(came)
    assert [(one.status, one.body, one.whole) for one in read] == [
        (200, b"{}", True),
        (404, b"gone", True),
        (200, b"123", False),
    ]


def test_answer_to_head_has_no_body_whatever_its_length_says():
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"
    assert [one.body for one in read_answers(head + answer(200, b"x"))] == [b"", b"x"]


def test_bytes_that_are_no_answer_are_an_error():
    for came in (b"HTTP/0.9 400 Bad\r\n\r\n", b"<html>\r\n\r\n", b"nonsense"):
        with pytest.raises(ValueError, match="not an answer"):
            read_answers(came)


def test_server_error_is_a_fault_unless_the_request_asked_for_it():
    assert told(404, envelope(10009)) == []
    assert len(told(500, envelope(20000))) == 1
    assert len(told(503, envelope(20010))) == 1
    assert len(told(503, envelope(20002))) == 1
    assert told(503, envelope(20002), b"GET / HTTP/1.1\r\nkv-MAX-staleness-ms: 0\r\n\r\n") == []
    assert told(504, envelope(20003), b"GET / HTTP/1.1\r\nKV-At-Least: 1-9\r\n\r\n") == []
    assert told(507, envelope(20020)) == []


def test_error_without_an_envelope_and_injected_header_are_faults():
    assert len(told(400, b"no")) == 1
    assert len(told(400, b'{"errors": []}')) == 1
    assert len(told(400, envelope(10001), head=b"Content-Type: text/html")) == 1
    assert len(told(200, b"{}", head=b"Content-Type: application/json\r\nX-Injected: 1")) == 1


def test_traceback_in_a_log_is_told_once(tmp_path):
    log = tmp_path / "log"
    target = Target("iad", "127.0.0.1", 1, 1, log)
    assert target.trouble() is None
    log.write_text("2026-01-01 00:00:00,000 INFO kvnet.x all is well\n")
    assert target.trouble() is None
    with log.open("a") as file:
        file.write("Traceback (most recent call last):\n  ZeroDivisionError\n")
    assert "ZeroDivisionError" in (target.trouble() or "")
    assert target.trouble() is None
