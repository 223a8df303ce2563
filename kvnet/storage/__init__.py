"""LMDB on one node's disk: the replica (layered keys, records), the journal, and the environment they share.

Imported by what runs in a node: `store.Store` and what its methods return. Everything else here is how it does it,
and what reader/ shares, which reads the same bytes from another process.
"""
