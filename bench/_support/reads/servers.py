"""The servers beside which an edge is measured: started for the occasion, each on one core."""

from __future__ import annotations

import base64
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from kvnet.errors import ConfigError, KvnetError

HOST: Final = "127.0.0.1"
START_S: Final = 20.0
SIZES: Final = (100, 1_000, 10_000, 65_536)


@dataclass(frozen=True, slots=True)
class Server:
    """One that runs."""

    port: int
    pid: int
    """The process that answers."""

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"


def find(program: str, package: str) -> str:
    """Return where a program is.

    Raises:
        ConfigError: it isn't installed.
    """
    found = shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin")
    if found is None:
        raise ConfigError(f"{program} isn't installed: `apt-get install {package}`, or your system's way to it")
    return found


def pin(pid: int, core: int) -> None:
    """Have all threads of a process run on this core alone."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(ProcessLookupError):
            os.sched_setaffinity(int(task.name), {core})


def free_port() -> int:
    """Return a port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def nginx(scratch: Path, core: int) -> Iterator[Server]:
    """`/{size}` is a static file of so many bytes, `/constant` a hundred bytes from the configuration."""
    folder = scratch / "nginx"
    files = folder / "files"
    files.mkdir(parents=True)
    for size in SIZES:
        (files / str(size)).write_bytes(b"v" * size)
    port = free_port()
    configuration = folder / "nginx.conf"
    configuration.write_text(f"""
        {"user root;" if os.getuid() == 0 else ""}
        daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log;
        events {{ worker_connections 1024; }}
        http {{
          access_log off; keepalive_requests 1000000000; sendfile on; tcp_nopush on; open_file_cache max=100;
          client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
          uwsgi_temp_path {folder}; scgi_temp_path {folder};
          server {{
            listen {HOST}:{port}; root {files};
            location = /constant {{ return 200 "{"v" * 100}"; }}
          }}
        }}
    """)
    command = [find("nginx", "nginx-light"), "-e", str(folder / "error.log"), "-c", str(configuration)]
    with _running(command, port, core) as master:
        yield Server(port, _only_child(master))


@contextmanager
def redis(scratch: Path, core: int) -> Iterator[Server]:
    """Redis without persistence, `hot` and a million keys in it."""
    folder = scratch / "redis"
    folder.mkdir()
    port = free_port()
    command = [find("redis-server", "redis-server"), "--port", str(port), "--bind", HOST, "--save", ""]
    with _running([*command, "--appendonly", "no", "--dir", str(folder)], port, core) as pid:
        yield Server(port, pid)


def fill_redis(server: Server, keys: int) -> None:
    """Put `keys` values of 100 bytes, named as `redis-benchmark -r` names them, and `hot`."""
    pipe = subprocess.Popen(
        [find("redis-cli", "redis-tools"), "-p", str(server.port), "--pipe"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    assert pipe.stdin
    value = "v" * 100
    for name in ("hot", *(f"key:{number:012}" for number in range(keys))):
        pipe.stdin.write(f"*3\r\n$3\r\nSET\r\n${len(name)}\r\n{name}\r\n$100\r\n{value}\r\n")
    pipe.stdin.close()
    if pipe.wait():
        raise KvnetError("redis can't be filled")


@contextmanager
def etcd(scratch: Path, core: int) -> Iterator[Server]:
    """One etcd, `hot` in it."""
    port, peers = free_port(), free_port()
    urls = ["--listen-client-urls", f"http://{HOST}:{port}", "--advertise-client-urls", f"http://{HOST}:{port}"]
    other = ["--listen-peer-urls", f"http://{HOST}:{peers}", "--log-level", "error"]
    command = [find("etcd", "etcd-server"), "--data-dir", str(scratch / "etcd"), *urls, *other]
    with _running(command, port, core) as pid:
        body = json.dumps(
            {"key": base64.b64encode(b"hot").decode(), "value": base64.b64encode(b"v" * 100).decode()}
        )
        deadline = time.monotonic() + START_S
        while True:
            try:
                asked = urllib.request.Request(f"http://{HOST}:{port}/v3/kv/put", data=body.encode())
                urllib.request.urlopen(asked, timeout=5).close()  # noqa: S310 - our own address
                break
            except OSError as error:
                if time.monotonic() > deadline:
                    raise KvnetError(f"etcd doesn't take a key: {error}") from error
                time.sleep(0.1)
        yield Server(port, pid)


@contextmanager
def aiohttp_alone(core: int) -> Iterator[Server]:
    port = free_port()
    command = [sys.executable, "-m", "bench._support.reads.aiohttp_alone", str(port)]
    with _running(command, port, core) as pid:
        yield Server(port, pid)


@contextmanager
def _running(command: Sequence[str], port: int, core: int) -> Iterator[int]:
    """Run a server until the context ends; it begins when the port answers."""
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),  # noqa: PLW1509 - this program has no threads yet
    )
    try:
        deadline = time.monotonic() + START_S
        while True:
            with suppress(OSError), socket.create_connection((HOST, port), timeout=1):
                break
            if process.poll() is not None or time.monotonic() > deadline:
                raise KvnetError(f"{Path(command[0]).name} doesn't start")
            time.sleep(0.05)
        yield process.pid
    finally:
        process.terminate()
        process.wait()


def _only_child(pid: int) -> int:
    """Return the worker of a master process."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        if len(children) == 1:
            return int(children[0])
        time.sleep(0.05)
    raise KvnetError("nginx has no worker")
