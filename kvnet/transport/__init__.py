"""How nodes reach each other: links and their handshake, the WAN model on them, signed requests, stamps feeds.

Sockets live here; what is said over them is decided in `core`.
"""
