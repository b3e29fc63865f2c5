"""The command line: ``ipc-channel demo``, ``doctor`` and ``inspect``, also as ``python -m ipc_channel``."""

import argparse
import os
import sys
from collections.abc import Sequence

__all__ = ["main"]

_INTERRUPTED = 130
"""What a shell reports for a program that Ctrl-C ended."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Parameters:
        arguments: what follows the program's name; ``sys.argv[1:]`` if None.

    Raises:
        SystemExit: after ``--help``, ``--version`` and wrong arguments, as argparse does.
    """
    parsed = _parser().parse_args(arguments)
    try:
        code = _run(parsed)
        sys.stdout.flush()
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return _INTERRUPTED
    except BrokenPipeError as error:
        if type(error) is not BrokenPipeError:
            raise
        # Whoever read our output has left (`ipc-channel doctor | head`). Python would complain again when
        # it flushes standard output at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return code


def _run(parsed: argparse.Namespace) -> int:
    # Each subcommand brings its own imports, rich among them: only the one that runs pays for them.
    match parsed.command:
        case "demo":
            from ipc_channel.cli import demo

            return demo.run(parsed)
        case "doctor":
            from ipc_channel.cli import doctor

            return doctor.run(parsed)
        case _:
            from ipc_channel.cli import inspect

            return inspect.run(parsed)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ipc-channel", description="Channels between processes: see them work, and look into them."
    )
    parser.add_argument("--version", action=_ShowVersion, nargs=0, help="show the version and exit")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    demo = commands.add_parser(
        "demo",
        help="count the tokens of Python files with worker processes, killing one on the way",
        description=(
            "Counts the tokens of Python files with several worker processes, kills one of them half-way, and"
            " proves with a second count in one process that nothing was lost."
        ),
        epilog=(
            "Without DIR: the standard library of the running Python, without its tests and without installed"
            " packages. With DIR: every *.py file below it, except below hidden folders."
            " Exit code: 0 if both counts agree, 1 if not or if a file could not be read."
        ),
    )
    demo.add_argument("directory", metavar="DIR", nargs="?", help="a folder of Python files")
    demo.add_argument("--workers", type=_workers, default=4, metavar="N", help="worker processes, 2 to 64 (default: 4)")
    demo.add_argument("--json", action="store_true", help="print the result as JSON")

    doctor = commands.add_parser(
        "doctor",
        help="what this machine offers, and which of its limits would bite",
        description="Tries what the package needs from this machine and shows the limits that it will meet.",
        epilog="Exit code: 0 if everything works (warnings included), 1 if something does not.",
    )
    doctor.add_argument("--json", action="store_true", help="print the result as JSON")

    inspect = commands.add_parser(
        "inspect",
        help="which channel ends a process holds, and who holds the other ends",
        description=(
            "Shows the channel ends, one-shot servers and shared memory of a process of this user, from what"
            " the kernel tells. The process is not disturbed."
        ),
        epilog="Exit code: 0 if the process could be looked at, else 1.",
    )
    inspect.add_argument("pid", metavar="PID", type=_pid, help="the process")
    inspect.add_argument("--json", action="store_true", help="print the result as JSON")
    return parser


class _ShowVersion(argparse.Action):
    """As argparse's own, but looks the version up only when asked: that costs more than all of the above."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import PackageNotFoundError, version

        try:
            print(f"ipc-channel {version('ipc-channel')}")
        except PackageNotFoundError:
            print("ipc-channel (not installed)")
        parser.exit()


def _workers(text: str) -> int:
    # At least two, because one of them is killed and the others do its work.
    if text.isdecimal() and 2 <= int(text) <= 64:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a number from 2 to 64")


def _pid(text: str) -> int:
    if text.isdecimal() and int(text) > 0:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a process id")
