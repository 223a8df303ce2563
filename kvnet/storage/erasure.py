"""The records of deleted namespaces: invisible since the deletion's commit, erased in small pieces afterwards.

The queue (`erasing`) holds prefixes, first those of namespaces, then those of the layers found under them, so
that erasing needs no memory, whatever the keys look like, and goes on after a restart.
"""

from __future__ import annotations

import lmdb

from kvnet.storage.keys import is_pointer


def erase(txn: lmdb.Transaction[bytes], queue_db: lmdb._Database, budget: int) -> bool:
    """Erase up to `budget` records and pointers; return whether the queue still holds something.

    `txn` must have `records` as its default database.
    """
    with txn.cursor(queue_db) as queue, txn.cursor() as records:
        while budget > 0 and queue.first():
            prefix = queue.key()
            found = records.set_range(prefix)
            while found and budget > 0 and (db_key := records.key()).startswith(prefix):
                if is_pointer(prefix, db_key):
                    txn.put(records.value(), b"", db=queue_db)
                found = records.delete() and bool(records.key())
                budget -= 1
            if budget > 0:
                txn.delete(prefix, db=queue_db)
        return queue.first()
