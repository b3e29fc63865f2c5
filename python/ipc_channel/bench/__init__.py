"""``ipc-channel bench``: how fast the package is here, beside others that do the same.

=============  =================================================================================================
`subject`      what is measured: a subject, its metrics, its targets
`subjects/`    all subjects, a file for each family
`rivals/`      how each library sends and receives, behind one small interface
`worker`       one measurement in a process of its own; `measuring` and `peer` are its tools
`rounds`       all measurements, interleaved; `results` is what they give
`table`        results on a terminal; `chart` as a picture
=============  =================================================================================================

Every measurement compares what came through with what was sent before it starts a clock. Where something goes from
one process to another, the clock stops when the receiver has answered that it has everything.
"""

import argparse
import sys
from pathlib import Path

__all__ = ["run"]


def run(arguments: argparse.Namespace) -> int:
    """Measure or load, print, write; 0 if every measurement that could be made was right, else 1."""
    from rich.console import Console

    from ipc_channel.bench.results import Results, load, to_json
    from ipc_channel.bench.table import show, show_list

    console = Console()
    if not console.is_terminal:
        console.width = max(console.width, _WIDTH)
    try:
        if arguments.load is None:
            from ipc_channel.bench.choice import ChoiceError, choose
            from ipc_channel.bench.rounds import Plan, measure

            try:
                chosen = choose(arguments.only, arguments.rivals)
            except ChoiceError as error:
                return _fail(str(error))
            if arguments.list:
                show_list(chosen, console)
                return 0
            plan = Plan(subjects=chosen, rounds=arguments.rounds, quick=arguments.quick, rust_peer=arguments.rust_peer)
            results: Results = measure(plan, Console(stderr=True))
        else:
            results = load(Path(arguments.load))
        # Written before they are shown: a table that nobody reads to its end must not cost a long run.
        if arguments.json is not None:
            Path(arguments.json).write_bytes(to_json(results))
        if arguments.chart is not None:
            from ipc_channel.bench.chart import draw

            picture = draw(results)
            if picture is None:
                _say(f"nothing was measured that the picture shows: {arguments.chart} is not written")
            else:
                Path(arguments.chart).write_text(picture, encoding="utf-8")
    except OSError as error:
        return _fail(f"{error.filename}: {error.strerror}" if error.filename else str(error))
    except ValueError as error:
        return _fail(str(error))
    show(results, console)
    return 1 if results.broken else 0


_WIDTH = 200
"""Columns of the tables where there is no terminal that says how wide it is."""


def _fail(text: str) -> int:
    _say(text)
    return 1


def _say(text: str) -> None:
    print(f"ipc-channel bench: {text}", file=sys.stderr)
