from __future__ import annotations

import json
import subprocess

import pytest
import typer
from typer.testing import CliRunner

from kvnet.cli.env import env
from kvnet.errors import ConfigError
from tests.support.fake_edge import ACCOUNT, TOKEN

app = typer.Typer()
app.command()(env)


def run(network, *arguments):
    return CliRunner().invoke(app, ["--data", str(network.data), *arguments])


def test_shell_that_evaluates_it_has_the_variables(network):
    script = run(network).stdout + 'echo "$CLOUDFLARE_ACCOUNT_ID $CLOUDFLARE_API_TOKEN $CLOUDFLARE_BASE_URL"'
    printed = subprocess.run(["sh", "-c", script], check=True, capture_output=True, text=True).stdout
    assert printed == f"{ACCOUNT} {TOKEN} http://127.0.0.1:21000/client/v4\n"


def test_pop_and_place_name_an_edge_and_scope_a_token(network):
    for choice in (("--pop", "NRT"), ("--near", "tokyo")):
        variables = json.loads(run(network, "--json", "--scope", "read", *choice).stdout)
        assert variables == {
            "CLOUDFLARE_ACCOUNT_ID": ACCOUNT,
            "CLOUDFLARE_API_TOKEN": "r",
            "CLOUDFLARE_BASE_URL": f"{network.edge.url}/client/v4",
            "CLOUDFLARE_API_BASE_URL": f"{network.edge.url}/client/v4",
        }


@pytest.mark.parametrize("choice", [("--pop", "zzz"), ("--pop", "nrt", "--near", "Tokyo")])
def test_pop_that_cannot_be_meant_is_a_configuration_error(network, choice):
    assert isinstance(run(network, *choice).exception, ConfigError)
