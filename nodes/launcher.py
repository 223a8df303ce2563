"""From a topology and a folder to a running network: checks first, then the supervisor."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from kvnet.topology.load import load
from kvnet.topology.schema import Topology
from nodes.cluster import FolderInUse, RunFolder
from nodes.control import ControlClient, NoLauncher
from nodes.files import write_to_log
from nodes.nursery import ZygoteConfig
from nodes.preflight import PortBlock, check_disk, check_files, check_memory, raise_file_limit, require
from nodes.roles import MAINS
from nodes.supervisor import Reporter, Supervisor

STOP_TIMEOUT_S: Final = 60.0
"""More than the launcher takes to kill nodes that don't stop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """A network to run on this host."""

    topology: Topology
    folder: RunFolder
    port_base: int | None = None
    """Exactly this block of ports; None takes the folder's last one, or the next that is free."""
    wipe: bool = False
    """Delete what the folder holds first."""
    flags: Sequence[str] = ()
    """`accept-loss` and `recover`, for the coordinator's first start."""
    in_background: bool = False
    """Write to the folder's launcher.log, from the moment the checks have passed."""
    log_level: str = "info"
    mains: Mapping[str, str] = field(default_factory=lambda: MAINS)
    """Role to `module:function`."""
    started_s: float = field(default_factory=time.monotonic)
    """Monotonic time that `formed_ms` counts from."""


def run(launch: Launch, reporter: Reporter) -> None:
    """Run the network until it is stopped by Ctrl-C, SIGTERM, SIGHUP or `kvnet down`.

    Raises:
        ConfigError: it can't be started here; nothing was.
        KvnetError: it was started and failed; nothing of it runs any more.
    """
    raise_file_limit()
    folder = launch.folder
    with folder.locked():
        if not launch.wipe:
            folder.check_owner(launch.topology)
        _check(launch)
        ports = _choose_ports(launch)
        try:
            if launch.wipe:  # only now: what can't be started deletes nothing
                folder.wipe()
            identity = folder.claim(ports.topology, {})
            zygote = ZygoteConfig(
                data=folder.path.absolute(),
                mains=launch.mains,
                secret_file=folder.secret_file.absolute(),
                log_level=launch.log_level,
            )
            if launch.in_background:
                write_to_log(folder.launcher_log)
            supervisor = Supervisor(
                folder, ports.topology, identity, zygote, reporter, started_s=launch.started_s, flags=launch.flags
            )
            asyncio.run(supervisor.run())
        finally:
            ports.release()


def _check(launch: Launch) -> None:
    topology = launch.topology
    require((check_files(topology), check_memory(topology), check_disk(topology, launch.folder.path)))


def _choose_ports(launch: Launch) -> PortBlock:
    topology = launch.topology
    if launch.port_base is not None:
        return PortBlock.at(topology.with_port_base(launch.port_base))
    if (
        launch.folder.topology_file.exists() and not launch.wipe
    ):  # clients have the urls of last time: keep them if we can
        topology = topology.with_port_base(load(launch.folder.topology_file).listen.port_base)
    return PortBlock.next_free(topology)


def stop(folder: RunFolder, *, wipe: bool) -> bool:
    """Stop the network that runs in the folder, and delete its data if told; whether one ran.

    Raises:
        ConfigError: `wipe`, and the folder has files but no network.
        KvnetError: the launcher doesn't end.
    """
    if not folder.path.exists():
        return False
    ran = True
    try:
        with ControlClient(folder.control_socket, STOP_TIMEOUT_S) as launcher:
            launcher.ask("down")
            launcher.wait_for_end()
    except NoLauncher:
        ran = False
    deadline_s = time.monotonic() + STOP_TIMEOUT_S
    while True:  # the launcher lets go of the folder in its very last moment
        try:
            with folder.locked():
                if wipe:
                    folder.wipe()
                return ran
        except FolderInUse:
            if time.monotonic() > deadline_s:
                raise
            time.sleep(0.01)
