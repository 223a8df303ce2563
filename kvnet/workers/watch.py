"""The files of a project, looked at again and again: which ones, and whether any of them has changed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from kvnet.workers.dev_vars import FILE as DEV_VARS
from kvnet.workers.modules import KINDS, Code
from kvnet.workers.project import BUNDLED, Project

SUFFIXES: Final = frozenset(KINDS) | BUNDLED | {".jsonc", ".toml", ".cts", ".css", ".md", ".svg"}
LEFT_OUT: Final = frozenset({"node_modules", "__pycache__"})
FILES_MAX: Final = 20_000

State = tuple[tuple[str, int, int], ...]


class Watched:
    """What a build was made of."""

    def __init__(self, project: Project, code: Code, *, everything: bool) -> None:
        """Look at the modules of `code`, or at `everything` in the project's folder that a bundler may read."""
        modules = [module.path for module in code.modules]
        self._single = [*modules, *code.missing, project.folder / DEV_VARS]
        if project.config is not None:
            self._single.append(project.config)
        self._folder = project.folder if everything else None
        self.built_of = self.state()
        """How the files were when they were read."""

    def state(self) -> State:
        """Return what is different after any of the files has changed, come or gone."""
        paths = [*map(str, self._single), *(_files(self._folder) if self._folder else ())]
        found = {}
        for path in paths:
            try:
                status = os.stat(path)  # noqa: PTH116 - thousands of them, several times a second
            except OSError:
                continue
            found[path] = (status.st_mtime_ns, status.st_size)
        return tuple(sorted((path, *told) for path, told in found.items()))


def _files(folder: Path) -> Iterator[str]:
    count = 0
    for where, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in LEFT_OUT)
        for name in names:
            if Path(name).suffix in SUFFIXES:
                yield os.path.join(where, name)  # noqa: PTH118 - as above
                count += 1
                if count == FILES_MAX:
                    return
