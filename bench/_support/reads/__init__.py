"""What bench.reads measures beside an edge, and what it asks them all with."""
