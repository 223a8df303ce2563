"""`kvnet export` and `kvnet import` against an edge."""

from __future__ import annotations

import json
import time

import pytest
import typer
from typer.testing import CliRunner

from kvnet.cli.export import concurrency, export
from kvnet.cli.import_ import import_
from kvnet.errors import ConfigError, KvnetError

app = typer.Typer()
app.command("export")(export)
app.command("import")(import_)

LATER = 4_000_000_000


@pytest.fixture
def kvnet(network):
    network.store.create("settings")

    def run(*arguments, stdin=None):
        command, *rest = arguments
        return CliRunner().invoke(app, [command, "--data", str(network.data), *map(str, rest)], input=stdin)

    return run


def lines(*pairs):
    return "".join(json.dumps(pair) + "\n" for pair in pairs).encode()


def stored(network, title="settings"):
    id_ = next(id_ for id_, each in network.store.titles.items() if each == title)
    return {key: pair[:3] for key, pair in network.store.pairs[id_].items()}


def test_what_was_exported_is_imported_exactly(kvnet, network, tmp_path):
    pairs = [{"key": f"k/{number:04}é", "value": str(number)} for number in range(1200)]
    pairs.append(
        {"key": "blob", "value": "/wA=", "base64": True, "metadata": {"é": [1, None]}, "expiration": LATER}
    )
    first = kvnet("import", "settings", stdin=lines(*pairs))
    assert first.exit_code == 0, first.output
    assert "imported 1,201 pairs into settings" in first.stderr
    out = tmp_path / "pairs.jsonl"
    assert "exported 1,201 pairs" in kvnet("export", "settings", "--output", out).stderr
    assert kvnet("import", "copy", out, "--create").exit_code == 0
    assert stored(network, "copy") == stored(network)
    assert stored(network)["blob"] == (b"\xff\x00", {"é": [1, None]}, LATER)


def test_export_goes_to_standard_output_in_the_order_of_the_keys(kvnet):
    kvnet("import", "settings", stdin=lines(*({"key": key, "value": key} for key in ("b1", "b2", "a"))))
    told = kvnet("export", "settings", "--prefix", "b")
    assert [json.loads(line) for line in told.stdout.splitlines()] == [
        {"key": "b1", "value": "b1"},
        {"key": "b2", "value": "b2"},
    ]


@pytest.mark.parametrize("command", ["export", "import"])
def test_from_a_city_each_request_takes_as_long_as_from_there(kvnet, lisbon_ms, command):
    began = time.monotonic()
    told = kvnet(command, "settings", "--from", "Lisbon", stdin=lines({"key": "a", "value": "1"}))
    assert told.exit_code == 0, told.output
    assert (time.monotonic() - began) * 1000 > lisbon_ms > 190, "a sleep is never shorter than asked for"


@pytest.mark.parametrize("command", ["export", "import"])
def test_a_city_that_is_none_is_told_with_one_that_is(kvnet, command):
    told = kvnet(command, "settings", "--from", "Tokio", stdin=b"")
    assert isinstance(told.exception, ConfigError)
    assert "Tokyo" in str(told.exception)


def test_a_failed_export_leaves_no_file(kvnet, tmp_path):
    assert kvnet("export", "nothing", "--output", tmp_path / "x").exit_code != 0
    assert [path.name for path in tmp_path.iterdir()] == ["cluster.json"]


def test_expired_lines_are_skipped_and_counted(kvnet, network):
    told = kvnet(
        "import",
        "settings",
        "--json",
        stdin=lines({"key": "old", "value": "1", "expiration": 1}, {"key": "new", "value": "1"}),
    )
    assert json.loads(told.stdout) == {"namespace": "settings", "dry_run": False, "stored": 1, "expired": 1}
    assert "1 expired line skipped" in told.stderr
    assert set(stored(network)) == {"new"}


def test_dry_run_checks_every_line_and_sends_nothing(kvnet, network):
    told = kvnet("import", "settings", "--dry-run", stdin=lines({"key": "a", "value": "1"}))
    assert "would import 1 pair into settings" in told.stderr
    assert kvnet("import", "settings", "--dry-run", stdin=b"{}").exit_code != 0
    assert network.edge.requests == []


def test_a_file_with_a_bad_line_stores_nothing_of_it(kvnet, network, tmp_path):
    path = tmp_path / "pairs"
    path.write_bytes(lines({"key": "a", "value": "1"}, {"key": "b"}))
    refused = kvnet("import", "settings", path)
    assert isinstance(refused.exception, ConfigError)
    assert "line 2" in str(refused.exception)
    assert network.edge.requests == []


def test_a_bad_line_of_standard_input_tells_what_came_before_it(kvnet):
    # pytest's input can be read twice, a pipe can't
    refused = kvnet("import", "settings", stdin=lines({"key": "a", "value": "1"}, {"key": "b"}))
    assert isinstance(refused.exception, ConfigError)
    assert "line 2" in str(refused.exception)


def test_unknown_namespace_names_both_cures(kvnet):
    refused = kvnet("import", "sessions", stdin=lines({"key": "a", "value": "1"}))
    assert isinstance(refused.exception, KvnetError)
    assert "kvnet namespace create sessions" in str(refused.exception)
    assert "--create" in str(refused.exception)


def test_who_comes_too_early_comes_back_when_told(kvnet, network):
    network.edge.too_early = 5
    told = kvnet("import", "settings", stdin=lines(*({"key": f"k{n}", "value": "1"} for n in range(9))))
    assert told.exit_code == 0, told.output
    assert network.edge.too_early == 0
    assert len(stored(network)) == 9


def test_of_several_lines_with_one_key_the_last_counts(kvnet, network):
    kvnet("import", "settings", stdin=lines(*({"key": "k", "value": str(number)} for number in range(20))))
    assert stored(network)["k"] == (b"19", None, None)


def test_fewer_values_are_under_way_where_they_may_be_large():
    assert concurrency(65_536) == 4
    assert concurrency(26_214_400) == 2


def test_many_pairs_share_a_request(kvnet, network):
    pairs = [{"key": f"{number}", "value": "x" * 400} for number in range(5000)]
    kvnet("import", "settings", stdin=lines(*pairs))
    written = [path for method, path in network.edge.requests if method == "PUT"]
    assert len(written) == 5
    assert all(path.endswith("/bulk") for path in written)
    assert len(stored(network)) == 5000


def test_what_one_request_refuses_is_told_by_its_line_and_what_came_before_it_is_stored(kvnet, network):
    network.edge.refused_value = "bad"
    values = ["1", "2", "bad", "4"]
    refused = kvnet("import", "settings", stdin=lines(*({"key": value, "value": value} for value in values)))
    assert isinstance(refused.exception, KvnetError)
    assert "line 3" in str(refused.exception)
    assert "2 pairs stored" in str(refused.exception)
    assert set(stored(network)) == {"1", "2"}


def test_pairs_are_asked_for_by_the_hundred_and_what_is_no_text_one_by_one(kvnet, network):
    pairs = [{"key": f"{number:03}", "value": "x"} for number in range(250)]
    pairs.append({"key": "249+", "value": "/w==", "base64": True})
    kvnet("import", "settings", stdin=lines(*pairs))
    network.edge.requests.clear()
    told = kvnet("export", "settings")
    assert [json.loads(line) for line in told.stdout.splitlines()] == pairs
    asked = [path for method, path in network.edge.requests if method == "POST"]
    assert len(asked) < 15
    assert any("/values/249%2B" in path for _, path in network.edge.requests)
