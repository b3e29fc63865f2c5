"""kill -9 at any point: what was sent before arrives whole, others are not disturbed, and then comes the end."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import msgspec
import pytest

import ipc_channel as ipc

# A thread of another test may be on its way out.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")

ROUNDS = 36


class Load(msgspec.Struct):
    """A message that shows whether it arrived whole."""

    name: str
    number: int
    checksum: int
    content: bytes
    replies: list[ipc.Sender[int]]
    memory: ipc.SharedMemory | None = None


def load(name: str, number: int, size: int, replies: list[ipc.Sender[int]]) -> Load:
    """A message of that size."""
    content = random.Random(number).randbytes(64) * (size // 64)
    memory = ipc.SharedMemory.from_bytes(content) if number % 3 == 0 else None
    return Load(name, number, zlib.crc32(content), content, replies, memory)


@contextlib.contextmanager
def forked(main: Callable[[], object]) -> Iterator[int]:
    """A child that runs ``main`` and nothing else; killed and reaped at the end of the block."""
    child = os.fork()
    if child == 0:
        _run(main)
    try:
        yield child
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(child, 0)


def _run(main: Callable[[], object]) -> NoReturn:
    code = 1
    try:
        main()
        code = 0
    finally:
        os._exit(code)


def send_without_end(sender: ipc.Sender[Load], handles: int) -> None:
    """What the victim does: large messages with handles, as fast as it can."""
    number = 0
    while True:
        reply, reply_receiver = ipc.channel(int)
        clones = [reply.clone() for _ in range(handles - 1)] if handles else []
        sender.send(load("victim", number, 300_000, [reply, *clones] if handles else []))
        reply.close()
        reply_receiver.close()
        number += 1


def send_some(sender: ipc.Sender[Load], count: int) -> None:
    """What an honest sender does at the same time."""
    for number in range(count):
        message = load("honest", number, 100_000 if number % 2 else 64, [])
        sender.send(message)
    sender.close()


def check_and_close(message: Load) -> None:
    """It is whole."""
    assert zlib.crc32(message.content) == message.checksum
    for reply in message.replies:
        reply.close()
    if message.memory is not None:
        with message.memory:
            assert message.memory == message.content


@pytest.mark.parametrize("handles", [0, 3, 260])
def test_killed_while_sending_large_messages_with_handles(handles: int) -> None:
    chance = random.Random(handles)
    victims_messages = 0
    for _ in range(ROUNDS // 3):
        sender, receiver = ipc.channel(Load)
        with (
            receiver,
            forked(lambda: send_without_end(sender, handles)) as victim,  # noqa: B023
            forked(lambda: send_some(sender, 20)),  # noqa: B023
        ):
            sender.close()
            kill_at = time.monotonic() + chance.uniform(0, 0.05)
            killed = False
            numbers: dict[str, list[int]] = {"victim": [], "honest": []}
            while True:
                if not killed and time.monotonic() >= kill_at:
                    os.kill(victim, signal.SIGKILL)
                    killed = True
                try:
                    message = receiver.recv(None if killed else max(kill_at - time.monotonic(), 0.0))
                except ipc.RecvTimeout:
                    continue
                except ipc.Disconnected:
                    break
                numbers[message.name].append(message.number)
                check_and_close(message)
        assert killed
        assert numbers["honest"] == list(range(20))
        assert numbers["victim"] == list(range(len(numbers["victim"])))
        victims_messages += len(numbers["victim"])
    assert victims_messages, "no victim lived long enough to send anything"


def _receive_without_end(receiver: ipc.Receiver[Load], ready: ipc.Sender[None]) -> None:
    ready.send(None)
    while True:
        check_and_close(receiver.recv())


@pytest.mark.parametrize("capacity", [None, 3])
def test_killed_while_receiving(capacity: int | None) -> None:
    chance = random.Random(1)
    for _ in range(ROUNDS // 3):
        sender, receiver = ipc.channel(Load, capacity=capacity)
        ready, made_ready = ipc.channel(None)
        with sender, made_ready, forked(lambda: _receive_without_end(receiver, ready)) as victim:  # noqa: B023
            receiver.close()
            ready.close()
            made_ready.recv(20)
            kill_at = time.monotonic() + chance.uniform(0, 0.03)
            killed = False
            reply, reply_receiver = ipc.channel(int)
            with reply, reply_receiver, pytest.raises(ipc.ReceiverGone):
                number = 0
                while True:
                    if not killed and time.monotonic() >= kill_at:
                        os.kill(victim, signal.SIGKILL)
                        killed = True
                    message = load("us", number, 200_000, [reply.clone()])
                    try:
                        sender.send(message, timeout=0.001)
                        number += 1
                    except ipc.SendTimeout:
                        assert capacity
                    finally:
                        for end in message.replies:
                            end.close()
                        if message.memory is not None:
                            message.memory.close()


def _pass_a_receiver_on(first: ipc.Receiver[ipc.Receiver[int]], second: ipc.Sender[ipc.Receiver[int]]) -> None:
    second.send(first.recv())


def test_killed_while_a_receiver_moves_through_it() -> None:
    """The receiver is in one place or gone: its sender sees either messages delivered or ReceiverGone."""
    chance = random.Random(2)
    outcomes: set[str] = set()
    for _ in range(ROUNDS // 2):
        inward, middle_in = ipc.channel(ipc.Receiver[int])
        middle_out, outward = ipc.channel(ipc.Receiver[int])
        numbers, numbers_receiver = ipc.channel(int)
        with inward, outward, numbers:
            numbers.send(0)
            with forked(lambda: _pass_a_receiver_on(middle_in, middle_out)) as victim:  # noqa: B023
                middle_in.close()
                middle_out.close()
                inward.send(numbers_receiver)
                time.sleep(chance.uniform(0, 0.003))
                os.kill(victim, signal.SIGKILL)
                os.waitpid(victim, 0)
            inward.close()
            try:
                with outward.recv(20) as arrived:
                    numbers.send(1)
                    assert [arrived.recv(20), arrived.recv(20)] == [0, 1]
                outcomes.add("arrived")
            except ipc.Disconnected:
                with pytest.raises(ipc.ReceiverGone):
                    numbers.send(1)
                outcomes.add("gone")
    assert outcomes


def _connect_and_send_without_end(name: str) -> None:
    with ipc.connect(name, Load) as sender:
        while True:
            sender.send(load("client", 0, 300_000, []))


def test_a_client_of_a_one_shot_server_killed_at_any_point() -> None:
    chance = random.Random(3)
    for _ in range(ROUNDS // 3):
        with ipc.OneShotServer(Load) as server:
            with forked(lambda: _connect_and_send_without_end(server.name)) as victim:
                time.sleep(chance.uniform(0, 0.01))
                os.kill(victim, signal.SIGKILL)
                os.waitpid(victim, 0)
            try:
                receiver, first = server.accept(0)
            except ipc.AcceptTimeout:
                # It said nothing, so another one is served.
                with ipc.connect(server.name, Load, timeout=20) as sender:
                    sender.send(load("next", 0, 64, []))
                    receiver, first = server.accept(20)
            with receiver:
                check_and_close(first)
                for message in receiver:
                    check_and_close(message)


def _hold_and_wait(ends: list[Any], ready: ipc.Sender[None]) -> None:
    ready.send(None)
    time.sleep(3600)
    del ends


def test_a_stopped_process_is_waited_for_and_a_killed_one_is_not() -> None:
    sender, receiver = ipc.channel(int)
    ready, made_ready = ipc.channel(None)
    with receiver, made_ready, forked(lambda: _hold_and_wait([sender], ready)) as holder:
        sender.close()
        ready.close()
        made_ready.recv(20)
        os.kill(holder, signal.SIGSTOP)
        with pytest.raises(ipc.RecvTimeout):
            receiver.recv(0.02)
        os.kill(holder, signal.SIGKILL)
        with pytest.raises(ipc.Disconnected):
            receiver.recv(20)


def _make_servers_without_end() -> None:
    while True:
        ipc.OneShotServer(int).close()


def _bound() -> list[Path]:
    return list(Path(tempfile.gettempdir()).glob("ipc-channel-*"))


def test_killed_while_binding() -> None:
    """What a killed process leaves on the disk, the next one that binds a socket removes."""
    chance = random.Random(3)
    left = 0
    for _ in range(ROUNDS * 2):
        with contextlib.ExitStack() as victims:
            for _ in range(2):
                victims.enter_context(forked(_make_servers_without_end))
            time.sleep(chance.uniform(0.002, 0.01))
        left += bool(_bound())
        ipc.OneShotServer(int).close()
        assert not _bound()
    assert left, "no victim was killed in the middle"


def test_what_lies_where_sockets_are_bound_is_removed() -> None:
    directory = Path(tempfile.gettempdir()) / f"ipc-channel-{os.geteuid()}"
    directory.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as left_over:
        left_over.bind(str(directory / "left-over"))
    ipc.OneShotServer(int).close()
    assert not _bound()


def test_a_directory_open_to_others_is_not_used() -> None:
    directory = Path(tempfile.gettempdir()) / f"ipc-channel-{os.geteuid()}"
    directory.mkdir()
    directory.chmod(0o777)
    (directory / "of another").touch()
    with ipc.OneShotServer(int) as server, ipc.connect(server.name, int) as sender:
        sender.send(1)
        receiver, first = server.accept()
        receiver.close()
        assert first == 1
    assert _bound() == [directory]
    shutil.rmtree(directory)
