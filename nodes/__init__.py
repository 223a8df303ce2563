"""The processes: each wires parts of kvnet together and nothing else."""
