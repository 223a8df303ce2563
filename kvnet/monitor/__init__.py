"""The monitor: when had every PoP every write, and was the promised bound kept.

`arrivals` keeps what the feeds told, `judge` decides by it and by ground truth, `report` says it; they own no
clock, file or socket. `truth`, `feed`, `server` and `watch` connect them with the outside. Nothing here takes part
in replication: the monitor reads, and a network without it is the same network.
"""
