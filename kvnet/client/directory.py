"""The directory: which edges a network has, where they stand, and what lets a client in."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

from yarl import URL

from kvnet.errors import ConfigError
from kvnet.topology.geography import Place

CLUSTER_FILE: Final = "cluster.json"
API_BASE: Final = "/client/v4"


@dataclass(frozen=True, slots=True)
class Edge:
    """An edge node as a client knows it."""

    code: str
    """The PoP's code; the address itself where only addresses are known."""
    url: str
    """Address without a trailing slash and without `/client/v4`."""


@dataclass(frozen=True, slots=True)
class PlacedEdge(Edge):
    """An edge node whose place is known."""

    city: str
    country: str
    place: Place


@dataclass(frozen=True, slots=True, kw_only=True)
class Directory:
    """What a client must know before its first request."""

    account_id: str
    token: str
    edges: Sequence[Edge]
    """At least one."""

    @property
    def placed(self) -> list[PlacedEdge]:
        """The edges whose place is known: all of them, or none."""
        return [edge for edge in self.edges if isinstance(edge, PlacedEdge)]

    def only(self, code: str) -> Directory:
        """Return this directory with a single edge.

        Raises:
            ConfigError: no PoP has this code.
        """
        wanted = code.strip().lower()
        for edge in self.edges:
            if edge.code == wanted:
                return Directory(account_id=self.account_id, token=self.token, edges=[edge])
        close = get_close_matches(wanted, [edge.code for edge in self.edges], n=3, cutoff=0.5)
        cure = f"did you mean {' or '.join(close)}?" if close else "`kvnet ps` lists the PoPs of this network"
        raise ConfigError(f"this network has no PoP {code!r}: {cure}")


def read_cluster_file(path: Path) -> dict[str, Any]:
    """Return what the launcher wrote about its network.

    Raises:
        ConfigError: no network was started there, or the file can't be read.
    """
    try:
        cluster = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            f"there is no network in {path.parent}: start one with `kvnet up --detach`, "
            "or name its folder with --data (environment KVNET_DATA)"
        ) from None
    except OSError as error:
        raise ConfigError(f"{path} can't be read: {error.strerror}; let its owner run this command") from None
    except ValueError as error:
        raise ConfigError(f"{path} is not JSON ({error}): restart the network, which writes it anew") from None
    if not isinstance(cluster, dict):
        raise ConfigError(f"{path} holds no cluster: restart the network, which writes it anew")
    return cluster


def from_cluster(cluster: Mapping[str, Any], *, token: str | None, account_id: str | None) -> Directory:
    """Return the directory of a network whose `cluster.json` is known.

    The token is the given one, else the file's for writing, which is all that the client does.

    Raises:
        ConfigError: the network has no PoPs, or a field is missing.
    """
    try:
        edges = [
            PlacedEdge(code, _address(pop["url"]), pop["city"], pop["country"], (pop["lat"], pop["lon"]))
            for code, pop in cluster["pops"].items()
        ]
        found_account = str(account_id or cluster["account_id"])
        found_token = str(token or cluster["tokens"]["write"])
    except (KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{CLUSTER_FILE} lacks {error}: it belongs to another version of kvnet; restart the network"
        ) from None
    if not edges:
        raise ConfigError("this network has no PoPs: start it with at least one, `kvnet up --pops 1`")
    return Directory(account_id=found_account, token=found_token, edges=edges)


def from_urls(urls: Sequence[str], *, token: str | None, account_id: str | None) -> Directory:
    """Return the directory of a network of which only addresses are known.

    Raises:
        ConfigError: no address, one that isn't http, or no token or account.
    """
    if isinstance(urls, str) or not urls:
        raise ConfigError("urls must be a list of at least one address, such as ['http://127.0.0.1:21010']")
    if not token or not account_id:
        raise ConfigError("urls alone let nobody in: give token= and account_id= too, or data= instead of urls=")
    addresses = [_address(url) for url in urls]
    return Directory(
        account_id=account_id, token=token, edges=[Edge(address, address) for address in dict.fromkeys(addresses)]
    )


def _address(text: str) -> str:
    """Return an address as `Edge.url` has it; official clients write it with the API's base."""
    address = text.rstrip("/").removesuffix(API_BASE)
    try:
        url = URL(address)
        usable = url.scheme in {"http", "https"} and bool(url.host)
    except ValueError:
        usable = False
    if not usable:
        raise ConfigError(f"{text!r} is not the address of an edge: write http://host:port")
    return address
