"""`kvnet`: the table of commands, and what becomes of errors."""

from __future__ import annotations

import os
import sys
from typing import Annotated, NoReturn

import typer

from kvnet import __version__
from kvnet.cli.commands import Entry, LazyGroup
from kvnet.errors import ConfigError, KvnetError

FAILED = 1
USAGE = 2
INTERRUPTED = 130
"""As a shell counts a program that Ctrl-C ended."""

NETWORK = "Network"
NODES = "Nodes"
DATA = "Data"
WORKERS = "Workers"
TOOLS = "Tools"


_UsageError: type[Exception] = typer.BadParameter.__mro__[1]
"""What every mistake on a command line is; typer exports only this one kind of it."""


class Commands(LazyGroup):
    """Everything `kvnet` can do."""

    entries = {  # noqa: RUF012 - typer makes the instance, the table belongs to the class
        "up": Entry("kvnet.cli.up:up", NETWORK, "Start a network on this host."),
        "down": Entry("kvnet.cli.down:down", NETWORK, "Stop the network."),
        "status": Entry("kvnet.cli.status:status", NETWORK, "Show how far every PoP is."),
        "why-stale": Entry(
            "kvnet.cli.why_stale:why_stale",
            NETWORK,
            "Show which PoPs have a key's newest version, and where it is held up on its way to the others.",
        ),
        "usage": Entry(
            "kvnet.cli.usage:usage", NETWORK, "Show reads, writes and storage per namespace, and their price."
        ),
        "verify": Entry("kvnet.cli.verify:verify", NETWORK, "Recompute every replica's digest and compare them."),
        "rtt": Entry("kvnet.cli.rtt:rtt", NETWORK, "Show the round trips between nodes."),
        "wan": Entry(
            "kvnet.cli.wan:app", NETWORK, "Look at the simulated network between the nodes, and disturb it."
        ),
        "ps": Entry("kvnet.cli.ps:ps", NODES, "Show the processes and what they use."),
        "logs": Entry("kvnet.cli.logs:logs", NODES, "Show what nodes have logged."),
        "stop": Entry("kvnet.cli.orders:stop", NODES, "Stop one node; it stays stopped."),
        "start": Entry("kvnet.cli.orders:start", NODES, "Start a stopped node."),
        "restart": Entry("kvnet.cli.orders:restart", NODES, "Stop one node and start it again."),
        "compact": Entry("kvnet.cli.compact:compact", NODES, "Give what deleted data left free back to the disk."),
        "node": Entry("kvnet.cli.node:node", NODES, "Run one node in the foreground, on any host."),
        "put": Entry("kvnet.cli.values:put", DATA, "Store a value, and print its version once it is durable."),
        "get": Entry("kvnet.cli.values:get", DATA, "Write a value's bytes to standard output."),
        "delete": Entry("kvnet.cli.values:delete", DATA, "Delete a key."),
        "list": Entry("kvnet.cli.values:list_keys", DATA, "Print the keys of a namespace."),
        "export": Entry("kvnet.cli.export:export", DATA, "Write a namespace's pairs as JSON lines."),
        "import": Entry("kvnet.cli.import_:import_", DATA, "Store pairs from JSON lines."),
        "snapshot": Entry(
            "kvnet.cli.snapshot:app", DATA, "Save a whole replica as one file, look at it, restore it."
        ),
        "namespace": Entry("kvnet.cli.namespaces:app", DATA, "Create, list, rename and delete namespaces."),
        "token": Entry("kvnet.cli.token:app", DATA, "Create, list, roll and revoke tokens."),
        "env": Entry("kvnet.cli.env:env", DATA, "Print `export` lines for wrangler, the SDKs and Terraform."),
        "workers": Entry(
            "kvnet.cli.workers:app", WORKERS, "Run Cloudflare Workers at the PoPs, each on its own edge."
        ),
        "fetch": Entry(
            "kvnet.cli.fetch:fetch",
            WORKERS,
            "Send a request to the Worker nearest to a city, and print the answer's body.",
        ),
        "sim": Entry("kvnet.cli.sim:sim", TOOLS, "Simulate a network in virtual time: measure it, or break it."),
        "topology": Entry("kvnet.cli.topology:app", TOOLS, "Check, show and make topology files."),
        "explain": Entry("kvnet.cli.explain:explain", TOOLS, "Say what an error code means, and what helps."),
        "doctor": Entry("kvnet.cli.doctor:doctor", TOOLS, "Look whether this host can run the network."),
    }


app = typer.Typer(
    cls=Commands,
    name="kvnet",
    help="A replicated key-value store for a global network of points of presence.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"kvnet {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    del version


def main() -> NoReturn:
    """Run the command line and exit: 0 ok, 1 failed, 2 usage or configuration; commands know 3 and 4."""
    try:
        code = app(prog_name="kvnet", standalone_mode=False)
    except typer.Abort:
        sys.exit(INTERRUPTED)
    except _UsageError as error:
        context = getattr(error, "ctx", None)
        command = context.command_path if context else "kvnet"
        message = error.format_message().rstrip(".")  # type: ignore[attr-defined]
        if not message:  # no arguments at all: the help has been shown
            sys.exit(USAGE)
        _end(error, f"{message}; `{command} --help` shows how it is used", USAGE)
    except KvnetError as error:
        _end(error, str(error), USAGE if isinstance(error, ConfigError) else FAILED)
    except OSError as error:
        _end(error, str(error), FAILED)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    sys.exit(code if isinstance(code, int) else 0)


def _end(error: Exception, message: str, code: int) -> NoReturn:
    if os.environ.get("KVNET_DEBUG"):
        raise error
    print("kvnet:", " ".join(message.splitlines()), file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
