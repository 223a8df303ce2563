"""What must fit together in a topology, beyond the range of each field."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from kvnet import limits as limits_profiles
from kvnet.errors import ConfigError
from kvnet.topology.fields import COORDINATOR, FIRST_POP_OFFSET, MONITOR, PORT_MAX, PORT_MIN
from kvnet.topology.suggest import unknown

if TYPE_CHECKING:
    from kvnet.topology.schema import Topology

Problem = tuple[str, str]
"""The path of the field, `pops[3].code`, and what is wrong with it and what to do."""


def problems(topology: Topology) -> Iterator[Problem]:
    """Yield every contradiction, the ones that others follow from first; none means the network can work."""
    yield from _codes(topology)
    yield from _addresses(topology)
    yield from _matrix(topology)
    yield from _limits(topology)
    yield from _timers(topology)


def _codes(topology: Topology) -> Iterator[Problem]:
    seen: dict[str, int] = {}
    for i, pop in enumerate(topology.pops):
        path = f"pops[{i}].code"
        if pop.code in {COORDINATOR, MONITOR}:
            yield path, f"{pop.code!r} is the name of another node; give the PoP a code of its own"
        if pop.code in seen:
            yield path, f"{pop.code!r} is already the code of pops[{seen[pop.code]}]; give each PoP its own"
        seen.setdefault(pop.code, i)
    if topology.coordinator.place not in seen:
        yield "coordinator.place", unknown("PoP", topology.coordinator.place, list(seen))


def _addresses(topology: Topology) -> Iterator[Problem]:
    highest = PORT_MAX - FIRST_POP_OFFSET - len(topology.pops) + 1
    if not PORT_MIN <= topology.listen.port_base <= highest:
        yield (
            "listen.port_base",
            f"{len(topology.pops)} PoPs don't fit from {topology.listen.port_base}; write {PORT_MIN} to {highest}",
        )
    urls = {"coordinator.url": topology.coordinator.url, "monitor.url": topology.monitor.url}
    urls |= {f"pops[{i}].url": pop.url for i, pop in enumerate(topology.pops)}
    nodes = zip(urls.items(), (COORDINATOR, MONITOR, *(pop.code for pop in topology.pops)), strict=True)
    owners: dict[str, str] = {}
    # Counted ports can't collide with each other; taking them first puts the blame on a url that is written.
    for (path, url), node in sorted(nodes, key=lambda item: item[0][1] is not None):
        address = (url or topology.url_of(node)).lower()
        if address in owners:
            yield path, f"{address} is already the address of {owners[address]}; give each node its own"
        owners[address] = node


def _matrix(topology: Topology) -> Iterator[Problem]:
    matrix = topology.wan.matrix
    if topology.wan.profile == "matrix" and matrix is None:
        yield "wan.matrix", "is missing, and the profile is `matrix`; write the round trips, or take `internet`"
    if matrix is None:
        return
    codes = [pop.code for pop in topology.pops]
    for sender, row in matrix.items():
        if sender not in codes:
            yield f"wan.matrix.{sender}", unknown("PoP", sender, codes)
        for receiver in row:
            if receiver not in codes:
                yield f"wan.matrix.{sender}.{receiver}", unknown("PoP", receiver, codes)
    if topology.wan.profile != "matrix":
        return
    for sender in codes:
        for receiver in codes:
            if sender != receiver and receiver not in matrix.get(sender, {}):
                yield (
                    f"wan.matrix.{sender}.{receiver}",
                    f"is missing; write the round trip from {sender} to {receiver} in milliseconds",
                )


def _limits(topology: Topology) -> Iterator[Problem]:
    base = limits_profiles.profile(topology.limits.profile)
    for name, value in topology.limits.overrides().items():
        try:
            limits_profiles.with_overrides(base, {name: value})
        except ConfigError as error:
            yield f"limits.{name}", str(error)


def _timers(topology: Topology) -> Iterator[Problem]:
    timers = topology.timers
    if timers.beacon_interval_busy_ms > timers.beacon_interval_ms:
        yield (
            "timers.beacon_interval_busy_ms",
            f"is above beacon_interval_ms; write {timers.beacon_interval_ms} or less",
        )
    late_ms = timers.late_intervals * timers.beacon_interval_ms
    if late_ms >= timers.bound_ms:
        yield (
            "timers.bound_ms",
            f"{timers.bound_ms} ends before a silent parent is noticed; write more than {late_ms:g}",
        )
    if timers.visibility_wait_ms >= timers.bound_ms:
        yield (
            "timers.visibility_wait_ms",
            f"{timers.visibility_wait_ms} is not below bound_ms; write less than {timers.bound_ms}",
        )
