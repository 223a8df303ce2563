"""`kvnet export` and `kvnet import` on real processes: what goes round comes back exactly."""

from __future__ import annotations

import asyncio
import json
import time


async def test_what_was_exported_is_imported_exactly(network, client, tmp_path):
    later = int(time.time()) + 86_400
    pairs = [
        {"key": "a/é\n\u2028 %2F", "value": "olá"},
        {"key": "binary", "value": "/wD+", "base64": True, "expiration": later},
        {"key": "empty", "value": ""},
        {"key": "キー", "value": "x" * 65_536},
        *({"key": f"many-{number:04}", "value": str(number)} for number in range(1500)),
    ]
    spelled = b'{"key":"spelled","value":"v","metadata":{"a":1.10,"b":12345678901234567890123,"c":"\xc3\xa9"}}'
    source, first, second = (tmp_path / name for name in ("source", "first", "second"))
    lines = [json.dumps(pair).encode() for pair in pairs]
    source.write_bytes(b"\n".join([*lines, spelled, b'{"key":"old","value":"v","expiration":1}']))

    def run(*arguments):
        return asyncio.to_thread(network.kvnet, *arguments)

    told = json.loads(await run("import", "one", source, "--create", "--json"))
    assert told == {"namespace": "one", "dry_run": False, "stored": len(pairs) + 1, "expired": 1}
    await client.agreed()
    await run("export", "one", "--output", first, "--pop", "per")
    await run("import", "two", first, "--create")
    await run("import", "two", first)  # again, which changes nothing
    await client.agreed()
    await run("export", "two", "--output", second, "--pop", "akl")
    assert first.read_bytes() == second.read_bytes()
    exported = first.read_bytes().splitlines()
    assert spelled in exported
    by_key = {pair["key"]: pair for pair in map(json.loads, exported)}
    assert {key: pair for key, pair in by_key.items() if key != "spelled"} == {pair["key"]: pair for pair in pairs}
