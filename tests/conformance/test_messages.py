"""Messages of every size, from one sender and from several: they arrive once, whole and in order."""

from __future__ import annotations

import threading
from typing import Any

import pytest

import ipc_channel as ipc
from tests.conformance.implementations import DATA, PARCELS, Implementation
from tests.conformance.patterns import BIG, HUGE, MEDIUM, pattern


def test_round_trip_then_disconnected(implementation: Implementation) -> None:
    sender, receiver = implementation.make_channel(DATA)
    with sender, receiver:
        sender.send(b"hello")
        assert receiver.recv() == b"hello"
        sender.close()
        with pytest.raises(ipc.Disconnected):
            receiver.recv()
        with pytest.raises(ipc.Disconnected):
            receiver.recv()


def test_seven_raw_bytes(implementation: Implementation) -> None:
    sender, receiver = implementation.make_channel(DATA)
    with sender, receiver:
        sender.send(bytes([1, 2, 3, 4, 5, 6, 7]))
        assert receiver.recv() == b"\1\2\3\4\5\6\7"


def test_what_is_queued_comes_before_disconnected(implementation: Implementation) -> None:
    sender, receiver = implementation.make_channel(DATA)
    with receiver:
        with sender:
            for number in range(100):
                sender.send(b"%d" % number)
        assert [receiver.recv() for _ in range(100)] == [b"%d" % number for number in range(100)]
        with pytest.raises(ipc.Disconnected):
            receiver.recv()


def test_data_survives_the_drop_of_its_sender(implementation: Implementation) -> None:
    sender, receiver = implementation.make_channel(DATA)
    with receiver:
        sender.send(b"survivor")
        sender.close()
        del sender
        assert list(receiver) == [b"survivor"]


def test_an_empty_message_is_a_message_and_not_the_end(implementation: Implementation) -> None:
    sender, receiver = implementation.make_channel(DATA)
    with sender, receiver:
        sender.send(b"")
        sender.send(b"after")
        assert receiver.recv() == b""
        assert receiver.recv() == b"after"
        with pytest.raises(ipc.Empty):
            receiver.try_recv()


@pytest.mark.parametrize("size", [MEDIUM, BIG, HUGE])
def test_medium_big_and_huge_messages(implementation: Implementation, size: int) -> None:
    data = pattern(size)
    sender, receiver = implementation.make_channel(DATA)
    with sender, receiver:
        sender.send(data)
        received = receiver.recv()
        assert len(received) == size
        assert received == data


def test_a_message_before_and_after_a_huge_one(implementation: Implementation) -> None:
    sender, receiver = implementation.make_channel(DATA)
    with sender, receiver:
        for message in (b"before", pattern(HUGE), b"after"):
            sender.send(message)
        assert [len(receiver.recv()) for _ in range(3)] == [6, HUGE, 5]


@pytest.mark.parametrize("beyond", [-1, 0, 1])
def test_around_an_exactly_full_packet(implementation: Implementation, beyond: int) -> None:
    data = pattern(len(implementation.payload_filling_a_packet(DATA)) + beyond)
    sender, receiver = implementation.make_channel(DATA)
    with sender, receiver:
        sender.send(data)
        sender.send(b"next")
        assert receiver.recv() == data
        assert receiver.recv() == b"next"


@pytest.mark.parametrize("handles", [1, 2, 3, 4, 5, 6, 63, 64])
@pytest.mark.parametrize("beyond", [0, 1])
@pytest.mark.needs("files")
def test_around_an_exactly_full_packet_with_descriptors(
    implementation: Implementation, handles: int, beyond: int
) -> None:
    data = pattern(len(implementation.payload_filling_a_packet(PARCELS, handles)) + beyond)
    sender, receiver = implementation.make_channel(PARCELS)
    with sender, receiver, open("/dev/null") as null:
        sender.send(implementation.parcel(payload=data, files=[ipc.Fd(null)] * handles))
        received = receiver.recv()
        assert received.payload == data
        assert len(received.files) == handles
        for file in received.files:
            file.close()


@pytest.mark.parametrize("size", [0, 1, MEDIUM, BIG])
def test_messages_in_turn_through_one_channel(implementation: Implementation, size: int) -> None:
    data = pattern(size)
    sender, receiver = implementation.make_channel(DATA)
    with sender, receiver:
        for _ in range(20):
            sender.send(data)
            assert receiver.recv() == data


def test_three_concurrent_senders_of_a_mebibyte_do_not_interleave(implementation: Implementation) -> None:
    messages_each = 8
    sender, receiver = implementation.make_channel(DATA)
    failures: list[BaseException] = []

    def send_all(own: Any, byte: int) -> None:
        try:
            with own:
                for number in range(messages_each):
                    own.send(bytes([byte, number]) * (BIG // 2))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=send_all, args=(sender.clone(), byte)) for byte in b"abc"]
    with receiver:
        for thread in threads:
            thread.start()
        sender.close()
        came: dict[int, list[int]] = {byte: [] for byte in b"abc"}
        for message in receiver:
            assert message == message[:2] * (BIG // 2)
            came[message[0]].append(message[1])
        for thread in threads:
            thread.join()
    assert not failures
    assert came == {byte: list(range(messages_each)) for byte in b"abc"}


def test_a_sender_may_be_used_by_many_threads(implementation: Implementation) -> None:
    sender, receiver = implementation.make_channel(DATA)

    def send_some(name: int) -> None:
        for number in range(50):
            sender.send(bytes([name, number]))

    threads = [threading.Thread(target=send_some, args=(name,)) for name in range(8)]
    with sender, receiver:
        for thread in threads:
            thread.start()
        came = [receiver.recv() for _ in range(8 * 50)]
        for thread in threads:
            thread.join()
    for name in range(8):
        assert [message[1] for message in came if message[0] == name] == list(range(50))
