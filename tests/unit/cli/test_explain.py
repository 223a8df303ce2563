"""`kvnet explain`: a code in words."""

from __future__ import annotations

import json

import pytest

from kvnet.api import codes
from kvnet.api.explanations import EXPLANATIONS
from kvnet.cli.explain import explain
from kvnet.cli.main import main


def test_code_is_told_with_status_text_cause_and_cure(capsys):
    explain(10014)
    told = capsys.readouterr().out
    explanation = EXPLANATIONS[codes.TITLE_TAKEN]
    assert told == (
        f"10014, HTTP 400: {codes.TITLE_TAKEN.text}\n  cause  {explanation.cause}\n  cure   {explanation.cure}\n"
    )


def test_all_codes_are_one_table(capsys):
    explain()
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.split()[:2] == ["20020", "507"]]
    assert [line for line in lines if line.split()[:2] == ["10009", "404"]]


def test_json_has_everything_for_programs(capsys):
    explain(json_=True)
    told = json.loads(capsys.readouterr().out)
    assert len(told) == len(EXPLANATIONS)
    assert set(told[0]) == {"code", "status", "text", "cause", "cure"}
    explain(20020, json_=True)
    assert [row["status"] for row in json.loads(capsys.readouterr().out)] == [507]


@pytest.mark.parametrize(("code", "ended", "told"), [("4711", 4, "4711"), ("one", 2, "integer")])
def test_code_that_does_not_exist_is_told_so(monkeypatch, capsys, code, ended, told):
    monkeypatch.setattr("sys.argv", ["kvnet", "explain", code])
    with pytest.raises(SystemExit) as exit_:
        main()
    assert exit_.value.code == ended
    output = capsys.readouterr()
    assert (output.out, output.err.count("\n")) == ("", 1)
    assert told in output.err
