from __future__ import annotations

import json

import pytest
import typer
from typer.testing import CliRunner

from kvnet.cli import values
from kvnet.errors import ConfigError, RequestError

app = typer.Typer()
for name, command in (("put", values.put), ("get", values.get), ("delete", values.delete)):
    app.command(name)(command)
app.command("list")(values.list_keys)


@pytest.fixture
def kvnet(network):
    network.store.create("settings")

    def run(*arguments, stdin=None):
        command, *rest = arguments
        return CliRunner().invoke(app, [command, "--data", str(network.data), *rest], input=stdin)

    return run


def error_of(result):
    """What the command raised; main turns it into one line."""
    assert isinstance(result.exception, (ConfigError, RequestError)), result.output
    return str(result.exception)


def test_get_writes_exactly_the_bytes_that_put_was_given(kvnet):
    assert kvnet("put", "settings", "blob", stdin=b"\x00\xff\n").stdout == "1-1\n"
    assert kvnet("get", "settings", "blob").stdout_bytes == b"\x00\xff\n"


def test_put_takes_an_argument_and_a_file(kvnet, tmp_path):
    (tmp_path / "page.html").write_bytes(b"<p>")
    assert kvnet("put", "settings", "a", "olá").exit_code == 0
    assert kvnet("put", "settings", "b", "--path", str(tmp_path / "page.html")).exit_code == 0
    assert kvnet("get", "settings", "a").stdout_bytes == "olá".encode()
    assert kvnet("get", "settings", "b").stdout_bytes == b"<p>"


def test_missing_key_is_exit_code_4_and_silence_on_stdout(kvnet):
    result = kvnet("get", "settings", "nothing")
    assert (result.exit_code, result.stdout_bytes) == (4, b"")
    assert "there is no key 'nothing'" in result.stderr


@pytest.mark.parametrize(
    "arguments", [("put", "settings", "", "1"), ("get", "settings", ""), ("delete", "settings", "")]
)
def test_empty_key_is_refused_before_anybody_is_asked(kvnet, arguments):
    assert "the key is empty" in error_of(kvnet(*arguments))


def test_unknown_namespace_names_the_cure(kvnet):
    assert "`kvnet namespace create sessions`" in error_of(kvnet("get", "sessions", "a"))


def test_json_of_get_tells_version_origin_and_age(kvnet):
    kvnet("put", "settings", "a", "1", "--metadata", '{"by": "é"}', "--expiration", "4000000000")
    assert json.loads(kvnet("get", "settings", "a", "--json").stdout) == {
        "key": "a",
        "value": "1",
        "metadata": {"by": "é"},
        "expiration": 4_000_000_000,
        "version": "1-1",
        "pop": "nrt",
        "staleness_ms": 500,
    }


def test_json_of_a_value_that_is_no_text_is_base64(kvnet):
    kvnet("put", "settings", "a", stdin=b"\xff")
    assert json.loads(kvnet("get", "settings", "a", "--json").stdout)["value_base64"] == "/w=="


def test_ttl_reaches_the_edge(kvnet, network):
    kvnet("put", "settings", "a", "1", "--ttl", "60")
    assert network.edge.requests[-1][1].endswith("/values/a?expiration_ttl=60")


def test_deleted_key_is_gone_and_deleting_it_again_is_no_error(kvnet):
    kvnet("put", "settings", "a", "1")
    assert kvnet("delete", "settings", "a").stdout == "1-2\n"
    assert kvnet("delete", "settings", "a", "--json").stdout == '{"version": "1-3"}\n'
    assert kvnet("get", "settings", "a").exit_code == 4


def test_list_prints_keys_in_order(kvnet):
    for key in ("b/2", "a/1", "b/1"):
        kvnet("put", "settings", key, "1")
    assert kvnet("list", "settings").stdout == "a/1\nb/1\nb/2\n"
    assert kvnet("list", "settings", "--prefix", "b/", "--limit", "1").stdout == "b/1\n"
    assert json.loads(kvnet("list", "settings", "--prefix", "a", "--json").stdout) == [{"name": "a/1"}]


@pytest.mark.parametrize(
    ("arguments", "cure"),
    [
        (("put", "settings", "a", "1", "--path", "x"), "give one of them"),
        (("put", "settings", "a", "--path", "no/such"), "name a file that can"),
        (("put", "settings", "a", "1", "--metadata", "{a:1}"), "quote it for the shell"),
        (("put", "settings", "a", "1", "--metadata", "NaN"), "quote it for the shell"),
        (("get", "settings", "a", "--at-least", "7"), "<epoch>-<seq>"),
        (("get", "settings", "a", "--near", "Tokyo", "--pop", "nrt"), "give one of them"),
        (("get", "settings", "a", "--near", "Tokio"), "Tokyo"),
        (("get", "settings", "\udcff"), "UTF-8"),
    ],
)
def test_what_cannot_work_names_the_cure(kvnet, arguments, cure):
    assert cure in error_of(kvnet(*arguments))


def test_folder_without_a_network_says_how_to_start_one(tmp_path):
    result = CliRunner().invoke(app, ["get", "settings", "a"], env={"KVNET_DATA": str(tmp_path)})
    assert "kvnet up" in error_of(result)
