"""The end of a process that still holds messages: it waits for the peer, says so, and Ctrl-C ends the wait."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import pytest

import ipc_channel as ipc
from tests.rust import commands as c
from tests.rust.commands import numbered
from tests.rust.peers import TIMEOUT, start
from tests.support.start_methods import ROOT
from tests.support.start_methods import start as start_child

SIZE = 10_000
COUNT = 300
"""More than the socket holds."""

PROGRAM = """
import atexit
import sys
atexit.register(print, "end")
from tests.rust.test_exit import send
send(sys.argv[1], sys.argv[2])
print("sent", flush=True)
"""


def send(codec: Any, name: str) -> None:
    """What the process does: send more than the socket takes, close the sender, and end."""
    sender, receiver = ipc.bytes_channel(codec=codec)
    with ipc.connect(name, ipc.BytesReceiver, codec=codec) as introduction:
        introduction.send(receiver)
    with sender:
        for number in range(COUNT):
            sender.send(numbered(number, SIZE))


def send_and_say(codec: Any, name: str, sent: Path) -> None:
    """The same, and a file shows that it is done."""
    send(codec, name)
    sent.touch()


def late(function: Callable[..., None]) -> Callable[..., None]:
    """That function, called by a thread that goes on when everything else in the process is done."""
    return functools.partial(_start_late, function)


def _start_late(function: Callable[..., None], *args: Any) -> None:
    def wait_and_call() -> None:
        time.sleep(0.2)  # the end of the process has begun
        function(*args)

    threading.Thread(target=wait_and_call).start()


class Held:
    """The receiver of its messages, in the hands of a peer that reads when it may."""

    def __init__(self, permission: ipc.Sender[None], tallies: ipc.Receiver[c.Tally]) -> None:
        self.permission = permission
        self.tallies = tallies

    def read(self) -> c.Tally:
        """Let it read all."""
        self.permission.send(None)
        return self.tallies.recv(TIMEOUT)


@contextlib.contextmanager
def held(codec: Any, server: ipc.OneShotServer[ipc.BytesReceiver]) -> Iterator[Held]:
    """Take the receiver from the process and give it to a peer."""
    introductions, receiver = server.accept(TIMEOUT)
    introductions.close()
    with start(codec, "Python serves") as peer:
        permission, waiting = peer.channel(None)
        tally, tallies = peer.channel(c.Tally)
        with permission, tallies:
            peer.tell(c.Hold(receiver, waiting, tally))
            yield Held(permission, tallies)


@contextlib.contextmanager
def sending_program(codec: Any, name: str) -> Iterator[subprocess.Popen[str]]:
    """A process that has sent everything and would end now. Killed at the end of the block if it has not."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, codec, name],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def line_of(stream: IO[str] | None) -> str:
    """The next line."""
    assert stream is not None
    return stream.readline()


def test_the_end_waits_for_the_peer_and_says_so(codec: Any) -> None:
    with ipc.OneShotServer(ipc.BytesReceiver, codec=codec) as server:
        with sending_program(codec, server.name) as process, held(codec, server) as channel:
            assert line_of(process.stdout) == "sent\n"
            said = line_of(process.stderr)
            assert "Ctrl-C" in said
            assert " in a channel of bytes;" in said
            assert process.poll() is None
            result = channel.read()
            assert result == c.Tally(COUNT, COUNT * SIZE, True, "disconnected")
            assert process.wait(TIMEOUT) == 0
            assert process.stderr is not None
            assert "Traceback" not in process.stderr.read()


def test_ctrl_c_ends_the_wait(built: None) -> None:
    codec: Any = "rust"  # what waits is the same for all versions
    with ipc.OneShotServer(ipc.BytesReceiver, codec=codec) as server:
        with sending_program(codec, server.name) as process, held(codec, server) as channel:
            assert line_of(process.stdout) == "sent\n"
            assert "Ctrl-C" in line_of(process.stderr)
            process.send_signal(signal.SIGINT)
            # As any program that Ctrl-C has interrupted; the other exit hooks have run.
            assert process.wait(TIMEOUT) == -signal.SIGINT
            assert process.stdout is not None
            assert process.stdout.read() == "end\n"
            result = channel.read()
            assert result.right
            assert 0 < result.messages < COUNT
            assert result.end == "disconnected"


def test_the_end_does_not_wait_for_a_killed_peer(built: None) -> None:
    codec: Any = "rust"
    with ipc.OneShotServer(ipc.BytesReceiver, codec=codec) as server:
        with sending_program(codec, server.name) as process:
            introductions, receiver = server.accept(TIMEOUT)
            introductions.close()
            with receiver:
                assert line_of(process.stdout) == "sent\n"
                assert "Ctrl-C" in line_of(process.stderr)
            process.wait(TIMEOUT)


def test_the_end_waits_for_nobody_when_nothing_is_held(codec: Any) -> None:
    program = f"""
import ipc_channel as ipc
sender, receiver = ipc.bytes_channel(codec={codec!r})
sender.send(b"in the socket")
sender.close()
receiver.close()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def send_to_itself(codec: Any) -> None:
    """More than the socket holds, to a receiver that nobody else has."""
    sender, receiver = ipc.bytes_channel(codec=codec)
    for number in range(COUNT):
        sender.send(numbered(number, SIZE))
    _kept.append((sender, receiver))


_kept: list[Any] = []
"""Ends that are open when their process ends."""


@pytest.mark.parametrize("last", ["", "raise SystemExit(3)", "receiver.close()"])
def test_the_end_waits_for_nobody_when_the_receiver_is_its_own(codec: Any, last: str) -> None:
    program = f"""
from tests.rust.test_exit import _kept, send_to_itself
send_to_itself({codec!r})
[(sender, receiver)] = _kept
{last}
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == (3 if "3" in last else 0)
    assert "Ctrl-C" not in done.stderr


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_children_of_multiprocessing_do_not_wait_for_themselves(codec: Any, method: str) -> None:
    with start_child(method, send_to_itself, codec) as child:
        assert child.wait(TIMEOUT) == 0


@pytest.mark.parametrize("how", [send, late(send)], ids=["at once", "late"])
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_children_of_multiprocessing_wait_too(codec: Any, method: str, how: Any) -> None:
    with ipc.OneShotServer(ipc.BytesReceiver, codec=codec) as server:
        with start_child(method, how, codec, server.name) as child, held(codec, server) as channel:
            time.sleep(0.05)  # it may be at its end by now
            result = channel.read()
            assert result == c.Tally(COUNT, COUNT * SIZE, True, "disconnected")
            assert child.wait(TIMEOUT) == 0


@pytest.mark.parametrize("how", [send_and_say, late(send_and_say)], ids=["at once", "late"])
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_ctrl_c_ends_the_wait_of_children_of_multiprocessing(codec: Any, method: str, how: Any, tmp_path: Path) -> None:
    with ipc.OneShotServer(ipc.BytesReceiver, codec=codec) as server:
        sent = tmp_path / "sent"
        with start_child(method, how, codec, server.name, sent) as child, held(codec, server) as channel:
            deadline = time.monotonic() + TIMEOUT
            while not sent.exists():
                assert time.monotonic() < deadline
                time.sleep(0.01)
            time.sleep(0.2)  # its end has begun
            child.kill(signal.SIGINT)
            assert child.wait(TIMEOUT) != 0
            result = channel.read()
            assert result.right
            assert result.messages < COUNT


def test_a_child_made_by_fork_does_not_send_what_its_parent_holds(codec: Any) -> None:
    """Neither at its end nor before: it would come twice."""
    with start(codec, "Python serves") as peer:
        sender, receiver = peer.bytes_channel()
        permission, waiting = peer.channel(None)
        tally, tallies = peer.channel(c.Tally)
        with sender, permission, tallies:
            peer.tell(c.Hold(receiver, waiting, tally))
            sender.send_many(numbered(number, SIZE) for number in range(COUNT))
            with start_child("fork", _nothing) as child:
                assert child.wait(TIMEOUT) == 0
                permission.send(None)
                sender.flush(TIMEOUT)
                sender.close()
                assert tallies.recv(TIMEOUT) == c.Tally(COUNT, COUNT * SIZE, True, "disconnected")


def _nothing() -> None:
    return None
