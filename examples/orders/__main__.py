"""Sells at a till, lets the Worker of one PoP carry the orders and that of another follow at once, and watches.

python -m examples.orders [--data DIR] [--poll-ms MS] [--json]
"""

from __future__ import annotations

import asyncio
import json
import secrets
from datetime import UTC, datetime, timedelta
from pathlib import Path

from examples.orders.stubs import Stubs
from examples.shared.network import Stage
from examples.shared.program import Options, run
from examples.shared.sightings import show, told, watch
from kvnet.workers.wrangler import from_config

PROJECT = Path(__file__).parent / "wrangler.jsonc"
ORDERS = 3


async def main(options: Options) -> dict[str, object]:
    """Return what each of the two Workers carried, what arrived, and when each PoP knew how far the first got."""
    addresses = from_config(options.project or PROJECT).variables
    async with (
        Stage(options.data, "orders", "SYNC") as stage,
        Stubs(addresses["POINT_OF_SALE"], addresses["DELIVERY"]) as stubs,
    ):
        now = datetime.now(UTC)
        for number in range(ORDERS):
            at = (now + timedelta(milliseconds=number)).isoformat(timespec="milliseconds")
            stubs.orders.append({"id": secrets.token_hex(4), "modifiedAt": at, "tea": "sencha"})
        newest = str(stubs.orders[-1]["modifiedAt"])
        pops = list(stage.urls)
        here, there = pops[0], pops[-1]
        carried: dict[str, list[str]] = {}

        async def sync(pop: str) -> None:
            status, text = await stage.fetch(pop, "/sync", method="POST")
            if status != 200:
                raise RuntimeError(f"the Worker at {pop} answered {status}: {text}")
            carried[pop] = json.loads(text)["carried"]

        async def knows(pop: str) -> bool:
            _, text = await stage.fetch(pop, "/modifiedAt")
            return text >= newest

        follower: list[asyncio.Task[None]] = []

        async def sync_here() -> None:
            await sync(here)
            follower.append(asyncio.create_task(sync(there)))  # at once, before it can know

        sightings = await watch(pops, knows, sync_here, poll_ms=options.poll_ms)
        await asyncio.gather(*follower)
        first, second = carried[here], carried[there]
        await sync(there)
        if not options.json:
            show(
                stage,
                f"{here} carries {len(first)} orders, then {there} looks",
                sightings,
                old="before",
                new="after",
            )
        return {
            "seen": told(sightings),
            "first": here,
            "carried_by_first": len(first),
            "second": there,
            "carried_again_by_second": len(second),
            "carried_when_all_is_known": len(carried[there]),
            "delivered": len(stubs.delivered),
            "sent": sum(stubs.times_sent.values()),
            "went_back": any(each.went_back for each in sightings),
        }


if __name__ == "__main__":
    run(main, __doc__)
