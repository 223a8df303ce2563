"""What a node must not do, whatever it is sent."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Final

from bench._support.raw_exchange import Answer
from bench._support.raw_requests import Attempt
from bench._support.request_changes import INJECTED

_ASKED_FOR: Final = {
    (503, 20002): "kv-max-staleness-ms",
    (504, 20003): "kv-at-least",
}
"""Refusals that are true when the request has this header."""
_TRUE_ALWAYS: Final = frozenset({(503, 20012), (503, 20021), (507, 20005), (507, 20020)})
"""Too much at once, and full disks."""


def judge(attempt: Attempt, answers: list[Answer]) -> list[str]:
    """Return what is wrong with these answers."""
    return [fault for answer in answers for fault in _judge_one(attempt, answer)]


def _judge_one(attempt: Attempt, answer: Answer) -> list[str]:
    faults: list[str] = []
    if b"\n" + INJECTED.lower() + b":" in answer.head.lower():
        faults.append("a header of the client's stands in the answer")
    if answer.status < 400 or not answer.body or not answer.whole:
        if answer.status in {500, 502}:  # to HEAD, or cut: no code tells whether others are true
            faults.append(f"status {answer.status}")
        return faults
    if b"/peer" in attempt.raw:
        return faults  # what nodes say to each other isn't the API
    is_envelope = b"application/json" in answer.head
    try:
        document = json.loads(answer.body)
        code = document["errors"][0]["code"]
        is_envelope = is_envelope and document["success"] is False and isinstance(code, int)
    except (ValueError, LookupError, TypeError):
        is_envelope, code = False, 0
    if not is_envelope:
        faults.append(f"status {answer.status} without an envelope: {answer.body[:80]!r}")
    elif answer.status >= 500 and not is_true(answer.status, code, _ours_in(attempt.raw)):
        faults.append(f"status {answer.status}, code {code}: {answer.body[:200].decode('utf-8', 'replace')}")
    return faults


def _ours_in(raw: bytes) -> set[str]:
    """Return which of the headers that matter stand anywhere in these bytes."""
    return {header for header in _ASKED_FOR.values() if header.encode() in raw.lower()}


def is_true(status: int, code: int, headers: Collection[str]) -> bool:
    """Whether a server error is what this request, with these headers, asked for or a full disk explains."""
    header = _ASKED_FOR.get((status, code))
    return (status, code) in _TRUE_ALWAYS if header is None else header in headers
