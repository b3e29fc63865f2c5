"""Results on a terminal."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Final

from ipc_channel.bench.results import Contestant, Measured, Results, Row
from ipc_channel.bench.subject import OURS, Subject
from ipc_channel.bench.units import Unit, shown

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

__all__ = ["show", "show_list"]

_BUSY: Final = 0.25
"""The load average, for each core, from which on figures are doubtful."""
_UNLIMITED: Final = 10_000
"""Columns of a terminal in which any table finds room."""


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
    from rich.measure import Measurement

    figures = _figures(family, subjects, contestants)
    targets = _Targets(subjects)
    if targets:
        # Beside the figures if there is room, else below them.
        whole = _figures(family, subjects, contestants, targets)
        if Measurement.get(console, console.options.update(width=_UNLIMITED), whole).maximum <= console.width:
            console.print(whole)
        else:
            console.print(figures)
            console.print(targets.alone())
    else:
        console.print(figures)
    for subject in subjects:
        console.print(f"{subject.name}: {subject.what}", style="dim", markup=False, highlight=False)
        _show_absent(subject, contestants, console)
    console.print()


def _show_absent(subject: Measured, contestants: Sequence[Contestant], console: "Console") -> None:
    """Who could not be measured in this subject, and why."""
    who = {each.key: each for each in contestants}
    for key, reason in subject.unavailable.items():
        if reason != who[key].missing:  # what is missing altogether stands in every table, and at the end
            console.print(f"  {who[key].title} not measured: {reason}", style="yellow", markup=False, highlight=False)
    for key, reason in subject.failures.items():
        console.print(f"  {who[key].title} failed: {reason}", style="red", markup=False, highlight=False)


def _table(title: str | None) -> "Table":
    from rich import box
    from rich.table import Table

    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("", overflow="fold", max_width=34)
    return table


def _figures(
    family: str, subjects: Sequence[Measured], contestants: Sequence[Contestant], targets: "_Targets | None" = None
) -> "Table":
    """A column for everybody; three more for the targets, if they are given."""
    columns = [each for each in contestants if any(each.key in subject.rivals for subject in subjects)]
    peers = any(each.peer for each in columns)
    table = _table(family)
    for column in columns:
        table.add_column(column.column, justify="right", overflow="fold")
    if peers:
        table.add_column("× fastest peer", justify="right", overflow="fold", max_width=9)
    if targets is not None:
        targets.add_columns(table)
    for subject, row, name in _named_rows(subjects):
        if row is None:
            table.add_row(name)
            continue
        cells = [name, *[_figure(subject, row, column) for column in columns]]
        if peers:
            times = row.times_fastest_peer
            cells.append("" if times is None else shown(times, Unit.TIMES))
        if targets is not None:
            cells += targets.cells(row)
        table.add_row(*cells)
    return table


def _named_rows(subjects: Sequence[Measured]) -> Iterator[tuple[Measured, Row | None, "str | Text"]]:
    """The rows with their names; None stands for the line that names a subject of several rows."""
    from rich.text import Text

    for subject in subjects:
        alone = len(subject.rows) == 1 and not subject.rows[0].name
        if not alone:
            yield subject, None, Text(subject.name)
        for row in subject.rows:
            yield subject, row, Text(subject.name if alone else f"  {row.name}")


class _Targets:
    """The targets of a family."""

    def __init__(self, subjects: Sequence[Measured]) -> None:
        self._subjects = subjects

    def __bool__(self) -> bool:
        return any(row.verdicts for subject in self._subjects for row in subject.rows)

    def add_columns(self, table: "Table") -> None:
        table.add_column("target", overflow="fold")
        table.add_column("reached", justify="right", overflow="fold")
        table.add_column("met", justify="right", no_wrap=True)

    def cells(self, row: Row) -> "list[str | Text]":
        return [
            "\n".join(verdict.text for verdict in row.verdicts),
            "\n".join("-" if each.reached is None else shown(each.reached, each.unit) for each in row.verdicts),
            _marks(verdict.met for verdict in row.verdicts),
        ]

    def alone(self) -> "Table":
        """A table of nothing but targets."""
        table = _table(None)
        self.add_columns(table)
        judged = [subject for subject in self._subjects if any(row.verdicts for row in subject.rows)]
        for _, row, name in _named_rows(judged):
            if row is None:
                table.add_row(name)
            elif row.verdicts:
                table.add_row(name, *self.cells(row))
        return table


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
    if machine.load > _BUSY * machine.cores:
        console.print(
            f"When it began, the load average was {machine.load}: other programs have disturbed these figures.",
            style="yellow",
            markup=False,
            highlight=False,
        )
