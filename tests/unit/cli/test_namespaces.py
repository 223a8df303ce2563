from __future__ import annotations

import json

from typer.testing import CliRunner

from kvnet.cli.namespaces import app


def run(network, *arguments):
    command, *rest = arguments
    result = CliRunner().invoke(app, [command, "--data", str(network.data), *rest])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_created_namespace_is_listed_renamed_and_deleted(network):
    id_ = run(network, "create", "settings").strip()
    assert list(network.store.titles) == [id_]
    assert run(network, "list") == f"{id_}  settings\n"
    run(network, "rename", "settings", "preferences")
    assert json.loads(run(network, "list", "--json")) == [{"id": id_, "title": "preferences"}]
    run(network, "delete", "preferences")
    assert json.loads(run(network, "list", "--json")) == []


def test_json_of_create_has_id_and_title(network):
    created = json.loads(run(network, "create", "settings", "--json"))
    assert created == {"id": next(iter(network.store.titles)), "title": "settings"}
