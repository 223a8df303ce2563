from __future__ import annotations

import platform

import pytest

from kvnet.errors import ConfigError
from kvnet.workers.runtime import find_workerd, version_of

ELF = "\x7fELF"
CURE = "npm install --save-dev workerd"


def test_the_named_program_goes_before_all_others(write, tmp_path):
    write("node_modules/.bin/workerd", ELF, mode=0o755)
    named = write("mine/workerd", ELF, mode=0o755)
    assert find_workerd(named, [tmp_path], None) == named


def test_the_projects_own_goes_before_that_of_the_search_path(write, tmp_path):
    own = write("project/node_modules/.bin/workerd", ELF, mode=0o755)
    above = write("node_modules/.bin/workerd", ELF, mode=0o755)
    installed = write("bin/workerd", ELF, mode=0o755)
    deep = write("project/src/app.js").parent
    other = write("other/app.js").parent
    assert find_workerd(None, [deep], str(installed.parent)) == own
    assert find_workerd(None, [other], str(installed.parent)) == above
    above.unlink()
    assert find_workerd(None, [other], str(installed.parent)) == installed


def test_a_starting_script_leads_to_the_program_beside_it(write, tmp_path):
    """npm 11 runs no install scripts, and what is in `.bin` may then be JavaScript that starts the program."""
    package = {"x86_64": "workerd-linux-64", "aarch64": "workerd-linux-arm64"}[platform.machine()]
    write("node_modules/workerd/bin/workerd", "#!/usr/bin/env node\n", mode=0o755)
    link = tmp_path / "node_modules/.bin/workerd"
    link.parent.mkdir()
    link.symlink_to("../workerd/bin/workerd")
    with pytest.raises(ConfigError, match=CURE):
        find_workerd(None, [tmp_path], None)
    program = write(f"node_modules/@cloudflare/{package}/bin/workerd", ELF, mode=0o755)
    assert find_workerd(None, [tmp_path], None) == program


def test_nothing_found_names_the_one_command(tmp_path):
    with pytest.raises(ConfigError, match=CURE):
        find_workerd(None, [tmp_path], str(tmp_path))


@pytest.mark.parametrize("mode", [None, 0o644])
def test_a_named_program_that_cannot_run_is_refused(write, tmp_path, mode):
    named = tmp_path / "gone" if mode is None else write("workerd", ELF, mode=mode)
    with pytest.raises(ConfigError, match="not a program"):
        find_workerd(named, [], None)


def test_the_release_is_a_date(write):
    assert version_of(write("a", "#!/bin/sh\necho workerd 2026-11-17", mode=0o755)) == "2026-11-17"
    with pytest.raises(ConfigError, match=CURE):
        version_of(write("b", "#!/bin/sh\necho hello", mode=0o755))
    with pytest.raises(ConfigError, match=CURE):
        version_of(write("c", ELF, mode=0o755))
