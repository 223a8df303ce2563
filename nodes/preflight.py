"""What must be there before the first node starts: descriptors, memory, disk, ports."""

from __future__ import annotations

import errno
import mmap
import resource
import shutil
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from kvnet.errors import ConfigError
from kvnet.topology.fields import COORDINATOR, FIRST_POP_OFFSET, MONITOR
from kvnet.topology.schema import Topology
from nodes import procfs
from nodes.cluster import RunFolder
from nodes.files import store_folder

MIB: Final = 1024 * 1024
GIB: Final = 1024 * MIB
FILES_PER_NODE: Final = 100
"""Links, listeners and databases of an edge with a few clients."""
FILES_PER_PEER: Final = 2
"""What the coordinator, the monitor and the launcher may hold for each PoP."""
MEMORY_PER_NODE_BYTES: Final = 8 * MIB
DISK_PER_NODE_BYTES: Final = 4 * MIB
MAPS_AT_ONCE: Final = 2
MAP_NORESERVE: Final = 0x4000
"""As Linux has it on every processor; Python's `mmap` names it from 3.13 on."""
CLAIM_OFFSET: Final = FIRST_POP_OFFSET - 1
"""No node listens here: the launcher holds this port of the block it has chosen."""
BLOCK_STEP: Final = 400
"""Blocks begin at multiples of it from the topology's base, whatever their size: two that start at the same time
then have the same claim or no port in common."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at."""

    subject: str
    ok: bool
    detail: str
    """What there is and what is needed; ends with the cure where it isn't enough."""


def raise_file_limit() -> None:
    """Let this process and its children open as many files as the system grants it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def check_files(topology: Topology) -> Finding:
    """Look at the file descriptors of one process and of the whole machine."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = 1 << 30 if hard == resource.RLIM_INFINITY else hard
    count = len(topology.node_names())
    needed = FILES_PER_NODE + FILES_PER_PEER * count
    if limit < needed:
        return Finding(
            "file descriptors",
            ok=False,
            detail=f"{limit} for each process, {count} nodes need {needed}: "
            f"raise the limit with `ulimit -n {needed}`, or choose fewer --pops",
        )
    free = procfs.files_free()
    if free is not None and free < FILES_PER_NODE * count:
        return Finding(
            "file descriptors",
            ok=False,
            detail=f"{free} left on this machine, {count} nodes need {FILES_PER_NODE * count}: "
            "raise the sysctl fs.file-max, or choose fewer --pops",
        )
    return Finding("file descriptors", ok=True, detail=f"{limit} for each process, {needed} needed")


def check_memory(topology: Topology) -> Finding:
    """Look at the memory for all nodes, empty and idle."""
    available = procfs.memory_available_bytes()
    processes = len(topology.node_names()) + sum(map(topology.readers_of, topology.node_names()))
    needed = MEMORY_PER_NODE_BYTES * processes
    if available is None:
        return Finding("memory", ok=True, detail=f"unknown, {needed // MIB} MiB needed")
    detail = f"{available // MIB} MiB available, {needed // MIB} MiB needed"
    if available < needed:
        return Finding("memory", ok=False, detail=f"{detail}: end other programs, or choose fewer --pops")
    return Finding("memory", ok=True, detail=detail)


def check_disk(topology: Topology, folder: Path) -> Finding:
    """Look at the room on the disk of the run folder, which needn't exist yet."""
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(existing).free
    needed = DISK_PER_NODE_BYTES * len(topology.node_names())
    detail = f"{free // MIB} MiB free in {existing}, {needed // MIB} MiB needed"
    if free < needed:
        return Finding("disk", ok=False, detail=f"{detail}: free space, or choose another disk with --data")
    return Finding("disk", ok=True, detail=detail)


def check_room(topology: Topology, folder: RunFolder) -> Finding | None:
    """Look whether every node could have what the largest replica here has, and one of them a second copy.

    A copy is what a bootstrap or a compaction needs for a while. None where there are no data yet.
    """
    sizes = {name: _stored_bytes(folder, name) for name in topology.node_names() if name != MONITOR}
    edges = [size for name, size in sizes.items() if name != COORDINATOR]
    largest = max(edges, default=0) or sizes[COORDINATOR]
    if not largest:
        return None
    needed = sum(max(0, largest - size) for size in edges) + max(sizes.values())
    free = shutil.disk_usage(folder.path).free
    detail = (
        f"{free // MIB} MiB free, {needed // MIB} MiB let every PoP have all data, and one of them a second copy"
    )
    if free < needed:
        return Finding("room", ok=False, detail=f"{detail}: free space, `kvnet compact`, or choose fewer --pops")
    return Finding("room", ok=True, detail=detail)


def _stored_bytes(folder: RunFolder, name: str) -> int:
    """What a node's replica takes of the disk; files of LMDB may have holes."""
    files = store_folder(folder.node_folder(name)).glob("replica-*/data.mdb")
    try:
        return max((file.stat().st_blocks * 512 for file in files), default=0)
    except OSError:  # replaced at this moment
        return 0


def check_addresses(topology: Topology) -> Finding:
    """Look whether a process may map two replicas: the one that serves and the one that takes its place."""
    needed = int(MAPS_AT_ONCE * topology.storage.map_size_gib * GIB)
    detail = f"{needed // GIB:,} GiB for the maps of {MAPS_AT_ONCE} replicas"
    try:
        mmap.mmap(-1, needed, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE, prot=0).close()
    except (OSError, ValueError, OverflowError):
        cure = "lower storage.map_size_gib, or raise `ulimit -v`"
        return Finding("address space", ok=False, detail=f"no room for {detail}: {cure}")
    return Finding("address space", ok=True, detail=f"room for {detail}, which take no memory")


def check_ports(topology: Topology) -> Finding:
    """Look whether every node could listen now."""
    ports = [topology.port_of(name) for name in topology.node_names()]
    detail = f"{min(ports)} to {max(ports)} on {topology.listen.host}"
    taken = first_taken(topology.listen.host, ports)
    if taken is None:
        return Finding("ports", ok=True, detail=f"{detail} are free")
    return Finding("ports", ok=False, detail=f"{who_has(taken)}; choose another block with --port-base")


def check_clock() -> Finding:
    """Look whether the clock is kept right; nodes on one host share it, so this never stops anybody."""
    error_ms = procfs.clock_error_ms()
    if error_ms is None:
        told = "nothing keeps it right: enough for one host; between hosts run chrony or systemd-timesyncd"
    else:
        told = f"right within {error_ms:.0f} ms"
    return Finding("clock", ok=True, detail=told)


def require(findings: Iterable[Finding]) -> None:
    """Return if all is well.

    Raises:
        ConfigError: the first finding that isn't.
    """
    for finding in findings:
        if not finding.ok:
            raise ConfigError(f"{finding.subject}: {finding.detail}")


def first_taken(host: str, ports: Iterable[int]) -> int | None:
    """Return the first port that can't be listened on.

    Raises:
        ConfigError: `host` isn't an address of this machine.
    """
    for port in ports:
        probe = _bind(host, port, reuse=True)
        if probe is None:
            return port
        probe.close()
    return None


class PortBlock:
    """A topology on ports that are free and stay ours: its claim keeps other launchers out while it is held."""

    def __init__(self, topology: Topology, claim: socket.socket) -> None:
        self.topology = topology
        self._claim = claim

    def release(self) -> None:
        """Let others have the block."""
        self._claim.close()

    @classmethod
    def at(cls, topology: Topology) -> PortBlock:
        """Claim the block that the topology names.

        Raises:
            ConfigError: a port of it is taken; names the process that has it, where it may be seen.
        """
        host, base = topology.listen.host, topology.listen.port_base
        claim = _bind(host, base + CLAIM_OFFSET, reuse=False)
        taken = first_taken(host, [topology.port_of(name) for name in topology.node_names()])
        if taken is None and claim is not None:
            return cls(topology, claim)
        if claim is not None:
            claim.close()
        # A claim tells little: it doesn't listen, so its holder isn't seen. A node's port is named before it.
        told = who_has(base + CLAIM_OFFSET if taken is None else taken)
        raise ConfigError(f"{told}; choose another block with --port-base")

    @classmethod
    def next_free(cls, topology: Topology) -> PortBlock:
        """Claim the first free block from the one that the topology names upwards.

        Raises:
            ConfigError: there is none below 32,768, or a node's own url is what is taken.
        """
        size = FIRST_POP_OFFSET + len(topology.pops)
        step = -(-size // BLOCK_STEP) * BLOCK_STEP
        start, candidate = topology.listen.port_base, topology
        first_refusal: ConfigError | None = None
        while True:
            try:
                return cls.at(candidate)
            except ConfigError as error:
                first_refusal = first_refusal or error
                start += step
                try:
                    candidate = topology.with_port_base(start)
                except ConfigError:
                    raise first_refusal from None


def _bind(host: str, port: int, *, reuse: bool) -> socket.socket | None:
    """Bind a socket that doesn't listen; None when the port is taken."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except socket.gaierror as error:
        raise ConfigError(
            f"listen.host {host!r} is no address ({error.strerror}): write 127.0.0.1 or 0.0.0.0"
        ) from None
    probe = socket.socket(family, kind, protocol)
    if reuse:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the nodes do: old connections don't count
    try:
        probe.bind(address)
    except OSError as error:
        probe.close()
        if error.errno == errno.EADDRNOTAVAIL:
            raise ConfigError(
                f"listen.host {host} is not an address of this machine: write 127.0.0.1 or 0.0.0.0"
            ) from None
        if error.errno == errno.EACCES:
            raise ConfigError(f"port {port} is not for this user: choose --port-base 1024 or above") from None
        if error.errno != errno.EADDRINUSE:
            raise
        return None
    return probe


def who_has(port: int) -> str:
    """Say that a port is taken, and by whom where this user may know."""
    holder = procfs.listener_of(port)
    return f"port {port} is taken by pid {holder[0]} ({holder[1]})" if holder else f"port {port} is taken"
