"""At the limit on open files: an error that says so, nothing lost, nothing leaked, and everything goes on."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
from collections.abc import Callable
from typing import Any

import anyio
import pytest

import ipc_channel as ipc
from tests.faults.scarcity import descriptors_left
from tests.support.snippets import run_snippet


def test_descriptors_left_means_what_it_says() -> None:
    for count in (0, 1, 5):
        with descriptors_left(count):
            opened = []
            with pytest.raises(OSError, match="Too many open files"):
                while True:
                    opened.append(os.dup(0))
        for number in opened:
            os.close(number)
        assert len(opened) == count


class Files:
    """A channel with a message of so many files in its queue, and one without behind it."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.reading, writing = os.pipe()
        self.sender, self.receiver = ipc.channel(list[ipc.Fd])
        try:
            self.sender.send([ipc.Fd(writing)] * count)
            self.sender.send([])
        finally:
            os.close(writing)

    def check(self, files: list[ipc.Fd]) -> None:
        """They are the files that were sent, and nobody has any other copy of them."""
        assert len(files) == self.count
        os.write(files[0].fileno(), b"f")
        os.write(files[-1].fileno(), b"l")
        for file in files:
            file.close()
        assert os.read(self.reading, 10) == b"fl"
        assert os.read(self.reading, 10) == b"", "a copy of the pipe's writing end was left open"

    def close(self) -> None:
        os.close(self.reading)
        self.sender.close()
        self.receiver.close()


RECEIVE: dict[str, Callable[[ipc.Receiver[list[ipc.Fd]]], list[ipc.Fd]]] = {
    "recv": lambda receiver: receiver.recv(20),
    "try_recv": lambda receiver: receiver.try_recv(),
    "recv_many": lambda receiver: receiver.recv_many(1)[0],
    "next": next,
}


@pytest.mark.parametrize("way", RECEIVE)
@pytest.mark.parametrize("count", [1, 100, 3000])
def test_receiving_too_many_handles_is_an_error_and_the_message_stays(count: int, way: str) -> None:
    receive = RECEIVE[way]
    with contextlib.closing(Files(count)) as files:
        for room in sorted({0, min(count - 1, 3), count // 2, count - 1}):
            with descriptors_left(room), pytest.raises(ipc.TooManyHandles) as caught:
                receive(files.receiver)
            assert caught.value.errno == errno.EMFILE
        files.check(receive(files.receiver))
        assert receive(files.receiver) == []


def test_the_other_channels_go_on_meanwhile() -> None:
    sender, receiver = ipc.channel(str)
    with contextlib.closing(Files(10)) as files, sender, receiver, descriptors_left(0):
        for _ in range(5):
            with pytest.raises(ipc.TooManyHandles):
                files.receiver.recv(20)
            sender.send("no descriptor needed")
            assert receiver.recv(20) == "no descriptor needed"
        files.receiver.poll()


def test_in_a_set_it_is_an_event_and_the_message_stays() -> None:
    sender, receiver = ipc.channel(str)
    with contextlib.closing(Files(10)) as files, ipc.ReceiverSet[str]() as receivers, sender:
        receivers.add(files.receiver, "files")
        receivers.add(receiver, "text")
        with descriptors_left(5):
            [event] = receivers.select(20)
            assert isinstance(event, ipc.Undecodable)
            assert isinstance(event.error, ipc.TooManyHandles)
            sender.send("goes on")
            events = receivers.select(20)
            assert ipc.Received("text", "goes on") in events
        [event] = receivers.select(20)
        assert isinstance(event, ipc.Received)
        files.check(event.message)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_in_an_event_loop(backend: str) -> None:
    async def main() -> None:
        with contextlib.closing(Files(10)) as files:
            with descriptors_left(5), pytest.raises(ipc.TooManyHandles):
                await files.receiver.arecv()
            files.check(await files.receiver.arecv())

    anyio.run(main, backend=backend)


def test_a_first_message_of_a_client_that_meets_the_limit_is_accepted_later() -> None:
    with open("/dev/null") as null, ipc.OneShotServer(list[ipc.Fd]) as server:
        with ipc.connect(server.name, list[ipc.Fd]) as sender:
            sender.send([ipc.Fd(null)] * 10)
            with descriptors_left(5), pytest.raises(ipc.TooManyHandles):
                server.accept(20)
            receiver, first = server.accept(20)
        with receiver:
            assert len(first) == 10
            for file in first:
                file.close()


def test_accept_without_a_descriptor_for_the_client() -> None:
    with ipc.OneShotServer(str) as server, ipc.connect(server.name, str) as sender:
        sender.send("patient")
        with descriptors_left(0), pytest.raises(ipc.TooManyHandles):
            server.accept(20)
        receiver, first = server.accept(20)
        receiver.close()
        assert first == "patient"


def _make_channel() -> None:
    sender, receiver = ipc.channel(int)
    sender.close()
    receiver.close()


def _make_bytes_channel() -> None:
    sender, receiver = ipc.bytes_channel()
    sender.close()
    receiver.close()


def _make_server() -> None:
    ipc.OneShotServer(int).close()


def _make_set() -> None:
    ipc.ReceiverSet[int]().close()


def _make_memory() -> None:
    ipc.SharedMemory.from_bytes(b"x").close()


NEEDED: dict[str, tuple[Callable[[], None], int]] = {
    "channel": (_make_channel, 2),
    "bytes_channel": (_make_bytes_channel, 2),
    "one-shot server": (_make_server, 2),
    "receiver set": (_make_set, 2),
    "shared memory": (_make_memory, 1),
}
"""What needs descriptors, and how many at least."""


@pytest.mark.parametrize("what", NEEDED)
def test_making_things_without_descriptors(what: str) -> None:
    make, needed = NEEDED[what]
    make()  # imports what is imported at first use, and for that files are opened too
    for room in range(needed):
        with descriptors_left(room), pytest.raises(OSError, match="open files") as caught:
            make()
        assert isinstance(caught.value, ipc.TooManyHandles), caught.value
    make()


def test_what_an_open_channel_needs_descriptors_for() -> None:
    inner_sender, inner_receiver = ipc.channel(bytes)
    with inner_sender, inner_receiver, descriptors_left(0):
        for needy in (inner_sender.clone, inner_receiver.fileno, lambda: inner_sender.send(bytes(1_000_000))):
            with pytest.raises(ipc.TooManyHandles):
                needy()
        inner_sender.send(b"needs none")
        assert inner_receiver.recv(20) == b"needs none"


def test_an_end_can_be_sent_without_any_descriptor_and_received_with_the_one_that_it_left() -> None:
    sender, receiver = ipc.channel(ipc.Sender[bytes])
    inner_sender, inner_receiver = ipc.channel(bytes)
    with sender, receiver, inner_receiver:
        with descriptors_left(0):
            sender.send(inner_sender)
            assert inner_sender.closed
            with receiver.recv(20) as arrived:
                arrived.send(b"x")
        assert list(inner_receiver) == [b"x"]


def test_a_send_that_fails_for_want_of_descriptors_leaves_its_ends_untouched() -> None:
    sender, receiver = ipc.channel(list[ipc.Sender[int]])
    inner = [ipc.channel(int) for _ in range(300)]  # more than a packet holds: they need a chain
    ends = [end for end, _ in inner]
    with sender, receiver:
        with descriptors_left(1), pytest.raises(ipc.TooManyHandles):
            sender.send(ends)
        assert not any(end.closed for end in ends)
        sender.send(ends)
        for arrived in receiver.recv(20):
            arrived.close()
    for _, end in inner:
        end.close()


def test_waiting_needs_no_descriptor_that_cannot_be_had() -> None:
    import threading

    sender, receiver = ipc.channel(int)
    caught: list[Any] = []

    def receive() -> None:
        try:
            caught.append(receiver.recv(20))
        except BaseException as error:
            caught.append(error)

    def time_out() -> None:
        try:
            receiver.recv(0.05)
        except BaseException as error:
            caught.append(error)

    with sender, receiver:
        for wait in (time_out, receive):
            # A thread of its own, that has not waited for anything yet.
            thread = threading.Thread(target=wait)
            with descriptors_left(0):
                thread.start()
                if wait is receive:
                    threading.Event().wait(0.05)
                    sender.send(1)
                thread.join()
    assert isinstance(caught[0], ipc.RecvTimeout)
    assert caught[1] == 1


IN_FLIGHT = """
import ipc_channel as ipc
sender, receiver = ipc.channel(list[ipc.Fd])
with sender, receiver, open("/dev/null") as null:
    sent = 0
    try:
        while True:
            sender.send([ipc.Fd(null)] * 50)
            sent += 1
    except ipc.TooManyHandles as error:
        assert "in flight" in str(error), error
    assert 0 < sent < 100, sent
    sender.send([])
    for number in range(sent):
        files = receiver.recv(20)
        assert len(files) == 50
        for file in files:
            file.close()
    assert receiver.recv(20) == []
    sender.send([ipc.Fd(null)] * 50)
    for file in receiver.recv(20):
        file.close()
"""


def test_too_many_descriptors_in_flight_is_an_error_of_send_and_loses_nothing() -> None:
    run_snippet(IN_FLIGHT, as_other_user=True, limits={resource.RLIMIT_NOFILE: 200})
