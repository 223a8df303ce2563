"""How whoever has the run folder asks a node that knows no token, since it has no replica yet."""

from __future__ import annotations

import os
from typing import Final

from kvnet.transport.handshake import START_ID_BYTES, Identity
from kvnet.transport.signing import HEADER, sign
from nodes.cluster import RunFolder
from nodes.wan_control import LAUNCHER

STATUS_PATH: Final = "/peer/v1/status"
"""As `/status`, for nodes of the cluster and its administrator."""


def signed_headers(folder: RunFolder, path: str) -> dict[str, str]:
    """Return the headers of a GET that a node of this network answers.

    Raises:
        ConfigError: the folder has no topology or no secret.
    """
    me = Identity(
        name=LAUNCHER,
        start_id=os.urandom(START_ID_BYTES),
        cluster_id=folder.topology().digest(),
        secret=folder.secret(),
    )
    return {HEADER: sign(me, "GET", path, b"")}
