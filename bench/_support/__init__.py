"""What several of the programs need: networks, load, the monitor's word, and where a result comes from."""
