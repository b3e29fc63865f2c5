"""A survey as tables for people and as JSON for machines."""

import json
import os
from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING, Final

from ipc_channel.cli.inspect.survey import End, Survey
from ipc_channel.cli.processes import Holder

if TYPE_CHECKING:
    from rich.console import Console

_LONGEST_COMMAND: Final = 200


def as_json(found: Survey) -> str:
    """Everything in the survey; the keys are the field names of its classes."""
    return json.dumps(asdict(found), indent=2)


def show(found: Survey, console: "Console") -> None:
    """Print the tables."""
    from rich.text import Text

    console.print(Text.assemble("Process ", (str(found.pid), "bold"), f": {_shortened(found.command)}"))
    if not (found.ends or found.lanes or found.servers or found.memories):
        console.print("It holds no channel ends, one-shot servers or shared memory of ipc-channel.")
    if found.ends:
        _show_ends(found, console)
    if found.lanes:
        rows = [
            [
                ", ".join(map(str, lane.fds)),
                lane.direction,
                "-" if lane.other is None else _names(found.pid, [lane.other]),
                "?" if lane.waiting is None else f"{lane.waiting:,}",
                *("?" if size is None else f"{size:,} B" for size in (lane.unread, lane.memory)),
            ]
            for lane in found.lanes
        ]
        headings = [">fd", "this process", "other side", ">messages waiting", ">unread", ">memory"]
        _print_table(console, "Lanes", headings, rows)
    if found.servers:
        rows = [[str(server.fd), str(server.waiting)] for server in found.servers]
        _print_table(console, "One-shot servers that have not served yet", [">fd", ">clients waiting"], rows)
    if found.memories:
        rows = [
            [
                ", ".join(map(str, memory.fds)) or "mapped",
                memory.kind,
                "?" if memory.size is None else f"{memory.size:,} B",
                _names(found.pid, memory.also_held_by) or "-",
            ]
            for memory in found.memories
        ]
        _print_table(console, "Shared memory", [">fd", "kind", ">size", "also held by"], rows)
    if commands := _commands(found):
        rows = [[str(pid), _shortened(line)] for pid, line in sorted(commands.items())]
        _print_table(console, "The other processes", [">process", "command"], rows)
    _show_remarks(found, console)


def _show_ends(found: Survey, console: "Console") -> None:
    shared = any(end.also_held_by for end in found.ends)
    headings = [">fd", "kind", "other end held by", ">unread"]
    rows: list[list[str]] = []
    for end in found.ends:
        unknown = "-" if end.other_end == "gone" else "?"
        unread = unknown if end.unread is None else f"{end.unread:,} B"
        rows.append([str(end.fd), end.kind, _other_end(found, end), unread])
        if shared:
            rows[-1].append(_names(found.pid, end.also_held_by) or "-")
    if shared:
        headings.append("this end also held by")
    _print_table(console, "Channel ends", headings, rows)


def _print_table(console: "Console", title: str, headings: list[str], rows: list[list[str]]) -> None:
    """A heading that begins with ``>`` is that of a column of numbers."""
    from rich.table import Table
    from rich.text import Text

    table = Table()
    for heading in headings:
        table.add_column(heading.removeprefix(">"), justify="right" if heading.startswith(">") else "left")
    for row in rows:
        table.add_row(*map(Text, row))
    console.print()
    console.print(title, style="bold")
    console.print(table)


def _show_remarks(found: Survey, console: "Console") -> None:
    if any(end.unread for end in found.ends):
        console.print(
            "Unread bytes are those of whole packets, as the kernel counts them: headers are included,"
            " and bodies that travel in shared memory are not.",
            style="dim",
        )
    if found.lanes:
        console.print(
            "A lane is memory through which one process sends to one receiver. What waits there is as far as the"
            " receiver has told: without capacity=, it tells once it has read a sixteenth of a ring, or everything.",
            style="dim",
        )
    if found.unreadable:
        advice = "" if os.geteuid() == 0 else " Run this as root to see more."
        console.print(f"Processes whose open files this user may not see: {found.unreadable}.{advice}", style="dim")


def _commands(found: Survey) -> dict[int, str]:
    """The command of every process that is named in the tables, without the inspected one."""
    groups = [
        *(end.also_held_by for end in found.ends),
        *(end.other_held_by for end in found.ends),
        *([lane.other] for lane in found.lanes if lane.other),
        *(memory.also_held_by for memory in found.memories),
    ]
    return {holder.pid: holder.command for group in groups for holder in group if holder.pid != found.pid}


def _other_end(found: Survey, end: End) -> str:
    match end.other_end:
        case "held":
            return _names(found.pid, end.other_held_by)
        case "gone":
            return "nobody: it is closed"
        case "not accepted":
            return "a one-shot server that has not accepted yet"
        case "not visible":
            if found.unreadable:
                return "in flight, or in a process you may not see"
            return "in flight in an unread message"


def _names(pid: int, holders: Iterable[Holder]) -> str:
    return "\n".join(
        f"{'this process' if holder.pid == pid else holder.pid} "
        + (f"(fd {', '.join(map(str, holder.fds))})" if holder.fds else "(mapped)")
        for holder in holders
    )


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST_COMMAND else text[: _LONGEST_COMMAND - 3] + "..."
