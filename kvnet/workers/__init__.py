"""Workers at the PoPs of a running network: their project read, their runtime configured, started and watched."""
