"""Receiving without waiting and with a timeout."""

from __future__ import annotations

import math
import threading
import time

import pytest

import ipc_channel as ipc
from tests.conformance.implementations import DATA, Implementation
from tests.conformance.patterns import BIG, pattern


def test_try_recv_empty_value_empty_disconnected(implementation: Implementation) -> None:
    sender, receiver = implementation.make_channel(DATA)
    with sender, receiver:
        with pytest.raises(ipc.Empty):
            receiver.try_recv()
        sender.send(b"value")
        assert receiver.try_recv() == b"value"
        with pytest.raises(ipc.Empty):
            receiver.try_recv()
        sender.close()
        with pytest.raises(ipc.Disconnected):
            receiver.try_recv()


def test_recv_with_a_timeout_empty_value_empty_disconnected(implementation: Implementation) -> None:
    sender, receiver = implementation.make_channel(DATA)
    with sender, receiver:
        began = time.monotonic()
        with pytest.raises(ipc.RecvTimeout):
            receiver.recv(1.0)
        assert time.monotonic() - began >= 0.5
        sender.send(b"value")
        assert receiver.recv(1.0) == b"value"
        with pytest.raises(ipc.RecvTimeout):
            receiver.recv(0.01)
        sender.close()
        with pytest.raises(ipc.Disconnected):
            receiver.recv(1.0)


def test_a_long_timeout_ends_as_soon_as_something_comes(implementation: Implementation) -> None:
    sender, receiver = implementation.make_channel(DATA)
    with sender, receiver:
        for timeout in (3600.0, math.inf, None):
            later = threading.Timer(0.05, sender.send, [b"at last"])
            later.start()
            assert receiver.recv(timeout) == b"at last"
            later.join()


@pytest.mark.parametrize("delay", [0.0, 0.05])
def test_without_senders_a_receive_is_an_error_at_once_or_later(implementation: Implementation, delay: float) -> None:
    for receive in (lambda end: end.recv(), lambda end: end.recv(20), lambda end: next(end)):
        sender, receiver = implementation.make_channel(DATA)
        with sender, receiver:
            later = threading.Timer(delay, sender.close)
            later.start()
            with pytest.raises((ipc.Disconnected, StopIteration)):
                receive(receiver)
            later.join()


def test_try_recv_with_no_senders_at_once(implementation: Implementation) -> None:
    sender, receiver = implementation.make_channel(DATA)
    sender.close()
    with receiver, pytest.raises(ipc.Disconnected):
        receiver.try_recv()


def test_try_recv_with_no_senders_later(implementation: Implementation) -> None:
    sender, receiver = implementation.make_channel(DATA)
    with sender, receiver:
        later = threading.Timer(0.05, sender.close)
        later.start()
        with pytest.raises(ipc.Disconnected):
            while True:
                try:
                    receiver.try_recv()
                except ipc.Empty:
                    time.sleep(0.001)
        later.join()


@pytest.mark.needs("outliving")
def test_try_recv_of_a_large_message_whole(implementation: Implementation) -> None:
    data = pattern(BIG)
    sender, receiver = implementation.make_channel(DATA)
    with sender, receiver:
        sender.send(data)
        assert receiver.try_recv() == data
        with pytest.raises(ipc.Empty):
            receiver.try_recv()


def test_try_recv_while_large_messages_are_still_arriving(implementation: Implementation) -> None:
    data = pattern(BIG // 2)
    sender, receiver = implementation.make_channel(DATA)

    def send_all() -> None:
        with sender:
            for number in range(10):
                sender.send(bytes([number]) + data)

    thread = threading.Thread(target=send_all)
    came: list[int] = []
    with receiver:
        thread.start()
        while True:
            try:
                message = receiver.try_recv()
            except ipc.Empty:
                continue
            except ipc.Disconnected:
                break
            assert message[1:] == data
            came.append(message[0])
        thread.join()
    assert came == list(range(10))


def test_poll_nothing_message_nothing_end(implementation: Implementation) -> None:
    sender, receiver = implementation.make_channel(DATA)
    with sender, receiver:
        assert not receiver.poll()
        assert not receiver.poll(0.01)
        sender.send(b"")
        assert receiver.poll()
        assert receiver.poll(None)
        receiver.recv()
        assert not receiver.poll()
        sender.close()
        assert receiver.poll(20)


def test_recv_many_takes_what_is_there_and_then_the_end(implementation: Implementation) -> None:
    sender, receiver = implementation.make_channel(DATA)
    with receiver:
        with sender:
            sender.send_many(b"%d" % number for number in range(5))
        assert receiver.recv_many(2) == [b"0", b"1"]
        assert receiver.recv_many() == [b"2", b"3", b"4"]
        with pytest.raises(ipc.Disconnected):
            receiver.recv_many()


def test_each_message_goes_to_one_of_the_threads_that_share_a_receiver(implementation: Implementation) -> None:
    sender, receiver = implementation.make_channel(DATA)
    came: list[list[bytes]] = [[] for _ in range(4)]

    def take(mine: list[bytes]) -> None:
        mine.extend(receiver)

    threads = [threading.Thread(target=take, args=(mine,)) for mine in came]
    with receiver:
        for thread in threads:
            thread.start()
        with sender:
            for number in range(400):
                sender.send(b"%d" % number)
        for thread in threads:
            thread.join()
    for mine in came:
        assert [int(message) for message in mine] == sorted(int(message) for message in mine)
    assert sorted(int(message) for mine in came for message in mine) == list(range(400))
