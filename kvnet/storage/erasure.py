"""The records of deleted namespaces: invisible since the deletion's commit, erased in small pieces afterwards.

The queue (`erasing`) holds prefixes, first those of namespaces, then those of the layers found under them, so
that erasing needs no memory, whatever the keys look like, and goes on after a restart.
"""

from __future__ import annotations

import lmdb

from kvnet.storage import chunks
from kvnet.storage.chunks import ChunkDatabases
from kvnet.storage.keys import is_pointer, read_lone
from kvnet.storage.records import LARGE, read_replaced


def erase(txn: lmdb.Transaction[bytes], queue_db: lmdb._Database, chunk_dbs: ChunkDatabases, budget: int) -> bool:
    """Erase up to `budget` records and pointers; return whether the queue still holds something.

    `txn` must have `records` as its default database. A large value's record costs as much as it has chunks, which
    lose a reference each.
    """
    with txn.cursor(queue_db) as queue, txn.cursor() as records:
        while budget > 0 and queue.first():
            prefix = queue.key()
            found = records.set_range(prefix)
            while found and budget > 0 and (db_key := records.key()).startswith(prefix):
                held = records.value()
                stored = read_lone(held) if is_pointer(prefix, db_key) else held
                if stored is None:  # a layer
                    txn.put(held, b"", db=queue_db)
                elif stored[0] & LARGE:
                    budget -= chunks.refer(txn, chunk_dbs, read_replaced(b"", stored).large, -1)
                found = records.delete() and bool(records.key())
                budget -= 1
            if budget > 0:
                txn.delete(prefix, db=queue_db)
        return queue.first()
