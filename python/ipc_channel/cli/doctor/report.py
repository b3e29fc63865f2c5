"""The doctor's findings as tables for people and as JSON for machines."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from itertools import groupby
from typing import TYPE_CHECKING, Final

from ipc_channel.cli.doctor.check import Check, Status

if TYPE_CHECKING:
    from rich.console import Console

_STYLES: Final[dict[Status, str]] = {"fine": "green", "warning": "yellow", "failure": "bold red"}


def as_json(found: Sequence[Check]) -> str:
    """All checks, and how many of each status there are."""
    return json.dumps(
        {
            "status": worst(found),
            "warnings": sum(check.status == "warning" for check in found),
            "failures": sum(check.status == "failure" for check in found),
            "checks": [asdict(check) for check in found],
        },
        indent=2,
    )


def worst(found: Sequence[Check]) -> Status:
    """The status of the whole machine."""
    statuses = {check.status for check in found}
    if "failure" in statuses:
        return "failure"
    return "warning" if "warning" in statuses else "fine"


def show(found: Sequence[Check], console: "Console") -> None:
    """Print a table for each group, then what to do."""
    from rich.table import Table
    from rich.text import Text

    for group, checks in groupby(found, key=lambda check: check.group):
        table = Table(title=group[0].upper() + group[1:], title_justify="left", expand=True)
        table.add_column("", width=7)
        table.add_column("what", ratio=3)
        table.add_column("found", ratio=4)
        table.add_column("used for", ratio=5, style="dim")
        for check in checks:
            table.add_row(
                Text(check.status, style=_STYLES[check.status]),
                Text(check.name),
                Text(check.value),
                Text(check.used_for),
            )
        console.print(table)
    for check in found:
        if check.status != "fine":
            console.print(
                Text.assemble(
                    (check.status, _STYLES[check.status]), f": {check.name}: {check.value}\n    {check.advice}"
                )
            )
    summary = {
        "fine": "Everything the package needs works here.",
        "warning": "Everything works; the warnings say which limits would bite.",
        "failure": "Something the package needs does not work here: see the failures.",
    }
    status = worst(found)
    console.print(summary[status], style=_STYLES[status])
