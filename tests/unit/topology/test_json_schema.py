import json

import jsonschema
import pytest
import yaml

from kvnet.topology.json_schema import json_schema
from kvnet.topology.load import DATA, dump_yaml, load


def test_the_shipped_schema_is_up_to_date():
    shipped = json.loads((DATA / "topology.schema.json").read_text())
    assert shipped == json_schema(), "kvnet topology schema > kvnet/topology/data/topology.schema.json"


@pytest.mark.parametrize(
    "path", [DATA.parents[2] / "topology.yaml", DATA / "world-2026.yaml"], ids=lambda p: p.name
)
def test_editors_accept_the_shipped_files(path):
    jsonschema.Draft202012Validator(json_schema()).validate(yaml.safe_load(path.read_text()))


def test_editors_accept_what_is_generated():
    jsonschema.Draft202012Validator(json_schema()).validate(yaml.safe_load(dump_yaml(load("world-2018"))))


def test_every_field_is_described():
    for name, definition in json_schema()["$defs"].items():
        for field, content in definition["properties"].items():
            assert content.get("description"), f"{name}.{field}"


@pytest.mark.parametrize(
    "section",
    [{"wam": {}}, {"wan": {"loss": 1}}, {"listen": {"port_base": 80}}, {"pops": []}, {"limits": {"profile": "x"}}],
    ids=str,
)
def test_editors_refuse_what_the_loader_refuses(section):
    file = yaml.safe_load(dump_yaml(load("world-2018"))) | section
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(json_schema()).validate(file)
