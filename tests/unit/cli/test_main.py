from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from kvnet.cli.main import Commands

ROOT = Path(__file__).parents[3]
PROGRAM = "from kvnet.cli.main import main; main()"


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "COLUMNS": "200", "LANG": "C.UTF-8"} | variables,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("name", Commands.entries)
def test_help_lists_what_a_command_says_of_itself(name):
    entry = Commands.entries[name]
    module, _, attribute = entry.target.partition(":")
    found = getattr(importlib.import_module(module), attribute)
    told = found.info.help if isinstance(found, typer.Typer) else found.__doc__
    listed, said = (" ".join(text.split()).removesuffix(".") for text in (entry.help, told))
    assert said.startswith(listed)


def test_help_and_version_import_no_command():
    for option in ("--help", "--version"):
        program = (
            f"import sys, atexit; atexit.register(lambda: print(sorted(sys.modules), file=sys.stderr)); {PROGRAM}"
        )
        ended = subprocess.run(
            [sys.executable, "-c", program, option], cwd=ROOT, capture_output=True, text=True, check=True
        )
        assert "kvnet" in ended.stdout
        for heavy in ("aiohttp", "lmdb", "msgspec", "nodes", "kvnet.cli.up"):
            assert f"'{heavy}'" not in ended.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("topology", "check", "/nowhere.yaml"), "can't be read"),
        (("status", "--data", "/nowhere"), "kvnet up"),
        (("ps", "--data", "/nowhere"), "kvnet up"),
        (("verify", "--data", "/nowhere"), "kvnet up"),
        (("logs", "--data", "/nowhere"), "kvnet up"),
        (("up", "--loss", "much"), "write a fraction"),
        (("up", "--loss", "120%"), "loss"),
        (("up", "--limit", "value_bytes_max"), "NAME=VALUE"),
        (("up", "--limit", "colour=7"), "colour"),
        (("up", "--limits", "huge"), "workers-kv"),
        (("up", "--pops", "100000"), "PoPs"),
        (("node", "atlantis", "--data", "/nowhere"), "atlantis"),
        (("node", "fra", "--data", "/nowhere"), "KVNET_SECRET_FILE"),
        (("rtt", "fra", "atlantis", "--data", "/nowhere"), "atlantis"),
        (("rtt", "fra", "--verify", "--data", "/nowhere"), "leave the nodes out"),
        (("fly",), "kvnet --help"),
        (("up", "--pops", "many"), "kvnet up --help"),
        (("up", "--bogus"), "--bogus"),
        (("put",), "NAMESPACE"),
    ],
)
def test_what_cannot_work_is_one_line_with_its_cure(arguments, told):
    ended = run(*arguments)
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert ended.stderr.startswith("kvnet: ")
    assert told in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_ports_out_of_range_are_refused_and_start_nothing(tmp_path):
    ended = run("up", "--port-base", "80", "--data", str(tmp_path / "run"))
    assert ended.returncode == 2
    assert ended.stderr.startswith("kvnet: ")
    assert ended.stderr.count("\n") == 1
    assert not (tmp_path / "run" / "cluster.json").exists()


def test_unknown_log_level_names_the_choices_and_starts_nothing(tmp_path):
    ended = run("up", "--pops", "1", "--log-level", "loud", "--detach", "--data", str(tmp_path / "run"))
    assert ended.returncode == 2
    assert "'warning'" in ended.stderr
    assert not (tmp_path / "run").exists()


def test_debug_shows_where_an_error_came_from():
    assert "Traceback" in run("ps", "--data", "/nowhere", KVNET_DEBUG="1").stderr


def test_a_topology_larger_than_its_source_can_be_generated_and_checked(tmp_path):
    file = tmp_path / "large.yaml"
    file.write_text(run("topology", "gen", "--pops", "200").stdout)
    ended = run("topology", "check", str(file))
    assert ended.returncode == 0
    assert "world-2018-200: 200 PoPs" in ended.stderr


def test_generated_topology_can_be_checked(tmp_path):
    file = tmp_path / "small.yaml"
    file.write_text(run("topology", "gen", "--pops", "4").stdout)
    ended = run("topology", "check", str(file))
    assert ended.returncode == 0
    assert "4 PoPs" in ended.stderr


def test_down_where_nothing_runs_is_no_error(tmp_path):
    ended = run("down", "--data", str(tmp_path / "none"))
    assert (ended.returncode, ended.stdout) == (0, "")
    assert "no network runs" in ended.stderr
    assert not (tmp_path / "none").exists()
