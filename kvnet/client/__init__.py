"""The client: values of a network, read at the nearest edge that answers.

    async with kvnet.connect(data=".kvnet", near="Tokyo") as net:
        settings = net.namespace("settings")
        version = await settings.put("theme", b"dark")
        value = await settings.get("theme")

Here lives the choice of an edge, the fail-over between edges, and namespaces as objects. It speaks the REST API
that any other client of Workers KV speaks, and needs nothing of a node but its address.
"""

from __future__ import annotations

from kvnet.client.answers import FoundPair, ListedKey, NamespaceInfo, NewPair, TokenInfo, Value
from kvnet.client.namespace import Namespace
from kvnet.client.network import Network, connect

__all__ = [
    "FoundPair",
    "ListedKey",
    "Namespace",
    "NamespaceInfo",
    "Network",
    "NewPair",
    "TokenInfo",
    "Value",
    "connect",
]
