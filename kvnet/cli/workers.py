"""`kvnet workers dev|config`: Cloudflare Workers at the PoPs of a running network."""

from __future__ import annotations

import asyncio
import os
import shlex
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from kvnet.cli.connection import checked_text, print_json
from kvnet.cli.options import DATA_DEFAULT, DataOption, JsonOption
from kvnet.cli.output import print_report
from kvnet.errors import ConfigError
from kvnet.workers import sockets
from kvnet.workers.build import (
    Order,
    build,
    directory_of,
    read_project,
    write_configuration,
)
from kvnet.workers.configuration import Site
from kvnet.workers.namespaces import read_binds
from kvnet.workers.project import check_name
from kvnet.workers.running import WorkerFolder
from kvnet.workers.runtime import find_workerd, version_of
from kvnet.workers.session import Session

app = typer.Typer(no_args_is_help=True, help="Run Cloudflare Workers at the PoPs, each on its own edge.")

EVERYWHERE = "all"
SITES_SHOWN = 12

ScriptArgument = Annotated[
    Path | None,
    typer.Argument(
        metavar="SCRIPT", help="A .js, .mjs or .ts file; none for the wrangler project in this folder."
    ),
]
ConfigOption = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", help="wrangler.jsonc, wrangler.json or wrangler.toml.")
]
BindOption = Annotated[
    list[str] | None,
    typer.Option("--bind", metavar="NAME=NAMESPACE", help="Give the Worker a namespace, by title or id."),
]
AtOption = Annotated[
    str, typer.Option("--at", metavar="CODES", help="PoPs to run at, such as nrt,gru,jnb; or all.")
]
WorkerPortsOption = Annotated[
    int | None,
    typer.Option(
        "--port-base", metavar="PORT", help="First port of the Workers' block.", show_default="the next free"
    ),
]
NameOption = Annotated[
    str | None, typer.Option("--name", help="What the Worker is called here.", show_default="the project's")
]
PreviewOption = Annotated[
    bool,
    typer.Option(
        "--preview",
        help="Of wrangler's kv_namespaces use preview_id, as `wrangler dev` does; without it id, as `wrangler kv` "
        "does.",
    ),
]
TokenOption = Annotated[
    str | None,
    typer.Option(
        "--token-env",
        metavar="VARIABLE",
        help="Read and write with the token in this environment variable.",
        show_default="the network's token for writing",
    ),
]
WorkerdOption = Annotated[
    Path | None,
    typer.Option(
        "--workerd",
        metavar="PATH",
        envvar="KVNET_WORKERD",
        help="The runtime.",
        show_default="the project's, else the one on PATH",
    ),
]


@dataclass(frozen=True, slots=True)
class _Plan:
    """What both commands make of their options."""

    order: Order
    sites: list[Site]
    folder: WorkerFolder
    program: Path
    release: str
    sockets: sockets.Sockets


@app.command()
def dev(
    script: ScriptArgument = None,
    config: ConfigOption = None,
    bind: BindOption = None,
    at: AtOption = EVERYWHERE,
    port_base: WorkerPortsOption = None,
    name: NameOption = None,
    preview: PreviewOption = False,
    token_env: TokenOption = None,
    workerd: WorkerdOption = None,
    data: DataOption = DATA_DEFAULT,
    json_: JsonOption = False,
) -> None:
    """Run a Worker at every PoP, or at those of --at, until Ctrl-C; a change of its source reloads it.

    Namespaces that a wrangler project names are created if they are missing, those of --bind must exist. What the
    Worker logs goes to standard error.
    """
    plan = _plan(script, config, bind, at, port_base, name, preview, token_env, workerd, data)
    try:
        with plan.folder.claimed():
            asyncio.run(_run(plan, as_json=json_))
    finally:
        sockets.close(plan.sockets)


@app.command()
def config(
    script: ScriptArgument = None,
    config: ConfigOption = None,
    bind: BindOption = None,
    at: AtOption = EVERYWHERE,
    port_base: WorkerPortsOption = None,
    name: NameOption = None,
    preview: PreviewOption = False,
    token_env: TokenOption = None,
    workerd: WorkerdOption = None,
    output: Annotated[
        Path | None, typer.Option("--output", metavar="FILE", help="Write it there, readable by you alone.")
    ] = None,
    data: DataOption = DATA_DEFAULT,
) -> None:
    """Print what `kvnet workers dev` would have workerd read. It holds a token.

    `workerd serve --import-path=/ FILE` runs it.
    """
    plan = _plan(script, config, bind, at, port_base, name, preview, token_env, workerd, data)
    sockets.close(plan.sockets)
    plan.folder.make()
    text = asyncio.run(build(plan.order, plan.sites, plan.folder, plan.release)).configuration
    if output is not None and not output.absolute().parent.is_dir():
        raise ConfigError(f"there is no folder {output.absolute().parent}: create it first")
    if output is None:
        typer.echo(text, nl=False)
        return
    write_configuration(output, text)
    run = [str(plan.program), "serve", "--import-path=/", str(output)]
    typer.echo(f"{output} is written; {shlex.join(run)} runs it", err=True)


def _plan(
    script: Path | None,
    config: Path | None,
    bind: list[str] | None,
    at: str,
    port_base: int | None,
    name: str | None,
    preview: bool,
    token_env: str | None,
    workerd: Path | None,
    data: Path,
) -> _Plan:
    """Check everything that can be checked before anything is started; the sockets are open afterwards.

    Raises:
        ConfigError: something can't work.
    """
    binds = read_binds([checked_text(each, "binding") for each in bind or []])
    order = Order(
        data=data,
        script=script,
        config=config,
        binds=binds,
        preview=preview,
        token=_token(token_env),
        variables=os.environ,
    )
    project = read_project(script, config)
    directory = directory_of(data, order.token)
    offsets = {edge.code: number for number, edge in enumerate(directory.placed)}
    codes = list(offsets) if at.strip().lower() == EVERYWHERE else _codes(at)
    edges = [edge for code in codes for edge in directory.only(code).placed]
    program = find_workerd(workerd, [project.folder, Path()], os.environ.get("PATH"))
    release = version_of(program)
    folder = WorkerFolder(data, check_name(name or project.name))
    listening = sockets.listen({edge.code: offsets[edge.code] for edge in edges}, port_base)
    sites = [Site(edge, listening[edge.code].getsockname()[1]) for edge in edges]
    return _Plan(order, sites, folder, program, release, listening)


def _token(name: str | None) -> str | None:
    """Return the token in an environment variable, None if none is named.

    Raises:
        ConfigError: the variable isn't set.
    """
    if name is None:
        return None
    token = os.environ.get(name)
    if not token:
        raise ConfigError(f"--token-env {name}: the environment has no such variable: export it first")
    return token


def _codes(at: str) -> list[str]:
    codes = list(dict.fromkeys(code for part in at.split(",") if (code := part.strip().lower())))
    if not codes:
        raise ConfigError("--at names no PoP: write codes such as nrt,gru,jnb, or all")
    return codes


async def _run(plan: _Plan, *, as_json: bool) -> None:
    session = Session(
        program=plan.program,
        configuration=plan.folder.configuration,
        sockets=plan.sockets,
        build=partial(build, plan.order, plan.sites, plan.folder, plan.release),
        say=_say,
    )
    await session.run(partial(_started, plan, as_json=as_json))


def _started(plan: _Plan, *, as_json: bool) -> None:
    """Tell where the Worker runs: in its folder, and to whoever started it."""
    running = plan.folder.tell({site.code: site.url for site in plan.sites})
    if as_json:
        pops = {site.code: {"url": site.url, "city": site.edge.city} for site in plan.sites}
        print_json({"name": running.name, "pid": running.pid, "pops": pops})
        sys.stdout.flush()
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("PoP", "city", "URL"):
        table.add_column(heading)
    for site in plan.sites[:SITES_SHOWN]:
        table.add_row(site.code, site.edge.city, site.url)
    rest = len(plan.sites) - SITES_SHOWN
    more = [f"… and {rest} more in {plan.folder.running}"] if rest > 0 else []
    told = f"{running.name} runs at {len(plan.sites)} PoP{'s' if len(plan.sites) > 1 else ''}; Ctrl-C ends it"
    city = shlex.quote(plan.sites[-1].edge.city)
    print_report(table, *more, "", told, f"  kvnet fetch / --near {city}")
    sys.stdout.flush()


def _say(text: str) -> None:
    typer.echo(f"kvnet: {' '.join(text.splitlines())}", err=True)
