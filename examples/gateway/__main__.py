"""Logs people in and out by REST, and watches which PoPs let them pass.

python -m examples.gateway [--data DIR] [--times N] [--poll-ms MS] [--json]
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Sequence
from functools import partial

from examples.shared.network import Stage
from examples.shared.program import Options, percentile, run
from examples.shared.sightings import Sighting, show, told, watch

LOGIN_S = 3600
REVOKE_AFTER_S = 1.1
"""A key takes one write a second: its login and its end are two."""


async def main(options: Options) -> dict[str, object]:
    """Return the sightings of a login and of its revocation, and the figures of all revocations."""
    async with Stage(options.data, "gateway", "TOKEN_STORE") as stage:
        tokens = [secrets.token_urlsafe(24) for _ in range(options.times)]
        pops = list(stage.urls)

        async def passes(token: str, pop: str) -> bool:
            status, _ = await stage.fetch(pop, headers={"Authorization": f"Bearer {token}"})
            if status not in {200, 401}:
                raise RuntimeError(f"the Worker at {pop} answered {status}")
            return status == 200

        async def refuses(token: str, pop: str) -> bool:
            return not await passes(token, pop)

        async def log_in(token: str) -> None:
            await stage.put(token, json.dumps({"name": "Ada"}), ttl_s=LOGIN_S)

        async def log_in_all() -> None:
            await log_in(tokens[0])
            await asyncio.gather(*map(log_in, tokens[1:]))

        login = await watch(pops, partial(passes, tokens[0]), log_in_all, poll_ms=options.poll_ms)
        await asyncio.sleep(REVOKE_AFTER_S)
        revocations = [
            await watch(pops, partial(refuses, token), partial(stage.delete, token), poll_ms=options.poll_ms)
            for token in tokens
        ]
        if not options.json:
            show(stage, "A token is written at the coordinator", login, old="refused", new="passes")
            show(stage, "It is revoked", revocations[0], old="passes", new="refused")
        return {
            "login": told(login),
            "revocation": told(revocations[0]),
            "went_back": any(each.went_back for sightings in (login, *revocations) for each in sightings),
            **_figures(revocations, len(pops), options.poll_ms, await stage.floor_ms()),
        }


def _figures(
    revocations: Sequence[Sequence[Sighting]], pops: int, poll_ms: float, floor_ms: float
) -> dict[str, object]:
    last = sorted(max(sighting.new_since_ms for sighting in sightings) for sightings in revocations)
    return {
        "pops": pops,
        "poll_ms": poll_ms,
        "revocations": len(last),
        "floor_ms": round(floor_ms, 1),
        "refused_everywhere_p50_ms": round(percentile(last, 50), 1),
        "refused_everywhere_p99_ms": round(percentile(last, 99), 1),
        "refused_everywhere_max_ms": round(last[-1], 1),
    }


if __name__ == "__main__":
    run(main, __doc__)
