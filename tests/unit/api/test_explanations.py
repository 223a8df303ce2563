"""Every error is explained: those of the API's table, and those that other rooms raise by number."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from kvnet.api import codes
from kvnet.api.codes import Problem
from kvnet.api.explanations import EXPLANATIONS, explanations_of
from kvnet.core import pieces, writer
from kvnet.runtime import forwarding, group_commit

ROOT = Path(__file__).parents[3]
EXPLAINED = {(problem.status, problem.code) for problem in EXPLANATIONS}
TABLE = {name: value for name, value in vars(codes).items() if isinstance(value, Problem)}


def raised_by_number(package: str) -> Iterator[tuple[str, int, int]]:
    """Yield where a RequestError is made of a status and a code, and both; those that repeat another's aren't."""
    for file in sorted((ROOT / package).rglob("*.py")):
        tree = ast.parse(file.read_text())
        calls = [
            node
            for node in ast.walk(tree)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "RequestError"
        ]
        if not calls:
            continue
        parts = file.relative_to(ROOT).with_suffix("").parts
        module = importlib.import_module(".".join(parts))
        for call in calls:
            status, code = (number_of(argument, module) for argument in call.args[:2])
            if code is not None:
                yield f"{'.'.join(parts)}:{call.lineno}", status or 0, code


def number_of(argument: ast.expr, module: ModuleType) -> int | None:
    match argument:
        case ast.Constant(int() as number):
            return number
        case ast.Name(name) if isinstance(number := getattr(module, name, None), int):
            return number
        case _:
            return None


@pytest.mark.parametrize("name", TABLE)
def test_every_problem_of_the_table_is_explained(name):
    explanation = EXPLANATIONS[TABLE[name]]
    for sentence in explanation:
        assert sentence.endswith((".", "`"))


@pytest.mark.parametrize("package", ["kvnet", "nodes"])
def test_every_error_that_is_raised_by_number_is_explained(package):
    raised = list(raised_by_number(package))
    assert len(raised) > 10
    known_codes = {code for _, code in EXPLAINED}
    missing = [
        f"{place}: {status}, {code}"
        for place, status, code in raised
        if (code not in known_codes if not status else (status, code) not in EXPLAINED)
    ]
    assert missing == []


def test_errors_that_stand_beside_another_are_explained():
    beside = [
        entry for table in (codes.COMPANIONS, codes.CHAINS) for entries in table.values() for entry in entries
    ]
    assert {entry["code"] for entry in beside} <= {code for _, code in EXPLAINED}


def test_numbers_of_other_rooms_are_those_of_the_table():
    assert codes.UNREACHABLE.code == forwarding.UNREACHABLE
    assert codes.UNKNOWN_OUTCOME.code == forwarding.UNKNOWN_OUTCOME
    assert codes.TOO_MANY_WRITES.code == forwarding.TOO_MANY
    assert codes.TOO_MANY_LARGE.code == pieces.BUSY
    assert codes.DISK_FULL.code == group_commit.DISK_FULL
    assert codes.NOT_WRITING.code == group_commit.NOT_OPEN


@pytest.mark.parametrize(
    "problem",
    [
        codes.TITLE_TAKEN,
        codes.NAMESPACE_ID_TAKEN,
        codes.WRITTEN_TOO_SOON,
        codes.UNREACHABLE,
        codes.NODE_REFUSED,
        codes.UNKNOWN_OUTCOME,
        codes.TOO_MANY_WRITES,
        codes.TOO_MANY_LARGE,
        codes.DISK_FULL,
        codes.DISK_BEHIND,
    ],
    ids=lambda problem: f"{problem.status}-{problem.code}",
)
def test_texts_of_other_rooms_are_those_of_the_table(problem):
    modules = (forwarding, group_commit, pieces, writer)
    texts = [
        node.value
        for module in modules
        for node in ast.walk(ast.parse(Path(module.__file__).read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    for literal in re.split(r"\{\w+\}", problem.text):
        assert any(literal in text for text in texts), literal


def test_one_code_may_mean_several_problems():
    assert {problem.status for problem, _ in explanations_of(10000)} == {401, 403, 405}
    assert explanations_of(4711) == []
