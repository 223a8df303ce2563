"""The catalogue as one value that is replaced whole: a reader on another thread never sees half a change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from kvnet.core.catalog import CatalogItem, Cluster, Member, Namespace, Token

Changes = Mapping[bytes, CatalogItem | None]
"""Catalogue records by key, None for a deleted one."""


@dataclass(frozen=True, slots=True)
class Catalogue:
    """What the records of the system namespace say."""

    items: Mapping[bytes, CatalogItem] = field(default_factory=dict)
    """By record key."""
    generation: int = 0
    """Grows with every change; what was derived from an older generation is derived again."""
    namespaces: Mapping[bytes, Namespace] = field(default_factory=dict)
    titles: Mapping[str, Namespace] = field(default_factory=dict)
    tokens: Mapping[bytes, Token] = field(default_factory=dict)
    """By the hash of the bearer token."""
    members: Mapping[str, Member] = field(default_factory=dict)
    cluster: Cluster | None = None

    def changed(self, changes: Changes) -> Catalogue:
        """Return the next generation; this one stays as it is."""
        items = {**self.items, **changes}
        kept = {key: item for key, item in items.items() if item is not None}
        namespaces = [item for item in kept.values() if isinstance(item, Namespace)]
        tokens = [item for item in kept.values() if isinstance(item, Token)]
        members = [item for item in kept.values() if isinstance(item, Member)]
        clusters = [item for item in kept.values() if isinstance(item, Cluster)]
        return Catalogue(
            items=MappingProxyType(kept),
            generation=self.generation + 1,
            namespaces=MappingProxyType({item.id: item for item in namespaces}),
            titles=MappingProxyType({item.title: item for item in namespaces}),
            tokens=MappingProxyType({item.hash: item for item in tokens}),
            members=MappingProxyType({item.code: item for item in members}),
            cluster=clusters[0] if clusters else None,
        )
