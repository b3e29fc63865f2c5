"""Crowds of senders, and heaps of unread messages, in a process of its own: it may be short of rights and descriptors.

Apart from the tests, so that a process that forks a thousand times need not import pytest.
"""

from __future__ import annotations

import contextlib
import os
from typing import Any

import ipc_channel as ipc
from tests.lanes.processes import TIMEOUT, adopt_orphans, start_as_child
from tests.lanes.traffic import Ledger, Note, note, send_with_handles
from tests.support import leaks


def one_message_each(count: int, together: int = 1, size: int = 64, files: int = 0) -> int:
    """So many children each send one message and are gone, ``together`` at a time, before anything is read.

    Returns how many messages came; those of a group come before those of the next.
    """
    sender, receiver = ipc.channel(Note)
    before = leaks.take()
    for first in range(0, count, together):
        group = [_send_one(sender, number, size, files) for number in range(first, min(first + together, count))]
        for child in group:
            _, status = os.waitpid(child, 0)
            assert status == 0, (child, status)
    sender.close()
    numbers: list[int] = []
    with receiver, contextlib.suppress(ipc.Disconnected):
        while True:
            message = receiver.recv(TIMEOUT)
            Ledger().enter(note_of(message))
            numbers.append(message.source)
    for first in range(0, count, together):
        assert sorted(numbers[first : first + together]) == list(range(first, min(first + together, count)))
    left = leaks.leaked_since(before)
    assert not left, left
    return len(numbers)


def note_of(message: Note) -> Note:
    """The same, as the first of its source."""
    assert message.number == 0
    return message


def _send_one(sender: ipc.Sender[Note], source: int, size: int, files: int) -> int:
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        start_as_child()
        send_with_handles(sender, note(source, 0, size), files)
        code = 0
    finally:
        os._exit(code)


def unread(count: int, size: int = 64, files: int = 0) -> int:
    """So many messages of this process, all of them sent before any is read; returns how many came."""
    sender, receiver = ipc.channel(Note)
    with receiver:
        with sender:
            for number in range(count):
                send_with_handles(sender, note(0, number, size), files)
        ledger = Ledger()
        ledger.enter_all(receiver)
    return ledger.next[0]


def unread_files_up_to_the_limit(files: int) -> int:
    """Messages with so many files each, until the kernel takes no more descriptors; returns how many it took.

    What it took arrives, what needs none goes on, and when there is room again so do files.
    """
    sender, receiver = ipc.channel(Note)
    ledger = Ledger()
    with receiver, sender:
        number = 0
        try:
            while True:
                send_with_handles(sender, note(0, number), files)
                number += 1
        except ipc.TooManyHandles:
            taken = number
        for _ in range(10):
            sender.send(note(0, number))
            number += 1
        while ledger.next[0] < number:
            ledger.enter(receiver.recv(TIMEOUT))
        send_with_handles(sender, note(0, number), files)
        ledger.enter(receiver.recv(TIMEOUT))
    return taken * files


def many_channels(count: int, each: int) -> int:
    """So many channels with so many unread messages in each."""
    channels: list[Any] = [ipc.channel(Note) for _ in range(count)]
    for number in range(each):
        for sender, _ in channels:
            sender.send(note(0, number))
    came = 0
    for sender, receiver in channels:
        with receiver:
            sender.close()
            ledger = Ledger()
            ledger.enter_all(receiver)
            came += ledger.next[0]
    return came


def many_senders(count: int, each: int) -> int:
    """So many processes, alive and idle after their messages; every one of them is heard again later."""
    adopt_orphans()
    sender, receiver = ipc.channel(Note)
    go_read, go_write = os.pipe()
    children = []
    for source in range(count):
        child = os.fork()
        if child:
            children.append(child)
            continue
        code = 1
        try:
            start_as_child()
            os.close(go_write)
            for number in range(each):
                sender.send(note(source, number))
            os.read(go_read, 1)  # nothing comes: the end of the pipe is the sign
            for number in range(each, 2 * each):
                sender.send(note(source, number))
            code = 0
        finally:
            os._exit(code)
    sender.close()
    os.close(go_read)
    ledger = Ledger()
    with receiver:
        for _ in range(count * each):
            ledger.enter(receiver.recv(TIMEOUT))
        os.close(go_write)
        with contextlib.suppress(ipc.Disconnected):
            while True:
                ledger.enter(receiver.recv(TIMEOUT))
    for child in children:
        _, status = os.waitpid(child, 0)
        assert status == 0, (child, status)
    return sum(ledger.next.values())
