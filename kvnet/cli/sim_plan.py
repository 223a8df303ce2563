"""`kvnet sim --plan`: what a network will need at some load, and what breaks first."""

from __future__ import annotations

import json
import math
from typing import Any, Final

import typer
from msgspec import to_builtins
from rich.text import Text

from kvnet import __version__
from kvnet.cli.advance import advance, span
from kvnet.cli.output import print_report
from kvnet.cli.sim_measure import BOUND_BROKEN, figures, heading, milliseconds
from kvnet.simulator.plan import COMMIT_WRITES_PER_S, Break, Plan, plan
from kvnet.topology.schema import Topology
from kvnet.topology.wan import Tcp

EFFORT_S: Final = 120.0
LOSSY_CURE: Final = (
    "less loss, or shorter links: one that loses packets carries less the longer it is; or smaller values."
)


def plan_one(
    network: Topology,
    rate: float,
    sizes: str,
    *,
    link_mbps: float | None,
    uplink_mbps: float | None,
    tcp: Tcp,
    seed: int,
    effort_s: float = EFFORT_S,
    json_: bool = False,
) -> int:
    """Plan a network and print it; return the exit code."""
    with advance() as teller:
        planned = plan(
            network,
            rate,
            sizes,
            link_mbps=link_mbps,
            uplink_mbps=uplink_mbps,
            tcp=tcp,
            seed=seed,
            effort_s=effort_s,
            progress=teller.tell,
        )
    if json_:
        typer.echo(json.dumps(document(network, planned)))
    else:
        print_report(*told(network, planned))
    return BOUND_BROKEN if planned.steps[0].broke else 0


def document(network: Topology, planned: Plan) -> dict[str, Any]:
    """Return what `--json` prints: all fields, null for what never came, and the sentences."""
    first, cure = _first(network, planned)
    values: dict[str, Any] = to_builtins(planned)
    finite = {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in values.items()
    }
    return {"kvnet": __version__} | finite | {"verdict": verdict(network, planned), "first": first, "cure": cure}


def told(network: Topology, planned: Plan) -> list[Any]:
    """Return what is printed: the verdict, the figures, what breaks first, what is left out."""
    holds = not planned.steps[0].broke
    first, cure = _first(network, planned)
    parts: list[Any] = [
        Text(verdict(network, planned), style="bold green" if holds else "bold red"),
        Text(f"{heading(network)}; {_lines(planned)}; seed {planned.seed}", style="dim"),
        Text(),
        figures(_rows(network, planned)),
        Text(),
        Text("What breaks first", style="bold"),
        Text(f"  {first}"),
    ]
    if cure:
        parts.append(Text(f"  Cure: {cure}"))
    parts += [
        Text(f"  Tried: {_tried(planned)}", style="dim"),
        Text(),
        Text("What this leaves out", style="bold"),
        Text(
            "  Processors and memory, the time of an fsync, reads and their clients, other traffic on the lines."
        ),
        Text(
            f"  Assumed: the coordinator commits {COMMIT_WRITES_PER_S:,.0f} writes a second (11 µs an entry: "
            "bench/README.md), each connection has a speed of its own, nobody fails."
        ),
    ]
    return parts


def verdict(network: Topology, planned: Plan) -> str:
    """Return in a sentence whether the network stands the load."""
    load = f"{_rate(planned.rate)} writes a second of {_sizes(planned)} to {planned.pops:,} PoPs"
    broke = planned.steps[0].broke
    if not broke:
        return (
            f"HOLDS: {load} are everywhere after {milliseconds(planned.converge_p99_ms)} (p99), "
            f"within {span(planned.bound_ms / 1000)}"
        )
    if planned.late:
        how = f"{planned.late:,} of {planned.writes:,} weren't everywhere within {span(planned.bound_ms / 1000)}"
    elif "link" in broke:
        how = "links carry no more"
    elif "uplink" in broke:
        how = f"{_place(network, planned.coordinator_bps, planned)} sends more than its uplink takes"
    else:
        how = f"PoPs fall behind without end, {milliseconds(planned.steps[0].behind_ms)} so far"
    return f"BREAKS: {load}: {how}"


def _place(network: Topology, coordinator_bps: float, planned: Plan) -> str:
    at = "coordinator" if coordinator_bps > planned.relay_bps else planned.busiest_relay
    return _named(network, at)


def _rows(network: Topology, planned: Plan) -> list[tuple[str, str]]:
    times = (
        ("p50", planned.converge_p50_ms),
        ("p99", planned.converge_p99_ms),
        ("max", planned.converge_max_ms),
    )
    children = "child" if planned.relay_children == 1 else "children"
    percentiles = "   ".join(f"{name} {milliseconds(value)}" for name, value in times)
    floor = f"against the floor of {milliseconds(planned.floor_ms)}"
    most = f"most: {_named(network, planned.received_most)}, {bits(planned.received_most_bps)}"
    relay = f"{_named(network, planned.busiest_relay)}, {planned.relay_children} {children}"
    waited = "nothing, ever"
    if planned.unsent_bytes_max:
        waited = f"{_bytes(planned.unsent_bytes_max)}, on {_link(network, planned.unsent_link)}"
    return [
        ("everywhere after", percentiles),
        ("stretch", f"p50 {_ratio(planned.stretch_p50)}   p99 {_ratio(planned.stretch_p99)}, {floor}"),
        ("a link carries", f"{bits(planned.link_median_bps)} in the median, of those that lead to a child"),
        ("busiest link", f"{bits(planned.busiest_link_bps)}, {_link(network, planned.busiest_link)}"),
        ("a PoP receives", f"{bits(planned.received_median_bps)} in the median; {most}"),
        ("coordinator sends", f"{bits(planned.coordinator_bps)} to {planned.coordinator_children} children"),
        ("busiest relay", f"{relay}, {bits(planned.relay_bps)}"),
        ("most unsent on a link", waited),
        ("not frames", f"{100 * planned.control_share:.1f} % of the bytes: control messages and headers"),
        ("redundancy", f"{planned.redundancy:.2f}, bytes received ÷ bytes needed"),
        ("frames", f"{planned.frames_per_s:,.4g} a second, {planned.frame_bytes_per_write:,.0f} bytes a write"),
        ("coordinator's journal", f"{_bytes(planned.journal_bytes_per_day)} a day, {_kept(network)}"),
        ("an edge's journal", f"{planned.edge_journal_mib:,} MiB reach back {span(planned.edge_tail_s)}"),
    ]


def _kept(network: Topology) -> str:
    storage = network.storage
    at_most = _bytes(storage.coordinator_journal_mib * 1024 * 1024)
    return f"kept for {storage.coordinator_journal_hours} h, {at_most} at most"


def _first(network: Topology, planned: Plan) -> tuple[str, str]:
    """Return what breaks first, and what helps."""
    breaks = planned.breaks
    if breaks is None:
        return _nothing(planned), ""
    holds = "" if planned.holds_rate is None else f", holds at {_rate(planned.holds_rate)}"
    at = f"at {_rate(breaks.rate)} writes a second{holds}"
    match breaks.kind:
        case "link":
            return f"{_full_links(network, planned, breaks)} {at}.", _cure_of_links(planned)
        case "uplink":
            node = breaks.nodes[0]
            sends = f"sends {bits(breaks.measured)} of the {bits(breaks.allowed)} that its uplink takes"
            knob = (
                "coordinator_links" if node == "coordinator" else f"children_max ({network.timers.children_max})"
            )
            return (
                f"The uplink of {_named(network, node)} {at}: it {sends}.",
                f"a faster uplink, smaller values, or a lower {knob}, for a deeper tree.",
            )
        case "bound":
            how = f"{milliseconds(breaks.measured)} behind"
            if breaks.measured <= breaks.allowed:
                how += " and falling back further"
            where = f"beyond {_link(network, breaks.nodes)} PoPs are {how}"
            return (
                f"The bound of {span(breaks.allowed / 1000)} {at}: {where}.",
                LOSSY_CURE if planned.loss else "more bandwidth, or a smaller network.",
            )
        case "commit":
            held = f"the network holds at {_rate(planned.holds_rate or planned.rate)}"
            return (
                f"The coordinator's group commit, at about {_rate(breaks.rate)} writes a second; {held}.",
                "a faster processor and disk at the coordinator, or several networks.",
            )


def _nothing(planned: Plan) -> str:
    held = f"Nothing up to {_rate(planned.holds_rate or planned.rate)} writes a second"
    match planned.ended:
        case "volume":
            return f"{held}, beyond which the bytes are too many to be simulated."
        case "effort":
            return f"{held}; trying more would take longer than --effort allows."
        case _:
            return f"{held}; that was the last of {len(planned.steps)} trials."


def _full_links(network: Topology, planned: Plan, breaks: Break) -> str:
    full, carrying = breaks.links
    speed = "" if planned.link_mbps is None else f" of {planned.link_mbps:g} Mbit/s"
    if full == 1:
        return f"The link{speed} {_link(network, breaks.nodes)} is saturated"
    return (
        f"{full:,} of the {carrying:,} links{speed} that carry frames are saturated, "
        f"first {_link(network, breaks.nodes)},"
    )


def _cure_of_links(planned: Plan) -> str:
    if planned.loss:
        return LOSSY_CURE
    return (
        "more bandwidth per connection, or smaller values. Another tree won't do: each link carries every write."
    )


def _tried(planned: Plan) -> str:
    steps = ", ".join(f"{_rate(step.rate)} {'broke' if step.broke else 'held'}" for step in planned.steps)
    return f"{steps}; {_ending(planned)}"


def _ending(planned: Plan) -> str:
    match planned.ended:
        case "found":
            return "told apart to 10 %."
        case "volume":
            return "more bytes aren't simulated."
        case "effort":
            return "--effort is used up."
        case "trials":
            return "no further trial."


def _lines(planned: Plan) -> str:
    links = "no limit on links" if planned.link_mbps is None else f"{planned.link_mbps:g} Mbit/s a connection"
    return links if planned.uplink_mbps is None else f"{links}, {planned.uplink_mbps:g} Mbit/s a node's uplink"


def _sizes(planned: Plan) -> str:
    if planned.sizes.strip().isdigit():
        return f"{planned.size_mean:,.0f} bytes"
    return f"{planned.sizes.strip()} bytes ({planned.size_mean:,.0f} in the mean)"


def _named(network: Topology, node: str) -> str:
    if node == "coordinator":
        return f"the coordinator in {network.pop_of(node).city}"
    return f"{network.pop(node).city} ({node})"


def _link(network: Topology, ends: tuple[str, ...]) -> str:
    return " → ".join(_named(network, node) for node in ends)


def _ratio(value: float) -> str:
    return f"{value:.2f}" if math.isfinite(value) else "none"


def _rate(rate: float) -> str:
    return f"{rate:.3g}" if rate < 100 else f"{float(f'{rate:.3g}'):,.0f}"


def bits(per_second: float) -> str:
    """Return a speed with its unit."""
    for unit, size in (("Gbit/s", 1e9), ("Mbit/s", 1e6)):
        if per_second >= size:
            return f"{per_second / size:.3g} {unit}"
    return f"{per_second / 1e3:.3g} kbit/s"


def _bytes(count: float) -> str:
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count:.0f} bytes"
