"""At the limit on open files: an error or a slower way, nothing lost, nothing out of order, and everything goes on."""

from __future__ import annotations

import contextlib
import time
from typing import Final

import pytest

import ipc_channel as ipc
from tests.faults.scarcity import descriptors_left
from tests.lanes.processes import TIMEOUT, Process
from tests.lanes.tally import Tally
from tests.lanes.traffic import Ledger, Note, note, send_with_handles

# A thread of another test may be on its way out.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")

ROOM: Final = range(9)
"""So many descriptors can still be opened."""


def _send_somehow(sender: ipc.Sender[Note], message: Note, files: int) -> bool:
    """Whether it could be sent."""
    try:
        send_with_handles(sender, message, files)
    except ipc.TooManyHandles:
        return False
    return True


def _become_busy(sender: ipc.Sender[Note], room: int, received: Tally) -> int:
    """Become busy while descriptors are scarce, and go on when they are not; how many messages went."""
    number = 0
    with sender:
        with descriptors_left(room):
            for attempt in range(400):
                size = 70_000 if attempt % 50 == 49 else 64
                number += _send_somehow(sender, note(0, number, size), attempt % 60 == 59)
        for attempt in range(400):
            send_with_handles(sender, note(0, number), attempt % 60 == 59)
            number += 1
    return number


@pytest.mark.parametrize("shared", [False, True], ids=["alone", "shared"])
@pytest.mark.parametrize("room", ROOM)
def test_a_sender_that_becomes_busy(room: int, shared: bool) -> None:
    """Broken by a message that went half, or twice: once by the lane that could not be made, and once otherwise."""
    sender, receiver = ipc.channel(Note)
    ledger = Ledger()
    with contextlib.ExitStack() as stack:
        stack.enter_context(receiver)
        clone = stack.enter_context(sender.clone()) if shared else None
        child = stack.enter_context(Process(_become_busy, sender, room, Tally()))
        sender.close()
        if clone is not None:
            for number in range(100):
                clone.send(note(1, number))
            clone.close()
        ledger.enter_all(receiver)
        assert child.result() == ledger.next[0]
        assert ledger.next[0] >= 400
        assert ledger.next[1] == (100 if shared else 0)


def _send_all(source: int, sender: ipc.Sender[Note], count: int, go: Tally) -> None:
    go.wait(0, 1)
    with sender:
        for number in range(count):
            send_with_handles(sender, note(source, number, 70_000 if number % 30 == 17 else 64), number % 25 == 11)


@pytest.mark.parametrize("room", ROOM)
def test_a_receiver_whose_senders_become_busy(room: int) -> None:
    """Broken by a lane whose descriptors could not be received: lost, or skipped while later messages go first."""
    sender, receiver = ipc.channel(Note)
    ledger = Ledger()
    go = Tally()
    with receiver, contextlib.ExitStack() as stack:
        children = [stack.enter_context(Process(_send_all, own, sender, 200, go)) for own in range(2)]
        sender.close()
        ended = False
        with descriptors_left(room):
            go[0] = 1
            until = time.monotonic() + 0.1
            while time.monotonic() < until and not ended:
                try:
                    ledger.enter(receiver.recv(0.01))
                except (ipc.TooManyHandles, ipc.RecvTimeout):
                    continue
                except ipc.Disconnected:
                    ended = True
        ledger.enter_all(receiver)
        for child in children:
            child.result()
    assert ledger.next == {0: 200, 1: 200}


@pytest.mark.parametrize("room", ROOM)
def test_files_in_the_middle_of_a_busy_stream(room: int) -> None:
    """Broken by a message that is spent although its files could not be received."""
    sender, receiver = ipc.channel(Note)
    ledger = Ledger()
    with receiver, sender:
        for number in range(100):
            sender.send(note(0, number))
            ledger.enter(receiver.recv(TIMEOUT))
        for number in range(100, 160):
            send_with_handles(sender, note(0, number), 9 if number % 10 == 0 else 0)
        while ledger.next[0] < 160:
            before = ledger.next[0]
            if before % 10 == 0:
                with descriptors_left(room):
                    for _ in range(3):
                        with pytest.raises(ipc.TooManyHandles):
                            receiver.recv(TIMEOUT)
                    sender.send(note(1, ledger.next[2]))
                    ledger.next[2] += 1
            ledger.enter(receiver.recv(TIMEOUT))
        while ledger.next[1] < ledger.next[2]:
            ledger.enter(receiver.recv(TIMEOUT))
        with pytest.raises(ipc.Empty):
            receiver.try_recv()


def test_a_busy_sender_needs_no_descriptor() -> None:
    """Broken by growth, or large messages, that need descriptors after the lane was made."""
    sender, receiver = ipc.channel(Note)
    ledger = Ledger()
    with receiver, sender:
        for number in range(100):
            sender.send(note(0, number))
            ledger.enter(receiver.recv(TIMEOUT))
        with descriptors_left(0):
            for number in range(100, 5000):
                sender.send(note(0, number))
            for _ in range(100, 5000):
                ledger.enter(receiver.recv(TIMEOUT))


def test_receivers_move_while_descriptors_are_scarce() -> None:
    """Broken by a move that has taken the lanes apart when it finds that it cannot be."""
    sender, receiver = ipc.channel(Note)
    carrier, carried = ipc.channel(ipc.Receiver[Note])
    ledger = Ledger()
    number = 0
    moved = failed = 0
    with carrier, carried, sender:
        for room in [*ROOM, 30]:
            for _ in range(30):
                send_with_handles(sender, note(0, number), number % 10 == 0)
                number += 1
            for _ in range(10):
                ledger.enter(receiver.recv(TIMEOUT))
            try:
                with descriptors_left(room):
                    carrier.send(receiver)
            except ipc.TooManyHandles:
                failed += 1
                ledger.enter(receiver.recv(TIMEOUT))
                continue
            moved += 1
            arrived = None
            with descriptors_left(room), contextlib.suppress(ipc.TooManyHandles):
                arrived = carried.recv(TIMEOUT)
            receiver = carried.recv(TIMEOUT) if arrived is None else arrived
        sender.close()
        with receiver:
            ledger.enter_all(receiver)
    assert ledger.next[0] == number == 300
    assert moved
