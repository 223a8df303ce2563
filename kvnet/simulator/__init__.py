"""Many nodes of the same protocol code in virtual time: world, network, disk. Same seed, same trace."""
