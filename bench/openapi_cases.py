"""The question: does a node answer as its OpenAPI document says, to requests that fit it and to those that don't.

    python -m bench.openapi_cases --cases 50000 --seed 1

Starts a small network, takes the document from its coordinator, and has schemathesis make requests of each
operation, half of them against its schema. Account and namespaces are mostly those that exist. Every answer must
have a status, a content type, headers and a body that the document tells of, and no server error that isn't true.
Exit code 1 when one hasn't; the report has a curl command for each kind of failure. Takes the extra `dev`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import secrets
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Final

import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import CheckFunction
from schemathesis.core.failures import FailureGroup
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from bench._support.arguments import count
from bench._support.load import create_namespace, new_session
from bench._support.network import RunningNetwork, running, started
from bench._support.raw_judgement import is_true
from kvnet.errors import ConfigError, KvnetError

OK, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130
NAMESPACES: Final = 3
KNOWN_SHARE: Final = 0.9
"""How often account, namespace and token are those that exist."""
WRITTEN_SHARE: Final = 0.5
KEYS: Final = 50
"""How often the key is one of a few, which other cases write too."""
TIMEOUT_S: Final = 40
PROGRESS_EVERY_S: Final = 5.0
CASES_AT_ONCE_MAX: Final = 250
"""Of one operation in one round: what schemathesis makes with one seed repeats itself."""

CHECKS: Final[list[CheckFunction]] = [
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
]


@dataclass(slots=True)
class Found:
    """One kind of failure."""

    what: str
    curl: str
    answer: str
    times: int = 0


@dataclass(slots=True)
class Outcome:
    """What a run came to."""

    cases: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    by_operation: Counter[str] = field(default_factory=Counter)
    found: dict[tuple[str, str], Found] = field(default_factory=dict)


class Cases:
    """One run against one node."""

    def __init__(
        self, network: RunningNetwork, namespaces: Sequence[str], seed: int, document: Any = None
    ) -> None:
        """Have cases made of `document`, of the node's own if none is given."""
        self._network = network
        self._namespaces = namespaces
        self._rng = Random(seed)
        self._seed = seed
        self._session = requests.Session()
        self._session.trust_env = False
        self._root = network.coordinator_url
        self._document = document or self._session.get(f"{self._root}/openapi.json", timeout=TIMEOUT_S).json()
        self.outcome = Outcome()
        self._next_told = time.monotonic() + PROGRESS_EVERY_S

    def run(self, total: int) -> None:
        """Send `total` cases, or a few more."""
        schema = schemathesis.openapi.from_dict(self._document)
        results: list[Any] = list(schema.get_all_operations())
        operations = [result.ok() for result in results]
        each = max(1, min(CASES_AT_ONCE_MAX, total // (2 * len(operations))))
        round_ = 0
        while self.outcome.cases < total:
            for operation in operations:
                for mode in GenerationMode:
                    self._round(operation, mode, min(each, total - self.outcome.cases), round_, total)
            round_ += 1

    def _round(self, operation: Any, mode: GenerationMode, cases: int, round_: int, total: int) -> None:
        if cases <= 0:
            return
        base = self._root + ("" if "servers" in self._document["paths"][operation.path] else "/client/v4")

        @seeded(f"{self._seed}/{round_}/{operation.label}/{mode}")
        @settings(
            max_examples=cases,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(operation.as_strategy(generation_mode=mode))
        def send(case: Any) -> None:
            self._send(case, base)
            if time.monotonic() >= self._next_told:
                self._next_told += PROGRESS_EVERY_S
                sys.stderr.write(
                    f"{self.outcome.cases:,} of {total:,} cases, {len(self.outcome.found)} findings\n"
                )

        with suppress(Unsatisfiable):  # nothing can be wrong with a request that has no parameters
            send()

    def _send(self, case: Any, base: str) -> None:
        self._make_known(case)
        outcome = self.outcome
        outcome.cases += 1
        outcome.by_operation[case.operation.label] += 1
        try:
            answer = case.call(base_url=base, session=self._session, timeout=TIMEOUT_S)
        except requests.RequestException as error:
            self._found(case, f"no answer: {type(error).__name__}", str(error))
            return
        outcome.statuses[answer.status_code] += 1
        headers = {name.lower() for name in case.headers}
        if answer.status_code >= 500 and not is_true(answer.status_code, _code_of(answer.content), headers):
            self._found(case, f"status {answer.status_code} that isn't true", answer.text[:500])
        try:
            case.validate_response(answer, checks=CHECKS)
        except FailureGroup as group:
            for failure in group.exceptions:
                self._found(case, f"{failure.title} ({answer.status_code})", f"{failure}\n{answer.text[:300]}")

    def _make_known(self, case: Any) -> None:
        """Have most cases reach what exists, and none wait long."""
        rng, known = self._rng, self._network.cluster
        path: dict[str, Any] = case.path_parameters
        if "account_id" in path and rng.random() < KNOWN_SHARE:
            path["account_id"] = known["account_id"]
        is_deletion = case.operation.definition.raw.get("operationId") == "deleteNamespace"
        if "namespace_id" in path and not is_deletion and rng.random() < KNOWN_SHARE:
            path["namespace_id"] = rng.choice(self._namespaces)
        if rng.random() < KNOWN_SHARE:
            case.headers["Authorization"] = f"Bearer {known['tokens']['admin']}"
        if "key" in path and rng.random() < WRITTEN_SHARE:
            path["key"] = f"key-{rng.randrange(KEYS)}"
        if "KV-At-Least" in case.headers:
            case.headers["KV-Wait-Timeout-Ms"] = "5" if rng.random() < KNOWN_SHARE else "-5"
            if rng.random() < KNOWN_SHARE:
                case.headers["KV-At-Least"] = "1-1"

    def _found(self, case: Any, what: str, answer: str) -> None:
        kind = (case.operation.label, what)
        if kind not in self.outcome.found:
            self.outcome.found[kind] = Found(f"{case.operation.label}: {what}", case.as_curl_command(), answer)
        self.outcome.found[kind].times += 1


def _code_of(body: bytes) -> int:
    try:
        return int(json.loads(body)["errors"][0]["code"])
    except (ValueError, LookupError, TypeError):
        return 0


async def namespaces_for(network: RunningNetwork) -> list[str]:
    """Return new namespaces; others of earlier runs may still be there."""
    async with new_session() as session:
        titles = [f"cases {secrets.token_hex(6)}" for _ in range(NAMESPACES)]
        return [await create_namespace(session, network, title) for title in titles]


def check(network: RunningNetwork, *, seed: int, total: int, document: Any = None) -> Outcome:
    """Send cases to the coordinator of a network that runs, and return what was found."""
    cases = Cases(network, asyncio.run(namespaces_for(network)), seed, document)
    cases.run(total)
    return cases.outcome


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="bench.openapi_cases")
    parser.add_argument("--cases", type=count, default=50_000, metavar="N")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--data", type=Path, help="ask the network that runs there, instead of starting one")
    options = parser.parse_args(arguments)
    try:
        if options.data is not None:
            outcome = check(running(options.data), seed=options.seed, total=options.cases)
        else:
            with (
                tempfile.TemporaryDirectory(prefix="kvnet-cases-", ignore_cleanup_errors=True) as place,
                started(Path(place) / "run", ["--pops", "2"]) as network,
            ):
                outcome = check(network, seed=options.seed, total=options.cases)
    except KeyboardInterrupt:
        return INTERRUPTED
    except KvnetError as error:
        sys.stderr.write(f"{error}\n")
        return USAGE if isinstance(error, ConfigError) else FAILED
    report = {
        "seed": options.seed,
        "cases": outcome.cases,
        "statuses": {str(status): number for status, number in sorted(outcome.statuses.items())},
        "by_operation": dict(outcome.by_operation),
        "findings": [
            {"what": found.what, "times": found.times, "curl": found.curl, "answer": found.answer}
            for found in outcome.found.values()
        ],
    }
    print(json.dumps(report, indent=2, ensure_ascii=False))
    return FAILED if outcome.found else OK


if __name__ == "__main__":
    raise SystemExit(main())
