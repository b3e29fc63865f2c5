"""On an unbounded channel ``send`` never waits for the receiver, and everything arrives all the same."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
from collections.abc import Callable
from typing import Any

import pytest

import ipc_channel as ipc
from tests.lanes import crowds
from tests.lanes.processes import TIMEOUT, Process
from tests.lanes.tally import Tally
from tests.lanes.traffic import SMALL, Ledger, Note, note, send_with_handles
from tests.support.snippets import run_snippet
from tests.support.start_methods import run

# A thread of another test may be on its way out.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning"),
    pytest.mark.timeout(30),
]

MANY = 300_000


def block(number: int) -> bytes:
    """64 bytes that say which message it is."""
    return b"%064d" % number


def check_blocks(receiver: ipc.BytesReceiver, count: int) -> None:
    """So many blocks, in order, and then nothing."""
    number = 0
    while number < count:
        for message in receiver.recv_many(timeout=TIMEOUT):
            assert message == block(number)
            number += 1
    assert number == count
    with pytest.raises(ipc.Empty):
        receiver.try_recv()


SENDING: dict[str, Callable[[ipc.BytesSender, int], None]] = {
    "send": lambda sender, count: [sender.send(block(number)) for number in range(count)] and None,
    "send with a timeout of 0": lambda sender, count: (
        [sender.send(block(number), timeout=0) for number in range(count)] and None
    ),
    "try_send": lambda sender, count: [sender.try_send(block(number)) for number in range(count)] and None,
    "send_many": lambda sender, count: sender.send_many(block(number) for number in range(count)),
    "asend": lambda sender, count: asyncio.run(_asend(sender, count)),
    "asend_many": lambda sender, count: asyncio.run(sender.asend_many(block(number) for number in range(count))),
}


async def _asend(sender: ipc.BytesSender, count: int) -> None:
    for number in range(count):
        await sender.asend(block(number))


@pytest.mark.parametrize("way", SENDING)
def test_unread_messages_in_one_process(way: str) -> None:
    """Broken by any limit on unread messages: a socket's queue, a ring that cannot grow, a growth that loses order."""
    sender, receiver = ipc.bytes_channel()
    count = 10_000 if way == "asend" else MANY
    with sender, receiver:
        SENDING[way](sender, count)
        check_blocks(receiver, count)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_ten_million_unread_messages() -> None:
    """Broken by offsets of 32 bits, by a list of rings that is walked for each message, by pages held twice."""
    sender, receiver = ipc.bytes_channel()
    with sender, receiver:
        for number in range(10_000_000):
            sender.send(block(number))
        check_blocks(receiver, 10_000_000)


def _wait_and_check(receiver: ipc.BytesReceiver, may_read: ipc.Receiver[int]) -> None:
    with receiver, may_read:
        check_blocks(receiver, may_read.recv(TIMEOUT))


def test_unread_messages_for_a_process_that_does_something_else() -> None:
    """Broken by growth that needs the receiver's help."""
    sender, receiver = ipc.bytes_channel()
    permit, permitted = ipc.channel(int)
    with sender, permit:
        with receiver, permitted:
            child = Process(_wait_and_check, receiver, permitted)
        with child:
            for number in range(MANY):
                sender.send(block(number))
            permit.send(MANY)
            child.result()


def test_unread_messages_for_a_process_that_is_stopped() -> None:
    """Broken by a sender that spins or waits until a receiver, once seen active, has drained its ring."""
    sender, receiver = ipc.bytes_channel()
    permit, permitted = ipc.channel(int)
    with sender, permit:
        with receiver, permitted:
            child = Process(_wait_and_check, receiver, permitted)
        with child:
            permit.send(MANY)
            for number in range(MANY):
                if number == MANY // 100:
                    child.kill(signal.SIGSTOP)
                sender.send(block(number))
            child.kill(signal.SIGCONT)
            child.result()


def test_unread_messages_with_one_read_now_and_then() -> None:
    """Broken by a new ring for each overflow whose old one is never left, or left too early."""
    sender, receiver = ipc.bytes_channel()
    with sender, receiver:
        for number in range(MANY // 3):
            sender.send(block(number))
            if number % 100 == 0:
                assert receiver.recv(TIMEOUT) == block(number // 100)
        rest = MANY // 3 - (MANY // 3 + 99) // 100
        for number in range(MANY // 3 - rest, MANY // 3):
            assert receiver.try_recv() == block(number)


@pytest.mark.parametrize("size", [*SMALL, 4096, 65_536, 65_537, 100_000, 1 << 20])
def test_unread_messages_of_each_size(size: int) -> None:
    """Broken by sizes that leave the ring for something of limited length: packets, descriptors, blocks."""
    count = 5000 if size < 70_000 else 1500 if size < 1_000_000 else 400
    assert crowds.unread(count, size) == count


@pytest.mark.parametrize("files", [1, 20, 300])
def test_unread_messages_with_files(files: int) -> None:
    """Broken by descriptors that wait in a socket's queue of limited length."""
    count = {1: 1500, 20: 300, 300: 15}[files]
    assert crowds.unread(count, files=files) == count


def test_unread_requests_with_reply_channels() -> None:
    """Broken by ends in messages that need a place in the receiver's queue for themselves."""
    requests, inbox = ipc.channel(ipc.Sender[int])
    count = 700
    with requests, inbox, contextlib.ExitStack() as stack:
        answers = []
        for _ in range(count):
            reply, answer = ipc.channel(int)
            answers.append(stack.enter_context(answer))
            requests.send(reply)
        for number in range(count):
            with inbox.recv(TIMEOUT) as reply:
                reply.send(number)
        assert [answer.recv(TIMEOUT) for answer in answers] == list(range(count))


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(os.geteuid() != 0, reason="the kernel lets nobody else have so many descriptors in messages")
def test_fifty_thousand_unread_files() -> None:
    """Broken by the limits of the kernel: descriptors in a packet, packets in a socket, sockets in sockets."""
    assert crowds.unread(500, files=100) == 500


def test_unread_files_up_to_the_kernels_limit_without_privileges() -> None:
    """Broken by a limit that is lower than the kernel's, or by a message that is half sent when it is met."""
    source = "from tests.lanes import crowds; print(crowds.unread_files_up_to_the_limit({files}))"
    for files in (1, 7):
        ran = run_snippet(
            source.format(files=files),
            as_other_user=True,
            limits={resource.RLIMIT_NOFILE: 1024},
            preload=("tests.lanes.crowds",),
        )
        assert int(ran.stdout) >= 900


# Many senders


def _send_blocks(source: int, count: int, sender: ipc.Sender[Note]) -> None:
    with sender:
        for number in range(count):
            sender.send(note(source, number))


def test_unread_messages_of_several_processes() -> None:
    """Broken by a queue that senders share: one fills it, all wait."""
    sender, receiver = ipc.channel(Note)
    ledger = Ledger()
    with receiver, contextlib.ExitStack() as stack:
        with sender:
            children = [stack.enter_context(Process(_send_blocks, own, 10_000, sender)) for own in range(5)]
        for child in children:
            child.result()
        ledger.enter_all(receiver)
    assert ledger.next == dict.fromkeys(range(5), 10_000)


def test_unread_messages_of_many_owners_of_one_sender() -> None:
    """Broken by an owner that leaves unread messages in the one socket that its successor needs."""
    sender, receiver = ipc.channel(Note)
    ledger = Ledger()
    with receiver:
        carrier, carried = ipc.channel(ipc.Sender[Note])
        with carrier, carried:
            for owner in range(20):
                for number in range(200):
                    sender.send(note(owner, number))
                carrier.send(sender)
                sender = carried.recv(TIMEOUT)
        sender.close()
        ledger.enter_all(receiver)
    assert ledger.next == dict.fromkeys(range(20), 200)


def test_unread_messages_of_a_process_beside_another_that_fills_its_own() -> None:
    """Broken by a first message, or a first connection, that has to wait for room behind another's."""
    sender, receiver = ipc.channel(Note)
    started = Tally()
    ledger = Ledger()
    with receiver, contextlib.ExitStack() as stack:
        with sender:
            busy = stack.enter_context(Process(_send_and_say, 0, 10_000, sender, started))
            started.wait(0, 10_000)
            with Process(_send_blocks, 1, 1, sender) as cold:
                cold.result()
        busy.result()
        ledger.enter_all(receiver)
    assert ledger.next == {0: 10_000, 1: 1}


def _send_and_say(source: int, count: int, sender: ipc.Sender[Note], tally: Tally) -> None:
    with sender:
        for number in range(count):
            sender.send(note(source, number))
            tally[0] = number + 1


CROWDS: dict[str, tuple[Any, ...]] = {
    "one after the other": (300, 1),
    "fifty at a time": (300, 50),
    "above 64 KiB": (200, 20, 70_000),
    "with a file": (200, 20, 64, 1),
}


@pytest.mark.parametrize("crowd", CROWDS)
def test_a_crowd_that_sends_once_and_is_gone_before_anything_is_read(crowd: str) -> None:
    """Broken by senders that need the receiver's answer, and by what a process takes with it when it exits."""
    assert run("subprocess", crowds.one_message_each, *CROWDS[crowd], timeout=25) == CROWDS[crowd][0]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_crowd_of_four_thousand() -> None:
    """Broken by a backlog of connections that is shorter than the kernel allows."""
    assert run("subprocess", crowds.one_message_each, 4000, 50, timeout=500) == 4000


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        ("one_message_each(1000)", 1000),
        ("one_message_each(200, 20, 70_000, 1)", 200),
        ("unread(100_000)", 100_000),
        ("unread(1000, 70_000)", 1000),
        ("many_channels(60, 1000)", 60_000),
    ],
)
def test_with_1024_descriptors_and_without_privileges(what: str, expected: int) -> None:
    """Broken by a descriptor for each unread message or each sender that was, and by whatever only root may do."""
    ran = run_snippet(
        f"from tests.lanes import crowds; print(crowds.{what})",
        as_other_user=True,
        limits={resource.RLIMIT_NOFILE: 1024},
        preload=("tests.lanes.crowds",),
        timeout=25,
    )
    assert int(ran.stdout) == expected


def test_a_message_with_handles_is_sent_at_once_too() -> None:
    """Broken by try_send and a timeout of 0 that mean something else when there are handles."""
    sender, receiver = ipc.channel(Note)
    with sender, receiver:
        for number in range(600):
            message = note(0, number)
            message.files = [ipc.Fd(0)]
            if number % 2:
                sender.try_send(message)
            else:
                sender.send(message, timeout=0)
        ledger = Ledger()
        for _ in range(600):
            ledger.enter(receiver.try_recv())
        send_with_handles(sender, note(0, 600), 1)
        ledger.enter(receiver.try_recv())
