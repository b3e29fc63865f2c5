"""All measurements of a run: of each subject round 1 of everybody, then round 2 of everybody, and so on."""

import os
import platform
import signal
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from ipc_channel.bench.contestants import contestants
from ipc_channel.bench.results import Machine, Measured, Results, Row, Verdict
from ipc_channel.bench.subject import Effort, Figures, Subject, Target
from ipc_channel.bench.targets import times_fastest_peer
from ipc_channel.bench.worker import Answer, Task

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["Plan", "measure"]

_ROUNDS: Final = 5
_QUICK_ROUNDS: Final = 1
_SECONDS: Final = 0.5
_QUICK_SECONDS: Final = 0.01
_KEEPS_MEMORY: Final = {"MALLOC_MMAP_THRESHOLD_": str(32 << 20), "MALLOC_TRIM_THRESHOLD_": str(1 << 30)}
"""What glibc reads when a program starts, the first at the largest value that every version takes; other C libraries
ignore both."""
_LINES: Final = 1
"""Lines of a failed measurement's standard error that the table shows."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What the user has asked for."""

    subjects: Sequence[Subject]
    rounds: int | None
    """None: as many as usual."""
    quick: bool
    rust_peer: str | None


class _Failure(Exception):
    """A measurement went wrong; the text says how."""


def measure(plan: Plan, console: "Console") -> Results:
    """Measure everything, with progress on ``console``."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    rounds = plan.rounds or (_QUICK_ROUNDS if plan.quick else _ROUNDS)
    machine = _machine()  # now, since its load should be that of others
    effort = Effort(_QUICK_SECONDS if plan.quick else _SECONDS, plan.quick, plan.rust_peer)
    everybody = contestants(plan.rust_peer)
    missing = {each.key: each.missing for each in everybody if each.missing}
    measured: list[Measured] = []
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as bar:
        task = bar.add_task("", total=sum(_rounds_of(subject, rounds) for subject in plan.subjects))
        for number, subject in enumerate(plan.subjects, start=1):
            if not console.is_terminal:
                console.print(f"[{number}/{len(plan.subjects)}] {subject.name}", markup=False, highlight=False)
            one = _Rounds(subject, missing)
            for turn in range(_rounds_of(subject, rounds)):
                bar.update(task, description=subject.name)
                one.next(turn, effort)
                bar.advance(task)
            measured.append(one.result(judged=not plan.quick))
    return Results(machine, plan.quick, rounds, effort.seconds, list(everybody), measured)


def _rounds_of(subject: Subject, rounds: int) -> int:
    return rounds if subject.most_rounds is None else min(rounds, subject.most_rounds)


class _Rounds:
    """The rounds of one subject."""

    def __init__(self, subject: Subject, missing: dict[str, str]) -> None:
        self._subject = subject
        self._figures: dict[str, list[Figures]] = {rival: [] for rival in subject.measures}
        self._unavailable = {rival: missing[rival] for rival in subject.measures if rival in missing}
        self._failures: dict[str, str] = {}

    def next(self, turn: int, effort: Effort) -> None:
        """Everybody once; each round begins with another one."""
        rivals = list(self._subject.measures)
        first = turn % len(rivals)
        for rival in rivals[first:] + rivals[:first]:
            if rival in self._unavailable or rival in self._failures:
                continue
            try:
                answer = _in_a_process(
                    Task(self._subject.key, rival, effort),
                    self._subject.timeout,
                    _KEEPS_MEMORY if self._subject.keeps_memory else {},
                )
            except _Failure as failure:
                self._failures[rival] = str(failure)
                continue
            if answer.unavailable is None:
                self._figures[rival].append(answer.figures)
            else:
                self._unavailable[rival] = answer.unavailable

    def result(self, *, judged: bool) -> Measured:
        """The medians and the verdicts."""
        subject = self._subject
        rounds = {
            metric.name: {
                rival: values
                for rival, figures in self._figures.items()
                if rival not in self._failures
                and (values := [each[metric.name] for each in figures if metric.name in each])
            }
            for metric in subject.metrics
        }
        medians = {
            rival: {name: statistics.median(values[rival]) for name, values in rounds.items() if rival in values}
            for rival in subject.measures
        }
        rows = [
            Row(
                name=metric.name,
                unit=metric.unit,
                rounds=rounds[metric.name],
                medians={rival: figures[metric.name] for rival, figures in medians.items() if metric.name in figures},
                times_fastest_peer=times_fastest_peer(medians, metric.name, metric.unit),
                verdicts=[
                    _verdict(target, target.reached(medians), judged=judged)
                    for target in subject.targets
                    if target.metric == metric.name
                ],
            )
            for metric in subject.metrics
        ]
        return Measured(
            key=subject.key,
            name=subject.name,
            family=subject.family,
            what=subject.what,
            chart=list(subject.chart),
            rivals=list(subject.measures),
            rows=rows,
            unavailable=self._unavailable,
            failures=self._failures,
        )


def _verdict(target: Target, reached: float | None, *, judged: bool) -> Verdict:
    met = None if reached is None or not judged else target.met(reached)
    return Verdict(target.text, target.unit, reached, met)


def _in_a_process(task: Task, timeout: float, environment: Mapping[str, str]) -> Answer:
    """One measurement. Whatever happens, neither its process nor any child of that is left."""
    # A session of its own is a process group of its own, which can be killed as a whole. Ctrl-C reaches only us.
    process = subprocess.Popen(
        [sys.executable, "-m", "ipc_channel.bench.worker", msgspec.json.encode(task).decode()],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, **environment},
        start_new_session=True,
    )
    try:
        out, error = process.communicate(timeout=timeout)
    except BaseException as reason:
        # Before the group's leader is waited for, since its number could be another's afterwards.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        if isinstance(reason, subprocess.TimeoutExpired):
            raise _Failure(f"not done after {timeout:g} s") from None
        raise
    if process.returncode != 0:
        lines = error.decode(errors="replace").strip().splitlines()
        raise _Failure("\n".join(lines[-_LINES:]) or f"exit code {process.returncode}")
    return msgspec.json.decode(out, type=Answer)


def _machine() -> Machine:
    return Machine(
        processor=_processor(),
        cores=len(os.sched_getaffinity(0)),
        memory=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        kernel=f"Linux {platform.release()}",
        python=f"{platform.python_implementation()} {platform.python_version()}",
        load=round(os.getloadavg()[0], 2),
    )


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("model name", "Model"):
            return value.strip()
    return platform.machine()
