"""``ipc-channel top``: the user's processes and their channels, looked at again and again."""

import argparse
import os
import sys
import time
from typing import Final

from ipc_channel.cli.top.look import look
from ipc_channel.cli.top.rows import Row, rows

__all__ = ["run"]

_WIDTH_OF_A_PIPE: Final = 120


def run(arguments: argparse.Namespace) -> int:
    """Show what is found until Ctrl-C, or once; 0."""
    from rich.console import Console

    from ipc_channel.cli.top.table import as_json, table

    live = sys.stdout.isatty() and not (arguments.once or arguments.json)
    # A pipe has no width. In the 80 columns that are otherwise taken for it, no names of processes would be left.
    console = Console(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else _WIDTH_OF_A_PIPE)
    pids: frozenset[int] = frozenset(arguments.pids)
    before = look()

    def after_an_interval() -> list[Row]:
        nonlocal before
        time.sleep(arguments.interval)
        earlier, before = before, look()
        return rows(earlier, before, pids)

    if arguments.json:
        print(as_json(after_an_interval()))
        return 0
    if not live:
        console.print(table(after_an_interval()))
        return 0

    from rich.live import Live

    # The first table says that there is something to come. Each look is shown when it is there, and not before.
    with Live(table(None), console=console, auto_refresh=False) as screen:
        while True:
            screen.update(table(after_an_interval()), refresh=True)
