"""Messages that show who sent them, which one they are, and whether they arrived whole."""

from __future__ import annotations

import asyncio
import os
import random
import selectors
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from msgspec import Struct, field

import ipc_channel as ipc
from tests.lanes.processes import TIMEOUT

SMALL: Final = (0, 1, 7, 8, 9, 24, 63, 64, 65, 200, 1000)
MIDDLE: Final = (4095, 4096, 4097, 16_384, 30_000, 65_535 - 300, 65_535, 65_536, 65_537)
LARGE: Final = (70_000, 131_072, 262_143, 262_145, 500_000, (1 << 20) - 1, 1 << 20, (1 << 20) + 1)
"""Sizes around which a transport may change its way: words, pages, packets, powers of two."""

_PATTERN: Final = random.Random(0).randbytes(LARGE[-1] + 4096)


def payload(source: int, number: int, size: int) -> bytes:
    """Bytes that belong to this message and to no neighbour of it."""
    start = (source * 389 + number * 61) % 4096
    return _PATTERN[start : start + size]


class Note(Struct, array_like=True):
    """A message."""

    source: int
    number: int
    size: int
    content: bytes
    files: list[ipc.Fd] = field(default_factory=list)
    replies: list[ipc.Sender[int]] = field(default_factory=list)


def note(source: int, number: int, size: int = 64) -> Note:
    """The message with that number of that sender."""
    return Note(source, number, size, payload(source, number, size))


def check(received: Note) -> None:
    """It arrived whole, with as many handles as it says. Closes them."""
    assert received.content == payload(received.source, received.number, received.size), (
        received.source,
        received.number,
        received.size,
        len(received.content),
    )
    for file in received.files:
        os.fstat(file.fileno())
        file.close()
    for reply in received.replies:
        reply.close()


def send_with_handles(sender: ipc.Sender[Note], message: Note, files: int = 0, replies: int = 0) -> None:
    """Send it with so many files and so many senders of fresh channels."""
    if not files and not replies:
        sender.send(message)
        return
    message.files = [ipc.Fd(0) for _ in range(files)]
    made = [ipc.channel(int) for _ in range(replies)]
    message.replies = [reply for reply, _ in made]
    try:
        sender.send(message)
    finally:
        for ends in made:
            ends.sender.close()
            ends.receiver.close()


class Ledger:
    """What came, in which order: of each source the numbers 0, 1, 2, …; and whole."""

    def __init__(self) -> None:
        self.next: defaultdict[int, int] = defaultdict(int)

    def enter(self, received: Note) -> None:
        """The next message, checked."""
        expected = self.next[received.source]
        assert received.number == expected, f"{received.source} sent {expected} next; {received.number} came"
        self.next[received.source] += 1
        check(received)

    def enter_all(self, received: Iterable[Note]) -> None:
        """Many messages, in order."""
        for each in received:
            self.enter(each)


# Ways of receiving


def _by_recv(receiver: ipc.Receiver[Any], enter: Callable[[Any], object]) -> None:
    try:
        while True:
            enter(receiver.recv(TIMEOUT))
    except ipc.Disconnected:
        return


def _by_iteration(receiver: ipc.Receiver[Any], enter: Callable[[Any], object]) -> None:
    for message in receiver:
        enter(message)


def _by_recv_many(receiver: ipc.Receiver[Any], enter: Callable[[Any], object]) -> None:
    chance = random.Random(5)
    try:
        while True:
            for message in receiver.recv_many(chance.choice([None, 1, 3, 100]), TIMEOUT):
                enter(message)
    except ipc.Disconnected:
        return


def _by_selector(receiver: ipc.Receiver[Any], enter: Callable[[Any], object]) -> None:
    """One message for each time that its descriptor is readable."""
    with selectors.DefaultSelector() as selector:
        selector.register(receiver, selectors.EVENT_READ)
        try:
            while True:
                assert selector.select(TIMEOUT), "nothing became readable"
                try:
                    enter(receiver.try_recv())
                except ipc.Empty:
                    continue
        except ipc.Disconnected:
            return


def _by_set(receiver: ipc.Receiver[Any], enter: Callable[[Any], object]) -> None:
    with ipc.ReceiverSet[str]() as receivers:
        receivers.add(receiver, "it")
        while True:
            events = receivers.select(TIMEOUT)
            assert events, "nothing came"
            for event in events:
                match event:
                    case ipc.Received("it", message):
                        enter(message)
                    case ipc.Closed("it"):
                        return
                    case _:
                        raise AssertionError(event)


def _by_asyncio(receiver: ipc.Receiver[Any], enter: Callable[[Any], object]) -> None:
    async def receive() -> None:
        async for message in receiver:
            enter(message)

    asyncio.run(receive())


WAYS: Final[dict[str, Callable[[ipc.Receiver[Any], Callable[[Any], object]], None]]] = {
    "recv": _by_recv,
    "iteration": _by_iteration,
    "recv_many": _by_recv_many,
    "selector": _by_selector,
    "set": _by_set,
    "asyncio": _by_asyncio,
}
"""Every way to receive until the end of the stream: ``WAYS[name](receiver, what to do with each message)``."""


def random_size(chance: random.Random, sizes: Sequence[int] = (*SMALL, *MIDDLE, *LARGE)) -> int:
    """Small ones mostly, so that a few thousand messages are not gigabytes."""
    return chance.choice(SMALL) if chance.random() < 0.9 else chance.choice(sizes)
