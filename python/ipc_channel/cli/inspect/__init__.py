"""``ipc-channel inspect PID``: which channel ends a process holds, and who holds the other ends."""

import argparse
import sys

from ipc_channel.cli.inspect.survey import survey
from ipc_channel.cli.processes import InspectError

__all__ = ["run"]


def run(arguments: argparse.Namespace) -> int:
    """Print what is found; 0, or 1 if the process cannot be looked at."""
    from ipc_channel.cli.inspect.report import as_json, show

    try:
        found = survey(arguments.pid)
    except InspectError as error:
        print(f"ipc-channel inspect: {error}", file=sys.stderr)
        return 1
    if arguments.json:
        print(as_json(found))
    else:
        from rich.console import Console

        show(found, Console())
    return 0
