"""What may break in a world, as values that travel as JSON; who breaks it is breaker.py."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, get_args

import msgspec
from msgspec import Meta, Struct

from kvnet.errors import ConfigError
from kvnet.simulator.desk import CrashPoint

Time = Annotated[float, Meta(ge=0, le=86_400_000)]
Share = Annotated[float, Meta(ge=0, lt=1)]
Names = Annotated[tuple[str, ...], Meta(min_length=1)]
"""Nodes, or regions where the fault is one of the network."""


class Fault(Struct, frozen=True, kw_only=True, tag_field="fault", forbid_unknown_fields=True):
    """One thing that breaks; times in milliseconds since the schedule began."""

    at_ms: Time
    lasts_ms: Time = 0.0
    """0 for what happens in an instant."""


class Crash(Fault, frozen=True, kw_only=True, tag="crash"):
    """Nodes stop, and start again at the end, all at once."""

    nodes: Names
    silent: bool = False
    """The machine is gone: connections die only of what nobody acknowledges."""
    power: bool = False
    """What the disk has not synced may be lost."""
    wiped: bool = False
    """They come back with empty disks."""
    disk_from_ms: Time | None = None
    """They come back with the disks they had then."""


class CrashInCommit(Fault, frozen=True, kw_only=True, tag="crash_in_commit"):
    """The coordinator stops in its next commit, at this point, and starts again at the end."""

    point: CrashPoint


class Pause(Fault, frozen=True, kw_only=True, tag="pause"):
    """Processes stand still, as in a garbage collection or a frozen virtual machine; their sockets live."""

    nodes: Names


class Slow(Fault, frozen=True, kw_only=True, tag="slow"):
    """Processes take this long over every event."""

    nodes: Names
    cpu_ms: Annotated[float, Meta(gt=0, le=1000)]


class FullDisk(Fault, frozen=True, kw_only=True, tag="full_disk"):
    """Nothing can be written."""

    nodes: Names


class LyingDisk(Fault, frozen=True, kw_only=True, tag="lying_disk"):
    """fsync returns and has done nothing; at the end the power fails, and what it should have kept is lost."""

    nodes: Names


class FlippedBit(Fault, frozen=True, kw_only=True, tag="flipped_bit"):
    """A record on edges' disks isn't what was written any more; a read or a verification finds it at the end."""

    nodes: Names


class Alter(Fault, frozen=True, kw_only=True, tag="alter"):
    """Pages and chunks on their way are changed: a bit, which their checksum tells, or a record is left out."""

    pages: Share
    chunks: Share = 0.0
    forged: bool = False
    """Checksums are made to fit, as of a donor that has decayed."""


class SlowDisk(Fault, frozen=True, kw_only=True, tag="slow_disk"):
    """The coordinator's fsync takes between these times."""

    least_ms: Annotated[float, Meta(ge=0, le=10_000)]
    most_ms: Annotated[float, Meta(ge=0, le=10_000)]


class Clock(Fault, frozen=True, kw_only=True, tag="clock"):
    """Wall clocks are set by this much, and all clocks run faster or slower; the end sets the wall back."""

    nodes: Names
    step_ms: Annotated[float, Meta(ge=-86_400_000, le=86_400_000)] = 0.0
    drift_ppm: Annotated[float, Meta(ge=-1000, le=1000)] = 0.0


class Twin(Fault, frozen=True, kw_only=True, tag="twin"):
    """A second process runs under the node's name, on a copy of its disk."""

    node: str


class Partition(Fault, frozen=True, kw_only=True, tag="cut"):
    """Nothing gets from the senders to the receivers (everybody else by default), nor back unless `one_way`."""

    senders: Names
    receivers: tuple[str, ...] = ()
    one_way: bool = False
    flapping_ms: Annotated[float, Meta(ge=100)] | None = None
    """Closed and open in turn for this long."""


class Spike(Fault, frozen=True, kw_only=True, tag="spike"):
    """One way takes longer."""

    sender: str
    receiver: str
    extra_ms: Annotated[float, Meta(gt=0, le=10_000)]


class Burst(Fault, frozen=True, kw_only=True, tag="burst"):
    """One way loses packets in bursts: Gilbert's and Elliott's chain of a good and a bad state, in time."""

    sender: str
    receiver: str
    loss: Share
    """In the bad state; the good one has the network's own."""
    bad_ms: Annotated[float, Meta(gt=0)]
    good_ms: Annotated[float, Meta(gt=0)]
    """How long the states last in the mean."""


class Loss(Fault, frozen=True, kw_only=True, tag="loss"):
    """Every link loses this fraction of its packets."""

    loss: Share


class Bandwidth(Fault, frozen=True, kw_only=True, tag="bandwidth"):
    """Every connection and direction carries no more than this, of what is sent from then on."""

    mbps: Annotated[float, Meta(ge=0.01, le=100_000)]


class HangUp(Fault, frozen=True, kw_only=True, tag="hang_up"):
    """The connection between two nodes dies."""

    a: str
    b: str


class Tamper(Fault, frozen=True, kw_only=True, tag="tamper"):
    """Single messages are lost, said twice, late, said again much later, or changed: worse than TCP can be."""

    drop: Share = 0.0
    duplicate: Share = 0.0
    reorder: Share = 0.0
    replay: Share = 0.0
    corrupt: Share = 0.0
    replay_after_ms: tuple[Time, Time] = (1000.0, 10_000.0)


AnyFault = (
    Crash
    | CrashInCommit
    | Pause
    | Slow
    | FullDisk
    | LyingDisk
    | FlippedBit
    | Alter
    | SlowDisk
    | Clock
    | Twin
    | Partition
    | Spike
    | Burst
    | Loss
    | Bandwidth
    | HangUp
    | Tamper
)


def read_schedule(path: Path) -> list[AnyFault]:
    """Read a schedule from a JSON file, a list of faults.

    Raises:
        ConfigError: unreadable, or not a schedule; names place and cure.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=list[AnyFault])
    except OSError as error:
        raise ConfigError(
            f"the fault schedule {path} can't be read ({error.strerror}): name a JSON file that lists faults"
        ) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not a schedule of faults: {error}; {_cure(path, str(error))}") from None


def _cure(path: Path, problem: str) -> str:
    """Return what to write instead."""
    kinds = {str(kind.__struct_config__.tag): kind for kind in get_args(AnyFault)}
    try:
        index = int(problem.partition("$[")[2].partition("]")[0])
        fault = msgspec.json.decode(path.read_bytes())[index]
        kind = kinds.get(fault.get("fault"))
    except (ValueError, IndexError, TypeError, AttributeError, KeyError):  # a DecodeError is a ValueError
        return 'write a list such as [{"fault": "crash", "at_ms": 1000, "lasts_ms": 5000, "nodes": ["nrt"]}]'
    if kind is None:
        return f"the faults are {', '.join(kinds)}"
    if "enum" in problem:
        return f"the points are {', '.join(CrashPoint)}"
    return f"the fields of {fault['fault']} are {', '.join(kind.__struct_fields__)}"


def describe(fault: AnyFault) -> str:
    """Return a fault in one line."""
    fields: dict[str, Any] = {
        name: value
        for name, value in msgspec.to_builtins(fault).items()
        if name not in {"at_ms", "fault"} and value not in (False, None, 0.0, [], ())
    }
    words = [
        f"{name}={','.join(map(str, v)) if isinstance(v, (list, tuple)) else v}" for name, v in fields.items()
    ]
    return f"{fault.__struct_config__.tag} {' '.join(words)}"
