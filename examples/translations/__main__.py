"""Translates a page for the countries of the PoPs, then changes one text in all of them, and watches the pages.

python -m examples.translations [--data DIR] [--poll-ms MS] [--json]
"""

from __future__ import annotations

import asyncio
import secrets
from html import escape

from examples.shared.network import Stage
from examples.shared.program import Options, run
from examples.shared.sightings import show, told, watch

TEXTS = {
    "JP": {"language": "ja", "greeting": "ようこそ", "offer": "本日は緑茶が半額です。"},
    "BR": {"language": "pt-BR", "greeting": "Bem-vindo", "offer": "Hoje: chá verde pela metade do preço."},
    "ZA": {"language": "af", "greeting": "Welkom", "offer": "Vandag: groen tee teen halfprys."},
    "DE": {"language": "de", "greeting": "Willkommen", "offer": "Heute: grüner Tee zum halben Preis."},
}
"""The others read English."""
CHANGE_AFTER_S = 1.1
"""A key takes one write a second."""


async def main(options: Options) -> dict[str, object]:
    """Return a page of each country, and when each PoP had the new offer."""
    async with Stage(options.data, "translations", "TRANSLATIONS") as stage:
        countries = sorted({stage.country(pop) for pop in stage.urls})
        greeting = {country: f"{TEXTS.get(country, {}).get('greeting', 'Hello')} {secrets.token_hex(2)}"
                    for country in countries}  # fmt: skip
        texts = {
            f"{country}:{name}": text
            for country in countries
            for name, text in {**TEXTS.get(country, {}), "greeting": greeting[country]}.items()
        }
        offer = f"{secrets.randbelow(90) + 10} %"

        async def page(pop: str) -> str:
            status, text = await stage.fetch(pop)
            if status != 200:
                raise RuntimeError(f"the Worker at {pop} answered {status}")
            return text

        async def is_translated(pop: str) -> bool:
            return escape(greeting[stage.country(pop)]) in await page(pop)

        async def has_offer(pop: str) -> bool:
            return escape(offer) in await page(pop)

        first = await watch(stage.urls, is_translated, lambda: stage.put_many(texts), poll_ms=options.poll_ms)
        pages = {stage.country(pop): await page(pop) for pop in stage.urls}
        await asyncio.sleep(CHANGE_AFTER_S)
        offers = {f"{country}:offer": offer for country in countries}
        second = await watch(stage.urls, has_offer, lambda: stage.put_many(offers), poll_ms=options.poll_ms)
        if not options.json:
            for country, text in pages.items():
                print(f"{country}:\n{text}")
            show(stage, "The page is translated", first, old="English", new="translated")
            show(stage, "Another offer in every country", second, old="old offer", new="new offer")
        return {
            "translated": told(first),
            "changed": told(second),
            "pages": [{"country": country, "html": text} for country, text in pages.items()],
            "went_back": any(each.went_back for each in (*first, *second)),
        }


if __name__ == "__main__":
    run(main, __doc__)
