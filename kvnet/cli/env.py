"""`kvnet env`: the variables that make official clients talk to this network."""

from __future__ import annotations

import shlex
from typing import Annotated

import typer

from kvnet.cli.connection import NearOption, PopOption, print_json
from kvnet.cli.options import DATA_DEFAULT, DataOption, JsonOption
from kvnet.client.directory import API_BASE, CLUSTER_FILE, from_cluster, read_cluster_file
from kvnet.client.route import nearest_first
from kvnet.core.catalog import Scope
from kvnet.errors import ConfigError


def env(
    scope: Annotated[Scope, typer.Option("--scope", help="What the token may do.")] = Scope.WRITE,
    near: NearOption = None,
    pop: PopOption = None,
    data: DataOption = DATA_DEFAULT,
    json_: JsonOption = False,
) -> None:
    """Print `export` lines for wrangler, the SDKs and Terraform: eval "$(kvnet env)".

    They name the coordinator, where a write is visible at once; --pop or --near names an edge.
    """
    if near is not None and pop is not None:
        raise ConfigError("--near and --pop each say which PoP to name: give one of them")
    cluster = read_cluster_file(data / CLUSTER_FILE)
    directory = from_cluster(cluster, token=None, account_id=None)
    try:
        token = cluster["tokens"][scope]
        url = cluster["coordinator"]["url"]
    except (KeyError, TypeError) as error:
        raise ConfigError(
            f"{data / CLUSTER_FILE} lacks {error}: restart the network, which writes it anew"
        ) from None
    if pop is not None:
        url = directory.only(pop).edges[0].url
    elif near is not None:
        url = nearest_first(directory, near)[0].url
    variables = {
        "CLOUDFLARE_ACCOUNT_ID": directory.account_id,
        "CLOUDFLARE_API_TOKEN": token,
        "CLOUDFLARE_BASE_URL": url + API_BASE,
        "CLOUDFLARE_API_BASE_URL": url + API_BASE,
    }
    if json_:
        print_json(variables)
        return
    for name, value in variables.items():
        typer.echo(f"export {name}={shlex.quote(value)}")
