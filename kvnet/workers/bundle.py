"""TypeScript and packages: a project that has to be bundled first is, by its own wrangler."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from kvnet.errors import ConfigError, KvnetError
from kvnet.workers.heard import tell
from kvnet.workers.project import Project
from nodes.parent import die_with_parent

INSTALL: Final = "npm install --save-dev wrangler"
IN_PROJECT: Final = Path("node_modules") / ".bin" / "wrangler"
QUIET: Final = {"CI": "1", "NO_COLOR": "1", "WRANGLER_SEND_METRICS": "false"}
BUNDLE_S: Final = 120.0


async def bundle(
    project: Project, why: str, into: Path, compatibility_date: str, variables: Mapping[str, str]
) -> Path:
    """Return the plain main module that wrangler makes of the project, in the folder `into`, which is made anew.

    `variables` are the environment wrangler runs in.

    Raises:
        ConfigError: the project has no wrangler; `why` says what it is needed for.
        KvnetError: wrangler failed; it has said why on standard error.
    """
    wrangler = find_wrangler(project.folder)
    if wrangler is None:
        raise ConfigError(f"{why}, so it is bundled first: install wrangler in the project with `{INSTALL}`")
    shutil.rmtree(into, ignore_errors=True)
    ours = os.getpid()
    process = await asyncio.create_subprocess_exec(
        *_command(wrangler, project, into, compatibility_date),
        cwd=project.folder,
        env={**variables, **QUIET},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,  # wrangler starts others, which end with it
        preexec_fn=lambda: die_with_parent(ours),  # the forking thread is the main one, as it wants
    )
    try:
        async with asyncio.timeout(BUNDLE_S):
            told, _ = await process.communicate()
    except TimeoutError:
        raise KvnetError(f"wrangler took more than {BUNDLE_S:.0f} s to bundle {project.main}") from None
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    if process.returncode:
        for line in told.decode(errors="replace").splitlines():
            tell(line)
        raise KvnetError(f"wrangler can't bundle {project.main}: its words stand above")
    main = into / f"{project.main.stem}.js"
    if not main.is_file():
        raise KvnetError(f"wrangler bundled {project.main} without making {main.name}: try another version of it")
    return main


def _command(wrangler: Path, project: Project, into: Path, compatibility_date: str) -> list[str | Path]:
    command: list[str | Path] = [
        wrangler,
        "deploy",
        project.main.absolute(),
        "--dry-run",
        "--outdir",
        into.absolute(),
    ]
    if project.config is not None:
        command += ["--config", project.config.absolute()]
    else:
        command += ["--config", os.devnull, "--name", "worker"]
    if project.compatibility_date is None:
        command += ["--compatibility-date", compatibility_date]
    return command


def find_wrangler(folder: Path) -> Path | None:
    """Return the wrangler that is installed in the project's folder, or in one above it."""
    for place in (folder.resolve(), *folder.resolve().parents):
        if os.access(place / IN_PROJECT, os.X_OK):
            return place / IN_PROJECT
    return None
