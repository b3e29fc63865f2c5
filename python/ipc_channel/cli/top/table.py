"""Rows as a table for people and as JSON for machines."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from ipc_channel.cli.processes import Holder
from ipc_channel.cli.top.rows import Row

if TYPE_CHECKING:
    from rich.table import Table


def as_json(rows: Sequence[Row]) -> str:
    """All rows; the keys are the names of their fields."""
    return json.dumps([asdict(row) for row in rows], indent=2)


def table(rows: Sequence[Row] | None) -> "Table":
    """The rows as they are shown; None before there are any."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    shown = Table(
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        expand=True,
        caption=_caption(rows),
        caption_justify="left",
    )
    # The names of processes take the width that the numbers leave.
    for name in ("from", "to"):
        shown.add_column(name, ratio=1, no_wrap=True, overflow="ellipsis")
    shown.add_column("by", no_wrap=True)
    for name in ("messages/s", "waiting", "unread", "memory"):
        shown.add_column(name, justify="right", no_wrap=True)
    for row in rows or ():
        of_lane = (_number(row.rate), _number(row.waiting)) if row.kind == "lane" else ("", "")
        memory = _bytes(row.memory) if row.kind == "lane" else ""
        shown.add_row(
            Text(_names(row.senders)), Text(_names(row.receivers)), row.kind, *of_lane, _bytes(row.unread), memory
        )
    return shown


def _caption(rows: Sequence[Row] | None) -> str | None:
    if rows is None:
        return "looking"
    return None if rows else "no channels of ipc-channel in the processes that this user may see"


def _names(who: Iterable[Holder]) -> str:
    return "\n".join(f"{holder.pid} {_without_folder(holder.command)}" for holder in who) or "-"


def _without_folder(command: str) -> str:
    # The folder of an interpreter tells less than what it runs.
    program, space, arguments = command.partition(" ")
    return program.rpartition("/")[2] + space + arguments


def _number(value: float | None) -> str:
    return "?" if value is None else f"{value:,.0f}"


def _bytes(value: int | None) -> str:
    if value is None:
        return "?"
    for size, unit in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if value >= size:
            return f"{value / size:,.1f} {unit}"
    return f"{value} B"
