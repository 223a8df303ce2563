from __future__ import annotations

import pytest
from typer.testing import CliRunner

from kvnet.cli.token import app
from kvnet.errors import ConfigError


@pytest.mark.parametrize(
    "command",
    [("create", "reader"), ("list",), ("roll", "reader"), ("revoke", "reader", "--yes")],
    ids=lambda c: c[0],
)
@pytest.mark.parametrize(("city", "cure"), [("Tokio", "Tokyo"), ("Tokyo", "topology.yaml")])
def test_every_order_may_come_from_a_city_that_there_is(network, command, city, cure):
    told = CliRunner().invoke(app, [*command, "--data", str(network.data), "--from", city])
    assert isinstance(told.exception, ConfigError), told.output
    assert cure in str(told.exception)
