"""Damage done to a replica whose node doesn't run."""

from __future__ import annotations

import lmdb

from tests.support.network import Network


def flip_value(network: Network, pop: str, value: bytes) -> int:
    """Change a bit of the record with this value at a node that doesn't run; return how many have it."""
    [file] = (network.folder.node_folder(pop) / "store").glob("replica-*/data.mdb")
    environment = lmdb.Environment(str(file.parent), max_dbs=20)
    records = environment.open_db(b"records", create=False)
    flipped = 0
    with environment.begin(records, write=True) as txn, txn.cursor() as cursor:
        for key, stored in cursor:
            if value in stored:
                at = stored.index(value)
                cursor.put(key, stored[:at] + bytes([stored[at] ^ 1]) + stored[at + 1 :])
                flipped += 1
    environment.close()
    return flipped
