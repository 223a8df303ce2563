"""What may change about the WAN while a network runs: a value that travels as JSON to every node."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import cached_property
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from kvnet.errors import ConfigError
from kvnet.topology.fields import ExtraDelay, Fraction, Megabits, Sigma
from kvnet.topology.sections import WanConfig

Nodes = tuple[str, ...]


class Cut(Struct, frozen=True, dict=True):
    """Nothing that any of `senders` sends reaches any of `receivers`."""

    # dict=True gives the sets a place to be remembered in; every link asks, and a side may be thousands of nodes.

    senders: Nodes
    receivers: Nodes

    def holds(self, sender: str, receiver: str) -> bool:
        """Whether this cut is in the way from `sender` to `receiver`."""
        return sender in self._senders and receiver in self._receivers

    @cached_property
    def _senders(self) -> frozenset[str]:
        return frozenset(self.senders)

    @cached_property
    def _receivers(self) -> frozenset[str]:
        return frozenset(self.receivers)


class PairFault(Struct, frozen=True):
    """One direction between two nodes that is worse than distance makes it."""

    sender: str
    receiver: str
    extra_ms: ExtraDelay = 0.0
    """Milliseconds added to the one-way delay."""
    loss: Fraction | None = None
    """Fraction of packets lost here; None for the network's own."""


class WanState(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The disturbances in force; every change gives a new one."""

    version: int = 0
    """Counts the changes since the network was started, so that nobody puts an older state over a newer one."""
    loss: Fraction = 0.0
    """Fraction of packets lost on every link."""
    jitter_sigma: Sigma = 0.0
    """Spread of the lognormal jitter, as a fraction of the delay."""
    bandwidth_mbps: Megabits | None = None
    """Megabits per second of each connection and direction; None for no limit."""
    cuts: tuple[Cut, ...] = ()
    """Directions in which nothing arrives; they may overlap."""
    pairs: tuple[PairFault, ...] = ()
    """Single directions with faults of their own, at most one entry each."""

    @classmethod
    def undisturbed(cls, config: WanConfig) -> WanState:
        """Return the state a network starts in."""
        return cls(loss=config.loss, jitter_sigma=config.jitter_sigma, bandwidth_mbps=config.bandwidth_mbps)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> WanState:
        """Return the state that `to_dict` wrote.

        Raises:
            ConfigError: it is not one.
        """
        try:
            return msgspec.convert(values, cls)
        except msgspec.ValidationError as error:
            raise ConfigError(f"not a state of the WAN ({error}); write what `to_dict` gives") from None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        values: dict[str, Any] = msgspec.to_builtins(self)
        return values

    def is_cut(self, sender: str, receiver: str) -> bool:
        """Whether nothing gets from `sender` to `receiver`."""
        return any(cut.holds(sender, receiver) for cut in self.cuts)

    def fault(self, sender: str, receiver: str) -> PairFault | None:
        """Return the faults of this direction alone."""
        return next((pair for pair in self.pairs if (pair.sender, pair.receiver) == (sender, receiver)), None)

    def with_cut(self, senders: Nodes, receivers: Nodes) -> WanState:
        """Return the state with these directions cut as well."""
        if Cut(senders, receivers) in self.cuts:
            return self
        return replace(self, cuts=(*self.cuts, Cut(senders, receivers)))

    def without_cut(self, senders: Collection[str], receivers: Collection[str]) -> WanState:
        """Return the state with exactly these directions open again, whatever cut them."""
        senders, receivers = frozenset(senders), frozenset(receivers)
        kept: list[Cut] = []
        for cut in self.cuts:
            inside = tuple(node for node in cut.senders if node in senders)
            outside = tuple(node for node in cut.senders if node not in senders)
            still = tuple(node for node in cut.receivers if node not in receivers)
            if len(still) == len(cut.receivers) or not inside:
                kept.append(cut)
                continue
            kept += [Cut(outside, cut.receivers)] if outside else []
            kept += [Cut(inside, still)] if still else []
        return replace(self, cuts=tuple(kept))

    def with_pair(self, fault: PairFault) -> WanState:
        """Return the state with this direction's faults replaced; one without faults is forgotten."""
        others = tuple(
            pair for pair in self.pairs if (pair.sender, pair.receiver) != (fault.sender, fault.receiver)
        )
        bare = fault.extra_ms == 0 and fault.loss is None
        return replace(self, pairs=others if bare else (*others, fault))


def parse_loss(text: str) -> float:
    """Return the fraction that `0.2` and `20%` both mean.

    Raises:
        ConfigError: neither form.
    """
    digits = text.strip()
    try:
        return float(digits[:-1]) / 100 if digits.endswith("%") else float(digits)
    except ValueError:
        raise ConfigError(f"loss {text!r} is not a number: write a fraction such as 0.2, or 20%") from None
