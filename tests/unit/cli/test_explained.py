"""`kvnet get --explain`, and what a read or a write may ask for."""

from __future__ import annotations

import json

import pytest
import typer
from typer.testing import CliRunner

from kvnet.cli import values
from kvnet.errors import ConfigError, KvnetError

app = typer.Typer()
for name, command in (("put", values.put), ("get", values.get), ("delete", values.delete)):
    app.command(name)(command)
app.command("list")(values.list_keys)


@pytest.fixture
def kvnet(network):
    network.store.create("settings")

    def run(*arguments):
        command, *rest = arguments
        return CliRunner().invoke(app, [command, "--data", str(network.data), *rest])

    return run


def test_explanation_goes_to_stderr_so_that_pipes_have_the_value_alone(kvnet):
    kvnet("put", "settings", "a", "1")
    told = kvnet("get", "settings", "a", "--explain", "--near", "Tokyo")
    assert told.stdout == "1"
    for words in (
        "nrt",
        "Tokyo",
        "choice",
        "the nearest to Tokyo",
        "1-1",
        "at most 500 ms old",
        "1 hop",
        "9.5 ms",
    ):
        assert words in told.stderr
    assert "hedged" not in told.stderr


def test_json_has_the_explanation_in_the_same_object(kvnet):
    kvnet("put", "settings", "a", "1")
    told = json.loads(kvnet("get", "settings", "a", "--explain", "--json").stdout)
    explained = told["explain"]
    assert told["value"] == "1"
    assert explained["answer"] == {
        "pop": "nrt",
        "asked": "nrt",
        "relayed_by": None,
        "version": "1-1",
        "position": "1-1",
        "staleness_ms": 500,
        "path": ["coordinator", "nrt"],
        "hops": 1,
        "path_ms": 9.5,
    }
    assert (explained["hedged"], explained["failed_over"]) == (False, False)
    assert [(each["pop"], each["why"], each["outcome"]) for each in explained["attempts"]] == [
        ("nrt", "first", "answered")
    ]


def test_missing_key_is_explained_too(kvnet):
    told = kvnet("get", "settings", "none", "--explain", "--json")
    assert (told.exit_code, told.stdout) == (4, "")
    assert "no such key" in told.stderr


def test_read_says_how_new_it_has_to_be(kvnet, network):
    kvnet("put", "settings", "a", "1")
    for arguments in (("get", "settings", "a"), ("list", "settings")):
        assert kvnet(*arguments, "--at-least", "1-1", "--max-staleness", "700").exit_code == 0
        sent = network.edge.headers_seen[-1]
        assert (sent["KV-At-Least"], sent["KV-Max-Staleness-Ms"]) == ("1-1", "700")
    assert "may be 500 ms behind" in str(kvnet("get", "settings", "a", "--max-staleness", "100").exception)


def test_write_that_was_to_be_everywhere_and_is_not_fails_with_its_version_printed(kvnet, network):
    network.edge.receipt = {"complete": False, "applied": 1, "of": 3, "missing": ["per", "akl"]}
    told = kvnet("put", "settings", "a", "1", "--wait", "all", "--wait-timeout", "50")
    assert told.stdout == "1-1\n"
    assert isinstance(told.exception, KvnetError)
    assert "1-1 is durable, and in 1 of 3 PoPs (missing: per, akl)" in str(told.exception)
    sent = network.edge.headers_seen[-1]
    assert (sent["KV-Wait"], sent["KV-Wait-Timeout-Ms"]) == ("all", "50")


def test_write_that_is_everywhere_tells_it_as_json(kvnet, network):
    network.edge.receipt = {"complete": True, "applied": 3, "of": 3, "missing": [], "took_ms": {"max": 80}}
    told = kvnet("delete", "settings", "a", "--wait", "all", "--json")
    assert told.exit_code == 0
    assert json.loads(told.stdout) == {
        "version": "1-1",
        "complete": True,
        "applied": 3,
        "of": 3,
        "missing": [],
        "took_ms": {"max": 80},
    }


@pytest.mark.parametrize(
    ("arguments", "cure"),
    [
        (("put", "settings", "a", "1", "--wait-timeout", "5"), "say with --wait for what"),
        (("get", "settings", "a", "--from", "Tokio"), "Tokyo"),
        (("get", "settings", "a", "--from", "Tokyo"), "topology.yaml"),
        (("list", "settings", "--at-least", "7"), "<epoch>-<seq>"),
    ],
)
def test_what_cannot_work_names_the_cure(kvnet, arguments, cure):
    told = kvnet(*arguments)
    assert isinstance(told.exception, ConfigError)
    assert cure in str(told.exception)
