"""One-shot servers of both sides."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import ipc_channel as ipc
from ipc_channel.rust import u32, u64
from tests.rust import commands as c
from tests.rust import wire
from tests.rust.peers import TIMEOUT, Peer, executable, printed_name, start


def test_each_side_knows_the_other(peer: Peer) -> None:
    answer, answers = peer.channel(u32)
    peer.tell(c.Ping(answer))
    with answers:
        assert answers.recv(TIMEOUT) == peer.pid
        with pytest.raises(ipc.Disconnected):
            answers.recv(TIMEOUT)


def test_what_a_client_sends_after_its_first_message_comes_too(codec: Any) -> None:
    with ipc.OneShotServer(c.Hello, codec=codec) as server:
        with subprocess.Popen([executable(codec), "connect", server.name]) as process:
            receiver, hello = server.accept(TIMEOUT)
            with receiver:
                assert hello.process == process.pid
                hello.commands.close()
                with pytest.raises(ipc.Disconnected):
                    receiver.recv(TIMEOUT)
            assert process.wait(TIMEOUT) == 0


def test_a_name_is_a_path_that_only_we_can_use_and_that_goes_away(codec: Any) -> None:
    with ipc.OneShotServer(u64, codec=codec) as server:
        path = Path(server.name)
        assert path.name == "socket"
        assert path.parent.parent == Path(tempfile.gettempdir())
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert stat.S_ISSOCK(path.stat().st_mode)
    assert not path.parent.exists()
    with ipc.OneShotServer(u64, codec=codec) as server:
        path = Path(server.name)
        with ipc.connect(server.name, u64, codec=codec) as sender:
            sender.send(1)
            receiver, first = server.accept(TIMEOUT)
            receiver.close()
            assert first == 1
            assert not path.parent.exists()


@contextlib.contextmanager
def serving(codec: Any) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A process of ours that serves, and its directory."""
    program = f"""
import ipc_channel as ipc
server = ipc.BytesOneShotServer(codec={codec!r})
print(server.name, flush=True)
input()
"""
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process, Path(process.stdout.readline().rstrip()).parent
        finally:
            process.kill()


def test_what_a_killed_server_has_left_goes_with_the_next_one(
    codec: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    command: list[Any] = [executable(codec), "serve"]
    with serving(codec) as (killed, left), serving(codec) as (_, living):
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            try:
                theirs = Path(printed_name(process)).parent
                killed.kill()
                killed.wait(TIMEOUT)
                assert left.exists()
                with ipc.OneShotServer(u64, codec=codec) as server:
                    ours = Path(server.name).parent
                    assert sorted(tmp_path.iterdir()) == sorted([ours, living, theirs])
            finally:
                process.kill()


def test_clients_that_say_nothing_or_nonsense_do_not_use_a_server_up(codec: Any) -> None:
    with ipc.OneShotServer(c.Hello, codec=codec) as server:
        with (
            socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as silent,
            socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as leaving,
        ):
            silent.connect(server.name)
            leaving.connect(server.name)
            leaving.close()
            with pytest.raises(ipc.AcceptTimeout):
                server.accept(0.05)
            with subprocess.Popen([executable(codec), "connect", server.name]) as process:
                receiver, hello = server.accept(TIMEOUT)
                receiver.close()
                hello.commands.close()
                assert process.wait(TIMEOUT) == 0


def test_a_first_message_that_does_not_decode(codec: Any) -> None:
    with ipc.OneShotServer(c.Hello, codec=codec) as server:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
            client.connect(server.name)
            wire.send(client, wire.frames(codec), b"\xff" * 3)
            with pytest.raises(ipc.DecodeError):
                server.accept(TIMEOUT)
        with subprocess.Popen([executable(codec), "connect", server.name]) as process:
            receiver, hello = server.accept(TIMEOUT)
            receiver.close()
            hello.commands.close()
            assert process.wait(TIMEOUT) == 0


def test_nobody_serves(codec: Any, tmp_path: Path) -> None:
    with pytest.raises(ipc.ConnectError):
        ipc.connect(str(tmp_path / "socket"), u64, codec=codec)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as dead:
        dead.bind(str(tmp_path / "socket"))
    with pytest.raises(ipc.ConnectError):
        ipc.connect(str(tmp_path / "socket"), u64, codec=codec)


def test_a_server_of_theirs_serves_once(codec: Any) -> None:
    process = subprocess.Popen([executable(codec), "serve"], stdout=subprocess.PIPE, text=True)
    with process:
        name = printed_name(process)
        answer, answers = ipc.channel(u32, codec=codec)
        with ipc.connect(name, c.Command, codec=codec) as commands, answers:
            commands.send(c.Ping(answer))
            assert answers.recv(TIMEOUT) == process.pid
            with pytest.raises(ipc.ConnectError):
                ipc.connect(name, c.Command, codec=codec)
        assert process.wait(TIMEOUT) == 0


def _folder_for(length: int) -> str:
    """A folder in which the names of servers have that many bytes."""
    start = tempfile.gettempdir() + "/long"
    folder = start.ljust(length - len("/.tmpXXXXXX/socket"), "g")
    assert len(folder) > len(start)
    os.mkdir(folder)
    return folder


@pytest.mark.parametrize("length", [107, 108, 110])
def test_their_names_that_are_too_long_are_cut_as_they_cut_them(codec: Any, length: int) -> None:
    folder = _folder_for(length)
    command: list[Any] = [executable(codec), "serve"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "TMPDIR": folder}) as process:
        name = printed_name(process)
        assert len(name) == length
        answer, answers = ipc.channel(u32, codec=codec)
        with ipc.connect(name, c.Command, codec=codec) as commands, answers:
            commands.send(c.Ping(answer))
            assert answers.recv(TIMEOUT) == process.pid
        assert process.wait(TIMEOUT) == 0
    os.rmdir(folder)


def test_we_do_not_serve_under_a_name_that_is_too_long(codec: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = _folder_for(107)
    try:
        monkeypatch.setenv("TMPDIR", folder)
        monkeypatch.setattr(tempfile, "tempdir", None)
        with ipc.OneShotServer(c.Hello, codec=codec) as server:
            process = subprocess.Popen([executable(codec), "connect", server.name])
            with process:
                receiver, hello = server.accept(TIMEOUT)
                receiver.close()
                hello.commands.close()
                assert process.wait(TIMEOUT) == 0
        monkeypatch.setenv("TMPDIR", folder + "/x")
        os.mkdir(folder + "/x")
        with pytest.raises((OSError, ValueError, ipc.IpcError)):
            ipc.OneShotServer(c.Hello, codec=codec)
    finally:
        if os.path.isdir(folder + "/x"):
            os.rmdir(folder + "/x")
        os.rmdir(folder)


def test_two_python_processes_can_use_it_as_well(codec: Any) -> None:
    with ipc.OneShotServer(ipc.Sender[str], codec=codec) as server:
        with ipc.connect(server.name, ipc.Sender[str], codec=codec) as sender:
            reply, replies = ipc.channel(str, codec=codec)
            sender.send(reply)
            receiver, first = server.accept(TIMEOUT)
            with receiver, first, replies:
                first.send("there")
                assert replies.recv(TIMEOUT) == "there"


def test_bytes_servers(codec: Any) -> None:
    with ipc.BytesOneShotServer(codec=codec) as server, ipc.connect_bytes(server.name, codec=codec) as sender:
        sender.send(b"")
        sender.send(b"more")
        receiver, first = server.accept(TIMEOUT)
        with receiver:
            assert first == b""
            assert receiver.recv(TIMEOUT) == b"more"


@pytest.mark.parametrize("meeting", ["Python serves", "Rust serves"])
def test_many_peers_at_once(codec: Any, meeting: str) -> None:
    peers = [start(codec, meeting) for _ in range(5)]
    for peer in peers:
        with peer, peer.loop(c.LoopBytes) as loop:
            assert loop.turn(b"who") == b"who"
