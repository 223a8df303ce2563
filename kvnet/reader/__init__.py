"""An edge's replica, read by another process of its host: `kvnet.open_replica`.

    with kvnet.open_replica(".kvnet/fra") as replica:
        sessions = replica.namespace("sessions")
        theme = sessions.get("theme")

Here lives the reading of LMDB beside the node that writes it, and of the page by which that node tells when to
look again. It speaks to nobody and writes nothing. A node's own reads are in storage/.
"""

from __future__ import annotations

from kvnet.reader.namespace import ReplicaNamespace
from kvnet.reader.replica import Replica, open_replica

__all__ = ["Replica", "ReplicaNamespace", "open_replica"]
