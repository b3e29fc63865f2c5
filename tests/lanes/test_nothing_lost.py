"""What was sent arrives while its receiver lives, however its sender ends; and the end of the stream comes after it."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any, Final

import pytest
from msgspec import Struct

import ipc_channel as ipc
from tests.lanes.processes import TIMEOUT, Process
from tests.lanes.tally import Tally
from tests.lanes.traffic import WAYS, Ledger, Note, note, random_size, send_with_handles

# A thread of another test may be on its way out.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")

ENDINGS: Final[dict[str, Callable[[], object]]] = {
    "_exit": lambda: os._exit(0),
    "exec": lambda: os.execv(sys.executable, [sys.executable, "-I", "-S", "-c", "pass"]),
    "SIGKILL": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "abort": lambda: (signal.signal(signal.SIGABRT, signal.SIG_DFL), os.kill(os.getpid(), signal.SIGABRT)),
}
"""Ends of a process that close nothing by themselves."""

LAST_WORDS: Final[dict[str, Callable[[ipc.Sender[Note]], int]]] = {}


def last_words(function: Callable[[ipc.Sender[Note]], int]) -> Callable[[ipc.Sender[Note]], int]:
    """What a process sends before its end; it returns how many messages."""
    LAST_WORDS[function.__name__.strip("_").replace("_", " ")] = function
    return function


@last_words
def _one(sender: ipc.Sender[Note]) -> int:
    sender.send(note(0, 0))
    return 1


@last_words
def _one_large(sender: ipc.Sender[Note]) -> int:
    sender.send(note(0, 0, 1 << 20))
    return 1


@last_words
def _one_with_handles(sender: ipc.Sender[Note]) -> int:
    send_with_handles(sender, note(0, 0), 3, 2)
    return 1


@last_words
def _a_hundred_of_every_kind(sender: ipc.Sender[Note]) -> int:
    chance = random.Random(1)
    for number in range(100):
        files = chance.choice([0, 0, 0, 1, 3])
        send_with_handles(sender, note(0, number, random_size(chance)), files, files // 2)
    return 100


@last_words
def _many(sender: ipc.Sender[Note]) -> int:
    for number in range(5000):
        sender.send(note(0, number))
    return 5000


def _send_and_end(sender: ipc.Sender[Note], words: str, ending: str) -> None:
    LAST_WORDS[words](sender)
    ENDINGS[ending]()


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("words", LAST_WORDS)
@pytest.mark.parametrize("shared", [False, True], ids=["alone", "beside another sender"])
def test_last_words(words: str, ending: str, shared: bool) -> None:
    """Broken by messages that are held in the sending process, or in something that dies with it."""
    expected = {"many": 5000, "a hundred of every kind": 100}.get(words, 1)
    sender, receiver = ipc.channel(Note)
    ledger = Ledger()
    with receiver, sender:
        with Process(_send_and_end, sender, words, ending, checked=False) as child:
            if not shared:
                sender.close()
            for _ in range(expected):
                ledger.enter(receiver.recv(TIMEOUT))
            child.wait()
            if shared:
                with pytest.raises(ipc.Empty):
                    receiver.try_recv()
                sender.send(note(1, 0))
                ledger.enter(receiver.recv(TIMEOUT))
                sender.close()
        with pytest.raises(ipc.Disconnected):
            receiver.recv(TIMEOUT)
    assert ledger.next[0] == expected


@pytest.mark.parametrize("ending", ENDINGS)
def test_last_words_that_are_read_when_the_process_is_gone(ending: str) -> None:
    """Broken by a receiver that opens what a sender left through something of the sender's own."""
    sender, receiver = ipc.channel(Note)
    with receiver:
        with Process(_send_and_end, sender, "a hundred of every kind", ending, checked=False) as child:
            sender.close()
            child.wait()
        ledger = Ledger()
        ledger.enter_all(receiver)
    assert ledger.next[0] == 100


def test_last_words_at_the_end_of_an_interpreter() -> None:
    """Broken by an exit that drops what has not been read: a sender nobody closed, one in a cycle, one in a thread."""
    sender, receiver = ipc.channel(Note)
    source = """
import os, sys, threading
import ipc_channel as ipc
from tests.lanes.traffic import Note, note
[sender] = ipc.inherit(sys.argv[1], ipc.Sender[Note])
cycle = [sender]
cycle.append(cycle)
for number in range(150):
    sender.send(note(0, number))
thread = threading.Thread(target=lambda: sender.send(note(0, 150, 1 << 20)))
thread.start()
sys.modules["kept"] = cycle
"""
    import subprocess

    from tests.support.start_methods import ROOT

    with receiver:
        with sender, ipc.passing(sender) as passing:
            environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
            command = [sys.executable, "-c", source, passing.text]
            child = subprocess.Popen(command, pass_fds=passing.fds, env=environment)
        assert child.wait(TIMEOUT) == 0
        ledger = Ledger()
        ledger.enter_all(receiver)
    assert ledger.next[0] == 151


# Receivers that move


class Moving(Struct):
    """A receiver on its way, and what it has delivered so far."""

    receiver: ipc.Receiver[Note]
    next: dict[int, int]


def _send_until_told(source: int, sender: ipc.Sender[Note], stop: Tally, received: Tally) -> int:
    """All the time, and no longer as fast as it can when it is far ahead."""
    chance = random.Random(source)
    number = 0
    with sender:
        while not stop[0]:
            files = chance.choice([1, 2]) if chance.random() < 0.02 else 0
            send_with_handles(sender, note(source, number, random_size(chance)), files)
            number += 1
            if number - received[source] > 1000:
                for _ in range(100):
                    os.sched_yield()
    return number


def _take_over(mailbox: ipc.Receiver[Moving], back: ipc.Sender[Moving], most: int) -> None:
    with mailbox, back:
        for moving in mailbox:
            ledger = Ledger()
            ledger.next.update(moving.next)
            for _ in range(most):
                ledger.enter(moving.receiver.recv(TIMEOUT))
            back.send(Moving(moving.receiver, dict(ledger.next)))


@pytest.mark.parametrize("most", [0, 1, 100])
def test_a_receiver_that_moves_there_and_back_while_senders_go_on(most: int) -> None:
    """Broken by a message that is published while the receiver moves, and by a sender that is never told to attach."""
    sender, receiver = ipc.channel(Note)
    there, mailbox = ipc.channel(Moving)
    back, returned = ipc.channel(Moving)
    stop, received = Tally(), Tally(3)
    ledger = Ledger()
    with contextlib.ExitStack() as stack:
        senders = [stack.enter_context(Process(_send_until_told, own, sender, stop, received)) for own in range(3)]
        sender.close()
        mover = stack.enter_context(Process(_take_over, mailbox, back, most))
        mailbox.close()
        back.close()
        with returned:
            with there:
                for _ in range(60):
                    ledger.enter(receiver.recv(TIMEOUT))
                    there.send(Moving(receiver, dict(ledger.next)))
                    moving = returned.recv(TIMEOUT)
                    receiver = moving.receiver
                    ledger.next.update(moving.next)
                    for own in range(3):
                        received[own] = ledger.next[own]
                stop[0] = 1
                with receiver:
                    ledger.enter_all(receiver)
            mover.result()
        assert [each.result() for each in senders] == [ledger.next[own] for own in range(3)]


def _receive_some_and_leave(mailbox: ipc.Receiver[Moving], on: ipc.Sender[Moving], ending: str) -> None:
    moving = mailbox.recv(TIMEOUT)
    ledger = Ledger()
    ledger.next.update(moving.next)
    for _ in range(7):
        ledger.enter(moving.receiver.recv(TIMEOUT))
    on.send(Moving(moving.receiver, dict(ledger.next)))
    ENDINGS[ending]()


@pytest.mark.parametrize("ending", ENDINGS)
def test_what_a_process_had_not_delivered_when_it_passed_the_receiver_on_and_ended(ending: str) -> None:
    """Broken by messages that were taken into memory before the move and stay there."""
    sender, receiver = ipc.channel(Note)
    there, mailbox = ipc.channel(Moving)
    on, returned = ipc.channel(Moving)
    chance = random.Random(3)
    ledger = Ledger()
    with returned, there, sender:
        for number in range(120):
            files = number % 10 == 0
            send_with_handles(sender, note(0, number, random_size(chance, (70_000, 1000))), files)
        ledger.enter(receiver.recv(TIMEOUT))
        with Process(_receive_some_and_leave, mailbox, on, ending, checked=False) as child:
            mailbox.close()
            on.close()
            there.send(Moving(receiver, dict(ledger.next)))
            moving = returned.recv(TIMEOUT)
            child.wait()
        ledger.next.update(moving.next)
        with moving.receiver as receiver:
            sender.send(note(0, 120))
            sender.close()
            assert ledger.next[0] == 8
            ledger.enter_all(receiver)
    assert ledger.next[0] == 121


def test_a_receiver_with_unread_messages_waits_in_a_message() -> None:
    """Broken by residue that needs its old owner, and by a sender that goes on while nobody holds the receiver."""
    sender, receiver = ipc.channel(Note)
    carrier, carried = ipc.channel(ipc.Receiver[Note])
    with carried, carrier, sender:
        for number in range(100):
            sender.send(note(0, number))
        carrier.send(receiver)
        for number in range(100, 200):
            sender.send(note(0, number, 70_000 if number % 20 == 0 else 64))
        with carried.recv(TIMEOUT) as receiver:
            sender.close()
            ledger = Ledger()
            ledger.enter_all(receiver)
    assert ledger.next[0] == 200


# The end of the stream


def _send_then_wait(source: int, count: int, sender: ipc.Sender[Note], ready: Tally) -> None:
    for number in range(count):
        sender.send(note(source, number))
    ready[source] = 1
    threading.Event().wait()


@pytest.mark.parametrize("busy", [0, 3, 400])
def test_the_stream_ends_with_the_last_of_its_senders_and_not_before(busy: int) -> None:
    """Broken by an end that is taken from one socket, lane or door alone."""
    sender, receiver = ipc.channel(Note)
    ready = Tally(4)
    ledger = Ledger()
    with receiver, contextlib.ExitStack() as stack:
        children = [stack.enter_context(Process(_send_then_wait, own, busy, sender, ready)) for own in range(4)]
        sender.close()
        for _ in range(4 * busy):
            ledger.enter(receiver.recv(TIMEOUT))
        for own, child in enumerate(children):
            ready.wait(own, 1)
            with pytest.raises(ipc.Empty):
                receiver.try_recv()
            with pytest.raises(ipc.RecvTimeout):
                receiver.recv(0.01)
            assert not receiver.poll()
            child.kill()
            child.wait()
        for _ in range(3):
            assert receiver.poll(TIMEOUT)
            with pytest.raises(ipc.Disconnected):
                receiver.recv(TIMEOUT)


@pytest.mark.parametrize("way", WAYS)
def test_the_end_comes_after_the_last_message_by_every_way_of_receiving(way: str) -> None:
    """Broken by an end that is noticed while something is still to be read."""
    for _ in range(12):
        sender, receiver = ipc.channel(Note)
        ledger = Ledger()
        with receiver, contextlib.ExitStack() as stack:
            stack.enter_context(sender)
            for own in range(2):
                words = ("many", "one")[own]
                child = Process(_send_as, own, sender, words, checked=False)
                stack.enter_context(child)
            sender.close()
            WAYS[way](receiver, ledger.enter)
        assert ledger.next == {0: 300, 1: 1}


def _send_as(source: int, sender: ipc.Sender[Note], words: str) -> None:
    for number in range(300 if words == "many" else 1):
        sender.send(note(source, number))
    os._exit(0)


def test_a_sender_in_an_unread_message_keeps_the_stream_open() -> None:
    """Broken by counting processes, or connections, in place of what the kernel knows."""
    sender, receiver = ipc.channel(Note)
    carrier, carried = ipc.channel(ipc.Sender[Note])
    with receiver, carried:
        with carrier:
            for number in range(100):
                sender.send(note(0, number))
            carrier.send(sender)
        ledger = Ledger()
        for _ in range(100):
            ledger.enter(receiver.recv(TIMEOUT))
        with pytest.raises(ipc.RecvTimeout):
            receiver.recv(0.02)
        with carried.recv(TIMEOUT) as sender:
            with pytest.raises(ipc.Empty):
                receiver.try_recv()
            sender.send(note(0, 100))
            ledger.enter(receiver.recv(TIMEOUT))
        with pytest.raises(ipc.Disconnected):
            receiver.recv(TIMEOUT)


def test_a_sender_in_an_unread_message_of_a_receiver_that_goes_away() -> None:
    """Broken by something that keeps what was unread when its receiver was closed."""
    sender, receiver = ipc.channel(Note)
    carrier, carried = ipc.channel(ipc.Sender[Note])
    with receiver, carrier:
        sender.send(note(0, 0))
        carrier.send(sender)
        carried.close()
        assert receiver.recv(TIMEOUT).number == 0
        with pytest.raises(ipc.Disconnected):
            receiver.recv(TIMEOUT)


def test_a_sender_is_told_when_its_receiver_is_closed() -> None:
    """Broken by a close that a busy sender never looks for."""
    for busy in (0, 1, 50, 200):
        sender, receiver = ipc.channel(Note)
        with sender:
            for number in range(busy):
                sender.send(note(0, number))
                if number % 2:
                    receiver.recv(TIMEOUT)
            receiver.close()
            with pytest.raises(ipc.ReceiverGone):
                sender.send(note(0, busy))
            with pytest.raises(ipc.ReceiverGone):
                sender.try_send(note(0, busy))


def _hold(receiver: ipc.Receiver[Any], ready: Tally) -> None:
    receiver.recv(TIMEOUT)
    ready[0] = 1
    threading.Event().wait()


@pytest.mark.parametrize("busy", [1, 100])
def test_a_sender_is_told_when_the_receiving_process_was_killed(busy: int) -> None:
    """Broken by a sender that writes into shared memory which nobody will ever read again."""
    sender, receiver = ipc.channel(Note)
    ready = Tally()
    with sender, Process(_hold, receiver, ready, checked=False) as child:
        receiver.close()
        for number in range(busy):
            sender.send(note(0, number))
        ready.wait(0, 1)
        child.kill()
        child.wait()
        with pytest.raises(ipc.ReceiverGone):
            for number in range(1_000_000):
                sender.send(note(0, busy + number))
