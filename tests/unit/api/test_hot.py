"""Whole answers are remembered as long as they are asked for again, and no longer."""

from __future__ import annotations

import random
from collections.abc import Iterable

import pytest

from kvnet.api import hot
from kvnet.api.hot import JUDGED_AFTER, HotAnswers


def ask(answers: HotAnswers[str], names: Iterable[int], size: int = 10) -> int:
    """Ask for these as the lane does; return how many were answered from memory."""
    hits = judged = looked_up = 0
    for name in names:
        request = b"%d" % name
        if request in answers.answers:
            hits += 1
            continue
        looked_up += 1
        if looked_up % answers.noted_in == 0:
            answers.note(request, bytes(size), "whose")
        if answers.is_due:
            answers.judge(hits - judged)
            judged = hits
    return hits


def test_an_answer_is_remembered_when_its_request_is_noted_again():
    answers: HotAnswers[str] = HotAnswers()
    answers.note(b"request", b"old", "first")
    assert answers.answers == {}
    answers.note(b"request", b"new", "second")
    assert answers.answers == {b"request": (b"new", "second")}


def test_what_was_noted_outlives_the_answers():
    answers: HotAnswers[str] = HotAnswers()
    remembered = answers.answers
    answers.note(b"request", b"old", "whose")
    answers.note(b"request", b"old", "whose")
    answers.cool()
    assert remembered == {}
    answers.note(b"request", b"new", "whose")
    assert remembered == {b"request": (b"new", "whose")}
    assert answers.answers is remembered, "whoever looks into it holds it"


def test_keys_that_never_repeat_are_not_remembered():
    answers: HotAnswers[str] = HotAnswers()
    assert ask(answers, range(10 * JUDGED_AFTER * hot.NOTED_IN)) == 0
    assert not answers.pays
    assert answers.noted_in == hot.NOTED_IN_IDLE


def test_a_load_that_changes_is_judged_anew():
    draw = random.Random(1)
    answers: HotAnswers[str] = HotAnswers()
    many, few = range(10**9), range(100)
    for _ in range(2):
        ask(answers, (draw.choice(many) for _ in range(2 * JUDGED_AFTER * hot.NOTED_IN_IDLE)))
        assert not answers.pays
        assert answers.answers == {}
        assert ask(answers, (draw.choice(few) for _ in range(3 * JUDGED_AFTER * hot.NOTED_IN_IDLE)))
        assert answers.pays
        assert len(answers.answers) == len(few)


def test_it_pays_where_a_few_of_many_are_asked_for_again_and_again():
    draw = random.Random(2)
    answers: HotAnswers[str] = HotAnswers()
    names = [draw.choice(range(100) if draw.random() < 0.3 else range(10**9)) for _ in range(100_000)]
    assert ask(answers, names) > 0.25 * len(names)


def test_answers_have_bounds(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(hot, "HOT_MAX", 20)
    monkeypatch.setattr(hot, "MET_MAX", 50)
    answers: HotAnswers[str] = HotAnswers()
    for number in range(1000):
        for _ in range(2):
            answers.note(b"%d" % number, b"answer", "whose")
        assert 0 < len(answers.answers) <= 20
        assert len(answers._met) + len(answers._before) <= 2 * 50
    monkeypatch.setattr(hot, "HOT_BYTES_MAX", 1000)
    answers.cool()
    for number in range(100):
        for _ in range(2):
            answers.note(b"%d" % number, bytes(300), "whose")
        assert 0 < sum(len(answer) for answer, _ in answers.answers.values()) <= 1300
    answers.cool()
    for _ in range(2):
        answers.note(b"long", bytes(hot.HOT_ANSWER_BYTES_MAX + 1), "whose")
    assert answers.answers == {}
