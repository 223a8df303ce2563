"""From an order on the command line to what the runtime is given; done again whenever a source changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kvnet.client import connect
from kvnet.client.directory import CLUSTER_FILE, Directory, from_cluster, read_cluster_file
from kvnet.errors import ConfigError
from kvnet.workers.bundle import bundle
from kvnet.workers.configuration import Site, Worker, render
from kvnet.workers.dev_vars import read_dev_vars
from kvnet.workers.modules import read_code
from kvnet.workers.namespaces import resolve, spread
from kvnet.workers.project import Project, from_script
from kvnet.workers.running import WorkerFolder
from kvnet.workers.watch import Watched
from kvnet.workers.wrangler import FILES, find_config, from_config
from nodes.files import replace_file


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What somebody wants to have run."""

    data: Path
    script: Path | None
    config: Path | None
    binds: Mapping[str, str]
    """Namespaces, by title or id, by the names of variables."""
    preview: bool
    token: str | None
    """What the Workers' namespaces are asked with; None for the network's token for writing."""
    variables: Mapping[str, str]
    """The environment for wrangler."""


@dataclass(frozen=True, slots=True)
class Built:
    """What was made of an order."""

    project: Project
    configuration: str
    watched: Watched


def read_project(script: Path | None, config: Path | None) -> Project:
    """Return the project of a script, of a configuration, or of the one in the current folder.

    With both the script is run, with the configuration's settings.

    Raises:
        ConfigError: there is neither, or it can't work.
    """
    if config is None and script is not None:
        return from_script(script)
    found = config or find_config(Path())
    if found is None:
        raise ConfigError(f"there is nothing to run: name a script, or give this folder a {FILES[0]}")
    return from_config(found, script)


def directory_of(data: Path, token: str | None) -> Directory:
    """Return the network in `data`.

    Raises:
        ConfigError: there is none.
    """
    return from_cluster(read_cluster_file(data / CLUSTER_FILE), token=token, account_id=None)


async def build(order: Order, sites: Sequence[Site], folder: WorkerFolder, release: str) -> Built:
    """Return what the runtime of this `release` is given; namespaces that are missing are created.

    Raises:
        ConfigError: the project can't work as it is.
        KvnetError: wrangler can't bundle it, or the network refuses.
    """
    project = read_project(order.script, order.config)
    date = project.compatibility_date or release
    code = read_code(project.main, project.compatibility_flags)
    why = project.bundling or code.bundling
    watched = Watched(project, code, everything=why is not None)
    if why is not None:
        main = await bundle(project, why, folder.bundle, date, order.variables)
        code = read_code(main, project.compatibility_flags)
    worker = Worker(
        code=code,
        compatibility_date=date,
        compatibility_flags=project.compatibility_flags,
        variables={**project.variables, **read_dev_vars(project.folder)},
        namespaces=await _namespaces(order, project, sites),
    )
    token = directory_of(order.data, order.token).token
    return Built(project, render(worker, sites, token), watched)


def write_configuration(path: Path, text: str) -> None:
    """Put the configuration in its place, readable by its owner alone.

    Raises:
        OSError: the disk refused.
    """
    replace_file(path, text.encode(), durable=False)


async def _namespaces(order: Order, project: Project, sites: Sequence[Site]) -> dict[str, str]:
    """Return namespace ids by variables, known at each of the sites."""
    if not order.binds and not project.kv_namespaces:
        return {}
    near = sites[0].edge.place
    async with connect(data=order.data, near=near) as network:
        ids, created = await resolve(network, project, order.binds, preview=order.preview)
    if created:
        directory = directory_of(order.data, None)
        await spread(directory, [site.edge for site in sites], created)
    return ids
