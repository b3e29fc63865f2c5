"""Programs that use the real crate, and how they and the tests find each other."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import ipc_channel as ipc
from ipc_channel.rust import u32
from tests.rust import commands as c
from tests.support.rust_peers import program

TIMEOUT: Final = 30.0
"""Seconds that a peer has for anything."""

PROGRAMS: Final = {"rust": "peer-0-23", "rust-0.21": "peer-0-21", "rust-0.20": "peer-0-20"}
"""By what ``codec=`` takes."""

MEETINGS: Final = ("Python serves", "Rust serves")
"""Whose one-shot server the other one connects to."""

PARENT: Final = "PEER_PARENT"
"""In the environment of tests that a peer has started: the codec and the meeting."""


def executable(codec: str) -> Path:
    """The program for that version, built if need be."""
    return program(PROGRAMS[codec])


class Peer:
    """The other end. At the end of the block it has done everything and has ended, or the test fails."""

    def __init__(
        self, codec: str, commands: ipc.Sender[c.Command], pid: int, process: subprocess.Popen[str] | None
    ) -> None:
        self.codec: Any = codec
        self.commands = commands
        self.pid = pid
        self._process = process

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.commands.close()
        if self._process is None:
            return
        if exc is not None:
            self.kill()
        self.wait(expected=0 if exc is None else None)

    def tell(self, command: c.Command) -> None:
        """Give it something to do."""
        self.commands.send(command)

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Send it a signal; SIGKILL, after which its end is no failure."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)
        if number == signal.SIGKILL:
            self.wait(expected=None)

    def wait(self, expected: int | None = 0) -> None:
        """Wait for its end; the code must be that one."""
        process, self._process = self._process, None
        if process is None:
            return
        with process:
            try:
                code = process.wait(TIMEOUT)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
            assert expected is None or code == expected

    def channel(self, form: Any) -> ipc.Channel[Any]:
        """A channel that it understands."""
        return ipc.channel(form, codec=self.codec)

    def bytes_channel(self) -> ipc.BytesChannel:
        """The same, of bytes."""
        return ipc.bytes_channel(codec=self.codec)

    @contextlib.contextmanager
    def loop(self, kind: Any, form: Any = None, **more: Any) -> Iterator[Loop]:
        """A channel there and one back. ``form``: the type of the messages; None for bytes."""
        there, receiver = self.bytes_channel() if form is None else self.channel(form)
        sender, back = self.bytes_channel() if form is None else self.channel(form)
        self.tell(c.Loop(kind(receiver, sender, **more)))
        with there, back:
            yield Loop(there, back)
            there.close()
            assert list(back) == []  # it ends when nothing more can come


@dataclass(frozen=True)
class Loop:
    """What is sent to ``there`` comes ``back``."""

    there: Any
    back: Any

    def turn(self, message: Any) -> Any:
        """Send one, and receive it."""
        self.there.send(message)
        return self.back.recv(TIMEOUT)


def start(codec: Any, meeting: str) -> Peer:
    """Start a peer and meet it."""
    if meeting == "Python serves":
        with ipc.OneShotServer(c.Hello, codec=codec) as server:
            process = subprocess.Popen([executable(codec), "connect", server.name], text=True)
            with _killed_on_failure(process):
                messages, hello = server.accept(TIMEOUT)
                messages.close()
                return Peer(codec, hello.commands, hello.process, process)
    process = subprocess.Popen([executable(codec), "serve"], stdout=subprocess.PIPE, text=True)
    with _killed_on_failure(process):
        name = printed_name(process)
        return Peer(codec, _first_ping(codec, name), process.pid, process)


def printed_name(process: subprocess.Popen[str]) -> str:
    """The name of the server of a peer that serves."""
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line.startswith("name /")
    return line.removeprefix("name ").rstrip("\n")


def meet_parent() -> Peer:
    """In a process that a peer has started: meet that one."""
    codec: Any
    codec, meeting = os.environ[PARENT].split(" ", 1)
    if meeting == "Rust serves":
        return Peer(codec, _first_ping(codec, os.environ["PEER_NAME"]), os.getppid(), None)
    with ipc.OneShotServer(c.Hello, codec=codec) as server:
        print(f"\nname {server.name}", flush=True)
        messages, hello = server.accept(TIMEOUT)
        messages.close()
        return Peer(codec, hello.commands, hello.process, None)


def _first_ping(codec: Any, name: str) -> ipc.Sender[c.Command]:
    """Connect, and send the message without which the server would wait."""
    commands = ipc.connect(name, c.Command, codec=codec)
    answer, answers = ipc.channel(u32, codec=codec)
    commands.send(c.Ping(answer))
    with answers:
        answers.recv(TIMEOUT)
    return commands


@contextlib.contextmanager
def _killed_on_failure(process: subprocess.Popen[str]) -> Iterator[None]:
    try:
        yield
    except BaseException:
        process.kill()
        with process:
            process.wait()
        raise
