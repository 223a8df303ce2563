"""The KV binding of real Workers: one workerd, and in it the same Worker for each namespace and node."""

from __future__ import annotations

import json
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Self

from tests.conformance.places import Place

SCRIPT: Final = Path(__file__).parent / "clients" / "binding.mjs"
START_S: Final = 30.0
UNDEFINED: Final = {"$undefined": True}


class Thrown(Exception):
    """What the Worker caught."""

    def __init__(self, error: Mapping[str, str]) -> None:
        super().__init__(f"{error['name']}: {error['message']}")
        self.name = error["name"]
        self.message = error["message"]


class Binding:
    """One Worker's binding, whose calls are made within workerd."""

    def __init__(self, url: str, place: Place, namespace: str) -> None:
        self.url = url
        self.place = place
        self.namespace = namespace

    def call(self, call: str, *given: Any) -> Any:
        """Return what the call resolved to.

        Raises:
            Thrown: it rejected, or threw.
        """
        body = json.dumps({"call": call, "given": given}).encode()
        with urllib.request.urlopen(urllib.request.Request(self.url, data=body), timeout=60) as answer:
            told = json.loads(answer.read())
        if "error" in told:
            raise Thrown(told["error"])
        return told["result"]


class Runtime:
    """A workerd that is told of one Worker after another; use it as a context."""

    def __init__(self, program: Path, folder: Path) -> None:
        self._program = program
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def serve(self, bound: Mapping[str, tuple[Place, str]]) -> dict[str, Binding]:
        """Run a Worker for each name, bound to that namespace at that node."""
        services, sockets, bindings = [], [], {}
        (self._folder / SCRIPT.name).write_bytes(SCRIPT.read_bytes())
        for name, (place, namespace) in bound.items():
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                port = probe.getsockname()[1]
            services.append(_service(name, place, namespace))
            sockets.append(f'(name = "{name}", address = "127.0.0.1:{port}", http = (), service = "{name}")')
            bindings[name] = Binding(f"http://127.0.0.1:{port}/", place, namespace)
        members = f"services = [{', '.join(services)}], sockets = [{', '.join(sockets)}]"
        config = self._folder / "config.capnp"
        config.write_text(
            f'using Workerd = import "/workerd/workerd.capnp";\nconst config :Workerd.Config = ({members});\n'
        )
        self._process = subprocess.Popen([self._program, "serve", config], stdin=subprocess.DEVNULL)
        deadline = time.monotonic() + START_S
        for binding in bindings.values():
            while True:
                try:
                    binding.call("get", "k")
                    break
                except urllib.error.URLError:
                    assert self._process.poll() is None, "workerd ended"
                    assert time.monotonic() < deadline, "workerd doesn't listen"
                    time.sleep(0.05)
        return bindings


def _service(name: str, place: Place, namespace: str) -> str:
    headers = {"KV-Namespace": namespace, "Authorization": f"Bearer {place.token}"}
    injected = ", ".join(f'(name = "{header}", value = "{value}")' for header, value in headers.items())
    address = place.url.removeprefix("http://")
    return (
        f'(name = "{name}", worker = (compatibilityDate = "2026-11-01", '
        f'modules = [(name = "main", esModule = embed "{SCRIPT.name}")], '
        f'bindings = [(name = "KV", kvNamespace = "{name}-kv")])), '
        f'(name = "{name}-kv", external = (address = "{address}", http = (injectRequestHeaders = [{injected}])))'
    )
