"""A network to measure: started for the occasion by `kvnet up`, and stopped however the occasion ends."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kvnet.errors import ConfigError, KvnetError
from nodes.cluster import RunFolder
from nodes.procfs import cpu_seconds, pss_bytes

KVNET = (sys.executable, "-m", "kvnet.cli.main")


@dataclass(frozen=True, slots=True)
class RunningNetwork:
    """A formed network, as its cluster.json describes it."""

    data: Path
    """Its run folder."""
    cluster: dict[str, Any]
    formed_ms: float | None
    """From the command to the formed network; None for one that ran already."""
    loss: float
    """Fraction of packets lost between replicas, as configured."""

    @property
    def coordinator_url(self) -> str:
        return str(self.cluster["coordinator"]["url"])

    @property
    def monitor_url(self) -> str:
        return str(self.cluster["monitor"]["url"])

    @property
    def namespaces_path(self) -> str:
        return f"/client/v4/accounts/{self.cluster['account_id']}/storage/kv/namespaces"

    @property
    def authorization(self) -> dict[str, str]:
        """The header that lets a client do anything."""
        return {"Authorization": f"Bearer {self.cluster['tokens']['admin']}"}

    def pids(self) -> dict[str, int]:
        """Return the process of each node that runs."""
        nodes = {"coordinator": self.cluster["coordinator"], "monitor": self.cluster["monitor"]}
        nodes |= self.cluster["pops"]
        return {name: node["pid"] for name, node in nodes.items() if node["pid"] is not None}

    def cpu_seconds(self) -> dict[str, float]:
        """Return the processor time that each node has used so far."""
        return {name: cpu_seconds(pid) or 0.0 for name, pid in self.pids().items()}

    def cpu_cores_since(self, before: Mapping[str, float], elapsed_s: float) -> dict[str, float]:
        """Return the cores used since `cpu_seconds` said `before`: by coordinator, monitor, edges, and all."""
        cores = dict.fromkeys(("coordinator", "monitor", "edges"), 0.0)
        for name, used_s in self.cpu_seconds().items():
            role = name if name in cores else "edges"
            cores[role] += (used_s - before.get(name, 0.0)) / elapsed_s
        return {role: round(used, 3) for role, used in (*cores.items(), ("all", sum(cores.values())))}

    def pss_bytes(self) -> dict[str, int]:
        """Return each node's memory, shared pages divided among their sharers."""
        found = {name: pss_bytes(pid) for name, pid in self.pids().items()}
        return {name: memory for name, memory in found.items() if memory is not None}


@contextmanager
def started(data: Path | None, options: Sequence[str]) -> Iterator[RunningNetwork]:
    """Start a network with these options of `kvnet up`, in a folder of its own unless `data` names one.

    It is stopped at the end, and at Ctrl-C and SIGTERM, which is raised as KeyboardInterrupt.

    Raises:
        ConfigError: it can't be started so, or another runs in `data`; `kvnet up` has said why.
        KvnetError: it failed to start.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if data is not None:
        with _started_in(data, options) as network:
            yield network
        return
    with (
        tempfile.TemporaryDirectory(prefix="kvnet-bench-", ignore_cleanup_errors=True) as folder,
        _started_in(Path(folder) / "run", options) as network,
    ):
        yield network


def running(data: Path) -> RunningNetwork:
    """Return the network that runs in `data`; it stays as it is.

    Raises:
        ConfigError: none does.
    """
    folder = RunFolder(data)
    network = RunningNetwork(data, folder.cluster(), None, folder.topology().wan.loss)
    if "coordinator" not in network.pids() or "monitor" not in network.pids():
        raise ConfigError(f"the network in {data} is stopped: `kvnet up --detach --data {data}` starts it")
    return network


@contextmanager
def _started_in(data: Path, options: Sequence[str]) -> Iterator[RunningNetwork]:
    with RunFolder(data).locked():
        pass  # nobody else's network runs there, so the one that is stopped at the end is ours
    try:
        told = _up([*KVNET, "up", "--detach", "--json", "--data", str(data), *options])
        formed_ms = float(told.pop("formed_ms"))
        yield RunningNetwork(data, told, formed_ms, RunFolder(data).topology().wan.loss)
    finally:
        with _uninterrupted():
            subprocess.run([*KVNET, "down", "--data", str(data)], check=False, stderr=subprocess.DEVNULL)


def _up(command: Sequence[str]) -> dict[str, Any]:
    """Run `kvnet up`; at an interrupt let it stop what it started.

    In a session of its own, so that it is interrupted once, by us.
    """
    up = subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True)
    try:
        output, _ = up.communicate()
    except KeyboardInterrupt:
        with _uninterrupted():
            up.send_signal(signal.SIGINT)
            up.communicate()
        raise
    if up.returncode != 0:
        failure = ConfigError if up.returncode == 2 else KvnetError
        raise failure(f"the network didn't start: `kvnet up` ended with exit code {up.returncode}")
    told: dict[str, Any] = json.loads(output)
    return told


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Let nobody interrupt what stops a hundred and fifty processes."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
