"""What runs a node's protocol in a real process: the driver, waiting clients, forwarded writes, the server."""
