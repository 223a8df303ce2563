"""The command line: one module per command; `main` hangs them together."""
