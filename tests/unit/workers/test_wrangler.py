from __future__ import annotations

import pytest

from kvnet.errors import ConfigError
from kvnet.workers.project import KvBinding
from kvnet.workers.wrangler import find_config, from_config

ID = "0123456789abcdef0123456789abcdef"
OTHER = "f" * 32

JSONC = f"""
{{
  // what wrangler itself writes
  "$schema": "node_modules/wrangler/config-schema.json",
  "name": "translations",
  "main": "src/index.js", /* the Worker */
  "compatibility_date": "2026-11-01",
  "compatibility_flags": ["nodejs_compat"],
  "kv_namespaces": [
    {{ "binding": "TEXTS", "id": "{ID}", "preview_id": "{OTHER.upper()}" }},
    {{ "binding": "HITS", }},
  ],
  "vars": {{ "GREETING": "http://example.com // not a comment", "LIMITS": {{ "a": [1, 2] }} }},
}}
"""
TOML = f"""
name = "translations"
main = "src/index.js"
compatibility_date = 2026-11-01
compatibility_flags = ["nodejs_compat"]

[[kv_namespaces]]
binding = "TEXTS"
id = "{ID}"
preview_id = "{OTHER}"

[[kv_namespaces]]
binding = "HITS"

[vars]
GREETING = "http://example.com // not a comment"
LIMITS = {{ a = [1, 2] }}
"""


@pytest.fixture
def main(write):
    return write("src/index.js", "export default {}")


@pytest.mark.parametrize(("name", "text"), [("wrangler.jsonc", JSONC), ("wrangler.json", JSONC), ("x.toml", TOML)])
def test_either_language_says_the_same(write, main, name, text):
    project = from_config(write(name, text))
    assert project.name == "translations"
    assert project.main == main
    assert project.folder == main.parents[1]
    assert project.compatibility_date == "2026-11-01"
    assert project.compatibility_flags == ("nodejs_compat",)
    assert project.kv_namespaces == (KvBinding("TEXTS", ID, OTHER), KvBinding("HITS"))
    assert project.variables == {"GREETING": "http://example.com // not a comment", "LIMITS": {"a": [1, 2]}}
    assert project.bundling is None
    assert project.warnings == ()


@pytest.mark.parametrize(
    ("fields", "field", "cure"),
    [
        ('"name": "a"', "main", '"main": "src/index.js"'),
        ('"main": 7', "main", "quotes"),
        ('"main": "src/gone.js"', "main", "not a file"),
        ('"main": "src/worker.py"', "main", "JavaScript"),
        ('"main": "src/index.css"', "main", ".js, .mjs or .ts"),
        ('"main": "src/index.js", "name": 1', "name", "quotes"),
        ('"main": "src/index.js", "name": "../up"', "name", "letters"),
        ('"main": "src/index.js", "compatibility_date": "today"', "compatibility_date", "2026-11-01"),
        ('"main": "src/index.js", "compatibility_flags": "x"', "compatibility_flags", "list"),
        ('"main": "src/index.js", "kv_namespaces": {}', "kv_namespaces", '[{"binding": "KV"}]'),
        ('"main": "src/index.js", "kv_namespaces": [7]', "kv_namespaces", '[{"binding": "KV"}]'),
        ('"main": "src/index.js", "kv_namespaces": [{}]', "kv_namespaces[0].binding", '"KV"'),
        ('"main": "src/index.js", "kv_namespaces": [{"binding": "a b"}]', "kv_namespaces[0].binding", '"KV"'),
        (
            '"main": "src/index.js", "kv_namespaces": [{"binding": "A"}, {"binding": "A"}]',
            "kv_namespaces[1].binding",
            "remove one",
        ),
        (
            '"main": "src/index.js", "kv_namespaces": [{"binding": "A", "id": "<ID>"}]',
            "kv_namespaces[0].id",
            "--bind A=NAMESPACE",
        ),
        (
            '"main": "src/index.js", "kv_namespaces": [{"binding": "A", "preview_id": 5}]',
            "kv_namespaces[0].preview_id",
            "leave it out",
        ),
        ('"main": "src/index.js", "vars": []', "vars", '{"GREETING": "hello"}'),
        ('"main": "src/index.js", "vars": {"a-b": 1}', "vars.a-b", "letters"),
    ],
)
def test_a_mistake_names_file_field_and_cure(write, main, fields, field, cure):
    write("src/index.css")
    write("src/worker.py")
    config = write("wrangler.jsonc", f"{{{fields}}}")
    with pytest.raises(ConfigError) as caught:
        from_config(config)
    assert str(caught.value).startswith(f"{config}: {field}: ")
    assert cure in str(caught.value)


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("wrangler.jsonc", '{\n"name": "a"\n"main": "b"\n}', "line 3"),
        ("wrangler.jsonc", '{"name": "a", "name": "b"}', "name"),
        ("wrangler.jsonc", "", "JSON with comments"),
        ("wrangler.jsonc", "[]", "no settings"),
        ("wrangler.toml", 'name = "a"\nmain = \n', "line 2"),
        ("wrangler.toml", "name = a", "TOML"),
    ],
)
def test_what_cannot_be_read_says_where(write, name, text, told):
    config = write(name, text)
    with pytest.raises(ConfigError, match=told) as caught:
        from_config(config)
    assert str(config) in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"gone\.toml.*--config"):
        from_config(tmp_path / "gone.toml")


def test_what_is_not_provided_is_told_in_a_line_each(write, main):
    config = write(
        "wrangler.jsonc",
        '{"main": "src/index.js", "r2_buckets": [{}], "d1_databases": [{}], "queues": {"producers": [{}]},'
        ' "services": [], "observability": {"enabled": true}}',
    )
    warnings = from_config(config).warnings
    assert [warning.split(": ")[1] for warning in warnings] == ["d1_databases", "queues", "r2_buckets"]
    assert all("not provided here" in warning for warning in warnings)


def test_a_name_that_is_missing_is_the_folders(write, main):
    config = write("my worker!/wrangler.json", '{"main": "../src/index.js"}')
    assert from_config(config).name == "my-worker"


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ('"main": "src/index.ts"', "index.ts is not plain"),
        ('"main": "src/index.js", "define": {"A": "1"}', "define"),
        ('"main": "src/index.js", "rules": [{"type": "Text"}]', "rules"),
    ],
)
def test_what_needs_a_bundler_says_why(write, main, fields, why):
    write("src/index.ts")
    bundling = from_config(write("wrangler.jsonc", f"{{{fields}}}")).bundling
    assert bundling
    assert why in bundling


def test_a_script_takes_the_place_of_main(write, main):
    other = write("src/other.js")
    assert from_config(write("wrangler.jsonc", '{"name": "a"}'), other).main == other


def test_jsonc_is_found_before_json_and_toml(write, tmp_path):
    assert find_config(tmp_path) is None
    for name in ("wrangler.toml", "wrangler.json", "wrangler.jsonc"):
        found = write(name)
        assert find_config(tmp_path) == found


@pytest.mark.parametrize(
    ("binding", "preview", "chosen"),
    [
        (KvBinding("A", ID, OTHER), False, ID),
        (KvBinding("A", ID, OTHER), True, OTHER),
        (KvBinding("A", ID), True, ID),
        (KvBinding("A", None, OTHER), False, OTHER),
        (KvBinding("A"), True, None),
    ],
)
def test_the_id_is_used_unless_the_preview_is_asked_for(binding, preview, chosen):
    assert binding.chosen_id(preview=preview) == chosen
