from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from kvnet.cli.workers import app
from kvnet.errors import ConfigError

CLUSTER = {
    "account_id": "a" * 32,
    "tokens": {"write": "the-token"},
    "pops": {
        "iad": {"url": "http://127.0.0.1:21010", "city": "Ashburn", "country": "US", "lat": 38.9, "lon": -77.5},
        "nrt": {"url": "http://127.0.0.1:21011", "city": "Tokyo", "country": "JP", "lat": 35.8, "lon": 140.4},
    },
}


@pytest.fixture
def run(write, tmp_path, monkeypatch):
    """Run `kvnet workers config` in a folder of its own, on a network that nobody runs."""
    write("net/cluster.json", json.dumps(CLUSTER))
    write("workerd", "\x7fELF", mode=0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("kvnet.cli.workers.version_of", lambda _: "2026-11-17")

    def run(*arguments):
        return CliRunner().invoke(app, ["config", *arguments, "--data", "net", "--workerd", "workerd"])

    return run


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "name a script"),
        (("gone.js",), "not a file"),
        (("app.js", "--config", "gone.jsonc"), "can't be read"),
        (("app.js", "--bind", "KV"), "NAME=NAMESPACE"),
        (("app.js", "--at", "lhr"), "no PoP 'lhr'"),
        (("app.js", "--at", " , "), "names no PoP"),
        (("app.js", "--name", "a/b"), "can't be called"),
        (("app.js", "--token-env", "NOT_SET_ANYWHERE"), "NOT_SET_ANYWHERE"),
        (("app.js", "--port-base", "0"), "--port-base 0"),
        (("app.ts",), "npm install --save-dev wrangler"),
    ],
)
def test_what_cannot_run_is_known_before_anything_starts(run, write, arguments, told):
    write("app.js", "export default {}")
    write("app.ts", "export default {}")
    ended = run(*arguments)
    assert isinstance(ended.exception, ConfigError)
    assert told in str(ended.exception)


def test_without_at_it_runs_at_all_pops_and_each_has_its_port(run, write):
    write("app.js", "export default {}")
    everywhere = run("app.js", "--port-base", "25000").stdout
    assert 'address = "127.0.0.1:25000", service = "iad"' in everywhere
    assert 'address = "127.0.0.1:25001", service = "nrt"' in everywhere
    one = run("app.js", "--port-base", "25000", "--at", "NRT,nrt").stdout
    assert 'address = "127.0.0.1:25001", service = "nrt"' in one
    assert one.count("cfBlobHeader") == 1


def test_a_scripts_date_is_the_runtimes_and_a_projects_its_own(run, write):
    write("app.js", "export default {}")
    assert 'compatibilityDate = "2026-11-17"' in run("app.js").stdout
    write("wrangler.jsonc", '{"main": "app.js", "compatibility_date": "2026-01-01"}')
    assert 'compatibilityDate = "2026-01-01"' in run().stdout
    assert 'compatibilityDate = "2026-01-01"' in run("app.js", "--config", "wrangler.jsonc").stdout
