"""The kinds of value a topology file may hold: their range, and what to write when one is wrong.

`write` ends every complaint about such a field, so it says what belongs there and in which unit.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from msgspec import Meta

COORDINATOR: Final = "coordinator"
MONITOR: Final = "monitor"
PORT_MIN: Final = 1024
PORT_MAX: Final = 32_767
"""The last port before those that the kernel hands to outgoing connections."""
FIRST_POP_OFFSET: Final = 10
"""PoP i listens on the base port + 10 + i; the coordinator on the base, the monitor one above."""
READERS_MAX: Final = 32
"""Readers of one edge: what they hold open is a part of what its replica has room for, 510 transactions."""
CODE_LENGTH_MAX: Final = 31
CITY_LENGTH_MAX: Final = 64

Region = Literal["africa", "asia", "europe", "latin-america", "middle-east", "north-america", "oceania"]
WanProfile = Literal["internet", "backbone", "none", "matrix"]
LimitsProfile = Literal["workers-kv-2018", "workers-kv"]
EdgeDurability = Literal["none", "commit"]

Name = Annotated[
    str,
    Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$", extra={"write": "a short name without spaces"}),
]
Code = Annotated[
    str,
    Meta(
        pattern=rf"^[a-z][a-z0-9-]{{1,{CODE_LENGTH_MAX - 1}}}$",
        extra={"write": "a short lower-case code, such as the airport's: fra"},
    ),
]
City = Annotated[str, Meta(min_length=1, max_length=CITY_LENGTH_MAX, extra={"write": "the city's name"})]
Country = Annotated[
    str, Meta(pattern=r"^[A-Z]{2}$", extra={"write": "the two capital letters of ISO 3166, such as DE"})
]
Latitude = Annotated[float, Meta(ge=-90, le=90, extra={"write": "degrees north"})]
Longitude = Annotated[float, Meta(ge=-180, le=180, extra={"write": "degrees east"})]
Url = Annotated[
    str,
    Meta(
        pattern=r"^https?://[^/\s?#@]+$",
        extra={"write": "scheme, host and port without a path, such as http://10.0.0.7:21000"},
    ),
]
Host = Annotated[
    str, Meta(pattern=r"^[^/\s]+$", extra={"write": "an address of this host, such as 127.0.0.1 or 0.0.0.0"})
]
Port = Annotated[int, Meta(ge=PORT_MIN, le=PORT_MAX, extra={"write": "the first of a block of free ports"})]
Fraction = Annotated[
    float, Meta(ge=0, lt=1, extra={"write": "the fraction of packets lost, such as 0.05 for 5 %"})
]
Sigma = Annotated[float, Meta(ge=0, le=2, extra={"write": "the spread as a fraction of the delay, such as 0.05"})]
Megabits = Annotated[float, Meta(gt=0, extra={"write": "megabits per second, or null for no limit"})]
RoundTrip = Annotated[float, Meta(ge=0, le=60_000, extra={"write": "the round trip in milliseconds"})]
ExtraDelay = Annotated[float, Meta(ge=0, le=600_000, extra={"write": "milliseconds added one way"})]
Gibibytes = Annotated[int, Meta(ge=1, le=65_536, extra={"write": "whole GiB of address space"})]
Mebibytes = Annotated[int, Meta(ge=1, le=1_048_576, extra={"write": "whole MiB"})]
Hours = Annotated[int, Meta(ge=1, le=87_600, extra={"write": "whole hours"})]
Readers = Annotated[
    int,
    Meta(ge=0, le=READERS_MAX, extra={"write": "how many processes answer beside each edge, or 0 for none"}),
]
Removals = Annotated[int, Meta(ge=0, le=2_000, extra={"write": "records a second, or 0 to remove none"})]
Limit = Annotated[int, Meta(ge=0, extra={"write": "a whole number"})]
