"""``ipc-channel top``: lanes and channels as they are seen from outside."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import select
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import ipc_channel as ipc
from ipc_channel.cli import main
from ipc_channel.cli.lanes import NAME, UNREADABLE, LaneMemory, read_lane
from ipc_channel.cli.processes import Holder
from ipc_channel.cli.sock_diag import unix_sockets
from ipc_channel.cli.top.look import Lane, Look, Socket, look
from ipc_channel.cli.top.rows import Row, rows
from tests.faults.lanes import HEAD, PAGE, SENT, TAIL, TAKEN
from tests.support.leaks import leaked_since, take
from tests.support.packets import socket_of
from tests.support.snippets import PACKAGE, run_snippet
from tests.support.start_methods import ROOT, start

PRODUCER, CONSUMER = 16, 136
ME = os.getpid


def lanes_of(pid: int) -> list[Lane]:
    """The lanes in which that process has a side."""
    return [
        lane
        for lane in look().lanes.values()
        if pid in {holder.pid for holder in (lane.sender, lane.receiver) if holder is not None}
    ]


def socket_of_channel(found: Look, sender: ipc.BytesSender) -> Socket | None:
    """The channel by its socket, if that is shown."""
    with socket_of(sender) as duplicate:
        inode = os.fstat(duplicate.fileno()).st_ino
        return found.sockets.get(unix_sockets()[inode].peer)


def test_what_waits_in_a_bounded_lane_is_exact() -> None:
    sender, receiver = ipc.bytes_channel(capacity=100)
    with sender, receiver:
        for _ in range(10):
            sender.send(bytes(100), timeout=20)
        [lane] = lanes_of(ME())
        assert (lane.state.sent, lane.state.waiting, lane.receiver) == (10, 10, None)
        full = lane.state.unread
        assert full is not None
        assert full >= 10 * 100
        for _ in range(4):
            receiver.recv(20)
        [lane] = lanes_of(ME())
        assert (lane.state.sent, lane.state.waiting) == (10, 6)
        assert lane.state.unread == full * 6 // 10
        assert lane.state.memory is not None
        assert lane.state.memory >= lane.state.unread
        assert lane.sender is not None
        assert lane.receiver is not None
        assert lane.sender.pid == lane.receiver.pid == ME()


def test_a_lane_without_a_bound_tells_all_when_it_has_been_emptied() -> None:
    sender, receiver = ipc.bytes_channel()
    with sender, receiver:
        for _ in range(1000):
            sender.send(bytes(100))
        for _ in range(1000):
            receiver.recv(20)
        with pytest.raises(ipc.RecvTimeout):
            receiver.recv(0.001)  # it sleeps, and has told before
        [lane] = lanes_of(ME())
        assert (lane.state.waiting, lane.state.unread) == (0, 0)


def answer(requests: ipc.BytesReceiver, answers: ipc.BytesSender) -> None:
    """Two answers to each request."""
    with requests, answers:
        for request in requests:
            answers.send(request, timeout=20)
            answers.send(request, timeout=20)


def test_each_direction_names_who_sends_and_who_receives() -> None:
    requests, inbox = ipc.bytes_channel(capacity=5)
    replies, answers = ipc.bytes_channel(capacity=5)
    kinds = (ipc.BytesReceiver, ipc.BytesSender)
    with requests, answers, replies, start("subprocess", answer, inbox, replies, kinds=kinds) as child:
        requests.send(b"x", timeout=20)
        for _ in range(2):
            answers.recv(20)
        sides = {
            (lane.sender.pid, lane.receiver.pid): lane.state.sent
            for lane in lanes_of(child.pid)
            if lane.sender is not None and lane.receiver is not None
        }
        requests.close()
        child.result()
    assert sides == {(ME(), child.pid): 1, (child.pid, ME()): 2}


def can_make_pid_namespaces() -> bool:
    unshare = shutil.which("unshare")
    return unshare is not None and subprocess.run([unshare, "--pid", "--fork", "true"], check=False).returncode == 0


@pytest.mark.skipif(not can_make_pid_namespaces(), reason="this user cannot make a pid namespace")
def test_a_process_in_a_pid_namespace_of_its_own_is_found() -> None:
    source = """
import ipc_channel as ipc, os
sender, receiver = ipc.bytes_channel(capacity=5)
with sender, receiver:
    sender.send(b"x", timeout=20)
    receiver.recv(20)
    print(os.getpid(), flush=True)
    input()
"""
    child = subprocess.Popen(
        ["unshare", "--pid", "--fork", sys.executable, "-c", source],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with child:
        assert child.stdout is not None
        # Otherwise it would be a matter of luck whether another process has that id here.
        assert child.stdout.readline() == "1\n"
        found = [
            (lane.sender.pid, lane.receiver.pid)
            for lane in look().lanes.values()
            if lane.sender is not None and lane.receiver is not None and "print(os.getpid()" in lane.sender.command
        ]
        child.communicate("\n", timeout=50)
    [(sender, receiver)] = found
    assert sender == receiver > 1


def send_and_wait(sender: ipc.BytesSender, release: ipc.Receiver[None]) -> None:
    """Fill a lane, and hold it until killed."""
    for _ in range(5):
        sender.send(b"x", timeout=20)
    release.recv()


def test_of_a_killed_sender_what_it_sent_remains() -> None:
    sender, receiver = ipc.bytes_channel(capacity=5)
    release, released = ipc.channel(type(None))
    kinds = (ipc.BytesSender, ipc.Receiver[None])
    with receiver, release, start("subprocess", send_and_wait, sender, released, kinds=kinds) as child:
        sender.close()
        assert receiver.recv(20) == b"x"
        while lanes_of(ME())[0].state.sent != 5:
            time.sleep(0.01)
        child.kill()
        child.wait()
        [lane] = lanes_of(ME())
        assert (lane.sender, lane.state.waiting) == (None, 4)
        assert lane.receiver is not None
        assert len(list(receiver)) == 4


def test_a_channel_with_a_socket_alone_shows_what_is_unread_there() -> None:
    sender, receiver = ipc.bytes_channel()
    with sender, receiver:
        sender.send(bytes(1000))
        channel = socket_of_channel(look(), sender)
        assert channel is not None
        assert channel.unread >= 1000
        assert [[holder.pid for holder in who] for who in (channel.senders, channel.receivers)] == [[ME()], [ME()]]
        receiver.recv(20)
        channel = socket_of_channel(look(), sender)
        assert channel is not None
        assert channel.unread == 0


def test_a_channel_that_has_a_lane_is_not_shown_a_second_time() -> None:
    sender, receiver = ipc.bytes_channel(capacity=5)
    with sender, receiver:
        assert socket_of_channel(look(), sender) is not None
        sender.send(b"x", timeout=20)
        receiver.recv(20)
        assert socket_of_channel(look(), sender) is None
        assert len(lanes_of(ME())) == 1


HERE = Holder(10, "here", (3,))
THERE = Holder(20, "there", (4,))


def lane_with(sent: int | None) -> Lane:
    return Lane(LaneMemory(sent, 0, 0, 4096, 10, 20), HERE, THERE)


@pytest.mark.parametrize(
    ("before", "now", "rate"),
    [(100, 600, 250.0), (600, 600, 0.0), (600, 100, None), (None, 600, None), (600, None, None)],
)
def test_the_rate_is_what_was_sent_between_the_looks(before: int | None, now: int | None, rate: float | None) -> None:
    earlier, later = Look(1.0, {(1, 1): lane_with(before)}, {}), Look(3.0, {(1, 1): lane_with(now)}, {})
    assert [row.rate for row in rows(earlier, later, frozenset())] == [rate]


def test_a_lane_that_is_new_has_sent_all_since_the_last_look() -> None:
    assert [row.rate for row in rows(Look(1.0, {}, {}), Look(3.0, {(1, 1): lane_with(50)}, {}), frozenset())] == [25.0]


def test_the_busiest_comes_first_and_named_processes_alone_are_shown() -> None:
    channel = Socket((THERE,), (Holder(30, "third", (5,)),), 7)
    before = Look(0.0, {(1, 1): lane_with(0), (1, 2): lane_with(0)}, {})
    now = Look(1.0, {(1, 1): lane_with(5), (1, 2): lane_with(500)}, {9: channel})

    def shown(*pids: int) -> list[tuple[str, float | None]]:
        return [(row.kind, row.rate) for row in rows(before, now, frozenset(pids))]

    assert shown() == [("lane", 500.0), ("lane", 5.0), ("socket", None)]
    assert shown(10) == [("lane", 500.0), ("lane", 5.0)]
    assert shown(30) == [("socket", None)]
    assert shown(10, 30) == shown(20) == shown()
    assert shown(40) == []


@contextlib.contextmanager
def forged_lane(size: int, words: dict[int, int]) -> Iterator[tuple[int, int]]:
    """A file that looks like a lane's from outside, under its device and inode; its sides are named as this process."""
    file = os.memfd_create(NAME)
    try:
        os.ftruncate(file, size)
        for at, word in {PRODUCER: ME(), CONSUMER: ME(), **words}.items():
            if at < size:
                os.pwrite(file, struct.pack("<Q", word)[: size - at], at)
        status = os.fstat(file)
        yield status.st_dev, status.st_ino
    finally:
        os.close(file)


@pytest.mark.parametrize(
    ("size", "words", "unknown"),
    [
        pytest.param(0, {}, {"sent", "waiting", "unread"}, id="empty"),
        pytest.param(20, {}, {"sent", "waiting", "unread"}, id="twenty bytes"),
        pytest.param(200, {}, {"sent", "waiting", "unread"}, id="too short for the last word"),
        pytest.param(PAGE, {}, set(), id="nothing in it"),
        pytest.param(PAGE, {TAIL: 1 << 63}, {"unread"}, id="tail beyond the file"),
        pytest.param(PAGE, {HEAD: 16}, {"unread"}, id="head beyond the tail"),
        pytest.param(PAGE, {SENT: 1 << 63}, {"sent", "waiting"}, id="more sent than ever can be"),
        pytest.param(PAGE, {TAKEN: 2}, {"waiting"}, id="more taken than sent"),
        pytest.param(
            PAGE, dict.fromkeys(range(0, 512, 8), (1 << 64) - 1), {"sent", "waiting", "unread"}, id="ones everywhere"
        ),
    ],
)
def test_a_damaged_lane_shows_what_cannot_be_known(
    size: int,
    words: dict[int, int],
    unknown: set[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with forged_lane(size, words) as key:
        state = look().lanes[key].state
        assert {name for name in ("sent", "waiting", "unread") if getattr(state, name) is None} == unknown
        # Damaged words may name no process, so those of others on this machine cannot be left out by theirs.
        monkeypatch.setattr("ipc_channel.cli.top.look", lambda: Look(time.monotonic(), {key: look().lanes[key]}, {}))
        assert main(["top", "--once", "--interval", "0.05"]) == 0
    [line] = [line for line in capsys.readouterr().out.splitlines() if " lane " in line]
    assert line.count("?") == len({"rate" if name == "sent" else name for name in unknown})


def test_what_has_taken_the_place_of_a_lane_is_not_opened(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    fd = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    try:
        # An open would wait for a writer.
        assert read_lane([Holder(ME(), "", (fd,))], os.fstat(fd).st_ino) == UNREADABLE
    finally:
        os.close(fd)
    assert read_lane([Holder(ME(), "", (fd,))], 1) == UNREADABLE
    with forged_lane(PAGE, {}) as (_, inode), forged_lane(PAGE, {}) as (_, other):
        fds = [number for number in map(int, os.listdir("/proc/self/fd")) if inode_of(number) == inode]
        assert read_lane([Holder(ME(), "", tuple(fds))], inode) != UNREADABLE
        assert read_lane([Holder(ME(), "", tuple(fds))], other) == UNREADABLE


def inode_of(fd: int) -> int | None:
    """None if it is closed."""
    try:
        return os.fstat(fd).st_ino
    except OSError:
        return None


def test_a_look_leaves_nothing_behind() -> None:
    sender, receiver = ipc.bytes_channel(capacity=5)
    with sender, receiver:
        sender.send(b"x", timeout=20)
        look()
        before = take()
        look()
        assert leaked_since(before) == []


def test_processes_of_other_users_are_left_out() -> None:
    source = """
import ipc_channel as ipc, json, os
from ipc_channel.cli import main
sender, receiver = ipc.bytes_channel(capacity=5)
with sender, receiver:
    sender.send(b"x", timeout=20)
    receiver.recv(20)
    assert main(["top", "--json", "--interval", "0.05"]) == 0
"""
    sender, receiver = ipc.bytes_channel(capacity=5)
    with sender, receiver:
        sender.send(b"x", timeout=20)
        done = run_snippet(
            source,
            as_other_user=True,
            preload=(
                "locale",
                "shutil",
                "ipc_channel.cli.top.look",
                "ipc_channel.cli.top.rows",
                "ipc_channel.cli.top.table",
                "rich.console",
                *PACKAGE,
            ),
        )
    found = json.loads(done.stdout)
    assert [row["kind"] for row in found] == ["lane"]
    pids = {holder["pid"] for row in found for holder in (*row["senders"], *row["receivers"])}
    assert ME() not in pids
    assert len(pids) == 1


def test_json_and_table_tell_the_same(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    sender, receiver = ipc.bytes_channel(capacity=5000)
    with sender, receiver:
        for _ in range(3000):
            sender.send(bytes(1000), timeout=20)
        receiver.recv(20)
        arguments = ["--interval", "0.05", str(ME())]
        assert main(["top", "--json", *arguments]) == 0
        [found] = json.loads(capsys.readouterr().out)
        assert main(["top", *arguments]) == 0
        lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert (found["kind"], found["rate"], found["waiting"]) == ("lane", 0, 2999)
    assert [[holder["pid"] for holder in found[side]] for side in ("senders", "receivers")] == [[ME()], [ME()]]
    [line] = [line for line in lines if "lane" in line]
    numbers = line[line.index("lane") + 1 :]
    assert numbers == [
        *("0", "2,999"),
        *(f"{found['unread'] / (1 << 20):.1f}", "MiB"),
        *(f"{found['memory'] / (1 << 20):.1f}", "MiB"),
    ]


def test_without_a_terminal_there_is_one_table_whose_width_is_no_terminals() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    done = subprocess.run(
        [sys.executable, "-m", "ipc_channel", "top", "--interval", "0.05", "1"],
        capture_output=True,
        text=True,
        timeout=50,
        env=environment,
        check=True,
    )
    heading = next(line for line in done.stdout.splitlines() if "messages/s" in line)
    assert len(heading) > 80
    assert done.stdout.count("messages/s") == 1
    assert "\x1b" not in done.stdout
    assert "no channels of ipc-channel" in done.stdout
    assert done.stderr == ""


def read_until(terminal: int, text: bytes, times: int) -> bytes:
    """What the terminal shows until it has shown that text so often."""
    shown = b""
    while shown.count(text) < times:
        assert select.select([terminal], [], [], 50)[0], shown
        shown += os.read(terminal, 65536)
    return shown


def test_on_a_terminal_it_goes_on_until_ctrl_c() -> None:
    terminal, inside = pty.openpty()
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "ipc_channel", "top", "--interval", "0.05"],
            stdin=inside,
            stdout=inside,
            stderr=subprocess.PIPE,
            env={**os.environ, "TERM": "xterm", "COLUMNS": "120", "LINES": "40"},
            cwd=ROOT,
        )
        with process:
            try:
                shown = read_until(terminal, b"messages/s", 4)
                assert b"\x1b[?25l" in shown  # the cursor is hidden
                process.send_signal(signal.SIGINT)
                shown = read_until(terminal, b"\x1b[?25h", 1)  # and is there again
                _, errors = process.communicate(timeout=50)
            finally:
                process.kill()
        assert process.returncode == 130
        assert errors == b"\ninterrupted\n"
    finally:
        os.close(terminal)
        os.close(inside)


@pytest.mark.parametrize("interval", ["0", "0.01", "-1", "x", "nan", "inf", "3601"])
def test_an_interval_is_a_number_of_seconds(interval: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["top", f"--interval={interval}"])
    assert caught.value.code == 2
    assert "is not a number of seconds" in capsys.readouterr().err


def test_help_says_what_lags(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["top", "--help"])
    assert caught.value.code == 0
    assert "a sixteenth of a ring" in " ".join(capsys.readouterr().out.split())


def test_a_row_of_a_socket_says_nothing_of_messages() -> None:
    from rich.console import Console

    from ipc_channel.cli.top.table import table

    console = Console(width=100)
    with console.capture() as capture:
        console.print(table([Row("socket", (HERE,), (), None, None, 12, None)]))
    cells: list[Any] = capture.get().splitlines()[-1].split()
    assert cells == ["10", "here", "-", "socket", "12", "B"]
