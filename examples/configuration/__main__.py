"""Turns a feature on for everybody, bans a device, and watches what each PoP makes of it.

python -m examples.configuration [--data DIR] [--poll-ms MS] [--json]
"""

from __future__ import annotations

import json
import secrets

from examples.shared.network import Stage
from examples.shared.program import Options, run
from examples.shared.sightings import show, told, watch


async def main(options: Options) -> dict[str, object]:
    """Return when each PoP had the feature, when each refused the device, and what a third device is told."""
    async with Stage(options.data, "configuration", "CONFIG") as stage:
        device, other = (f"device-{secrets.token_hex(4)}" for _ in range(2))
        flag = f"checkout-{secrets.token_hex(2)}"

        async def ask(pop: str, device: str) -> tuple[int, dict[str, object]]:
            status, text = await stage.fetch(pop, headers={"X-Device-Id": device})
            if status not in {200, 403}:
                raise RuntimeError(f"the Worker at {pop} answered {status}: {text}")
            return status, json.loads(text)

        async def has_flag(pop: str) -> bool:
            _, told = await ask(pop, device)
            return flag in json.dumps(told)

        async def refuses(pop: str) -> bool:
            status, _ = await ask(pop, device)
            return status == 403

        flags = json.dumps({flag: 1.0, "half-of-all": 0.5})
        feature = await watch(stage.urls, has_flag, lambda: stage.put("flags", flags), poll_ms=options.poll_ms)
        ban = await watch(
            stage.urls,
            refuses,
            lambda: stage.put(f"banned:{device}", json.dumps({"why": "too many orders"})),
            poll_ms=options.poll_ms,
        )
        others = [await ask(pop, other) for pop in stage.urls]
        if not options.json:
            show(stage, "A feature is turned on", feature, old="off", new="on")
            show(stage, "A device is banned", ban, old="served", new="refused")
        return {
            "feature": told(feature),
            "ban": told(ban),
            "others_are_served": all(status == 200 for status, _ in others),
            "every_pop_says_the_same": all(told == others[0] for told in others),
            "went_back": any(each.went_back for each in (*feature, *ban)),
        }


if __name__ == "__main__":
    run(main, __doc__)
