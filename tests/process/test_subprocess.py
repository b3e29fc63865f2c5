"""Ends that a subprocess inherits."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from typing import Any

import pytest

import ipc_channel as ipc
from ipc_channel import _core
from tests.support.snippets import run_snippet
from tests.support.start_methods import ROOT, run


def launch(source: str, passing: ipc.Passing, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", source, passing.text, *arguments],
        pass_fds=passing.fds,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def output(child: subprocess.Popen[str]) -> str:
    with child:
        try:
            out, err = child.communicate(timeout=30)
        except BaseException:
            child.kill()
            raise
    assert child.returncode == 0, err
    assert err == ""
    return out


DOUBLING = """
import sys, ipc_channel as ipc
jobs, results = ipc.inherit(sys.argv[1], ipc.Receiver[int], ipc.Sender[int])
with jobs, results:
    for job in jobs:
        results.send(job * 2)
"""


def test_a_sender_is_duplicated_and_a_receiver_moves() -> None:
    jobs, jobs_receiver = ipc.channel(int)
    results, results_receiver = ipc.channel(int)
    with ipc.passing(jobs_receiver, results) as passing:
        assert jobs_receiver.closed, "it is set aside"
        child = launch(DOUBLING, passing)
    assert jobs_receiver.closed
    with pytest.raises(ipc.ClosedError, match="moved"):
        jobs_receiver.recv(0)
    assert not results.closed
    results.close()
    with results_receiver:
        with jobs:
            jobs.send_many([1, 2, 3])
        assert list(results_receiver) == [2, 4, 6]
    output(child)


IN_THE_ENVIRONMENT = """
import os, ipc_channel as ipc
[answers] = ipc.inherit(os.environ["ANSWERS"], ipc.BytesSender)
with answers:
    answers.send(b"found")
"""


def test_the_text_fits_the_environment_and_a_command_line() -> None:
    sender, receiver = ipc.bytes_channel()
    with receiver:
        with ipc.passing(*[sender] * 20) as passing:
            assert passing.text.isascii()
            assert passing.text.isprintable()
            assert not set(passing.text) & set(" \t\n'\"$`\\*?;&|<>()#!~")
            assert len(passing.fds) == 20
        with ipc.passing(sender) as passing:
            assert len(passing.text) < 64
            environment = {**os.environ, "ANSWERS": passing.text}
            child = subprocess.Popen(
                [sys.executable, "-c", IN_THE_ENVIRONMENT],
                pass_fds=passing.fds,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        sender.close()
        assert list(receiver) == [b"found"]
        output(child)


KINDS = """
import sys, ipc_channel as ipc
from typing import Any
ends = ipc.inherit(
    sys.argv[1],
    ipc.Sender[list[int]], ipc.Sender, ipc.Sender[Any], ipc.BytesSender, ipc.OpaqueSender,
    ipc.Receiver[list[int]], ipc.Receiver, ipc.BytesReceiver, ipc.OpaqueReceiver,
)
print(*map(repr, ends), sep="\\n")
for end in ends:
    end.close()
"""


def test_every_kind_of_end() -> None:
    channels: list[Any] = [
        ipc.channel(list[int]),
        ipc.channel(),
        ipc.channel(),
        ipc.bytes_channel(),
        ipc.channel(str),
        ipc.channel(list[int]),
        ipc.channel(),
        ipc.bytes_channel(),
        ipc.channel(str),
    ]
    ends = [sender for sender, _ in channels[:5]] + [receiver for _, receiver in channels[5:]]
    ends[4], ends[8] = ends[4].to_opaque(), ends[8].to_opaque()
    names = [repr(end) for end in ends]
    with ipc.passing(*ends) as passing:
        child = launch(KINDS, passing)
    assert output(child).splitlines() == names
    for sender, receiver in channels:
        sender.close()
        receiver.close()
    ends[4].close()


def test_a_block_that_raises_leaves_the_receivers() -> None:
    sender, receiver = ipc.channel(int)
    with sender, receiver:
        with pytest.raises(FileNotFoundError), ipc.passing(receiver, sender) as passing:
            subprocess.Popen(["/no/such/program", passing.text], pass_fds=passing.fds)
        sender.send(1)
        assert receiver.recv(10) == 1


def test_text_and_fds_belong_to_the_block() -> None:
    sender, receiver = ipc.channel(int)
    with sender, receiver:
        passing = ipc.passing(sender)
        for attribute in ("fds", "text"):
            with pytest.raises(RuntimeError, match="with block"):
                getattr(passing, attribute)
        with passing:
            fds = passing.fds
            assert all(os.fstat(fd) for fd in fds)
            assert not any(os.get_inheritable(fd) for fd in fds), "only pass_fds lets them through"
            with pytest.raises(RuntimeError, match="already"):
                passing.__enter__()
        with pytest.raises(RuntimeError, match="with block"):
            _ = passing.fds
        for fd in fds:
            with pytest.raises(OSError):
                os.fstat(fd)


def test_what_cannot_be_passed() -> None:
    sender, receiver = ipc.channel(int)
    with sender, receiver, ipc.SharedMemory.create(1) as memory:
        with pytest.raises(TypeError, match="SharedMemory"):
            ipc.passing(memory)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="twice"):
            ipc.passing(receiver, receiver)
        other, other_receiver = ipc.channel(int)
        other.close()
        with pytest.raises(ipc.ClosedError), ipc.passing(receiver, other):
            pytest.fail("a closed end was passed")
        assert not receiver.closed
        other_receiver.close()


def test_a_receiver_that_is_closed_in_the_block() -> None:
    sender, receiver = ipc.channel(int)
    with sender:
        with ipc.passing(receiver):
            receiver.close()
        assert receiver.closed


def attempts(text: str) -> list[tuple[type[BaseException], str]]:
    """In a child that inherited a typed receiver and a bytes sender: what wrong calls raise, and the right one not."""
    raised: list[tuple[type[BaseException], str]] = []
    wrong: list[list[Any]] = [
        [],
        [ipc.Receiver[int]],
        [ipc.Receiver[int], ipc.BytesSender, ipc.BytesSender],
        [ipc.Sender[int], ipc.BytesSender],
        [ipc.Receiver[int], ipc.BytesReceiver],
        [ipc.Receiver[int], ipc.Sender[int]],
        [ipc.Receiver, ipc.BytesSender],
        [ipc.BytesReceiver, ipc.BytesSender],
        [ipc.Receiver[int], int],
        [ipc.Receiver[int], ipc.SharedMemory],
        [ipc.Receiver[int], None],
    ]
    for types in wrong:
        try:
            ipc.inherit(text, *types)
        except (TypeError, ValueError) as error:
            raised.append((type(error), str(error)))
    numbers, answers = ipc.inherit(text, ipc.Receiver[int], ipc.BytesSender)
    with numbers, answers:
        answers.send(str(numbers.recv(30)).encode())
    for _ in range(2):
        try:
            ipc.inherit(text, ipc.Receiver[int], ipc.BytesSender)
        except ipc.ClosedError as error:
            raised.append((type(error), str(error)))
    return raised


ATTEMPTS = """
import sys
from tests.process.test_subprocess import attempts
for kind, text in attempts(sys.argv[1]):
    print(kind.__name__, text)
"""


def test_wrong_types_are_refused_and_the_text_works_once() -> None:
    numbers, numbers_receiver = ipc.channel(int)
    answers, answers_receiver = ipc.bytes_channel()
    with ipc.passing(numbers_receiver, answers) as passing:
        child = launch(ATTEMPTS, passing)
    answers.close()
    with numbers, answers_receiver:
        numbers.send(5)
        assert list(answers_receiver) == [b"5"]
    lines = output(child).splitlines()
    assert [line.partition(" ")[0] for line in lines] == ["ValueError"] * 3 + ["TypeError"] * 8 + ["ClosedError"] * 2
    assert "2 ends, but 1 types" in lines[1]
    assert "end 1 is a receiver of typed messages, not a Sender[int]" in lines[3]
    assert "end 2 is a sender of raw bytes" in lines[5]
    assert "already" in lines[-1]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nonsense",
        "ipc-channel",
        "ipc-channel:nonsense",
        "ipc-channel:s1.3",
        "ipc-channel:s1.-3.5",
        "s1.3.5",
        "ipc-channel:s1.3.5,",
    ],
)
def test_texts_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match="not the text"):
        ipc.inherit(text, ipc.Sender[int])


@pytest.mark.parametrize("descriptor", [0, 999_999, 2**40])
def test_a_dead_text(descriptor: int) -> None:
    with pytest.raises(ipc.ConnectError, match="not inherited"):
        ipc.inherit(f"ipc-channel:s1.{descriptor}.5", ipc.Sender[int])


def test_without_pass_fds() -> None:
    sender, receiver = ipc.channel(int)
    with sender, receiver:
        with ipc.passing(sender) as passing:
            text = passing.text
            source = """
import sys, ipc_channel as ipc
try:
    ipc.inherit(sys.argv[1], ipc.Sender[int])
except ipc.ConnectError as error:
    print(error)
"""
            assert "pass_fds" in run_snippet(source, text).stdout


def test_a_descriptor_that_is_something_else_by_now_is_not_touched() -> None:
    sender, receiver = ipc.channel(int)
    with sender, receiver:
        with ipc.passing(sender) as passing:
            text, [descriptor] = passing.text, passing.fds
        other = receiver.duplicate_fd()
        if other != descriptor:
            os.dup2(other, descriptor, inheritable=False)
            os.close(other)
        try:
            with pytest.raises(ipc.ConnectError, match="not inherited"):
                ipc.inherit(text, ipc.Sender[int])
        finally:
            os.close(descriptor)  # which is still open


def test_a_socket_that_is_no_channel() -> None:
    import socket

    one, two = socket.socketpair()
    with two:
        descriptor = one.detach()
        text = f"ipc-channel:s1.{descriptor}.{os.fstat(descriptor).st_ino}"
        with pytest.raises(ipc.ProtocolError):
            ipc.inherit(text, ipc.Sender[int])
        with pytest.raises(OSError):
            os.fstat(descriptor)


def child_of_a_child(answers: ipc.Sender[str]) -> None:
    sender, receiver = ipc.channel(str)
    with answers:
        with receiver:
            with sender:
                run("subprocess", say, sender, kinds=[ipc.Sender[str]])
            for answer in receiver:
                answers.send(answer)


def say(answers: ipc.Sender[str]) -> None:
    with answers:
        answers.send("from the grandchild")


def test_an_inherited_end_can_be_passed_on() -> None:
    sender, receiver = ipc.channel(str)
    with receiver:
        with sender:
            run("subprocess", child_of_a_child, sender, kinds=[ipc.Sender[str]])
        assert list(receiver) == ["from the grandchild"]


def test_no_ends_at_all() -> None:
    with ipc.passing() as passing:
        assert passing.fds == ()
        assert ipc.inherit(passing.text) == ()


def test_a_descriptor_that_brings_no_end_stays_the_callers() -> None:
    empty, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with empty, other:
        for _ in range(2):
            with pytest.raises(ipc.ProtocolError, match="does not hold one"):
                _core.open_envelope(empty.fileno())
            os.fstat(empty.fileno())
