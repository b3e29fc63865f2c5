"""Whoever holds a sender can shut its socket down: that takes nothing from others who send, or have sent."""

from __future__ import annotations

import contextlib
import socket

import pytest

import ipc_channel as ipc
from tests.lanes.processes import TIMEOUT, Process
from tests.lanes.tally import Tally
from tests.lanes.traffic import Ledger, Note, note
from tests.support.packets import socket_of

# A thread of another test may be on its way out.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")

HOW = {"reading": socket.SHUT_RD, "writing": socket.SHUT_WR, "both": socket.SHUT_RDWR}


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("count", [1, 3, 150])
def test_what_was_sent_before_the_shutdown_arrives(count: int, how: str) -> None:
    """Broken by an end of the stream that is believed before everything was looked at."""
    sender, receiver = ipc.channel(Note)
    ledger = Ledger()
    with receiver, sender:
        for number in range(count):
            sender.send(note(0, number))
        with socket_of(sender) as duplicate:
            duplicate.shutdown(HOW[how])
        for _ in range(count):
            ledger.enter(receiver.recv(TIMEOUT))


def _send_on_demand(sender: ipc.Sender[Note], go: Tally, sent: Tally, count: int) -> None:
    with sender:
        for number in range(count):
            go.wait(0, number + 1)
            sender.send(note(1, number))
            sent[0] = number + 1


@pytest.mark.parametrize("how", HOW)
def test_a_busy_sender_in_another_process_goes_on(how: str) -> None:
    """Broken by an end of the stream that is taken from the socket alone."""
    sender, receiver = ipc.channel(Note)
    ledger = Ledger()
    go, sent = Tally(), Tally()
    with receiver, contextlib.ExitStack() as stack:
        stack.enter_context(sender)
        child = stack.enter_context(Process(_send_on_demand, sender, go, sent, 600))
        go[0] = 300
        for _ in range(300):
            ledger.enter(receiver.recv(TIMEOUT))
        with socket_of(sender) as duplicate:
            duplicate.shutdown(HOW[how])
        sender.close()
        with pytest.raises(ipc.RecvTimeout):
            receiver.recv(0.02)
        go[0] = 600
        for _ in range(300):
            ledger.enter(receiver.recv(TIMEOUT))
        child.result()
        with pytest.raises(ipc.Disconnected):
            receiver.recv(TIMEOUT)
    assert ledger.next == {1: 600}


def test_the_other_channels_of_a_process_go_on() -> None:
    """Broken by anything that channels share."""
    sender, receiver = ipc.channel(Note)
    other_sender, other = ipc.channel(Note)
    ledger = Ledger()
    with receiver, sender, other, other_sender:
        for number in range(200):
            other_sender.send(note(0, number))
            if number == 100:
                with socket_of(sender) as duplicate:
                    duplicate.shutdown(socket.SHUT_RDWR)
            ledger.enter(other.recv(TIMEOUT))
        with contextlib.suppress(ipc.Disconnected, ipc.RecvTimeout):
            raise AssertionError(receiver.recv(0.01))
