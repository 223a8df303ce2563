from __future__ import annotations

import pytest

from kvnet.errors import ConfigError
from kvnet.workers.build import read_project
from kvnet.workers.dev_vars import read_dev_vars
from kvnet.workers.project import check_name, from_script


def test_a_script_is_called_as_its_file(write):
    project = from_script(write("my app.v2.mjs"))
    assert project.name == "my-app-v2"
    assert project.bundling is None
    assert from_script(write("ü.js")).name == "worker"


def test_typescript_has_to_be_bundled(write):
    assert "app.ts" in str(from_script(write("app.ts")).bundling)


@pytest.mark.parametrize(("name", "told"), [("app.py", "Python"), ("app.css", "not a script"), ("", "not a file")])
def test_what_is_no_script_is_refused(write, tmp_path, name, told):
    if name:
        write(name)
    with pytest.raises(ConfigError, match=told):
        from_script(tmp_path / name)


def test_without_a_script_the_folder_is_looked_at(write, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"wrangler\.jsonc"):
        read_project(None, None)
    write("src/index.js")
    write("wrangler.toml", 'name = "found"\nmain = "src/index.js"')
    assert read_project(None, None).name == "found"


@pytest.mark.parametrize("name", ["", "-a", "a/b", "..", "a" * 64, "a b"])
def test_a_name_that_cannot_be_a_folder_is_refused(name):
    with pytest.raises(ConfigError, match="letters"):
        check_name(name)


def test_dev_vars_are_read_as_wrangler_does(write, tmp_path):
    assert read_dev_vars(tmp_path) == {}
    text = '# secrets\n\nA=1\nexport B = two words # not this\nC=\'x # y\'\nD="a\\nb"  # c\nE=\nF=""\n'
    write(".dev.vars", text)
    assert read_dev_vars(tmp_path) == {"A": "1", "B": "two words", "C": "x # y", "D": "a\nb", "E": "", "F": ""}


@pytest.mark.parametrize("line", ["A", "1A=b", "A-B=c"])
def test_a_line_of_dev_vars_that_sets_nothing_is_named(write, tmp_path, line):
    write(".dev.vars", f"OK=1\n{line}\n")
    with pytest.raises(ConfigError, match=r"line 2.*NAME=VALUE"):
        read_dev_vars(tmp_path)
