"""``ipc-channel doctor``: what this machine offers, and which of its limits would bite.

Everything is tried rather than guessed from versions.
"""

import argparse

__all__ = ["run"]


def run(arguments: argparse.Namespace) -> int:
    """Print what is found; 0 if everything works, limits that may bite included, else 1."""
    from ipc_channel.cli.doctor import kernel, limits, system, trials
    from ipc_channel.cli.doctor.report import as_json, show, worst

    found = [*system.checks(), *kernel.checks(), *limits.checks(), *trials.checks()]
    if arguments.json:
        print(as_json(found))
    else:
        from rich.console import Console

        show(found, Console())
    return 1 if worst(found) == "failure" else 0
