"""``ipc-channel demo``: real work over channels, with a worker killed on the way.

Worker processes are started with :mod:`subprocess` and introduce themselves through one-shot servers. Jobs are
typed messages that carry the file's contents as shared memory and a reply sender; a receiver set takes the
answers. Then one process counts the same again: both counts must agree.
"""

import argparse
import os
import sys
from pathlib import Path

__all__ = ["run"]


def run(arguments: argparse.Namespace) -> int:
    """Count twice, compare, print; 0 if both counts agree and everything was readable, else 1."""
    from rich.console import Console

    from ipc_channel import IpcError
    from ipc_channel.cli.demo.jobs import python_files, standard_library
    from ipc_channel.cli.demo.report import Result, as_json, progress, show
    from ipc_channel.cli.demo.supervisor import DemoError, Supervisor, count_alone

    whole = arguments.directory is not None
    root = Path(arguments.directory) if whole else standard_library()
    try:
        modules = python_files(root, whole=whole)
    except OSError as error:
        return _fail(f"cannot list {_printable(error.filename or root)}: {error.strerror or error}")
    if not modules:
        return _fail(f"there are no Python files below {_printable(root)}")

    console = Console(stderr=True)
    title = f"Counting with {arguments.workers} workers"
    try:
        with (
            progress(console, title, modules) as display,
            Supervisor(modules, arguments.workers, display) as supervisor,
        ):
            supervisor.run()
    except (DemoError, IpcError) as error:
        return _fail(str(error))
    with progress(console, "Checking in one process", modules) as display:
        check = count_alone(modules, display)

    result = Result(_printable(root), modules, supervisor, check)
    if arguments.json:
        print(as_json(result))
    else:
        show(result, Console())
    return 0 if result.good else 1


def _fail(text: str) -> int:
    print(f"ipc-channel demo: {text}", file=sys.stderr)
    return 1


def _printable(path: str | os.PathLike[str]) -> str:
    return os.fspath(path).encode("utf-8", "backslashreplace").decode()
