"""The client: values of a network, read at the nearest edge that answers.

    async with kvnet.connect(data=".kvnet", near="Tokyo") as net:
        settings = net.namespace("settings")
        version = await settings.put("theme", "dark")
        value = await settings.get("theme")

Here lives the choice of an edge, the fail-over between edges, what a session has seen, and namespaces as objects.
It speaks the REST API that any other client of Workers KV speaks, and needs nothing of a node but its address.
"""

from __future__ import annotations

from kvnet.client.answers import NamespaceInfo, NewPair, TokenInfo
from kvnet.client.candidates import Candidate
from kvnet.client.contents import ValueStream
from kvnet.client.namespace import Namespace
from kvnet.client.network import Network, NetworkSession, connect
from kvnet.client.receipt import Receipt
from kvnet.client.sync import SyncNamespace, SyncNetwork, SyncNetworkSession, connect_sync
from kvnet.client.trail import Call, trail
from kvnet.values import KeyPage, ListedKey, Value

__all__ = [
    "Call",
    "Candidate",
    "KeyPage",
    "ListedKey",
    "Namespace",
    "NamespaceInfo",
    "Network",
    "NetworkSession",
    "NewPair",
    "Receipt",
    "SyncNamespace",
    "SyncNetwork",
    "SyncNetworkSession",
    "TokenInfo",
    "Value",
    "ValueStream",
    "connect",
    "connect_sync",
    "trail",
]
