"""The run folder: what belongs to one network on this host, whether its nodes run or not.

    cluster.json    account, tokens, limits, and every node's url and pid: what clients read
    secret          what nodes prove to each other; KVNET_SECRET_FILE may keep it elsewhere
    topology.yaml   the network as it was last started here, options applied
    history         the coordinator's mark that an empty disk of its own would be a lost one
    truth.json      which PoPs are up, for the monitor
    control.sock    the launcher's ear while it runs; launcher.pid is locked as long
    <node>/         each node's data and log
    workers/        what Workers that run here were started with; it holds a token

Files that others read are whole at every moment.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from kvnet.errors import ConfigError
from kvnet.topology.fields import COORDINATOR, MONITOR
from kvnet.topology.load import dump_yaml, load
from kvnet.topology.schema import Topology
from nodes.files import PRIVATE, replace_file, sync_folder

SECRET_BYTES_MIN: Final = 16
SCOPES: Final = ("admin", "write", "read")
WORKERS: Final = "workers"
Pids = Mapping[str, int | None]


@dataclass(frozen=True, slots=True)
class Identity:
    """What stays the same as long as the folder lives."""

    account_id: str
    """32 hex digits."""
    tokens: Mapping[str, str]
    """Bearer token by scope."""


class FolderInUse(ConfigError):
    """Another launcher has the run folder."""


class RunFolder:
    """One run folder; nothing is touched before it is asked for."""

    def __init__(self, path: Path, secret_file: Path | None = None) -> None:
        """Name the folder; `secret_file` keeps the secret elsewhere."""
        self.path = path
        self.cluster_file = path / "cluster.json"
        self.secret_file = secret_file or path / "secret"
        self.topology_file = path / "topology.yaml"
        self.truth_file = path / "truth.json"
        self.control_socket = path / "control.sock"
        self.history_file = path / "history"
        self.lock_file = path / "launcher.pid"
        self.launcher_log = path / "launcher.log"

    def node_folder(self, name: str) -> Path:
        return self.path / name

    def log_of(self, name: str) -> Path:
        return self.node_folder(name) / "log"

    def cluster(self) -> dict[str, Any]:
        """Return what cluster.json says.

        Raises:
            ConfigError: there is none, it can't be read, or it isn't one of ours.
        """
        try:
            found: dict[str, Any] = json.loads(self.cluster_file.read_bytes())
            _look_at_all(found)
        except FileNotFoundError:
            raise ConfigError(
                f"no network in {self.path}: `kvnet up` starts one; --data or KVNET_DATA names another folder"
            ) from None
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"{self.cluster_file} can't be read: {error}; `kvnet up --wipe` starts anew"
            ) from None
        except (LookupError, TypeError, AttributeError):
            raise ConfigError(
                f"{self.cluster_file} isn't whole: bring back a copy, or `kvnet up --wipe` starts anew"
            ) from None
        return found

    def identity(self) -> Identity:
        """Return the account and the tokens.

        Raises:
            ConfigError: no cluster.json, or not one of ours.
        """
        cluster = self.cluster()
        tokens = {scope: str(cluster["tokens"][scope]) for scope in SCOPES}
        return Identity(str(cluster["account_id"]), tokens)

    def topology(self) -> Topology:
        """Return the network that was last started in this folder.

        Raises:
            ConfigError: none was, or its file can't be read.
        """
        if not self.topology_file.exists():
            self.cluster()  # says what to do in a folder without a network
        return load(self.topology_file)

    def check_owner(self, topology: Topology) -> None:
        """Return if the folder is new or holds data of this very network.

        Raises:
            ConfigError: it holds another network's.
        """
        if not self.topology_file.exists():
            return
        theirs = load(self.topology_file)
        if theirs.digest() != topology.digest():
            raise ConfigError(
                f"{self.path} belongs to another network, {_describe(theirs)}, not {_describe(topology)}: "
                f"start that one with --topology {self.topology_file}, delete it with --wipe, "
                "or choose another folder with --data"
            )

    def claim(self, topology: Topology, pids: Pids) -> Identity:
        """Make the folder this network's: secret, tokens and cluster.json exist, those that did are kept.

        Addresses, limits and `pids` are written as they are now.

        Raises:
            ConfigError: it can't be made, holds another network's data, or a secret that is too short.
            OSError: the disk refused.
        """
        self.check_owner(topology)
        self._make_folder()
        self._make_secret()
        identity = self.identity() if self.cluster_file.exists() else _new_identity()
        replace_file(self.topology_file, dump_yaml(topology).encode(), durable=True)
        self.write_cluster(topology, identity, pids)
        return identity

    def write_cluster(self, topology: Topology, identity: Identity, pids: Pids) -> None:
        """Write cluster.json; a node without a pid isn't running.

        Raises:
            OSError: the disk refused; the file is as it was.
        """
        self._write_document(cluster_document(topology, identity, pids))

    def pids(self) -> dict[str, int | None]:
        """Return the pids in cluster.json, none where there is no such file."""
        if not self.cluster_file.exists():
            return {}
        cluster = self.cluster()
        fixed = {name: cluster[name]["pid"] for name in (COORDINATOR, MONITOR)}
        return fixed | {code: pop["pid"] for code, pop in cluster["pops"].items()}

    def record_pid(self, name: str, pid: int | None) -> None:
        """Write one node's pid into cluster.json, if there is one; for nodes that no launcher runs.

        Raises:
            OSError: the disk refused.
        """
        if not self.cluster_file.exists():
            return
        folder = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)  # until it is closed: another node may write its own pid
            cluster = self.cluster()
            node = cluster[name] if name in {COORDINATOR, MONITOR} else cluster["pops"][name]
            node["pid"] = pid
            self._write_document(cluster)
        finally:
            os.close(folder)

    def secret(self) -> bytes:
        """Return the cluster's secret.

        Raises:
            ConfigError: there is none, or it is too short to be one.
        """
        try:
            secret = self.secret_file.read_bytes().strip()
        except FileNotFoundError:
            raise ConfigError(
                f"no secret in {self.secret_file}: copy it from the coordinator's host, or name its file in "
                "KVNET_SECRET_FILE; `kvnet up` and `kvnet node coordinator` make one"
            ) from None
        except OSError as error:
            raise ConfigError(f"the secret {self.secret_file} can't be read ({error.strerror})") from None
        if len(secret) < SECRET_BYTES_MIN:
            raise ConfigError(
                f"the secret in {self.secret_file} has {len(secret)} bytes: write at least {SECRET_BYTES_MIN}, "
                "the same on every host"
            )
        return secret

    def wipe(self) -> None:
        """Delete the network's files, its nodes' folders and its Workers', nothing else; results in `runs` stay.

        Raises:
            ConfigError: the folder has files but no network.
            OSError: something can't be deleted.
        """
        if not self.path.exists() or all(entry == self.lock_file for entry in self.path.iterdir()):
            return
        if not self.topology_file.exists() and not self.cluster_file.exists():
            raise ConfigError(
                f"{self.path} is not a run folder of kvnet, nothing was deleted; name one with --data"
            )
        names = {COORDINATOR, MONITOR, WORKERS}
        with suppress(ConfigError):  # one of the two files may be what is damaged, and wiping its cure
            names.update(self.cluster()["pops"])
        with suppress(ConfigError):
            names.update(self.topology().node_names())
        for name in names:
            if self.node_folder(name).exists():
                shutil.rmtree(self.node_folder(name))
        for file in (
            self.truth_file,
            self.history_file,
            self.control_socket,
            self.launcher_log,
            self.path / "secret",
            self.topology_file,
            self.cluster_file,
        ):
            file.unlink(missing_ok=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder as its one launcher; the lock ends with the process, however that ends.

        Raises:
            FolderInUse: another launcher has it.
            ConfigError: there can't be such a folder.
        """
        self._make_folder()
        with self.lock_file.open("a+b") as file:
            os.fchmod(file.fileno(), PRIVATE)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                raise FolderInUse(
                    f"a network already runs in {self.path} (launcher pid {file.read().decode().strip()}): "
                    "`kvnet down` stops it, another --data gives a second one"
                ) from None
            file.truncate(0)
            file.write(f"{os.getpid()}\n".encode())
            file.flush()
            yield

    def _write_document(self, document: Mapping[str, Any]) -> None:
        replace_file(self.cluster_file, json.dumps(document, ensure_ascii=False).encode(), durable=True)

    def _make_folder(self) -> None:
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"{self.path} can't be a run folder ({error.strerror}): name another one with --data"
            ) from None

    def _make_secret(self) -> None:
        try:
            descriptor = os.open(self.secret_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE)
        except FileExistsError:
            self.secret()
            return
        with open(descriptor, "wb") as file:  # noqa: PTH123 - created with its final permissions
            file.write(secrets.token_hex(32).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        sync_folder(self.secret_file.parent)


def cluster_document(topology: Topology, identity: Identity, pids: Pids) -> dict[str, Any]:
    """Return cluster.json's content."""
    return {
        "account_id": identity.account_id,
        "tokens": dict(identity.tokens),
        "limits": topology.limits.resolve().as_dict(),
        "coordinator": {"name": COORDINATOR, "url": topology.url_of(COORDINATOR), "pid": pids.get(COORDINATOR)},
        "monitor": {"url": topology.url_of(MONITOR), "pid": pids.get(MONITOR)},
        "pops": {
            pop.code: {
                "url": topology.url_of(pop.code),
                "pid": pids.get(pop.code),
                "city": pop.city,
                "country": pop.country,
                "lat": pop.lat,
                "lon": pop.lon,
            }
            for pop in topology.pops
        },
    }


def _look_at_all(cluster: dict[str, Any]) -> None:
    """Touch every field that commands rely on; raises what a missing one makes Python raise."""
    for field in ("account_id", "limits"):
        cluster[field]
    for scope in SCOPES:
        cluster["tokens"][scope]
    for node in (cluster[COORDINATOR], cluster[MONITOR], *cluster["pops"].values()):
        node["url"], node["pid"]
    for pop in cluster["pops"].values():
        pop["city"]


def _new_identity() -> Identity:
    tokens = {scope: f"kv_{scope}_{secrets.token_urlsafe(24)}" for scope in SCOPES}
    return Identity(secrets.token_hex(16), tokens)


def _describe(topology: Topology) -> str:
    return f"{topology.name} with {len(topology.pops)} PoPs"
