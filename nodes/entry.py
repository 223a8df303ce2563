"""Running one node's main to its end, so that every failure is one line in its log and an exit code."""

from __future__ import annotations

import contextlib
import errno
import sys
import traceback
from pathlib import Path

from kvnet.errors import ConfigError, KvnetError
from nodes.context import NodeContext
from nodes.files import write_to_log
from nodes.roles import NodeMain

OK = 0
FAILED = 1
USAGE = 2


def run_node(main: NodeMain, context: NodeContext) -> int:
    """Return the exit code of `main`; what it raises has been logged and told to the launcher."""
    try:
        return main(context)
    except KvnetError as error:
        return _fail(context, str(error), USAGE if isinstance(error, ConfigError) else FAILED)
    except OSError as error:
        return _fail(context, explain(error, context), FAILED)
    except Exception as error:  # noqa: BLE001 - a bug: its story belongs in the log, the launcher gets the headline
        traceback.print_exc()
        _tell(context, f"crashed with {type(error).__name__}: {error}; `kvnet logs {context.name}` has the story")
        return FAILED


def open_log(context: NodeContext, path: Path) -> bool:
    """Make `path` this process's output and errors; False, and the launcher told, when the disk refuses."""
    try:
        context.folder.mkdir(mode=0o700, exist_ok=True)
        write_to_log(path)
    except OSError as error:
        _tell(context, explain(error, context))
        return False
    return True


def explain(error: OSError, context: NodeContext) -> str:
    """Return one line that names the cure of what the system refused."""
    match error.errno:
        case errno.EADDRINUSE:
            port = context.topology.port_of(context.name)
            return f"port {port} is taken: end the process that has it, or choose another block with --port-base"
        case errno.EMFILE | errno.ENFILE:
            return "too few file descriptors: raise the limit with `ulimit -n`, or choose fewer --pops"
        case errno.ENOSPC | errno.EDQUOT:
            return f"the disk of {context.folder} is full: free space, or choose another folder with --data"
        case errno.EACCES | errno.EROFS:
            return f"{error}: give this user the right to write there, or choose another folder with --data"
        case _:
            return str(error)


def _fail(context: NodeContext, message: str, code: int) -> int:
    print(f"kvnet: {message}", file=sys.stderr, flush=True)  # noqa: T201 - the log is this process's stderr
    _tell(context, message)
    return code


def _tell(context: NodeContext, message: str) -> None:
    with contextlib.suppress(OSError):  # without a launcher left to hear it, the log still has it
        context.say_failed(message)
