"""The demo's progress bars, its final tables, and the same as JSON."""

import json
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ipc_channel.cli.demo.jobs import Module
from ipc_channel.cli.demo.supervisor import Count, Supervisor

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

_LARGEST: Final = 5
_NAMED: Final = 10
"""Modules named one by one when something is wrong with them."""


class ProgressDisplay:
    """A bar on a terminal; on anything else only the notes, as lines."""

    def __init__(self, console: "Console", progress: "Progress", task: "TaskID") -> None:
        self._console = console
        self._progress = progress
        self._task = task
        self._files = 0

    def advance(self, size: int) -> None:
        """One more file is done."""
        self._files += 1
        # By bytes: the largest files come first, so a bar of files would crawl and then rush.
        self._progress.update(self._task, advance=size, files=self._files)

    def note(self, text: str) -> None:
        """Print a line above the bar."""
        self._console.print(text, markup=False, highlight=False)


@contextmanager
def progress(console: "Console", title: str, modules: Sequence[Module]) -> Generator[ProgressDisplay, None, None]:
    """Show the progress of one count on ``console``."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    if not console.is_terminal:
        console.print(title, markup=False, highlight=False)
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[files]} of {task.fields[all]} files"),
        TimeElapsedColumn(),
        console=console,
        disable=not console.is_terminal,
    ) as bars:
        size = sum(module.size for module in modules)
        yield ProgressDisplay(console, bars, bars.add_task(title, total=size, files=0, all=len(modules)))


@dataclass(frozen=True, slots=True)
class Result:
    """Both counts, ready to be shown."""

    folder: str
    modules: Sequence[Module]
    supervisor: Supervisor
    check: Count

    @property
    def different(self) -> list[int]:
        """Numbers of the modules for which the two counts disagree."""
        shared, alone = self.supervisor.count, self.check
        return [
            number for number in range(len(self.modules)) if shared.answers.get(number) != alone.answers.get(number)
        ]

    @property
    def unreadable(self) -> dict[str, str]:
        """Why, by module: in either count."""
        reasons = self.check.unreadable | self.supervisor.count.unreadable
        return {self.modules[number].name: reasons[number] for number in sorted(reasons)}

    @property
    def good(self) -> bool:
        """Whether nothing was lost and everything could be read."""
        return not self.different and not self.unreadable


def as_json(result: Result) -> str:
    """The whole result, tokens by module included."""
    supervisor, check = result.supervisor, result.check
    killed = supervisor.killed
    return json.dumps(
        {
            "folder": result.folder,
            **_count_as_json(supervisor.count),
            "messages": supervisor.messages,
            "repeated_jobs": len(supervisor.repeated),
            "killed_pid": killed.process.pid if killed else None,
            "workers": [
                {
                    "pid": worker.process.pid,
                    "files": worker.files,
                    "tokens": worker.tokens,
                    "bytes": worker.source_bytes,
                    "fate": worker.fate,
                }
                for worker in supervisor.workers
            ],
            "check": {
                **_count_as_json(check),
                "same": not result.different,
                "different": [result.modules[number].name for number in result.different],
            },
            "unreadable": result.unreadable,
            "modules": {
                result.modules[number].name: None if answer.problem else answer.tokens
                for number, answer in sorted(supervisor.count.answers.items())
            },
        },
        indent=2,
    )


def _count_as_json(count: Count) -> dict[str, int | float]:
    return {
        "files": len(count.answers),
        "tokens": count.tokens,
        "bytes": count.source_bytes,
        "do_not_tokenize": count.broken,
        "seconds": round(count.seconds, 3),
    }


def show(result: Result, console: "Console") -> None:
    """Print the tables and the verdict."""
    _show_counts(result, console)
    _show_workers(result.supervisor, console)
    _show_largest(result, console)
    _show_verdict(result, console)


def _show_counts(result: Result, console: "Console") -> None:
    from rich.table import Table

    supervisor, check = result.supervisor, result.check
    shared = supervisor.count
    table = Table(title="Both counts", title_justify="left")
    table.add_column("")
    table.add_column(f"{len(supervisor.workers)} workers", justify="right")
    table.add_column("one process", justify="right")
    table.add_row("files", f"{len(shared.answers):,}", f"{len(check.answers):,}")
    table.add_row("tokens", f"{shared.tokens:,}", f"{check.tokens:,}")
    table.add_row("bytes read", f"{shared.source_bytes:,}", f"{check.source_bytes:,}")
    table.add_row("files that do not tokenize", f"{shared.broken:,}", f"{check.broken:,}")
    table.add_row("messages", f"{supervisor.messages:,}", "-")
    table.add_row("seconds", f"{shared.seconds:.2f}", f"{check.seconds:.2f}")
    console.print(table)


def _show_workers(supervisor: Supervisor, console: "Console") -> None:
    from rich.table import Table

    table = Table(title="Workers", title_justify="left")
    table.add_column("process", justify="right")
    table.add_column("files", justify="right")
    table.add_column("tokens", justify="right")
    table.add_column("bytes", justify="right")
    table.add_column("fate")
    for worker in supervisor.workers:
        table.add_row(
            str(worker.process.pid),
            f"{worker.files:,}",
            f"{worker.tokens:,}",
            f"{worker.source_bytes:,}",
            "killed with SIGKILL" if worker is supervisor.killed else worker.fate,
            style="red" if worker.fate != "finished" else None,
        )
    console.print(table)


def _show_largest(result: Result, console: "Console") -> None:
    from rich.table import Table
    from rich.text import Text

    answers = sorted(
        (answer for answer in result.supervisor.count.answers.values() if answer.problem is None),
        key=lambda answer: -answer.tokens,
    )
    table = Table(title="Modules with the most tokens", title_justify="left")
    table.add_column("module")
    table.add_column("tokens", justify="right")
    for answer in answers[:_LARGEST]:
        table.add_row(Text(result.modules[answer.number].name), f"{answer.tokens:,}")
    console.print(table)


def _show_verdict(result: Result, console: "Console") -> None:
    supervisor = result.supervisor
    killed = supervisor.killed
    if killed is not None:
        jobs = len(supervisor.repeated)
        left = "the one job" if jobs == 1 else f"the {jobs} jobs"
        console.print(
            f"Process {killed.process.pid} was killed in the middle of its work;"
            f" {left} that it left unfinished went to the others."
        )
    for name, reason in list(result.unreadable.items())[:_NAMED]:
        console.print(f"Could not be read: {name}: {reason}", style="red", markup=False)
    if len(result.unreadable) > _NAMED:
        console.print(f"... and {len(result.unreadable) - _NAMED} more files.", style="red")
    if result.different:
        names = ", ".join(result.modules[number].name for number in result.different[:_NAMED])
        console.print(
            f"The counts DIFFER, by changes meanwhile or by a loss, in {len(result.different)} of"
            f" {len(result.modules)} files: {names}",
            style="bold red",
            markup=False,
        )
    else:
        console.print("Nothing was lost: both counts agree, file by file.", style="bold green", highlight=False)
