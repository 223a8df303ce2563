from __future__ import annotations

import os

import pytest

from kvnet.workers.modules import read_code
from kvnet.workers.project import Project
from kvnet.workers.watch import Watched


@pytest.fixture
def watched(write, tmp_path):
    def watched(*, everything):
        main = write("app.js", 'import "./lib.js"; import "./soon.js"; export default {}')
        write("lib.js")
        config = write("wrangler.jsonc")
        project = Project(name="app", main=main, folder=tmp_path, config=config)
        return Watched(project, read_code(main), everything=everything)

    return watched


def changed(watched, write, name):
    before = watched.state()
    os.utime(write(name, "other"), ns=(1, 1))
    return watched.state() != before


@pytest.mark.parametrize("everything", [False, True])
@pytest.mark.parametrize("name", ["app.js", "lib.js", "soon.js", "wrangler.jsonc", ".dev.vars"])
def test_what_a_worker_is_made_of_is_watched(watched, write, everything, name):
    assert changed(watched(everything=everything), write, name)


@pytest.mark.parametrize(("everything", "noticed"), [(False, False), (True, True)])
def test_what_a_bundler_may_read_is_watched_when_there_is_one(watched, write, everything, noticed):
    assert changed(watched(everything=everything), write, "src/any.ts") is noticed


@pytest.mark.parametrize("name", ["node_modules/x/index.js", ".wrangler/tmp/a.js", "notes.log"])
def test_what_is_nobodys_source_is_left_alone(watched, write, name):
    assert not changed(watched(everything=True), write, name)


def test_a_file_that_goes_is_a_change(watched, tmp_path):
    seen = watched(everything=False)
    (tmp_path / "lib.js").unlink()
    assert seen.state() != seen.built_of
