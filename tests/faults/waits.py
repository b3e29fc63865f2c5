"""Every wait of the package, so that the same can be done to each: signals, Ctrl-C, stops."""

from __future__ import annotations

import contextlib
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar, Final

import anyio

import ipc_channel as ipc


class Wait(ABC):
    """One kind of wait, for the length of a ``with`` block."""

    name: ClassVar[str]
    expected: Any = None
    """What ``wait`` returns."""

    def __init__(self) -> None:
        self.closing = contextlib.ExitStack()

    def __enter__(self) -> Wait:
        self.set_up()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.close()

    capacity: ClassVar[int | None] = None
    """Of the channel."""

    def set_up(self) -> None:
        """Make what is waited for."""
        sender, receiver = ipc.channel(int, capacity=self.capacity)
        self.sender: ipc.Sender[int] = self.closing.enter_context(sender)
        self.receiver: ipc.Receiver[int] = self.closing.enter_context(receiver)

    @abstractmethod
    def wait(self) -> Any:
        """Wait without end."""

    @abstractmethod
    def release(self) -> None:
        """Let ``wait`` return. May be called while it waits or before."""

    def check(self) -> None:  # noqa: B027  many have nothing to add
        """Nothing is left over, nothing was lost."""


class Receives(Wait):
    """Waits for a message, of which there will be one."""

    expected = 42

    def release(self) -> None:
        self.sender.send(42)

    def check(self) -> None:
        try:
            message = self.receiver.try_recv()
        except ipc.Empty:
            return
        raise AssertionError(f"{message} came twice")


class Recv(Receives):
    name = "recv"

    def wait(self) -> Any:
        return self.receiver.recv()


class RecvWithTimeout(Receives):
    name = "recv with a timeout"

    def wait(self) -> Any:
        return self.receiver.recv(3600)


class Iteration(Receives):
    name = "iteration"

    def wait(self) -> Any:
        return next(self.receiver)


class RecvMany(Receives):
    name = "recv_many"
    expected = (42,)

    def wait(self) -> Any:
        return tuple(self.receiver.recv_many())


class Poll(Receives):
    name = "poll"
    expected = True

    def wait(self) -> Any:
        return self.receiver.poll(None)

    def check(self) -> None:
        assert self.receiver.recv(20) == 42
        super().check()


class Fills(Wait):
    """Waits for room in a full channel."""

    capacity = 20

    def set_up(self) -> None:
        super().set_up()
        self.sender.send_many(range(20))

    def release(self) -> None:
        for number in range(20):
            assert self.receiver.recv(20) == number

    def check(self) -> None:
        assert self.receiver.recv(20) == -1, "the message that waited"
        try:
            message = self.receiver.try_recv()
        except ipc.Empty:
            return
        raise AssertionError(f"{message} came, and nobody was told that it was sent")


class Send(Fills):
    name = "send on a full channel"

    def wait(self) -> Any:
        return self.sender.send(-1)


class Select(Receives):
    name = "select"

    def set_up(self) -> None:
        super().set_up()
        self.receivers: ipc.ReceiverSet[str] = self.closing.enter_context(ipc.ReceiverSet[str]())
        self.receivers.add(self.receiver, "key")
        self.expected = [ipc.Received("key", 42)]

    def wait(self) -> Any:
        return self.receivers.select()

    def check(self) -> None:
        assert self.receivers.try_select() == []


class Accept(Wait):
    name = "accept"
    expected = 42

    def set_up(self) -> None:
        self.server: ipc.OneShotServer[int] = self.closing.enter_context(ipc.OneShotServer(int))

    def wait(self) -> Any:
        receiver, first = self.server.accept()
        receiver.close()
        return first

    def release(self) -> None:
        with ipc.connect(self.server.name, int) as sender:
            sender.send(42)


class Connect(Wait):
    name = "connect while another client is there"

    def set_up(self) -> None:
        self.server: ipc.OneShotServer[int] = self.closing.enter_context(ipc.OneShotServer(int))
        self.other: ipc.Sender[int] = self.closing.enter_context(ipc.connect(self.server.name, int))

    def wait(self) -> Any:
        ipc.connect(self.server.name, int, timeout=None).close()

    def release(self) -> None:
        self.other.close()


class Shutdown(Wait):
    name = "shutdown of a router whose callback runs"

    def set_up(self) -> None:
        super().set_up()
        self.running, self.finish = threading.Event(), threading.Event()
        self.router = ipc.Router()
        self.closing.callback(self.router.shutdown)
        self.closing.callback(self.finish.set)
        self.router.add_route(self.receiver, self._call)
        self.sender.send(1)
        assert self.running.wait(20)

    def _call(self, message: int) -> None:
        self.running.set()
        self.finish.wait()

    def wait(self) -> Any:
        self.router.shutdown()

    def release(self) -> None:
        self.finish.set()


class Async(Wait):
    """A wait in an event loop, which is run for it."""

    backend: str

    async def _wait(self) -> Any:
        raise NotImplementedError

    def wait(self) -> Any:
        return anyio.run(self._wait, backend=self.backend)


class Arecv(Async, Receives):
    name = "arecv"

    async def _wait(self) -> Any:
        return await self.receiver.arecv()


class ArecvMany(Async, Receives):
    name = "arecv_many"
    expected = (42,)

    async def _wait(self) -> Any:
        return tuple(await self.receiver.arecv_many())


class Asend(Async, Fills):
    name = "asend on a full channel"

    async def _wait(self) -> Any:
        return await self.sender.asend(-1)


class Aselect(Async, Select):
    name = "aselect"

    async def _wait(self) -> Any:
        return await self.receivers.aselect()


class Aaccept(Async, Accept):
    name = "aaccept"

    async def _wait(self) -> Any:
        receiver, first = await self.server.aaccept()
        receiver.close()
        return first


def _on(kind: type[Async], backend: str) -> type[Async]:
    return type(kind.__name__, (kind,), {"backend": backend, "name": f"{kind.name} on {backend}"})


BLOCKING: Final[list[type[Wait]]] = [
    *(Recv, RecvWithTimeout, Iteration, RecvMany, Poll, Send, Select, Accept, Connect, Shutdown),
]
ALL: Final[list[type[Wait]]] = [
    *BLOCKING,
    *(_on(kind, backend) for kind in (Arecv, ArecvMany, Asend, Aselect, Aaccept) for backend in ("asyncio", "trio")),
]


def name_of(kind: type[Wait]) -> str:
    """For pytest's ids."""
    return kind.name


def wait_until_main_thread_waits() -> None:
    """Return once the main thread has been in the same system call, asleep, for a while."""
    main = threading.main_thread().native_id
    seen = 0
    before = ""
    while seen < 4:
        threading.Event().wait(0.01)
        with open(f"/proc/self/task/{main}/stat") as stat:
            state = stat.read().rpartition(")")[2].split()[0]
        with open(f"/proc/self/task/{main}/syscall") as syscall:
            now = syscall.read()
        seen = seen + 1 if state == "S" and now == before else 0
        before = now


@contextlib.contextmanager
def once_main_thread_waits(action: Any) -> Iterator[None]:
    """Call ``action`` in a thread when the main thread waits inside the block."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            wait_until_main_thread_waits()
            action()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        thread.join()
    assert not failures, failures
