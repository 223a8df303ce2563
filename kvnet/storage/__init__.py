"""LMDB on one node's disk: the replica (layered keys, records), the journal, and the environment they share.

Imported from outside: `store.Store` and what its methods return. Everything else here is how it does it.
"""
