"""One node by itself, in the foreground: on any host, from the same topology, into the same network."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import setproctitle

from kvnet.errors import ConfigError
from kvnet.topology.fields import COORDINATOR
from kvnet.topology.schema import Topology
from nodes.cluster import RunFolder
from nodes.context import NodeContext
from nodes.entry import run_node
from nodes.keeper import keep_readers
from nodes.preflight import first_taken, raise_file_limit, who_has
from nodes.roles import EDGE, MAINS, load_main, role_of
from nodes.zygote import ACCEPT_LOSS, RECOVER


def run_alone(
    name: str,
    topology: Topology,
    folder: RunFolder,
    *,
    flags: Sequence[str] = (),
    log_level: str = "info",
    mains: Mapping[str, str] = MAINS,
) -> int:
    """Run one node until SIGTERM or Ctrl-C and return its exit code.

    The coordinator makes the folder, its tokens and its secret where there are none; every other node needs the
    coordinator's secret, in the folder or in the file that KVNET_SECRET_FILE names.

    Raises:
        ConfigError: no such node, no secret, another network's folder, or a port that is taken.
    """
    topology.pop_of(name)
    folder.check_owner(topology)
    if name != COORDINATOR:
        folder.secret()  # what is missing for good is told before a port that is taken for now
    port = topology.port_of(name)
    if first_taken(topology.listen.host, [port]) is not None:
        raise ConfigError(f"{who_has(port)}; choose another block with --port-base, on every node the same")
    if name == COORDINATOR:
        folder.claim(topology, folder.pids())
    identity = folder.identity() if folder.cluster_file.exists() else None
    context = NodeContext(
        name=name,
        topology=topology,
        data=folder.path,
        folder=folder.node_folder(name),
        secret=folder.secret(),
        account_id=identity.account_id if identity else "",
        tokens=identity.tokens if identity and role_of(name) != EDGE else None,
        log_level=log_level,
        accept_loss=ACCEPT_LOSS in flags,
        recover=RECOVER in flags,
    )
    main = load_main(mains[role_of(name)])
    context.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    raise_file_limit()
    setproctitle.setproctitle(f"kvnet: {name}")
    keep_readers(context, topology.readers_of(name))
    folder.record_pid(name, os.getpid())
    try:
        return run_node(main, context)
    finally:
        folder.record_pid(name, None)
