"""``ipc-channel inspect``: ends, their directions and their holders, as the kernel shows them."""

import json
import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import ipc_channel as ipc
from ipc_channel.cli import main
from ipc_channel.cli.inspect.processes import InspectError, command
from ipc_channel.cli.inspect.survey import End, Survey, survey
from ipc_channel.cli.sock_diag import unix_sockets
from tests.support.packets import socket_of, socket_pair
from tests.support.snippets import CAN_CHANGE_USER, PACKAGE, run_snippet
from tests.support.start_methods import start


def inodes_of(sender: ipc.Sender[Any] | ipc.BytesSender) -> tuple[int, int]:
    """Of the sockets of a sender and of its receiver."""
    with socket_of(sender) as duplicate:
        inode = os.fstat(duplicate.fileno()).st_ino
        return inode, unix_sockets()[inode].peer


def end_behind(found: Survey, inode: int) -> End:
    [end] = [end for end in found.ends if end.inode == inode]
    return end


def inspect_self() -> Survey:
    return survey(os.getpid())


def test_both_ends_of_a_channel_are_shown_with_direction_and_holder() -> None:
    sender, receiver = ipc.channel(int)
    with sender, receiver:
        first, second = inodes_of(sender)
        found = inspect_self()
        one, other = end_behind(found, first), end_behind(found, second)
        assert os.stat(f"/proc/self/fd/{one.fd}").st_ino == first
    assert (one.kind, other.kind) == ("sender", "receiver")
    assert (one.other_inode, other.other_inode) == (other.inode, one.inode)
    for end, peer in ((one, other), (other, one)):
        assert end.other_end == "held"
        assert [(holder.pid, holder.fds) for holder in end.other_held_by] == [(os.getpid(), (peer.fd,))]
        assert end.also_held_by == ()
        assert end.unread == 0


def test_unread_bytes_are_shown_at_both_ends_until_they_are_read() -> None:
    sender, receiver = ipc.bytes_channel()
    with sender, receiver:
        first, second = inodes_of(sender)
        sender.send(bytes(1000))
        one_message = end_behind(inspect_self(), second).unread
        assert one_message is not None
        assert one_message >= 1000
        sender.send(bytes(1000))
        found = inspect_self()
        assert end_behind(found, first).unread == 2 * one_message
        assert end_behind(found, second).unread == 2 * one_message
        assert receiver.recv_many() == [bytes(1000), bytes(1000)]
        assert end_behind(inspect_self(), second).unread == 0


def test_an_end_whose_other_side_is_closed() -> None:
    sender, receiver = ipc.channel(int)
    with receiver:
        sender.send(1)
        _, inode = inodes_of(sender)
        sender.close()
        end = end_behind(inspect_self(), inode)
        assert (end.kind, end.other_end, end.other_held_by) == ("receiver", "gone", ())
        receiver.recv()
        end = end_behind(inspect_self(), inode)
        # The kernel no longer tells the direction.
        assert (end.kind, end.other_end, end.unread) == ("sender or receiver", "gone", None)


def test_an_end_inside_an_unread_message_is_in_flight() -> None:
    carrier, arrivals = ipc.channel()
    sender, receiver = ipc.channel(int)
    with carrier, arrivals, receiver:
        _, inode = inodes_of(sender)
        carrier.send(sender)
        end = end_behind(inspect_self(), inode)
        assert (end.kind, end.other_end, end.other_held_by) == ("receiver", "not visible", ())
        with arrivals.recv() as arrived:
            found = inspect_self()
            end = end_behind(found, inode)
            assert end.other_end == "held"
            assert end.other_held_by[0].fds == (end_behind(found, inodes_of(arrived)[0]).fd,)


def hold(release: ipc.Receiver[None], *_: object) -> None:
    """Hold what was given until told, or until the parent is gone."""
    for _ in release:
        return


def say_and_hold(release: ipc.Receiver[None], ready: ipc.Sender[None]) -> None:
    """Say that what was given has arrived, then hold it."""
    with ready:
        ready.send(None)
    hold(release)


def test_another_process_that_holds_the_other_end_is_named() -> None:
    release, released = ipc.channel(type(None))
    ready, made_ready = ipc.channel(type(None))
    kinds = (ipc.Receiver[None], ipc.Sender[None])
    with (
        release,
        made_ready,
        released,
        start("subprocess", say_and_hold, released, ready, kinds=kinds) as child,
    ):
        ready.close()
        made_ready.recv(20)  # until then the end is under way
        end = end_behind(inspect_self(), inodes_of(release)[0])
        assert [holder.pid for holder in end.other_held_by] == [child.pid]
        assert end.other_held_by[0].command == command(child.pid) != "?"
        [fd] = end.other_held_by[0].fds
        theirs = end_behind(survey(child.pid), end.other_inode)
        assert theirs.fd == fd
        assert (theirs.kind, theirs.other_inode) == ("receiver", end.inode)
        release.send(None)
        child.result()


def test_every_process_that_holds_the_same_end_is_listed() -> None:
    release, released = ipc.channel(type(None))
    sender, receiver = ipc.channel(int)
    with release, released, sender, receiver, start("fork", hold, released) as child:
        found = inspect_self()
        end = end_behind(found, inodes_of(sender)[0])
        assert [holder.pid for holder in end.also_held_by] == [child.pid]
        assert sorted(holder.pid for holder in end.other_held_by) == sorted([os.getpid(), child.pid])
        release.send(None)
        child.result()


def test_a_one_shot_server_and_the_client_that_waits_for_it() -> None:
    with ipc.OneShotServer(int) as server:
        assert [entry.waiting for entry in inspect_self().servers] == [0]
        with ipc.connect(server.name, int) as client:
            with socket_of(client) as duplicate:
                inode = os.fstat(duplicate.fileno()).st_ino
            found = inspect_self()
            assert [entry.waiting for entry in found.servers] == [1]
            end = end_behind(found, inode)
            assert (end.kind, end.other_end, end.unread) == ("sender", "not accepted", None)
            client.send(1)
            receiver, _ = server.accept()
            with receiver:
                found = inspect_self()
                assert found.servers == ()
                end = end_behind(found, inode)
                assert (end.kind, end.other_end) == ("sender", "held")
                assert end_behind(found, end.other_inode).kind == "receiver"


def test_a_server_for_other_users_is_listed_too() -> None:
    with ipc.OneShotServer(int, allow_uid=os.getuid()):
        assert [entry.waiting for entry in inspect_self().servers] == [0]


def test_shared_memory_and_the_processes_that_share_it() -> None:
    release, released = ipc.channel(type(None))
    with (
        release,
        released,
        ipc.SharedMemory.from_bytes(bytes(12345)) as memory,
        start("fork", hold, released, memory) as child,
    ):
        [entry] = [entry for entry in inspect_self().memories if entry.size == 12345]
        assert (entry.kind, [holder.pid for holder in entry.also_held_by]) == ("memory", [child.pid])
        release.send(None)
        child.result()


def test_other_sockets_are_not_taken_for_ends() -> None:
    stream = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    packets = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with stream[0], stream[1], packets[0], packets[1]:
        stream[0].shutdown(socket.SHUT_RD)
        fds = {end.fileno() for end in (*stream, *packets)}
        assert not fds & {end.fd for end in inspect_self().ends}


def test_a_dump_of_many_sockets_is_read_to_its_end() -> None:
    pairs = [socket_pair() for _ in range(600)]
    try:
        sockets = unix_sockets()
        for sender, receiver in pairs:
            first, second = os.fstat(sender.fileno()).st_ino, os.fstat(receiver.fileno()).st_ino
            assert (sockets[first].peer, sockets[second].peer) == (second, first)
    finally:
        for pair in pairs:
            for end in pair:
                end.close()


def no_such_pid() -> int:
    return int(Path("/proc/sys/kernel/pid_max").read_text()) + 1


def test_no_such_process(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(no_such_pid())]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == f"ipc-channel inspect: there is no process {no_such_pid()}\n"


def test_a_process_that_nobody_has_collected() -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        with pytest.raises(InspectError, match="has ended; its parent has not collected it yet"):
            survey(pid)
    finally:
        os.waitpid(pid, 0)


@pytest.mark.skipif(not CAN_CHANGE_USER, reason="only root can start a process of another user")
def test_a_process_of_another_user() -> None:
    done = run_snippet(
        "import sys; from ipc_channel.cli import main; sys.exit(main(['inspect', sys.argv[1]]))",
        str(os.getpid()),
        as_other_user=True,
        preload=("locale", "shutil", "ipc_channel.cli.inspect.survey"),
        check=False,
    )
    assert done.returncode == 1
    assert f"process {os.getpid()} belongs to another user (uid 0): run this as that user or as root" in done.stderr
    assert "Traceback" not in done.stderr


def test_without_privileges_one_sees_what_is_ones_own() -> None:
    source = """
        import os, json
        import ipc_channel as ipc
        from ipc_channel.cli import main
        sender, receiver = ipc.channel(int)
        with sender, receiver:
            assert main(["inspect", "--json", str(os.getpid())]) == 0
    """
    done = run_snippet(
        "\n".join(line[8:] for line in source.splitlines()),
        as_other_user=True,
        preload=("locale", "shutil", "ipc_channel.cli.inspect.report", "ipc_channel.cli.inspect.survey", *PACKAGE),
    )
    found = json.loads(done.stdout)
    assert sorted(end["kind"] for end in found["ends"]) == ["receiver", "sender"]
    assert found["unreadable"] > 0


@pytest.mark.parametrize("pid", ["0", "-1", "x", "1.5", ""])
def test_a_pid_is_a_positive_number(pid: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["inspect", "--", pid])
    assert caught.value.code == 2
    assert "is not a process id" in capsys.readouterr().err


def test_json_and_tables_tell_the_same(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    sender, receiver = ipc.channel(int)
    with sender, receiver:
        sender.send(1)
        inodes = inodes_of(sender)
        assert main(["inspect", "--json", str(os.getpid())]) == 0
        found = json.loads(capsys.readouterr().out)
        assert main(["inspect", str(os.getpid())]) == 0
        tables = capsys.readouterr().out
    assert found["pid"] == os.getpid()
    ends = {end["inode"]: end for end in found["ends"]}
    lines = [[cell.strip() for cell in line.split("│")] for line in tables.splitlines()]
    for inode, kind in zip(inodes, ("sender", "receiver"), strict=True):
        end = ends[inode]
        assert end["kind"] == kind
        assert end["unread"] > 0
        [row] = [line for line in lines if line[1:3] == [str(end["fd"]), kind]]
        assert row[3] == f"this process (fd {end['other_held_by'][0]['fds'][0]})"
        assert row[4] == f"{end['unread']} B"


def test_a_process_without_channels(capsys: pytest.CaptureFixture[str]) -> None:
    pid = os.fork()
    if pid == 0:
        try:
            os.closerange(3, 4096)
            signal.pause()
        finally:
            os._exit(0)
    try:
        deadline = time.monotonic() + 30
        while len(os.listdir(f"/proc/{pid}/fd")) > 3 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert main(["inspect", str(pid)]) == 0
        assert "no channel ends" in capsys.readouterr().out
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_a_command_line_is_made_printable() -> None:
    done = run_snippet(
        "import os; from ipc_channel.cli.inspect.processes import command; print(ascii(command(os.getpid())))",
        "a\nb\x1b[31m",
    )
    assert done.stdout.rstrip().endswith("a?b?[31m'")
    assert sys.executable in done.stdout
