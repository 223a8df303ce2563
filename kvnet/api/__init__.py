"""What clients talk to: one HTTP port per node. Nothing here knows sockets of peers, gossip or LMDB."""
