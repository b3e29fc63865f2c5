"""The standard library's pipes and queues."""

import multiprocessing
import platform
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import Connection
from typing import Any

import msgspec

from ipc_channel.bench.messages import Item
from ipc_channel.bench.rivals.rival import Kind, Link, NotCarried, one_by_one

__all__ = ["Pipe", "Queue"]


class _PipeSend:
    def __init__(self, connection: Connection, kind: Kind) -> None:
        self._connection = connection
        self._kind = kind

    def open(self) -> Callable[[Any], object]:
        match self._kind:
            case Kind.BYTES:
                return self._connection.send_bytes
            case Kind.STRUCT:
                encode, send = msgspec.msgpack.Encoder().encode, self._connection.send_bytes
                return lambda message: send(encode(message))
            case Kind.OBJECT:
                return self._connection.send

    def open_batch(self) -> Callable[[Iterable[Any]], object]:
        raise NotCarried

    def close(self) -> None:
        self._connection.close()


class _PipeReceive:
    def __init__(self, connection: Connection, kind: Kind) -> None:
        self._connection = connection
        self._kind = kind

    def open(self) -> Callable[[], Any]:
        match self._kind:
            case Kind.BYTES:
                return self._connection.recv_bytes
            case Kind.STRUCT:
                decode, receive = msgspec.msgpack.Decoder(Item).decode, self._connection.recv_bytes
                return lambda: decode(receive())
            case Kind.OBJECT:
                return self._connection.recv

    def messages(self, count: int) -> Iterator[Any]:
        return one_by_one(self.open(), count)

    def batches(self, count: int) -> Iterator[list[Any]]:
        raise NotCarried

    def close(self) -> None:
        self._connection.close()


class Pipe:
    """``multiprocessing.Pipe``."""

    key = "pipe"
    title = "multiprocessing.Pipe"
    column = "Pipe"

    def missing(self) -> str | None:
        return None

    def version(self) -> str:
        return f"Python {platform.python_version()}"

    def link(self, kind: Kind, largest: int) -> Link:
        receiving, sending = multiprocessing.get_context("spawn").Pipe(duplex=False)
        return _PipeSend(sending, kind), _PipeReceive(receiving, kind)


class _QueueSend:
    def __init__(self, queue: Any) -> None:
        self._queue = queue
        self._opened = False

    def open(self) -> Callable[[Any], object]:
        self._opened = True
        put: Callable[[Any], object] = self._queue.put
        return put

    def open_batch(self) -> Callable[[Iterable[Any]], object]:
        raise NotCarried

    def close(self) -> None:
        if self._opened:  # in the process that made it, both sides are the same object
            self._queue.close()


class _QueueReceive:
    def __init__(self, queue: Any) -> None:
        self._queue = queue
        self._opened = False

    def open(self) -> Callable[[], Any]:
        self._opened = True
        get: Callable[[], Any] = self._queue.get
        return get

    def messages(self, count: int) -> Iterator[Any]:
        return one_by_one(self._queue.get, count)

    def batches(self, count: int) -> Iterator[list[Any]]:
        raise NotCarried

    def close(self) -> None:
        if self._opened:  # in the process that made it, both sides are the same object
            self._queue.close()


class Queue:
    """``multiprocessing.Queue``, which pickles whatever it is given."""

    key = "queue"
    title = "multiprocessing.Queue"
    column = "Queue"

    def missing(self) -> str | None:
        return None

    def version(self) -> str:
        return f"Python {platform.python_version()}"

    def link(self, kind: Kind, largest: int) -> Link:
        queue: Any = multiprocessing.get_context("spawn").Queue()
        return _QueueSend(queue), _QueueReceive(queue)
