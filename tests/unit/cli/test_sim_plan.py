from __future__ import annotations

import json

import pytest
from typer import Typer
from typer.testing import CliRunner, Result

from kvnet.cli.sim import sim
from kvnet.errors import ConfigError

PLAN = ("--plan", "--pops", "5", "--effort", "0")


def run(*arguments: str) -> Result:
    app = Typer()
    app.command()(sim)
    return CliRunner().invoke(app, arguments)


def test_a_plan_says_its_verdict_first_and_what_it_leaves_out_last() -> None:
    ended = run(*PLAN, "--rate", "50", "--link-mbps", "1", "--uplink-mbps", "9")
    lines = ended.stdout.splitlines()
    assert ended.exit_code == 0
    assert lines[0].startswith("HOLDS: 50 writes a second of 100 bytes to 5 PoPs are everywhere after ")
    headings = [line for line in lines if line.startswith("What ")]
    assert headings == ["What breaks first", "What this leaves out"]
    assert lines.index("What this leaves out") == len(lines) - 3


def test_a_rate_that_breaks_ends_with_the_code_of_a_broken_bound() -> None:
    ended = run(*PLAN, "--rate", "3000", "--link-mbps", "1")
    assert ended.exit_code == 3
    assert ended.stdout.startswith("BREAKS: 3,000 writes a second of 100 bytes to 5 PoPs: ")
    assert "saturated, first the coordinator in Ashburn → " in ended.stdout


def test_json_has_every_figure_and_the_sentences() -> None:
    ended = run(*PLAN, "--rate", "50", "--sizes", "100:0.5,200:0.5", "--json")
    told = json.loads(ended.stdout)
    assert told["sizes"] == "100:0.5,200:0.5"
    assert told["size_mean"] == 150
    assert told["verdict"].startswith("HOLDS: ")
    assert told["breaks"] is None or told["breaks"]["kind"] == "commit"
    assert told["first"]


@pytest.mark.parametrize(
    ("arguments", "cure"),
    [
        (("--plan", "--swarm"), "leave out --swarm or --plan"),
        (("--plan", "--crash", "0.1"), "leave out --crash or --plan"),
        (("--plan", "--seeds", "3"), "leave out --seeds or --plan"),
        (("--link-mbps", "5"), "add --plan"),
        (("--sizes", "5"), "add --plan"),
        (("--plan", "--size", "100", "--sizes", "100"), "exclude each other"),
        (("--plan", "--rate", "0"), "above 0"),
        (("--plan", "--sizes", "many"), "write 100"),
        (("--plan", "--effort", "-1"), "seconds"),
    ],
)
def test_what_can_not_be_meant_is_refused(arguments: tuple[str, ...], cure: str) -> None:
    ended = run(*arguments)
    assert isinstance(ended.exception, ConfigError)
    assert cure in str(ended.exception)
    assert "\n" not in str(ended.exception)
