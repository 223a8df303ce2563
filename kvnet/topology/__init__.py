"""The network as a file describes it: its PoPs and their places, and what distance does to a message.

Nothing here opens a socket or asks for the time; only `load` reads files.
"""
