"""The command line: ``ipc-channel demo``, ``doctor``, ``inspect``, ``top`` and ``bench``.

Also as ``python -m ipc_channel``.
"""

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
        case "top":
            from ipc_channel.cli import top

            return top.run(parsed)
        case "bench":
            from ipc_channel import bench

            return bench.run(parsed)
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
            "Shows the channel ends, lanes, one-shot servers and shared memory of a process of this user, from what"
            " the kernel and the lanes' memory tell. The process is not disturbed."
        ),
        epilog="Exit code: 0 if the process could be looked at, else 1.",
    )
    inspect.add_argument("pid", metavar="PID", type=_pid, help="the process")
    inspect.add_argument("--json", action="store_true", help="print the result as JSON")

    _add_top(commands.add_parser("top", help="the processes that use channels, and what goes through these, live"))
    _add_bench(commands.add_parser("bench", help="how fast it is here, beside others that do the same"))
    return parser


def _add_top(top: argparse.ArgumentParser) -> None:
    top.description = (
        "Shows the processes of this user (of everybody, for root) that are joined by channels, the busiest first,"
        " again and again until Ctrl-C. Nothing is asked of the processes, and nothing gets slower: it is all read"
        " from outside. A lane is the memory that a busy sending process shares with a receiver; every other channel"
        " has a socket alone, of which only the unread bytes can be known."
    )
    top.epilog = (
        "messages/s: sent since the last look. waiting: messages sent and not taken; unread: bytes sent and not read;"
        " both as far as the receiver has told, and without capacity= it tells once it has read a sixteenth of a ring,"
        " or all that is there. memory: what the lane takes. -: nobody who can be seen has that side; the process has"
        " ended, or the receiver is on its way or has not looked yet. ?: cannot be known; of a lane, its memory is"
        " damaged. Without a terminal: as with --once. Exit code: 0; 130 after Ctrl-C."
    )
    top.add_argument("pids", metavar="PID", type=_pid, nargs="*", help="only what these processes send or receive")
    top.add_argument("--interval", type=_seconds, default=1.0, metavar="SECONDS", help="between looks (default: 1)")
    top.add_argument("--once", action="store_true", help="print one table after one interval, and exit")
    top.add_argument("--json", action="store_true", help="the same, as JSON")


def _add_bench(bench: argparse.ArgumentParser) -> None:
    bench.description = (
        "Measures how fast messages go from process to process on this machine, beside the standard library's pipes"
        " and queues and beside whatever other library is installed. Every measurement first compares what came"
        " through with what was sent. All subjects take some minutes, which nothing else should disturb."
    )
    bench.epilog = (
        "Rivals: pipe, queue (multiprocessing), pyzmq, faster-fifo, cloudtoid, rust; and as yardsticks seqpacket,"
        " memcpy, msgspec, streams (asyncio). `make bench` in a clone of the project installs and builds all of them."
        " Exit code: 0 if nothing went wrong, whatever the targets say, else 1."
    )
    bench.add_argument("--only", action="append", default=[], metavar="TEXT", help="subjects with TEXT in the name")
    bench.add_argument(
        "--rivals", default="all", metavar="LIST", help="beside whom: names with commas between, all, or none"
    )
    bench.add_argument("--rounds", type=_rounds, metavar="N", help="measure each N times, 1 to 100 (default: 5)")
    bench.add_argument("--quick", action="store_true", help="only see that everything works; the figures mean nothing")
    bench.add_argument("--list", action="store_true", help="print the subjects and what they measure, and exit")
    bench.add_argument("--json", metavar="FILE", help="write the results as JSON, every round included")
    bench.add_argument("--chart", metavar="FILE", help="draw the results, as SVG")
    bench.add_argument("--load", metavar="FILE", help="do not measure, but show the results in a file of --json")
    bench.add_argument("--rust-peer", metavar="PROGRAM", help="the program that measures the Rust crate")


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


def _rounds(text: str) -> int:
    if text.isdecimal() and 1 <= int(text) <= 100:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to 100")


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if 0.05 <= seconds <= 3600:
        return seconds
    raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds from 0.05 to 3600")


def _pid(text: str) -> int:
    if text.isdecimal() and int(text) > 0:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a process id")
