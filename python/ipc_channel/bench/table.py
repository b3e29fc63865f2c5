"""Results on a terminal."""

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from ipc_channel.bench.results import Contestant, Measured, Results, Row
from ipc_channel.bench.subject import OURS, Subject
from ipc_channel.bench.units import Unit, shown

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

__all__ = ["show", "show_list"]


def show_list(subjects: Sequence[Subject], console: "Console") -> None:
    """Which subjects there are, and what each measures."""
    for family, members in groupby(subjects, key=lambda subject: subject.family):
        console.print(family, style="bold", markup=False, highlight=False)
        for subject in members:
            console.print(f"  {subject.name} ({subject.key})", markup=False, highlight=False)
            console.print(f"    {subject.what}", style="dim", markup=False, highlight=False)


def show(results: Results, console: "Console") -> None:
    """A table for each family, what was measured below it, and the sum of it all."""
    for family, members in groupby(results.subjects, key=lambda subject: subject.family):
        _show_family(family, list(members), results.contestants, console)
    _show_end(results, console)


def _show_family(
    family: str, subjects: Sequence[Measured], contestants: Sequence[Contestant], console: "Console"
) -> None:
    from rich import box
    from rich.table import Table

    columns = [each for each in contestants if any(each.key in subject.rivals for subject in subjects)]
    targets = any(row.verdicts for subject in subjects for row in subject.rows)
    table = Table(title=family, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("", overflow="fold", max_width=34)
    for column in columns:
        table.add_column(column.column, justify="right", overflow="fold")
    if any(each.peer for each in columns):
        table.add_column("× fastest peer", justify="right", overflow="fold", max_width=9)
    if targets:
        table.add_column("target", overflow="fold")
        table.add_column("reached", justify="right", overflow="fold")
        table.add_column("met", justify="right")
    for subject in subjects:
        _add_subject(table, subject, columns, targets=targets)
    console.print(table)
    for subject in subjects:
        console.print(f"{subject.name}: {subject.what}", style="dim", markup=False, highlight=False)
        for what, reasons in (("not measured", subject.unavailable), ("failed", subject.failures)):
            for key, reason in reasons.items():
                who = next(each for each in contestants if each.key == key)
                if reason == who.missing:
                    continue  # it stands in every table, and at the end
                title = who.title
                console.print(
                    f"  {title} {what}: {reason}",
                    style="red" if what == "failed" else "yellow",
                    markup=False,
                    highlight=False,
                )
    console.print()


def _add_subject(table: "Table", subject: Measured, columns: Sequence[Contestant], *, targets: bool) -> None:
    from rich.text import Text

    alone = len(subject.rows) == 1 and not subject.rows[0].name
    if not alone:
        table.add_row(Text(subject.name))
    ratio = any(each.peer for each in columns)
    for row in subject.rows:
        cells = [Text(subject.name if alone else f"  {row.name or subject.name}")]
        cells += [_figure(subject, row, column) for column in columns]
        if ratio:
            times = row.times_fastest_peer
            cells.append(Text("" if times is None else shown(times, Unit.TIMES)))
        if targets:
            cells += [
                Text("\n".join(verdict.text for verdict in row.verdicts)),
                Text("\n".join(_reached(verdict.reached, verdict.unit) for verdict in row.verdicts)),
                _marks(verdict.met for verdict in row.verdicts),
            ]
        table.add_row(*cells)


def _figure(subject: Measured, row: Row, column: Contestant) -> "Text":
    from rich.text import Text

    if column.key not in subject.rivals:
        return Text("")
    if column.key in subject.failures:
        return Text("failed", style="red")
    if column.missing:
        return Text(column.missing.partition(":")[0], style="dim")
    if column.key in row.medians:
        return Text(shown(row.medians[column.key], row.unit), style="bold" if column.key == OURS else "")
    return Text("not available" if column.key == OURS else "-", style="dim")


def _reached(value: float | None, unit: Unit) -> str:
    return "-" if value is None else shown(value, unit)


def _marks(met: Iterable[bool | None]) -> "Text":
    from rich.text import Text

    text = Text()
    for number, each in enumerate(met):
        if number:
            text.append("\n")
        match each:
            case None:
                text.append("-")
            case True:
                text.append("met", style="green")
            case False:
                text.append("not met", style="red")
    return text


def _show_end(results: Results, console: "Console") -> None:
    machine = results.machine
    verdicts = [verdict for subject in results.subjects for row in subject.rows for verdict in row.verdicts]
    judged = [verdict.met for verdict in verdicts if verdict.met is not None]
    memory = shown(machine.memory, Unit.BYTES)
    rounds = "one round" if results.rounds == 1 else f"{results.rounds} rounds"
    lines = [
        f"{machine.processor}, {machine.cores} cores, {memory} of memory, {machine.kernel}, {machine.python}.",
        f"Medians of {rounds}; of each subject round 1 of everybody, then round 2 of everybody, and so on.",
    ]
    lines += [
        f"{each.title}: {each.missing or each.version or 'measured'}"
        for each in results.contestants
        if any(each.key in subject.rivals for subject in results.subjects)
    ]
    if results.quick:
        lines.append("A quick run: it shows that everything works, and its figures mean nothing.")
    else:
        lines.append(
            f"Targets: {sum(judged)} met, {len(judged) - sum(judged)} not met,"
            f" {len(verdicts) - len(judged)} not judged for want of a figure."
        )
    for line in lines:
        console.print(line, markup=False, highlight=False)
