"""The protocol: no sockets, tasks, clocks, files or randomness of its own (events in, effects out)."""
