"""``ipc-channel demo``: the counts are right, nothing is lost when workers die, and nobody stays behind."""

import io
import json
import os
import signal
import subprocess
import sys
import time
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ipc_channel.cli import main
from ipc_channel.cli.demo import jobs, supervisor
from ipc_channel.cli.demo.jobs import Module, python_files, standard_library
from ipc_channel.cli.demo.supervisor import Count, DemoError, Display, Supervisor, count_alone

TIMEOUT = 60.0
FILES = 24


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Some Python files, each with as much work as a few milliseconds' worth of tokens."""
    for number in range(FILES):
        path = tmp_path / f"package{number % 3}" / f"module{number}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(f"name_{line} = [{line}, 'text', ({number} + 1)]\n" for line in range(200 + number)))
    return tmp_path


def tokens_below(root: Path) -> dict[str, int]:
    """The truth, counted without the demo's code."""
    counts: dict[str, int] = {}
    for path in root.rglob("*.py"):
        with path.open("rb") as file:
            counts[str(path.relative_to(root))] = len(list(tokenize.tokenize(file.readline)))
    return counts


def demo(*arguments: str, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ipc_channel", "demo", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        env={**os.environ, **(environment or {})},
    )


class Notes:
    """A display that remembers, and that lets a test act at the first file that is done."""

    def __init__(self) -> None:
        self.done = 0
        self.notes: list[str] = []
        self.at_first = lambda: None

    def advance(self, size: int) -> None:
        self.done += 1
        if self.done == 1:
            self.at_first()

    def note(self, text: str) -> None:
        self.notes.append(text)


def test_the_counts_are_those_of_the_tokenize_module(folder: Path) -> None:
    done = demo(str(folder), "--workers", "3", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    truth = tokens_below(folder)
    assert result["modules"] == truth
    assert result["files"] == result["check"]["files"] == FILES
    assert result["tokens"] == result["check"]["tokens"] == sum(truth.values())
    assert result["bytes"] == sum(path.stat().st_size for path in folder.rglob("*.py"))
    assert result["check"]["same"] is True
    workers = result["workers"]
    assert len(workers) == 3
    assert sum(worker["files"] for worker in workers) == FILES
    assert sum(worker["tokens"] for worker in workers) == result["tokens"]
    assert [worker["pid"] for worker in workers if worker["fate"] == "killed"] == [result["killed_pid"]]
    # Three introductions, and a job and an answer a file; a job that was left unfinished was sent again.
    assert result["messages"] == 3 + 2 * FILES + result["repeated_jobs"]


def test_tables_without_a_terminal_and_without_colour(folder: Path) -> None:
    done = demo(str(folder), environment={"NO_COLOR": "1", "COLUMNS": "100"})
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout + done.stderr
    truth = tokens_below(folder)
    assert f"{sum(truth.values()):,}" in done.stdout
    assert "killed with SIGKILL" in done.stdout
    assert "Nothing was lost: both counts agree, file by file." in done.stdout
    largest = max(truth, key=lambda name: truth[name])
    assert largest in done.stdout


def test_jobs_that_a_killed_worker_leaves_are_done_by_the_others(folder: Path) -> None:
    notes = Notes()
    modules = python_files(folder, whole=True)
    with Supervisor(modules, 2, notes) as running:
        # The first worker stands still from now on, so the jobs it gets are certain to be unfinished.
        notes.at_first = lambda: os.kill(running.workers[0].process.pid, signal.SIGSTOP)
        running.run()
    assert running.killed is running.workers[0]
    assert running.workers[0].process.returncode == -signal.SIGKILL
    assert running.workers[1].process.returncode == 0
    assert running.repeated
    assert running.count.answers == count_alone(modules, Notes()).answers
    assert len(running.count.answers) == FILES
    assert notes.done == FILES
    [note] = notes.notes
    assert note.startswith(f"Killed worker 1 (process {running.workers[0].process.pid})")


def test_a_worker_that_dies_by_itself_costs_nothing_either(folder: Path) -> None:
    notes = Notes()
    modules = python_files(folder, whole=True)
    with Supervisor(modules, 4, notes) as running:

        def stop_one_and_kill_another() -> None:
            os.kill(running.workers[0].process.pid, signal.SIGSTOP)
            os.kill(running.workers[1].process.pid, signal.SIGKILL)

        notes.at_first = stop_one_and_kill_another
        running.run()
    assert running.workers[1].process.returncode == -signal.SIGKILL
    assert running.count.answers == count_alone(modules, Notes()).answers


def test_when_every_worker_has_died_the_demo_says_so(folder: Path) -> None:
    notes = Notes()
    with Supervisor(python_files(folder, whole=True), 2, notes) as running:

        def kill_all() -> None:
            for worker in running.workers:
                worker.process.kill()

        notes.at_first = kill_all
        with pytest.raises(DemoError, match="every worker has died, and there is work left"):
            running.run()


def test_workers_that_do_not_start(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    assert main(["demo", str(folder)]) == 1
    assert "ipc-channel demo: worker 1 did not start (exit code 1)" in capsys.readouterr().err


def test_files_that_do_not_tokenize_are_counted_as_such(folder: Path) -> None:
    (folder / "open_bracket.py").write_text("values = [1, 2\n")
    (folder / "dedent.py").write_text("if 1:\n        a\n    b\n")
    (folder / "encoding.py").write_bytes(b"# coding: no-such-encoding\n")
    (folder / "not_text.py").write_bytes(b"\xff\xfe\x00")
    (folder / "empty.py").write_bytes(b"")
    done = demo(str(folder), "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["files"] == FILES + 5
    assert result["do_not_tokenize"] == result["check"]["do_not_tokenize"] == 4
    assert result["modules"]["open_bracket.py"] is None
    assert result["modules"]["empty.py"] == len(list(tokenize.tokenize(io.BytesIO().readline)))


def test_names_that_are_no_text_and_names_that_look_like_markup(folder: Path) -> None:
    (Path(os.fsdecode(os.fsencode(folder) + b"/\xff.py"))).write_text("a = 1\n" * 3000)
    (folder / "[bold].py").write_text("a = 1\n" * 2000)
    done = demo(str(folder), environment={"COLUMNS": "100"})
    assert done.returncode == 0, done.stderr
    assert "[bold].py" in done.stdout
    assert "\\xff.py" in done.stdout or "\\udcff.py" in done.stdout


def test_modules_in_the_current_folder_do_not_disturb_the_workers(folder: Path) -> None:
    (folder / "tokenize.py").write_text("raise SystemExit('the wrong module')\n")
    done = subprocess.run(
        [sys.executable, "-P", "-m", "ipc_channel", "demo", "."],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr


def test_one_file_is_enough(tmp_path: Path) -> None:
    (tmp_path / "only.py").write_text("a = 1\n")
    done = demo(str(tmp_path), "--workers", "2", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["files"], result["check"]["same"]) == (1, True)
    assert result["killed_pid"] is not None


def test_a_lost_answer_would_be_noticed(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def one_token_more(modules: list[Module], display: Display) -> Count:
        count = count_alone(modules, display)
        answer = count.answers[3]
        count.answers[3] = jobs.Answer(3, answer.tokens + 1, answer.source_bytes)
        return count

    monkeypatch.setattr(supervisor, "count_alone", one_token_more)
    assert main(["demo", str(folder), "--workers", "2"]) == 1
    out = capsys.readouterr().out
    assert f"in 1 of {FILES} files:" in " ".join(out.split())
    assert "Nothing was lost" not in out


def test_a_file_that_cannot_be_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    read_bytes = Path.read_bytes

    def refuse_one(path: Path) -> bytes:
        if path.name == "module7.py":
            raise PermissionError(13, "Permission denied")
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", refuse_one)
    assert main(["demo", str(folder), "--workers", "2", "--json"]) == 1
    result = json.loads(capsys.readouterr().out)
    assert result["unreadable"] == {"package1/module7.py": "Permission denied"}
    assert result["files"] == FILES - 1
    assert result["check"]["same"] is True


def test_a_folder_that_does_not_exist_or_holds_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", str(tmp_path / "missing")]) == 1
    assert "cannot list" in capsys.readouterr().err
    assert main(["demo", str(tmp_path)]) == 1
    assert "there are no Python files below" in capsys.readouterr().err


@pytest.mark.parametrize("number", ["0", "1", "65", "two", "-3"])
def test_a_number_of_workers_is_from_2_to_64(number: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["demo", f"--workers={number}"])
    assert caught.value.code == 2
    assert "is not a number from 2 to 64" in capsys.readouterr().err


def test_hidden_folders_are_left_out_and_tests_only_in_the_standard_library(tmp_path: Path) -> None:
    for name in (".venv/a.py", "test/b.py", "site-packages/c.py", "d.py", "e.txt", "deep/er/f.py"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("pass\n")
    (tmp_path / "g.py").mkdir()
    os.mkfifo(tmp_path / "h.py")
    (tmp_path / "i.py").symlink_to("nowhere.py")
    everything = {module.name for module in python_files(tmp_path, whole=True)}
    assert everything == {"test/b.py", "site-packages/c.py", "d.py", "deep/er/f.py"}
    assert {module.name for module in python_files(tmp_path, whole=False)} == {"d.py", "deep/er/f.py"}


def test_the_standard_library_is_found() -> None:
    names = {module.name for module in python_files(standard_library(), whole=False)}
    assert {"tokenize.py", "asyncio/base_events.py"} <= names
    assert not any("site-packages" in name or name.startswith("test/") for name in names)


@pytest.fixture
def long_demo() -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """A demo in the middle of much work, as in a shell's foreground, and its workers."""
    process = subprocess.Popen(
        [sys.executable, "-m", "ipc_channel", "demo", "--workers", "3"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    )
    with process:
        try:
            workers: list[int] = []
            wait_until(lambda: len(workers) == 3 or bool(find_busy_workers(process.pid, workers)))
            yield process, workers
        finally:
            process.kill()


def find_busy_workers(pid: int, found: list[int]) -> bool:
    """Put the workers of a demo into ``found`` once all of them are connected and at work."""
    try:
        children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        # Some processor time means that imports are done or nearly so.
        busy = [child for child in children if cpu_ticks(child) > 30]
    except OSError:
        return False
    if len(busy) == 3:
        found[:] = busy
    return len(found) == 3


def cpu_ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def wait_until(condition: Any) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline, "this did not happen in time"
        time.sleep(0.02)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_ctrl_c_ends_the_demo_and_its_workers(long_demo: tuple[subprocess.Popen[str], list[int]]) -> None:
    process, workers = long_demo
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert err.endswith("\ninterrupted\n")
    assert out == ""
    assert [pid for pid in workers if Path(f"/proc/{pid}").exists()] == []


def test_workers_leave_when_the_demo_is_killed(long_demo: tuple[subprocess.Popen[str], list[int]]) -> None:
    process, workers = long_demo
    process.kill()
    wait_until(lambda: not any(is_running(pid) for pid in workers))
    _, err = process.communicate(timeout=TIMEOUT)
    assert "Traceback" not in err


def test_nobody_reads_the_output(folder: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as closed_pipe:
        done = subprocess.run(
            [sys.executable, "-m", "ipc_channel", "demo", str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=closed_pipe,
            stderr=subprocess.PIPE,
            text=True,
            timeout=TIMEOUT,
        )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
