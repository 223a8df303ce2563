"""`kvnet verify`: every replica's digest, recomputed from its stored bytes."""

from __future__ import annotations

import asyncio
import json

import typer

from kvnet.cli.options import DATA_DEFAULT, DataOption, JsonOption, run_folder
from kvnet.cli.polling import Answer, ask_all, require_some, urls_of
from kvnet.errors import KvnetError

VERIFY_TIMEOUT_S = 120.0
VERIFY_PATH = "/peer/v1/verify"


def verify(data: DataOption = DATA_DEFAULT, json_: JsonOption = False) -> None:
    """Recompute every replica's digest and compare them.

    Two replicas at one position must have one digest, and each the one it has kept; a flipped bit shows here.
    """
    cluster = run_folder(data).cluster()
    answers = asyncio.run(
        ask_all(urls_of(cluster), VERIFY_PATH, cluster["tokens"]["admin"], timeout_s=VERIFY_TIMEOUT_S)
    )
    require_some(answers, data)
    problems = differences(answers)
    silent = [name for name, answer in answers.items() if isinstance(answer, str)]
    if json_:
        typer.echo(json.dumps({"replicas": answers, "problems": problems}))
    else:
        for problem in problems:
            typer.echo(problem)
        positions = {answer["position"] for answer in answers.values() if not isinstance(answer, str)}
        verified = len(answers) - len(silent)
        typer.echo(f"{verified} replicas recomputed, at {len(positions)} positions: {len(problems)} problems")
    if problems:
        raise KvnetError(
            f"{len(problems)} problems: {problems[0]}; wiping that replica lets the network refill it"
        )
    if silent:
        raise KvnetError(f"{len(silent)} replicas don't answer: {', '.join(silent[:5])}; `kvnet ps` shows why")


def differences(answers: dict[str, Answer]) -> list[str]:
    """Return one line for each replica that isn't what it should be.

    Of several digests at one position the coordinator's is right, else the one that most replicas have.
    """
    problems = []
    by_position: dict[str, dict[str, list[str]]] = {}
    for name, answer in answers.items():
        if isinstance(answer, str):
            continue
        if answer["recomputed"] != answer["digest"] or answer.get("differing"):
            spaces = ", ".join(map(str, answer.get("differing", []))) or "all"
            problems.append(f"{name}: its stored bytes differ from its digest (namespaces: {spaces})")
        digests = by_position.setdefault(str(answer["position"]), {})
        digests.setdefault(str(answer["digest"]), []).append(name)
    for position, digests in by_position.items():
        right = max(digests.values(), key=lambda names: ("coordinator" in names, len(names)))
        for names in digests.values():
            if names is not right:
                problems.extend(f"{name}: another digest than {right[0]} at {position}" for name in names)
    return problems
