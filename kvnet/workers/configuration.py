"""The runtime's configuration: workerd's Cap'n Proto text, one service and one socket for each PoP."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from yarl import URL

from kvnet.client.directory import PlacedEdge
from kvnet.errors import ConfigError
from kvnet.workers.modules import Code
from kvnet.workers.preface import CF_HEADER, PLACE, PREFACE, module_preface, place_of, service_preface

OUTSIDE: Final = "outside"
"""The service that fetches from anywhere, this host's own ports too."""
HOST: Final = "127.0.0.1"
SCRIPT: Final = "script"

_ESCAPES: Final = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}


@dataclass(frozen=True, slots=True)
class Site:
    """One PoP where the Worker runs."""

    edge: PlacedEdge
    port: int
    """Where clients reach the Worker."""

    @property
    def code(self) -> str:
        return self.edge.code

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """One Worker, ready to be configured at any PoP."""

    code: Code
    compatibility_date: str
    compatibility_flags: Sequence[str] = ()
    variables: Mapping[str, Any] = field(default_factory=dict)
    namespaces: Mapping[str, str] = field(default_factory=dict)
    """Namespace ids by the name of the variable."""


def render(worker: Worker, sites: Sequence[Site], token: str) -> str:
    """Return the configuration; it holds `token`, and names its modules by their absolute paths.

    workerd reads it with `--import-path /`.

    Raises:
        ConfigError: a text in it can't be written as UTF-8.
    """
    services = [service for site in sites for service in _services(worker, site, token)]
    outside = '(name = %s, network = (allow = ["public", "private"], tlsOptions = (trustBrowserCas = true)))'
    services.append(outside % quoted(OUTSIDE))
    sockets = [
        f"(name = {quoted(site.code)}, address = {quoted(f'{HOST}:{site.port}')}, service = {quoted(site.code)}, "
        f"http = (cfBlobHeader = {quoted(CF_HEADER)}))"
        for site in sites
    ]
    return (
        'using Workerd = import "/workerd/workerd.capnp";\n\n'
        "const config :Workerd.Config = (\n"
        f"  services = {_listed(services)},\n"
        f"  sockets = {_listed(sockets)},\n"
        ");\n"
    )


def quoted(text: str) -> str:
    """Return `text` as Cap'n Proto writes it.

    Raises:
        ConfigError: it isn't Unicode.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ConfigError(f"{text!r} is not UTF-8: write it in UTF-8, as the runtime wants it") from None
    letters = (
        _ESCAPES.get(letter) or (letter if letter >= " " and letter != "\x7f" else f"\\x{ord(letter):02x}")
        for letter in text
    )
    return f'"{"".join(letters)}"'


def _services(worker: Worker, site: Site, token: str) -> list[str]:
    """Return the PoP's Worker, and for each namespace the edge that it reads."""
    modules = [f"(name = {quoted(PLACE)}, json = {quoted(json.dumps(place_of(site.edge), ensure_ascii=False))})"]
    bindings = [f"(name = {quoted(name)}, {_value(value)})" for name, value in worker.variables.items()] + [
        f"(name = {quoted(name)}, kvNamespace = {quoted(f'{site.code}/{name}')})" for name in worker.namespaces
    ]
    edges = [_edge(f"{site.code}/{name}", site.edge.url, id_, token) for name, id_ in worker.namespaces.items()]
    main = worker.code.modules[0]
    settings = [
        f"compatibilityDate = {quoted(worker.compatibility_date)}",
        f"compatibilityFlags = [{', '.join(map(quoted, worker.compatibility_flags))}]",
        f"globalOutbound = {quoted(OUTSIDE)}",
    ]
    if worker.code.listens:
        script = f"{site.code}/{SCRIPT}"
        return [
            _worker(
                site.code,
                [
                    f"modules = {_listed([_source(PREFACE, service_preface()), *modules], 4)}",
                    f"compatibilityDate = {quoted(worker.compatibility_date)}",
                    f'bindings = [(name = "WORKER", service = {quoted(script)})]',
                ],
            ),
            _worker(
                script,
                [
                    f"serviceWorkerScript = embed {quoted(str(main.path))}",
                    *settings,
                    f"bindings = {_listed(bindings, 4)}",
                ],
            ),
            *edges,
        ]
    modules = [
        _source(PREFACE, module_preface(main.name)),
        *modules,
        *(
            f"(name = {quoted(module.name)}, {module.kind} = embed {quoted(str(module.path))})"
            for module in worker.code.modules
        ),
    ]
    return [
        _worker(site.code, [f"modules = {_listed(modules, 4)}", *settings, f"bindings = {_listed(bindings, 4)}"]),
        *edges,
    ]


def _worker(name: str, settings: Sequence[str]) -> str:
    inner = "".join(f"      {setting},\n" for setting in settings)
    return f"(name = {quoted(name)}, worker = (\n{inner}    ))"


def _source(name: str, text: str) -> str:
    return f"(name = {quoted(name)}, esModule = {quoted(text)})"


def _value(value: Any) -> str:
    if isinstance(value, str):
        return f"text = {quoted(value)}"
    return f"json = {quoted(json.dumps(value, ensure_ascii=False, default=str))}"  # TOML has dates


def _edge(name: str, url: str, namespace_id: str, token: str) -> str:
    """Return a namespace at an edge, as a service that a KV binding asks."""
    address = URL(url)
    headers = ", ".join(
        f"(name = {quoted(header)}, value = {quoted(value)})"
        for header, value in (("KV-Namespace", namespace_id), ("Authorization", f"Bearer {token}"))
    )
    options = f"injectRequestHeaders = [{headers}]"
    spoken = f"http = ({options})"
    if address.scheme == "https":
        spoken = f"https = (options = ({options}), tlsOptions = (trustBrowserCas = true))"
    host = f"[{address.host}]" if ":" in (address.host or "") else address.host
    return f"(name = {quoted(name)}, external = (address = {quoted(f'{host}:{address.port}')}, {spoken}))"


def _listed(items: Sequence[str], indent: int = 2) -> str:
    """Return a list with an item on each line."""
    if not items:
        return "[]"
    margin = " " * (indent + 2)
    lines = "".join(f"{margin}{item},\n" for item in items)
    return f"[\n{lines}{' ' * indent}]"
