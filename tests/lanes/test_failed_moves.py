"""A send that fails leaves the receiver in it as it was, with its busy senders, what they sent, and its descriptor."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import Any, Final

import pytest
from msgspec import Struct

import ipc_channel as ipc
from tests.faults.scarcity import descriptors_left
from tests.lanes.processes import TIMEOUT, Process, readable
from tests.lanes.tally import Tally
from tests.lanes.traffic import Ledger, Note, note, send_with_handles

# A thread of another test may be on its way out.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")


class Moving(Struct):
    """A receiver, and what may make its move fail."""

    receiver: ipc.Receiver[Note]
    extra: Any = None
    files: list[ipc.Fd] = []
    memory: ipc.SharedMemory | None = None
    other: ipc.Receiver[Note] | None = None


def _cannot_be_pickled(receiver: ipc.Receiver[Note]) -> None:
    sender, carried = ipc.channel()
    with sender, carried, pytest.raises(ipc.EncodeError):
        sender.send([receiver, lambda: None])


def _cannot_be_encoded(receiver: ipc.Receiver[Note]) -> None:
    sender, carried = ipc.channel(Moving)
    with sender, carried, pytest.raises(ipc.EncodeError):
        sender.send(Moving(receiver, extra=object()))


def _occurs_twice(receiver: ipc.Receiver[Note]) -> None:
    sender, carried = ipc.channel(Moving)
    with sender, carried, pytest.raises(ipc.EncodeError):
        sender.send(Moving(receiver, other=receiver))


def _goes_to_nobody(receiver: ipc.Receiver[Note]) -> None:
    sender, carried = ipc.channel(Moving)
    carried.close()
    with sender, pytest.raises(ipc.ReceiverGone):
        sender.send(Moving(receiver))


def _goes_to_nobody_by_a_busy_sender(receiver: ipc.Receiver[Note]) -> None:
    sender, carried = ipc.channel()
    with sender:
        for number in range(100):
            sender.send(number)
            carried.recv(TIMEOUT)
        carried.close()
        with pytest.raises(ipc.ReceiverGone):
            sender.send(receiver)


def _goes_by_a_closed_sender(receiver: ipc.Receiver[Note]) -> None:
    sender, carried = ipc.channel(Moving)
    sender.close()
    with carried, pytest.raises(ipc.ClosedError):
        sender.send(Moving(receiver))


def _lacks_descriptors(receiver: ipc.Receiver[Note]) -> None:
    sender, carried = ipc.channel(Moving)
    with sender, carried, descriptors_left(1), pytest.raises(ipc.TooManyHandles):
        sender.send(Moving(receiver, files=[ipc.Fd(0)] * 600))


def _is_beside_memory_that_is_written_to(receiver: ipc.Receiver[Note]) -> None:
    sender, carried = ipc.channel(Moving)
    with sender, carried, ipc.SharedMemory.create(10) as memory:
        with memoryview(memory), pytest.raises(BufferError):
            sender.send(Moving(receiver, memory=memory))


def _has_no_room(receiver: ipc.Receiver[Note]) -> None:
    sender, carried = ipc.channel(capacity=1)
    with sender, carried:
        sender.send(1)
        with pytest.raises(ipc.Full):
            sender.try_send(receiver)
        with pytest.raises(ipc.SendTimeout):
            sender.send(receiver, timeout=0.001)


FAILURES: Final[dict[str, Callable[[ipc.Receiver[Note]], None]]] = {
    function.__name__.strip("_").replace("_", " "): function
    for function in (
        _cannot_be_pickled,
        _cannot_be_encoded,
        _occurs_twice,
        _goes_to_nobody,
        _goes_to_nobody_by_a_busy_sender,
        _goes_by_a_closed_sender,
        _lacks_descriptors,
        _is_beside_memory_that_is_written_to,
        _has_no_room,
    )
}


def _send_until_told(source: int, sender: ipc.Sender[Note], received: Tally, stop: Tally) -> int:
    number = 0
    with sender:
        while not stop[0]:
            send_with_handles(sender, note(source, number, 70_000 if number % 40 == 9 else 64), number % 50 == 3)
            number += 1
            if number - received[source] > 300:
                for _ in range(50):
                    os.sched_yield()
    return number


class Busy:
    """A receiver of two busy processes."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        sender, self.receiver = ipc.channel(Note)
        stack.callback(lambda: self.receiver.close())
        self._received, self._stop = Tally(2), Tally()
        self.ledger = Ledger()
        self._children = [
            stack.enter_context(Process(_send_until_told, own, sender, self._received, self._stop)) for own in range(2)
        ]
        sender.close()

    def receive(self, count: int) -> None:
        """So many messages."""
        for _ in range(count):
            self.ledger.enter(self.receiver.recv(TIMEOUT))
        for own in range(2):
            self._received[own] = self.ledger.next[own]

    def finish(self) -> None:
        """Everything that was sent has come."""
        self._stop[0] = 1
        self.ledger.enter_all(self.receiver)
        assert [self.ledger.next[0], self.ledger.next[1]] == [child.result() for child in self._children]


@pytest.mark.parametrize("failure", FAILURES)
def test_a_receiver_goes_on_after_a_failed_move(failure: str) -> None:
    """Broken by senders that were told of the move, and by messages that were packed for it."""
    with contextlib.ExitStack() as stack:
        busy = Busy(stack)
        descriptor = busy.receiver.fileno()
        for round_number in range(20):
            busy.receive(round_number * 3)
            FAILURES[failure](busy.receiver)
            assert not busy.receiver.closed
            assert busy.receiver.fileno() == descriptor
            assert readable(descriptor, TIMEOUT)
            busy.receive(1)
        busy.finish()


@pytest.mark.parametrize("failure", FAILURES)
def test_a_receiver_moves_after_its_move_has_failed(failure: str) -> None:
    """Broken by a failed move that leaves residue, and by one that counts as the only one."""
    carrier, carried = ipc.channel(Moving)
    sender, receiver = ipc.channel(Note)
    ledger = Ledger()
    with carrier, carried, sender:
        number = 0
        for _ in range(10):
            for _ in range(20):
                send_with_handles(sender, note(0, number, 70_000 if number % 7 == 0 else 64), number % 9 == 0)
                number += 1
            ledger.enter(receiver.recv(TIMEOUT))
            FAILURES[failure](receiver)
            FAILURES[failure](receiver)
            carrier.send(Moving(receiver))
            receiver = carried.recv(TIMEOUT).receiver
            for _ in range(12):
                ledger.enter(receiver.recv(TIMEOUT))
        sender.close()
        with receiver:
            ledger.enter_all(receiver)
    assert ledger.next[0] == 200


def test_a_receiver_that_is_added_to_a_set_or_given_another_type_and_back() -> None:
    """Broken by conversions that treat what is in memory as a move that lost it."""
    with contextlib.ExitStack() as stack:
        busy = Busy(stack)
        for _ in range(20):
            busy.receive(10)
            with ipc.ReceiverSet[int]() as receivers:
                key = receivers.add(busy.receiver)
                for event in receivers.select(TIMEOUT):
                    assert isinstance(event, ipc.Received)
                    busy.ledger.enter(event.message)
                back = receivers.remove(key)
            busy.receiver = back.to_opaque().to(Note)
        busy.finish()
