"""Descriptors, mappings, threads, children and files: after each scenario both sides hold what they held before.

What a child holds is compared by the child itself (``Process``), what the parent holds by the fixture of all tests.
Here, besides, both hold nothing more while they still live and the channel goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import random
import threading
from collections.abc import Callable
from typing import Any, Final

import pytest

import ipc_channel as ipc
from tests.lanes.memory import memory_held
from tests.lanes.processes import TIMEOUT, FailedError, Process, warm_up
from tests.lanes.tally import Tally
from tests.lanes.traffic import Ledger, Note, check, note, random_size, send_with_handles
from tests.support import leaks

# A thread of another test may be on its way out.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")

MIB: Final = 1 << 20


# What one side does; the other side is closed, killed, or goes on.


def _everything(source: int, count: int, sender: ipc.Sender[Note]) -> None:
    chance = random.Random(source)
    for number in range(count):
        files = chance.choice([1, 3, 280]) if chance.random() < 0.05 else 0
        send_with_handles(sender, note(source, number, random_size(chance)), files, chance.random() < 0.05)


def _send_everything_and_close(source: int, count: int, sender: ipc.Sender[Note]) -> None:
    with sender:
        _everything(source, count, sender)


def _send_by_clones_and_close(source: int, count: int, sender: ipc.Sender[Note]) -> None:
    with sender, contextlib.ExitStack() as stack:
        clones = [stack.enter_context(sender.clone()) for _ in range(5)]
        for number in range(count):
            clones[number % 5].send(note(source, number))


def _send_and_forget(source: int, count: int, sender: ipc.Sender[Note]) -> None:
    import warnings

    for number in range(count):
        sender.send(note(source, number, 70_000 if number % 50 == 0 else 64))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        sender.__del__()  # type: ignore[attr-defined]
    sender.close()


def _send_from_threads(source: int, count: int, sender: ipc.Sender[Note]) -> None:
    with sender:
        threads = [
            threading.Thread(target=lambda: [sender.send(note(source, 0)) for _ in range(count // 5)]) for _ in range(5)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def _send_from_a_loop(source: int, count: int, sender: ipc.Sender[Note]) -> None:
    async def main() -> None:
        with sender:
            await sender.asend_many(note(source, number) for number in range(count))

    asyncio.run(main())


SENDINGS: Final[dict[str, Callable[[int, int, ipc.Sender[Note]], None]]] = {
    "everything": _send_everything_and_close,
    "clones": _send_by_clones_and_close,
    "forgotten": _send_and_forget,
    "threads": _send_from_threads,
    "event loop": _send_from_a_loop,
}


@pytest.mark.parametrize("sending", SENDINGS)
def test_a_sending_process_that_closes(sending: str) -> None:
    """Broken by whatever of a lane stays open or mapped when its last sender is closed."""
    sender, receiver = ipc.channel(Note)
    with receiver, contextlib.ExitStack() as stack:
        with sender:
            children = [stack.enter_context(Process(SENDINGS[sending], own, 500, sender)) for own in range(2)]
        for message in receiver:
            check(message)
        for child in children:
            child.result()


def _receive(receiver: ipc.Receiver[Note], how: str) -> None:
    came = 0
    if how == "a set":
        with ipc.ReceiverSet[int]() as receivers:
            receivers.add(receiver)
            while came < 200:
                for event in receivers.select(TIMEOUT):
                    assert isinstance(event, ipc.Received)
                    check(event.message)
                    came += 1
        return
    with receiver:
        if how == "an event loop":
            asyncio.run(_receive_in_a_loop(receiver))
            return
        if how == "a selector":
            receiver.fileno()
        while came < 200:
            check(receiver.recv(TIMEOUT))
            came += 1
        if how == "moves":
            carrier, carried = ipc.channel(ipc.Receiver[Note])
            with carrier, carried:
                for _ in range(5):
                    carrier.send(receiver)
                    receiver = carried.recv(TIMEOUT)
                    check(receiver.recv(TIMEOUT))
                receiver.close()


async def _receive_in_a_loop(receiver: ipc.Receiver[Note]) -> None:
    for _ in range(200):
        check(await receiver.arecv())


@pytest.mark.parametrize("how", ["recv", "a set", "an event loop", "a selector", "moves"])
def test_a_receiving_process_that_closes_while_its_senders_go_on(how: str) -> None:
    """Broken by what a receiver had of its senders' and does not give back, unread messages with handles included."""
    sender, receiver = ipc.channel(Note)
    with sender, contextlib.ExitStack() as stack:
        child = stack.enter_context(Process(_receive, receiver, how))
        receiver.close()
        other = stack.enter_context(Process(_send_until_gone, 1, sender))
        _send_until_gone_here(0, sender)
        child.result()
        other.result()


def _send_until_gone(source: int, sender: ipc.Sender[Note]) -> None:
    with sender:
        _send_until_gone_here(source, sender)


def _send_until_gone_here(source: int, sender: ipc.Sender[Note]) -> None:
    with contextlib.suppress(ipc.ReceiverGone):
        for round_number in range(10_000_000):
            _everything(source * 1000 + round_number, 10, sender)
            os.sched_yield()


# A process that lives on and hears others come and go


def _send_some_and_go(source: int, sender: ipc.Sender[Note], ending: str) -> None:
    _everything(source, 60, sender)
    if ending == "close":
        sender.close()
    elif ending == "killed":
        os.kill(os.getpid(), 9)
    else:
        os._exit(0)


@pytest.mark.parametrize("ending", ["close", "_exit", "killed"])
def test_a_receiver_forgets_senders_that_went(ending: str) -> None:
    """Broken by a descriptor, a mapping, or a registration that is kept for each sender that ever was."""
    sender, receiver = ipc.channel(Note)
    with sender, receiver:
        held: list[list[str]] = []
        before = None
        for own in range(8):
            with Process(_send_some_and_go, own, sender, ending, checked=False) as child:
                for _ in range(60):
                    check(receiver.recv(TIMEOUT))
                child.wait()
            with pytest.raises(ipc.Empty):
                receiver.try_recv()
            if own == 1:
                before = leaks.take()
            elif before is not None:
                held.append(leaks.leaked_since(before))
    assert not any(held), held


def _receive_some_and_pass_on(mailbox: ipc.Receiver[Any], back: ipc.Sender[Any], rounds: int) -> None:
    with mailbox, back:
        before: leaks.Held | None = None
        for number in range(rounds):
            receiver = mailbox.recv(TIMEOUT)
            for _ in range(20):
                check(receiver.recv(TIMEOUT))
            back.send(receiver)
            if number == 1:
                before = leaks.take()
        assert before is not None
        left = leaks.leaked_since(before)
        assert not left, left


def test_both_sides_forget_a_receiver_that_moves_to_and_fro() -> None:
    """Broken by residue that is kept when it has been read, and by lanes that were left for new ones."""
    sender, receiver = ipc.channel(Note)
    there, mailbox = ipc.channel(ipc.Receiver[Note])
    back, returned = ipc.channel(ipc.Receiver[Note])
    with contextlib.ExitStack() as stack:
        for end in (sender, there, returned):
            stack.enter_context(end)
        child = stack.enter_context(Process(_receive_some_and_pass_on, mailbox, back, 8))
        mailbox.close()
        back.close()
        before = None
        for own in range(8):
            _everything(own, 50, sender)
            there.send(receiver)
            receiver = returned.recv(TIMEOUT)
            for _ in range(30):
                check(receiver.recv(TIMEOUT))
            if own == 1:
                before = leaks.take()
        assert before is not None
        left = leaks.leaked_since(before)
        receiver.close()
        child.result()
    assert not left, left


def _borrow_senders(mailbox: ipc.Receiver[ipc.Sender[Note]], rounds: int) -> None:
    with mailbox:
        before: leaks.Held | None = None
        for number in range(rounds):
            with mailbox.recv(TIMEOUT) as sender:
                _everything(number, 50, sender)
            if number == 1:
                before = leaks.take()
        assert before is not None
        left = leaks.leaked_since(before)
        assert not left, left


def test_a_process_forgets_senders_that_it_had_and_closed() -> None:
    """Broken by a lane that belongs to the channel in place of the senders that are open."""
    sender, receiver = ipc.channel(Note)
    mail, mailbox = ipc.channel(ipc.Sender[Note])
    with sender, receiver, mail, Process(_borrow_senders, mailbox, 8) as child:
        mailbox.close()
        for _ in range(8):
            mail.send(sender.clone())
            for _ in range(50):
                check(receiver.recv(TIMEOUT))
        child.result()


# Errors half-way


def _with_errors(sender: Any, receiver: Any) -> None:
    ledger = Ledger()
    for number in range(100):
        inner_sender, inner_receiver = ipc.channel(int)
        with inner_sender, inner_receiver, inner_sender.clone() as clone:
            with pytest.raises(ipc.EncodeError):
                sender.send([inner_receiver, clone, lambda: None])
            with pytest.raises(ipc.EncodeError):
                sender.send([inner_sender, lambda: None])
        sender.send(note(0, number))
        ledger.enter(receiver.recv(TIMEOUT))


def test_failed_sends() -> None:
    """Broken by a place, a descriptor or a mapping that was taken for a message which then could not be sent."""
    sender, receiver = ipc.channel()
    with sender, receiver:
        for _ in range(5):
            _with_errors(sender, receiver)  # by now it is as busy as it will be
        gc.collect()
        before = leaks.take()
        _with_errors(sender, receiver)
        gc.collect()
        left = leaks.leaked_since(before)
    assert not left, left


def _receive_garbage(receiver: ipc.Receiver[Note]) -> None:
    with receiver:
        came = failed = 0
        while True:
            try:
                check(receiver.recv(TIMEOUT))
                came += 1
            except ipc.DecodeError:
                failed += 1
            except ipc.Disconnected:
                break
        assert came == 40
        assert failed == 40


def test_messages_that_cannot_be_decoded() -> None:
    """Broken by handles, buffers and large payloads of refused messages."""
    sender, receiver = ipc.channel(Note)
    with sender:
        child = Process(_receive_garbage, receiver)
        receiver.close()
        with child:
            for number in range(80):
                message: Any = note(0, number, 100_000 if number % 4 == 1 else 64)
                message.files = [ipc.Fd(0)] * (number % 8 == 1)
                if number % 2:
                    message.source = "not a number"
                sender.send(message)
            sender.close()
            child.result()


def test_receivers_that_are_closed_with_everything_unread() -> None:
    """Broken by descriptors in unread messages, and by memory that only reading gives back."""

    def once() -> None:
        sender, receiver = ipc.channel(Note)
        with sender, receiver:
            for number in range(60):
                send_with_handles(sender, note(0, number, 70_000 if number % 3 else 64), number % 5, number % 2)
            receiver.recv(TIMEOUT)

    once()
    before = leaks.take()
    for _ in range(5):
        once()
    gc.collect()
    assert not leaks.leaked_since(before)


# Threads and memory


def _count_threads(sender: ipc.Sender[Note], go: Tally) -> int:
    with sender:
        _everything(0, 300, sender)
        return len(os.listdir("/proc/self/task"))


def test_no_side_needs_a_thread() -> None:
    """Broken by a thread that pumps: it would be missing after a fork, and its messages at an exit."""
    sender, receiver = ipc.channel(Note)
    threads = len(os.listdir("/proc/self/task"))
    with receiver, Process(_count_threads, sender, Tally()) as child:
        sender.close()
        for number, message in enumerate(receiver):
            check(message)
            if number == 200:
                # Closing what a peer sent may be left to a helper.
                assert len(os.listdir("/proc/self/task")) <= threads + 1
        assert child.result() <= 2


def test_what_is_drained_is_given_back() -> None:
    """Broken by rings that only grow, and by pages that stay with the file when nobody reads them any more."""
    sender, receiver = ipc.bytes_channel()
    with sender, receiver:
        start = memory_held()
        for _ in range(3):
            for number in range(250):
                sender.send(bytes([number]) * 400_000)
            for number in range(250):
                assert receiver.recv(TIMEOUT) == bytes([number]) * 400_000
            assert memory_held() - start <= 6 * MIB


def test_a_backlog_of_small_messages_is_given_back() -> None:
    """Broken as the test above, where the backlog is one of many records."""
    sender, receiver = ipc.bytes_channel()
    with sender, receiver:
        start = memory_held()
        for _ in range(2):
            sender.send_many(bytes(200) for _ in range(300_000))
            assert memory_held() - start <= 150 * MIB, "much more than the messages"
            for _ in range(300_000):
                assert len(receiver.recv(TIMEOUT)) == 200
            assert memory_held() - start <= 4 * MIB


def test_memory_of_senders_that_died_goes_with_their_messages() -> None:
    """Broken by a receiver that keeps a dead sender's file until it is closed itself."""
    sender, receiver = ipc.bytes_channel()
    with sender, receiver:
        start = memory_held()
        for number in range(4):
            with Process(_send_blocks_and_exit, sender, checked=False) as child:
                child.wait()
            for _ in range(60):
                assert len(receiver.recv(TIMEOUT)) == 400_000
            with pytest.raises(ipc.Empty):
                receiver.try_recv()
            assert memory_held() - start <= 10 * MIB, number


def _send_blocks_and_exit(sender: ipc.BytesSender) -> None:
    for _ in range(60):
        sender.send(bytes(400_000))
    os._exit(0)


def test_a_leak_in_a_child_is_noticed() -> None:
    """Broken by a check that does not look."""
    kept: list[int] = []
    with Process(lambda: kept.append(os.dup(0)), grace=0.1) as child, pytest.raises(FailedError, match="left behind"):
        child.result()
    with Process(warm_up) as child:
        child.result()


def test_memory_is_counted() -> None:
    """Broken by a measure that sees nothing."""
    start = memory_held()
    file = os.memfd_create("measured")
    try:
        os.write(file, bytes(5 * MIB))
        assert memory_held() - start >= 5 * MIB
        os.posix_fallocate(file, 0, 9 * MIB)
        assert 9 * MIB <= memory_held() - start <= 10 * MIB
    finally:
        os.close(file)
    assert memory_held() == start
