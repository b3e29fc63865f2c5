"""Processes that do what they are told with channels, one command after the other, and answer what came of it.

``programs.py`` tells them. An end has a number that the teller gives it; a message says the numbers of the ends in it.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import gc
import os
import pickle
import random
import signal
import socket
import time
import traceback
from typing import Any, Final, NoReturn

from msgspec import Struct, field

import ipc_channel as ipc
from tests.lanes.processes import TIMEOUT, readable, start_as_child, warm_up
from tests.lanes.tally import Tally
from tests.lanes.traffic import LARGE, MIDDLE, SMALL, payload
from tests.support import leaks

HEADER: Final = 8
"""Bytes before each command and answer: its length."""


class Parcel(Struct):
    """A message of a program."""

    number: int
    size: int
    content: bytes
    names: list[int] = field(default_factory=list)
    """Of the senders, then of the receivers."""
    senders: list[ipc.Sender[Parcel]] = field(default_factory=list)
    receivers: list[ipc.Receiver[Parcel]] = field(default_factory=list)
    files: list[ipc.Fd] = field(default_factory=list)
    memory: ipc.SharedMemory | None = None
    trap: Any = None
    """What cannot be encoded."""


def size_of(number: int) -> int:
    """The size of the message with that number: small mostly, and at times around every size that may matter."""
    chance = random.Random(number)
    if chance.random() < 0.75:
        return chance.choice(SMALL)
    return chance.choice((*MIDDLE, *LARGE))


def parcel(number: int) -> Parcel:
    """The message with that number."""
    size = size_of(number)
    return Parcel(number, size, payload(0, number, size))


def put(control: socket.socket, value: Any, descriptors: tuple[int, ...] = ()) -> None:
    """Say something."""
    data = pickle.dumps(value)
    socket.send_fds(control, [len(data).to_bytes(HEADER, "little")], descriptors)
    control.sendall(data)


def get(control: socket.socket) -> tuple[Any, list[int]]:
    """Hear something, and the descriptors that came with it. EOFError when nobody is there."""
    header, descriptors, _, _ = socket.recv_fds(control, HEADER, 1)
    data = bytearray()
    if len(header) == HEADER:
        length = int.from_bytes(header, "little")
        while len(data) < length:
            part = control.recv(length - len(data))
            if not part:
                break
            data += part
        else:
            return pickle.loads(data), descriptors
    raise EOFError


class Actor:
    """What a process has, and can be told."""

    def __init__(self, control: socket.socket, tally: Tally, typed: bool) -> None:
        self.control = control
        self.tally = tally
        self.typed = typed
        self.ends: dict[int, Any] = {}
        self.server: Any = None
        self.before = leaks.take()

    def serve(self) -> NoReturn:
        """Do what is told until nobody tells any more."""
        code = 0
        try:
            while True:
                command, descriptors = get(self.control)
                name, *arguments = command
                try:
                    outcome = ("did", getattr(self, name)(*arguments, *descriptors))
                except ipc.IpcError as error:
                    outcome = ("raised", type(error).__name__)
                put(self.control, outcome)
        except EOFError:
            pass
        except BaseException:
            code = 1
            with contextlib.suppress(OSError):
                put(self.control, ("failed", traceback.format_exc()))
        finally:
            os._exit(code)

    # Ends

    def make(self, sender: int, receiver: int, capacity: int | None) -> None:
        options: dict[str, Any] = {} if capacity is None else {"capacity": capacity}
        made: Any = ipc.channel(Parcel, **options) if self.typed else ipc.channel(**options)
        self.ends[sender], self.ends[receiver] = made

    def clone(self, end: int, name: int) -> None:
        self.ends[name] = self.ends[end].clone()

    def close(self, end: int) -> None:
        self.ends.pop(end).close()

    # Sending

    def send(
        self, by: int, number: int, names: list[int], files: int, memory: bool, wait: bool, hold: tuple[int, ...] = ()
    ) -> None:
        """Send a message that takes those ends with it."""
        message = parcel(number)
        message.names = names
        message.senders = [self.ends[name] for name in names if isinstance(self.ends[name], ipc.Sender)]
        message.receivers = [self.ends[name] for name in names if isinstance(self.ends[name], ipc.Receiver)]
        message.files = [ipc.Fd(0) for _ in range(files)]
        if memory:
            message.memory = ipc.SharedMemory.from_bytes(message.content)
        try:
            if wait:
                self.ends[by].send(message, TIMEOUT)
            else:
                self.ends[by].try_send(message)
        except ipc.IpcError:
            assert not any(self.ends[name].closed for name in names), "a failed send took an end"
            raise
        finally:
            if message.memory is not None:
                message.memory.close()
        for name in names:
            assert self.ends.pop(name).closed

    def send_what_cannot_be_sent(self, by: int, names: list[int]) -> None:
        message = parcel(0)
        message.senders = [self.ends[name] for name in names if isinstance(self.ends[name], ipc.Sender)]
        message.receivers = [self.ends[name] for name in names if isinstance(self.ends[name], ipc.Receiver)]
        message.trap = lambda: None
        try:
            self.ends[by].send(message)
        except ipc.EncodeError:
            assert not any(self.ends[name].closed for name in names)
            return
        raise AssertionError("it was sent")

    def send_until_gone(self, by: int) -> None:
        """To a receiver that is no more."""
        for _ in range(10_000_000):
            try:
                self.ends[by].send(Parcel(0, 0, b""))
            except ipc.ReceiverGone:
                return
        raise AssertionError("the sender is not told")

    def burst(self, by: int, first: int, count: int, slot: int) -> int:
        """Messages as fast as possible; how far it has come is on the page."""
        for number in range(first, first + count):
            self.ends[by].send(parcel(number))
            self.tally[slot] = number + 1 - first
        return count

    # Receiving

    def receive(self, by: int, way: str, most: int, timeout: float) -> list[tuple[int, list[int]]]:
        """What has come, as numbers of messages and names of the ends in each. Raises as the way raises."""
        receiver = self.ends[by]
        match way:
            case "try_recv":
                came = [receiver.try_recv()]
            case "recv":
                came = [receiver.recv(timeout)]
            case "recv_many":
                came = receiver.recv_many(most, timeout)
            case "fileno":
                came = [_when_readable(receiver, timeout)]
            case "poll":
                if not receiver.poll(timeout):
                    raise ipc.Empty
                came = [receiver.try_recv()]
            case "loop":
                came = [asyncio.run(_arecv(receiver, timeout))]
            case "set":
                came = self._select(by, timeout)
            case _:
                raise AssertionError(way)
        return [self._unpack(message) for message in came]

    def _select(self, by: int, timeout: float) -> list[Parcel]:
        with ipc.ReceiverSet[int]() as receivers:
            receivers.add(self.ends[by], by)
            events = receivers.select(timeout)
            if events[-1:] == [ipc.Closed(by)]:
                # It has left the set for good. In its place: one that has ended too.
                events.pop()
                self.ends[by].close()
                sender, self.ends[by] = ipc.channel(Parcel) if self.typed else ipc.channel()
                sender.close()
                if not events:
                    raise ipc.Disconnected
            else:
                self.ends[by] = receivers.remove(by)
        if not events:
            raise ipc.Empty
        return [event.message for event in events if isinstance(event, ipc.Received)]

    def drain(self, by: int, count: int) -> list[tuple[int, list[int]]]:
        """Exactly so many."""
        came = []
        while len(came) < count:
            came.append(self._unpack(self.ends[by].recv(TIMEOUT)))
        return came

    def _unpack(self, message: Parcel) -> tuple[int, list[int]]:
        assert message.size == size_of(message.number), message.number
        assert message.content == payload(0, message.number, message.size), message.number
        for file in message.files:
            os.fstat(file.fileno())
            file.close()
        if message.memory is not None:
            with message.memory:
                assert message.memory == message.content
        for name, end in zip(message.names, [*message.senders, *message.receivers], strict=True):
            self.ends[name] = end
        return message.number, message.names

    # Giving ends to others, past all channels of the program

    def offer(self) -> str:
        self.server = ipc.OneShotServer(Parcel) if self.typed else ipc.OneShotServer()
        return self.server.name

    def give(self, server: str, names: list[int]) -> None:
        connection = ipc.connect(server, Parcel) if self.typed else ipc.connect(server)
        number = len(self.ends)
        self.ends[-1] = connection
        with connection:
            self.send(-1, number, names, 0, False, True)
        del self.ends[-1]

    def take(self) -> None:
        with self.server:
            receiver, first = self.server.accept(TIMEOUT)
        receiver.close()
        self._unpack(first)
        self.server = None

    # The process itself

    def fork(self, names: dict[int, int], close_inherited: bool, control: int) -> None:
        """A child with the same senders by other names, that is told by that socket."""
        if os.fork():
            os.close(control)
            return
        start_as_child(with_parent=False)
        self.control.close()
        self.control = socket.socket(fileno=control)
        try:
            senders = {name: end for name, end in self.ends.items() if isinstance(end, ipc.Sender)}
            if close_inherited:
                ipc.close_inherited(keep=senders.values())
            else:
                for name, end in self.ends.items():
                    if name not in senders:
                        end.close()
            self.ends = {names[name]: end for name, end in senders.items()}
            warm_up()
            self.before = leaks.take()
            put(self.control, ("did", os.getpid()))
        except BaseException:
            put(self.control, ("failed", traceback.format_exc()))
            os._exit(1)
        self.serve()

    def left(self) -> list[str]:
        """What this process holds more than when it began; everything has been closed. Not children."""
        assert not self.ends, self.ends
        gc.collect()
        return leaks.leaked_since(dataclasses.replace(self.before, children=leaks.take().children))


def _when_readable(receiver: Any, timeout: float) -> Any:
    deadline = time.monotonic() + timeout
    while readable(receiver.fileno(), max(deadline - time.monotonic(), 0)):
        with contextlib.suppress(ipc.Empty):
            return receiver.try_recv()
    raise ipc.Empty


async def _arecv(receiver: Any, timeout: float) -> Any:
    try:
        async with asyncio.timeout(timeout):
            return await receiver.arecv()
    except TimeoutError:
        raise ipc.Empty from None


def start(tally: Tally, typed: bool, others: list[socket.socket]) -> tuple[int, socket.socket]:
    """A new actor: its process, and the socket by which it is told."""
    control, its = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        _run(its, tally, typed, [control, *others])
    its.close()
    return pid, control


def _run(its: socket.socket, tally: Tally, typed: bool, others: list[socket.socket]) -> NoReturn:
    try:
        start_as_child()
        # Children of a child are nobody's concern when they die.
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        for each in others:
            each.close()
        gc.freeze()
        warm_up()
        actor = Actor(its, tally, typed)
        put(its, ("did", None))
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    actor.serve()
