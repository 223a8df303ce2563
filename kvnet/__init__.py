"""kvnet: a replicated key-value store for a global network of points of presence."""

__version__ = "0.1.0"
