"""What the example programs have in common: a network's REST API, its Workers, and when each PoP saw a change."""
