"""Many threads at once: sharing a receiver, closing under each other, and moving what others use."""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

import ipc_channel as ipc

THREADS = 300


class Worker(threading.Thread):
    """Does something in a thread and keeps what that raised."""

    def __init__(self, function: Callable[..., object], *arguments: Any) -> None:
        super().__init__()
        self._call = lambda: function(*arguments)
        self.error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self._call()
        except BaseException as error:
            self.error = error

    def raised(self) -> type[BaseException] | None:
        """Wait for its end; the type of what it raised."""
        self.join()
        return None if self.error is None else type(self.error)


def send_without_end(sender: ipc.Sender[int]) -> None:
    """Until it raises."""
    while True:
        sender.send(1)


def receive_without_end(receiver: ipc.Receiver[Any], came: list[Any]) -> None:
    """Until it raises."""
    while True:
        came.append(receiver.recv())


def test_hundreds_of_threads_share_a_receiver() -> None:
    sender, receiver = ipc.channel(int)
    came: list[int] = []
    threads = [threading.Thread(target=lambda: came.extend(receiver)) for _ in range(THREADS)]
    with receiver:
        for thread in threads:
            thread.start()
        with sender:
            sender.send_many(range(5000))
        for thread in threads:
            thread.join()
    assert sorted(came) == list(range(5000))


def test_close_wakes_hundreds_of_waiting_threads() -> None:
    sender, receiver = ipc.channel(int)
    outcomes: list[str] = []
    ready = threading.Barrier(THREADS + 1)

    def wait() -> None:
        ready.wait()
        try:
            receiver.recv()
        except ipc.ClosedError as error:
            outcomes.append(str(error))

    threads = [threading.Thread(target=wait) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    ready.wait()
    time.sleep(0.05)
    with sender:
        receiver.close()
        for thread in threads:
            thread.join()
    assert outcomes == ["this receiver is closed"] * THREADS


def move_into_a_message(receiver: ipc.Receiver[int]) -> None:
    """Send it away."""
    carrier, carried = ipc.channel(ipc.Receiver[int])
    with carrier, carried:
        carrier.send(receiver)
        carried.recv().close()


def move_into_a_set(receiver: ipc.Receiver[int]) -> None:
    """Add it to a set."""
    with ipc.ReceiverSet[int]() as receivers:
        receivers.add(receiver)


TAKINGS: dict[str, Callable[[ipc.Receiver[int]], None]] = {
    "close": lambda receiver: receiver.close(),
    "to_opaque": lambda receiver: receiver.to_opaque().close(),
    "send": move_into_a_message,
    "add": move_into_a_set,
}


@pytest.mark.parametrize("taking", TAKINGS)
def test_taking_a_receiver_away_wakes_who_waits_in_it(taking: str) -> None:
    sender, receiver = ipc.channel(int)
    with sender:
        worker = Worker(receiver.recv)
        time.sleep(0.03)
        TAKINGS[taking](receiver)
        assert worker.raised() is ipc.ClosedError


def test_closing_and_receiving_at_the_same_moment() -> None:
    """Every message is received or thrown away with the receiver; nothing crashes, nothing hangs, nothing leaks."""
    for round_number in range(60):
        sender, receiver = ipc.channel(ipc.SharedMemory)
        came: list[Any] = []
        workers = [Worker(receive_without_end, receiver, came) for _ in range(3)]
        with ipc.SharedMemory.from_bytes(b"x") as memory, sender, contextlib.suppress(ipc.ReceiverGone):
            for number in range(40):
                sender.send(memory)
                if number == round_number % 40:
                    receiver.close()
        assert [worker.raised() for worker in workers] == [ipc.ClosedError] * 3
        for message in came:
            message.close()


def test_closing_and_sending_at_the_same_moment() -> None:
    for _ in range(60):
        sender, receiver = ipc.channel(int)
        workers = [Worker(send_without_end, sender) for _ in range(3)]
        with receiver:
            receiver.recv_many()
            sender.close()
            assert [worker.raised() for worker in workers] == [ipc.ClosedError] * 3


def test_a_batch_without_end_does_not_keep_other_threads_from_running() -> None:
    sender, receiver = ipc.bytes_channel()
    with sender, receiver:
        # An iterator without a line of Python in it.
        worker = Worker(sender.send_many, itertools.repeat(b""))
        assert receiver.recv() == b""
        sender.close()
        assert worker.raised() is ipc.ClosedError


def test_close_wakes_senders_that_wait_for_room() -> None:
    sender, receiver = ipc.channel(int)
    workers = [Worker(send_without_end, sender) for _ in range(20)]
    with receiver:
        time.sleep(0.1)
        sender.close()
        assert [worker.raised() for worker in workers] == [ipc.ClosedError] * 20


def move_at(barrier: threading.Barrier, carrier: ipc.Sender[Any], end: Any) -> None:
    """Send the end when all are ready."""
    barrier.wait()
    carrier.send(end)


def test_one_sender_moved_by_two_threads_goes_with_one_message_or_both() -> None:
    """A sender may be in two messages at once; each arrives with a working one, or its send has failed."""
    for _ in range(50):
        carrier, carried = ipc.channel(ipc.Sender[int])
        sender, receiver = ipc.channel(int)
        barrier = threading.Barrier(2)
        workers = [Worker(move_at, barrier, carrier, sender) for _ in range(2)]
        with carrier, carried, receiver:
            outcomes = [worker.raised() for worker in workers]
            sent = outcomes.count(None)
            assert sent + outcomes.count(ipc.ClosedError) == 2
            assert sent
            for _ in range(sent):
                with carried.recv(20) as arrived:
                    arrived.send(1)
            assert list(receiver) == [1] * sent
            with pytest.raises(ipc.Empty):
                carried.try_recv()


def test_one_receiver_moved_by_two_threads_goes_to_one_place() -> None:
    for _ in range(50):
        carrier, carried = ipc.channel(ipc.Receiver[int])
        sender, receiver = ipc.channel(int)
        barrier = threading.Barrier(2)
        workers = [Worker(move_at, barrier, carrier, receiver) for _ in range(2)]
        with carrier, carried, sender:
            outcomes = [worker.raised() for worker in workers]
            assert sorted(outcomes, key=str) == [ipc.ClosedError, None]
            sender.send(1)
            with carried.recv(20) as arrived:
                assert arrived.recv(20) == 1


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_making_and_closing_channels_in_many_threads_while_forking() -> None:
    """No fork happens inside a critical section: a child can always use and close what it has."""
    stop = threading.Event()

    def churn() -> None:
        while not stop.is_set():
            sender, receiver = ipc.channel(int)
            with sender, receiver:
                sender.send(1)
                receiver.recv()

    threads = [threading.Thread(target=churn) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(25):
            child = os.fork()
            if child == 0:
                code = 1
                try:
                    sender, receiver = ipc.channel(int)
                    sender.send(1)
                    code = 0 if receiver.recv(20) == 1 and ipc.close_inherited(keep=[sender, receiver]) >= 0 else 2
                finally:
                    os._exit(code)
            assert os.waitpid(child, 0)[1] == 0
    finally:
        stop.set()
        for thread in threads:
            thread.join()
