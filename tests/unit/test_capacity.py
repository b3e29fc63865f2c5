"""Bounded channels: what counts as room, and what each way of sending does without any."""

from __future__ import annotations

import threading
import time
from typing import Any

import msgspec
import pytest

import ipc_channel as ipc
from tests.support.start_methods import start


@pytest.mark.parametrize("capacity", [0, -1, -(2**40), 2**32, 2**70])
def test_a_capacity_that_is_no_number_of_messages(capacity: int) -> None:
    for make in (lambda: ipc.channel(capacity=capacity), lambda: ipc.bytes_channel(capacity=capacity)):
        with pytest.raises(ValueError, match=f"capacity must be .* not {capacity}"):
            make()


@pytest.mark.parametrize("capacity", ["3", 1.5, b"\1"], ids=repr)
def test_a_capacity_that_is_no_int(capacity: Any) -> None:
    with pytest.raises(TypeError):
        ipc.channel(int, capacity=capacity)


@pytest.mark.parametrize("capacity", [1, 2, 7, 1000, 2**32 - 1])
def test_there_is_room_for_as_many_messages(capacity: int) -> None:
    count = min(capacity, 5000)
    sender, receiver = ipc.channel(int, capacity=capacity)
    with sender, receiver:
        for round_number in range(3):
            for number in range(count):
                sender.try_send(round_number + number)
            if count == capacity:
                for _ in range(2):
                    with pytest.raises(ipc.Full):
                        sender.try_send(-1)
            assert [receiver.recv() for _ in range(count)] == [round_number + number for number in range(count)]
        assert not receiver.poll()


def test_each_message_that_is_received_makes_room_for_one() -> None:
    sender, receiver = ipc.bytes_channel(capacity=3)
    with sender, receiver:
        sender.send_many([b"0", b"1", b"2"])
        for number in range(3, 50):
            with pytest.raises(ipc.Full):
                sender.try_send(b"x")
            assert receiver.recv() == b"%d" % (number - 3)
            sender.try_send(b"%d" % number)
        assert receiver.recv_many() == [b"47", b"48", b"49"]


@pytest.mark.parametrize("size", [0, 100, 100_000, 3_000_000])
def test_messages_are_counted_and_not_bytes(size: int) -> None:
    sender, receiver = ipc.bytes_channel(capacity=2)
    with sender, receiver:
        sender.send(bytes(size))
        sender.send(b"")
        with pytest.raises(ipc.SendTimeout):
            sender.send(b"", timeout=0)
        assert [len(message) for message in receiver.recv_many()] == [size, 0]


def test_send_waits_until_a_message_is_received() -> None:
    sender, receiver = ipc.channel(int, capacity=1)
    returned: list[int] = []

    def send() -> None:
        for number in range(1, 20):
            sender.send(number)
            returned.append(number)

    with sender, receiver:
        sender.send(0)
        thread = threading.Thread(target=send)
        thread.start()
        time.sleep(0.05)
        assert returned == []
        for number in range(20):
            assert receiver.recv(20) == number
            assert len(returned) <= number + 1
        thread.join()
        assert not receiver.poll()


def test_send_many_waits_for_room() -> None:
    sender, receiver = ipc.channel(int, capacity=4)
    with sender, receiver:
        thread = threading.Thread(target=sender.send_many, args=(range(1000),))
        thread.start()
        assert [receiver.recv(20) for _ in range(1000)] == list(range(1000))
        thread.join()


def test_send_timeout_passes_and_nothing_was_sent() -> None:
    sender, receiver = ipc.channel(int, capacity=1)
    with sender, receiver:
        sender.send(1)
        began = time.monotonic()
        with pytest.raises(ipc.SendTimeout) as caught:
            sender.send(2, timeout=0.03)
        assert time.monotonic() - began >= 0.03
        assert isinstance(caught.value, ipc.Full)
        assert sender.statistics().messages == 1
        assert receiver.recv() == 1
        assert not receiver.poll()


class Outer(msgspec.Struct):
    """A message with an end inside."""

    end: ipc.Receiver[int]


def test_an_end_in_a_message_for_which_there_is_no_room_stays() -> None:
    sender, receiver = ipc.channel(Outer, capacity=1)
    first, second = ipc.channel(int), ipc.channel(int)
    with sender, receiver, first.sender, second.sender, second.receiver:
        sender.send(Outer(first.receiver))
        second.sender.send(7)
        with pytest.raises(ipc.Full):
            sender.try_send(Outer(second.receiver))
        with pytest.raises(ipc.SendTimeout):
            sender.send(Outer(second.receiver), timeout=0.01)
        assert second.receiver.recv() == 7
        receiver.recv().end.close()


def test_several_threads_wait_for_room() -> None:
    """Nobody sleeps on while there is room."""
    sender, receiver = ipc.channel(int, capacity=2)
    count, each = 5, 100

    def send(thread: int) -> None:
        for number in range(each):
            sender.send(thread * each + number)

    threads = [threading.Thread(target=send, args=(number,)) for number in range(count)]
    with sender, receiver:
        for thread in threads:
            thread.start()
        came = [receiver.recv(20) for _ in range(count * each)]
        for thread in threads:
            thread.join()
        assert not receiver.poll()
    for number in range(count):
        assert [message for message in came if message // each == number] == list(
            range(number * each, (number + 1) * each)
        )


def test_a_clone_shares_the_capacity_of_its_process() -> None:
    sender, receiver = ipc.channel(int, capacity=2)
    with sender, receiver, sender.clone() as clone:
        sender.send(1)
        clone.send(2)
        for each in (sender, clone):
            with pytest.raises(ipc.Full):
                each.try_send(3)
        assert receiver.recv_many() == [1, 2]


def test_the_capacity_travels_with_the_sender() -> None:
    carrier, arrivals = ipc.channel(ipc.Sender[int])
    sender, receiver = ipc.channel(int, capacity=2)
    with carrier, arrivals, receiver:
        carrier.send(sender)
        with arrivals.recv() as arrived:
            arrived.send_many([1, 2])
            with pytest.raises(ipc.Full):
                arrived.try_send(3)
            with arrived.to_opaque() as opaque, opaque.to(int) as again:
                with pytest.raises(ipc.Full):
                    again.try_send(3)
                assert receiver.recv_many() == [1, 2]
                again.try_send(3)
        assert list(receiver) == [3]


def fill_up(sender: ipc.Sender[int], done: ipc.Sender[int]) -> None:
    """Send until there is no room, and tell how many went."""
    with sender, done:
        went = 0
        try:
            while True:
                sender.try_send(went)
                went += 1
        except ipc.Full:
            done.send(went)


@pytest.mark.parametrize("method", ["fork", "spawn", "subprocess"])
def test_each_sending_process_has_the_capacity_for_itself(method: str) -> None:
    sender, receiver = ipc.channel(int, capacity=5)
    done, finished = ipc.channel(int)
    kinds = (ipc.Sender[int], ipc.Sender[int])
    with sender, receiver, done, finished:
        sender.send_many(range(100, 105))
        with start(method, fill_up, sender, done, kinds=kinds) as child:
            assert finished.recv(20) == 5
            child.result()
        with pytest.raises(ipc.Full):
            sender.try_send(0)
        came = [receiver.recv(20) for _ in range(10)]
        assert sorted(came) == [*range(5), *range(100, 105)]


def test_messages_under_way_survive_the_move_of_the_receiver() -> None:
    carrier, arrivals = ipc.channel(ipc.Receiver[int])
    sender, receiver = ipc.channel(int, capacity=3)
    with carrier, arrivals, sender:
        sender.send_many([1, 2, 3])
        carrier.send(receiver)
        with arrivals.recv() as arrived:
            assert arrived.recv_many() == [1, 2, 3]
            sender.send_many(
                [4, 5, 6],
            )
            with pytest.raises(ipc.Full):
                sender.try_send(7)
            assert arrived.recv_many() == [4, 5, 6]


def test_statistics_tell_what_is_under_way() -> None:
    sender, receiver = ipc.channel(int, capacity=3)
    with sender, receiver:
        sender.send_many([1, 2])
        statistics = sender.statistics()
        assert (statistics.messages, statistics.backlog) == (2, 2)
        assert statistics.memory > 0
        assert receiver.poll()
        waiting = receiver.statistics()
        assert waiting.lanes == 1
        assert waiting.backlog_bytes > 0
        assert receiver.recv_many() == [1, 2]
        with pytest.raises(ipc.Empty):
            receiver.try_recv()
        assert receiver.statistics().backlog_bytes == 0
