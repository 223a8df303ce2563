"""`kvnet explain`: what an error code means."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer
from rich import box
from rich.table import Table

from kvnet.api.codes import Problem
from kvnet.api.explanations import EXPLANATIONS, Explanation, explanations_of
from kvnet.cli.options import JsonOption
from kvnet.cli.output import print_report

NOT_FOUND = 4

CodeArgument = Annotated[
    int | None, typer.Argument(metavar="CODE", help="An error's code, as 10013.", show_default=False)
]


def explain(code: CodeArgument = None, json_: JsonOption = False) -> None:
    """Say what an error code means, and what helps.

    Without a code all are listed. Exits with 4 for one that kvnet never answers with.
    """
    found = list(EXPLANATIONS.items()) if code is None else explanations_of(code)
    found.sort(key=lambda row: (row[0].code, row[0].status))
    if not found:
        typer.echo(f"kvnet: no error has the code {code}: `kvnet explain` lists all", err=True)
        raise typer.Exit(NOT_FOUND)
    if json_:
        typer.echo(json.dumps([_told(*row) for row in found]))
    elif code is None:
        _print_table(found)
    else:
        typer.echo("\n\n".join(_paragraph(*row) for row in found))


def _told(problem: Problem, explanation: Explanation) -> dict[str, Any]:
    return {
        "code": problem.code,
        "status": problem.status,
        "text": problem.text,
        "cause": explanation.cause,
        "cure": explanation.cure,
    }


def _paragraph(problem: Problem, explanation: Explanation) -> str:
    return (
        f"{problem.code}, HTTP {problem.status}: {problem.text}\n"
        f"  cause  {explanation.cause}\n"
        f"  cure   {explanation.cure}"
    )


def _print_table(found: list[tuple[Problem, Explanation]]) -> None:
    table = Table(box=box.SIMPLE)
    table.add_column("code", justify="right")
    table.add_column("status", justify="right")
    table.add_column("text", overflow="fold")
    for problem, _ in found:
        table.add_row(str(problem.code), str(problem.status), _unmarked(problem.text))
    print_report(table, "`kvnet explain CODE` tells cause and cure")


def _unmarked(text: str) -> str:
    """Return the text for rich, which reads brackets as markup."""
    return text.replace("[", r"\[")
