"""``ipc-channel bench``: that it measures, checks, compares and cleans up. How fast anything is, is no matter here."""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from ipc_channel.bench import rounds, targets
from ipc_channel.bench.contestants import KEYS
from ipc_channel.bench.measuring import Wrong, quantile, seconds_each
from ipc_channel.bench.results import load
from ipc_channel.bench.rivals.libraries import LIBRARIES
from ipc_channel.bench.rivals.rival import Kind, Link
from ipc_channel.bench.rivals.rust import Rust
from ipc_channel.bench.rounds import Plan, measure
from ipc_channel.bench.subject import OURS, Effort, Metric, Subject, Target
from ipc_channel.bench.subjects import all_subjects, streams
from ipc_channel.bench.units import Unit, shown
from ipc_channel.bench.worker import Answer, Task
from ipc_channel.cli import main
from tests.support.start_methods import ROOT

QUICK = Effort(0.001, quick=True)
MARK = "IPC_CHANNEL_BENCH_TEST"


def bench(*arguments: str) -> int:
    return main(["bench", *arguments])


# What is measured


@pytest.mark.parametrize("key", [subject.key for subject in all_subjects()])
def test_each_subject_gives_figures_and_leaves_no_warning(key: str) -> None:
    subject = next(subject for subject in all_subjects() if subject.key == key)
    task = json.dumps({"subject": key, "rival": OURS, "effort": {"seconds": 0.001, "quick": True}})
    done = subprocess.run(
        [sys.executable, "-m", "ipc_channel.bench.worker", task],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.stderr == ""  # warnings are errors in this process, and a child's traceback would be here
    answer = json.loads(done.stdout)
    if answer["unavailable"] is None:
        names = {metric.name for metric in subject.metrics}
        assert answer["figures"].keys() <= names
        assert answer["figures"]
        assert all(value >= 0 for value in answer["figures"].values())
    else:
        assert answer["figures"] == {}


def test_subjects_are_consistent() -> None:
    subjects = all_subjects()
    assert len({subject.key for subject in subjects}) == len(subjects)
    for subject in subjects:
        names = [metric.name for metric in subject.metrics]
        assert len(set(names)) == len(names)
        assert next(iter(subject.measures)) == OURS
        assert set(subject.measures) <= set(KEYS)
        assert {target.metric for target in subject.targets} <= set(names)
        assert set(subject.chart) <= set(names)


def test_the_libraries_of_make_bench_are_those_that_have_an_adapter() -> None:
    pinned = re.findall(r"^([\w-]+)==", (ROOT / "benchmarks/constraints.txt").read_text(), re.MULTILINE)
    others = {library.title for library in LIBRARIES if library.key not in (OURS, "pipe", "queue")}
    assert set(pinned) == others
    cargo = (ROOT / "benchmarks/rust-peer/Cargo.toml").read_text()
    assert f'ipc-channel = "={Rust().version()}"' in cargo


class CorruptingSend:
    """Swaps two messages."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def open(self) -> Callable[[Any], object]:
        held: list[bytes] = []

        def send(message: bytes) -> None:
            if int.from_bytes(message[:8], "little") == 7:
                held.append(message)
            else:
                self.connection.send_bytes(message)
                while held:
                    self.connection.send_bytes(held.pop())

        return send

    def open_batch(self) -> Callable[[Iterable[Any]], object]:
        raise NotImplementedError

    def close(self) -> None:
        self.connection.close()


class PlainReceive:
    """What a pipe has."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def open(self) -> Callable[[], Any]:
        return self.connection.recv_bytes

    def messages(self, count: int) -> Iterator[Any]:
        return (self.connection.recv_bytes() for _ in range(count))

    def batches(self, count: int) -> Iterator[list[Any]]:
        raise NotImplementedError

    def close(self) -> None:
        self.connection.close()


class Corrupting:
    """A library that loses the order of messages."""

    key = title = column = "corrupting"

    def missing(self) -> str | None:
        return None

    def version(self) -> str:
        return "1"

    def link(self, kind: Kind, largest: int) -> Link:
        receiving, sending = multiprocessing.get_context("spawn").Pipe(duplex=False)
        return CorruptingSend(sending), PlainReceive(receiving)


def test_a_library_that_loses_the_order_is_not_timed() -> None:
    with pytest.raises(Wrong, match="messages differ"):
        streams._one_way(Corrupting(), Kind.BYTES, 64, QUICK)


def test_the_count_grows_until_a_run_takes_long_enough() -> None:
    counts: list[int] = []

    def run(count: int) -> float:
        counts.append(count)
        return count * 1e-4

    assert seconds_each(1.0, run) == pytest.approx(1e-4)
    assert counts[0] == 16
    assert counts[-1] == 10_000


def test_quantiles() -> None:
    assert quantile([5, 1, 3], 0.5) == 3
    assert quantile(range(1000), 0.99) == 990
    assert quantile([4], 0.99) == 4


# The command


def test_a_quick_run_gives_a_table_and_json_and_a_picture(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    file, picture = tmp_path / "results.json", tmp_path / "chart.svg"
    code = bench(
        "--quick", "--rivals", "pipe", "--only", "64 B bytes, one", "--only", "request", "--rounds", "2",
        "--json", str(file), "--chart", str(picture),
    )  # fmt: skip
    out, err = capsys.readouterr()
    assert code == 0
    assert "[1/2] 64 B bytes, one way" in err
    for text in ("ipc-channel", "Pipe", "≥ 7 × the fastest peer", "request with a fresh reply channel", "quick run"):
        assert text in out

    results = json.loads(file.read_text())
    assert results["quick"] is True
    first, second = results["subjects"]
    assert (first["key"], first["rivals"]) == ("bytes-64", [OURS, "pipe"])
    (row,) = first["rows"]
    assert {rival: len(values) for rival, values in row["rounds"].items()} == {OURS: 2, "pipe": 2}
    assert min(row["rounds"]["pipe"]) <= row["medians"]["pipe"] <= max(row["rounds"]["pipe"])
    assert row["times_fastest_peer"] == pytest.approx(row["medians"][OURS] / row["medians"]["pipe"])
    assert [verdict["met"] for verdict in row["verdicts"]] == [None] * 3  # a quick run is not judged
    assert second["rivals"] == [OURS]

    svg = ElementTree.parse(picture).getroot()
    words = [element.text for element in svg.iter("{http://www.w3.org/2000/svg}text")]
    assert {"64 B bytes, one way", "ipc-channel", "Pipe"} <= set(words)

    assert bench("--load", str(file)) == 0
    assert capsys.readouterr().out == out


def test_the_list_measures_nothing(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds, "_in_a_process", None)
    assert bench("--list") == 0
    out = capsys.readouterr().out
    for subject in all_subjects():
        assert f"{subject.name} ({subject.key})" in out


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--only", "no such thing"], "no subject is called 'no such thing'"),
        (["--rivals", "pipe,carrier-pigeon"], "no rival is called carrier-pigeon"),
        (["--load", "/nowhere/at/all"], "/nowhere/at/all: No such file"),
    ],
)
def test_wrong_arguments(arguments: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench(*arguments) == 1
    assert text in capsys.readouterr().err


def test_a_file_that_holds_no_results(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "other.json"
    file.write_text('{"subjects": 3}')
    assert bench("--load", str(file)) == 1
    assert "does not hold the results of a run" in capsys.readouterr().err
    with pytest.raises(ValueError, match="does not hold"):
        load(file)


@pytest.mark.parametrize("rounds", ["0", "101", "-1", "many"])
def test_rounds_are_a_number(rounds: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        bench("--rounds", rounds)
    assert "is not a number from 1 to 100" in capsys.readouterr().err


def test_a_picture_of_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "chart.svg"
    assert bench("--quick", "--rivals", "none", "--only", "channel()", "--chart", str(picture)) == 0
    out, err = capsys.readouterr()
    assert "nothing was measured that the picture shows" in err
    assert "channel()" in out
    assert not picture.exists()


# Rounds


def subject(rivals: Iterable[str], *, most_rounds: int | None = None, goals: Iterable[Target] = ()) -> Subject:
    return Subject(
        key="made-up",
        name="made up",
        family="Made up",
        what="Nothing.",
        metrics=[Metric("", Unit.TIME)],
        measures=dict.fromkeys(rivals, lambda _: {}),
        targets=list(goals),
        most_rounds=most_rounds,
    )


def run_rounds(
    monkeypatch: pytest.MonkeyPatch, answer: Callable[[str], Answer], subject: Subject, *, count: int
) -> tuple[list[str], Any]:
    from rich.console import Console

    asked: list[str] = []

    def in_a_process(task: Task, timeout: float, environment: Mapping[str, str]) -> Answer:
        asked.append(task.rival)
        return answer(task.rival)

    monkeypatch.setattr(rounds, "_in_a_process", in_a_process)
    plan = Plan(subjects=[subject], rounds=count, quick=False, rust_peer=None)
    return asked, measure(plan, Console(file=io.StringIO()))


def test_rounds_are_interleaved(monkeypatch: pytest.MonkeyPatch) -> None:
    figures = iter([1.0, 10.0, 20.0, 2.0, 30.0, 3.0])
    asked, results = run_rounds(monkeypatch, lambda _: Answer({"": next(figures)}), subject([OURS, "pipe"]), count=3)
    # Each round has everybody once, and each begins with another one.
    assert asked == [OURS, "pipe", "pipe", OURS, OURS, "pipe"]
    (row,) = results.subjects[0].rows
    assert row.rounds == {OURS: [1.0, 2.0, 30.0], "pipe": [10.0, 20.0, 3.0]}
    assert row.medians == {OURS: 2.0, "pipe": 10.0}
    assert row.times_fastest_peer == 5.0
    assert not results.broken


def test_long_measurements_have_fewer_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, _ = run_rounds(monkeypatch, lambda _: Answer({"": 1.0}), subject([OURS], most_rounds=2), count=5)
    assert asked == [OURS] * 2


def test_what_is_not_available_or_fails_is_named_and_not_tried_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def answer(rival: str) -> Answer:
        if rival == "pipe":
            raise rounds._Failure("wrong: messages differ")
        return Answer(unavailable="no numpy") if rival == "queue" else Answer({"": 1.0})

    asked, results = run_rounds(monkeypatch, answer, subject([OURS, "pipe", "queue", "rust"]), count=3)
    assert sorted(asked) == sorted([OURS] * 3 + ["pipe", "queue"])
    measured = results.subjects[0]
    assert measured.failures == {"pipe": "wrong: messages differ"}
    assert measured.unavailable == {"queue": "no numpy", "rust": "not built: `make bench` does"}
    assert results.broken

    from rich.console import Console

    from ipc_channel.bench.table import show

    show(results, Console(width=200))
    out = capsys.readouterr().out
    assert "multiprocessing.Pipe failed: wrong: messages differ" in out
    assert "multiprocessing.Queue not measured: no numpy" in out
    assert "Rust crate ipc-channel: not built" in out


def test_a_target_that_is_met_and_one_that_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    goals = [targets.fixed("", 1.0, Unit.TIME), targets.fastest_peer("", Unit.TIME, 7)]
    _, results = run_rounds(
        monkeypatch,
        lambda rival: Answer({"": 0.5 if rival == OURS else 2.0}),
        subject([OURS, "pipe"], goals=goals),
        count=1,
    )
    (row,) = results.subjects[0].rows
    assert [(verdict.reached, verdict.met) for verdict in row.verdicts] == [(0.5, True), (4.0, False)]


# Nothing is left


def marked(mark: str) -> list[int]:
    """The processes that have inherited ``mark``, less this one."""
    found: list[int] = []
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdecimal() and f"{MARK}={mark}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
        except OSError:
            continue  # gone, or another user's
    return [process for process in found if process != os.getpid()]


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_measurement_that_hangs_is_killed_with_its_children(monkeypatch: pytest.MonkeyPatch) -> None:
    mark = uuid.uuid4().hex
    monkeypatch.setenv(MARK, mark)
    with pytest.raises(rounds._Failure, match=r"not done after 1.5 s"):
        rounds._in_a_process(Task("blocked", OURS, Effort(0.1)), timeout=1.5, environment={})  # it waits for 10 s
    wait_until(lambda: not marked(mark))


def test_ctrl_c_ends_everything() -> None:
    mark = uuid.uuid4().hex
    process = subprocess.Popen(
        [sys.executable, "-m", "ipc_channel", "bench", "--rivals", "none", "--only", "blocked"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**os.environ, MARK: mark},
        start_new_session=True,
    )
    try:
        wait_until(lambda: len(marked(mark)) >= 5)  # the command, the measurement and its three peers
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 130
    assert b"interrupted" in err
    wait_until(lambda: not marked(mark))


# Targets and figures


def reached(target: Target, **medians: dict[str, float]) -> float | None:
    return target.reached(medians)


def test_ratios_are_of_speeds() -> None:
    rate, took = Unit.RATE, Unit.TIME
    assert reached(targets.beside("", rate, "rust", "Rust", 2), ours={"": 6.0}, rust={"": 2.0}) == 3.0
    assert reached(targets.beside("", took, "rust", "Rust", 2), ours={"": 6.0}, rust={"": 2.0}) == pytest.approx(1 / 3)
    assert reached(targets.at_most_times("", "seqpacket", "bare", 1.15), ours={"": 3.0}, seqpacket={"": 2.0}) == 1.5


def test_a_yardstick_is_no_peer() -> None:
    target = targets.fastest_peer("", Unit.RATE, 7)
    figures = {"ours": {"": 8.0}, "pipe": {"": 1.0}, "rust": {"": 2.0}, "memcpy": {"": 100.0}}
    assert target.reached(figures) == 4.0
    assert not target.met(4.0)
    assert target.met(7.0)


def test_ratios_among_our_own_figures() -> None:
    spread = targets.spread("b", ["a", "b", "c"], 1.5, "all within 1.5 ×")
    assert reached(spread, ours={"a": 2.0, "b": 3.0}) == 1.5
    assert spread.met(1.5)
    assert not spread.met(1.6)
    share = targets.of_another("b", "a", 0.6, "≥ 0.6 × one sender's", at_least=True)
    assert reached(share, ours={"a": 2.0, "b": 1.0}) == 0.5
    assert not share.met(0.5)


@pytest.mark.parametrize(
    "target",
    [
        targets.fixed("", 1, Unit.TIME),
        targets.beside("", Unit.TIME, "rust", "Rust", 1),
        targets.at_most_times("", "rust", "Rust", 1),
        targets.fastest_peer("", Unit.TIME, 1),
        targets.spread("", ["", "other"], 1, "flat"),
        targets.of_another("", "other", 1, "≤", at_least=False),
    ],
)
def test_without_a_figure_a_target_is_not_judged(target: Target) -> None:
    assert reached(target) is None
    assert reached(target, rust={"": 1.0}) is None


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (14_230_000.0, Unit.RATE, "14.2 M/s"),
        (999.96e3, Unit.RATE, "1.00 M/s"),
        (278.0, Unit.RATE, "278 /s"),
        (0.31e-6, Unit.TIME, "310 ns"),
        (0.000_9997, Unit.TIME, "1.00 ms"),
        (1.5, Unit.TIME, "1.50 s"),
        (0.0, Unit.TIME, "0.00 ns"),
        (6.58e9, Unit.THROUGHPUT, "6.58 GB/s"),
        (16 << 20, Unit.BYTES, "16.0 MiB"),
        (94.4, Unit.BYTES, "94.4 B"),
        (1234.0, Unit.TIMES, "1,234 ×"),
    ],
)
def test_figures_for_people(value: float, unit: Unit, text: str) -> None:
    assert shown(value, unit) == text
