"""faster-fifo: a ring in shared memory under a lock."""

import importlib
import importlib.metadata
import importlib.util
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

import msgspec

from ipc_channel.bench.messages import Item
from ipc_channel.bench.rivals.rival import Kind, Link, one_by_one

__all__ = ["FasterFifo"]

_SMALLEST: Final = 1 << 20
"""Bytes of the ring; a larger one is not faster."""
_MESSAGES: Final = 4
"""Large messages that the ring should hold."""
_BATCH: Final = 1000
"""Messages put at a time; many times that do not fit the ring."""


def _same(message: Any) -> Any:
    return message


def _decoded(payload: Any) -> Item:
    return msgspec.msgpack.decode(payload, type=Item)


class _Send:
    def __init__(self, queue: Any) -> None:
        self._queue = queue

    def open(self) -> Callable[[Any], object]:
        put: Callable[[Any], object] = self._queue.put
        return put

    def open_batch(self) -> Callable[[Iterable[Any]], object]:
        put_many: Callable[[list[Any]], object] = self._queue.put_many

        def put_all(messages: Iterable[Any]) -> None:
            batch: list[Any] = []
            for message in messages:
                batch.append(message)
                if len(batch) == _BATCH:
                    put_many(batch)
                    batch = []
            if batch:
                put_many(batch)

        return put_all

    def close(self) -> None:
        """The memory goes with the last process that has it."""


class _Receive:
    def __init__(self, queue: Any) -> None:
        self._queue = queue

    def open(self) -> Callable[[], Any]:
        get: Callable[[], Any] = self._queue.get
        return get

    def messages(self, count: int) -> Iterator[Any]:
        return one_by_one(self.open(), count)

    def batches(self, count: int) -> Iterator[list[Any]]:
        while count:
            batch: list[Any] = self._queue.get_many(max_messages_to_get=count)
            count -= len(batch)
            yield batch

    def close(self) -> None:
        """The memory goes with the last process that has it."""


class FasterFifo:
    """``faster_fifo.Queue``; bytes go through it as they are, without a pickle around them."""

    key = "faster-fifo"
    title = "faster-fifo"
    column = "faster-fifo"

    def missing(self) -> str | None:
        return None if importlib.util.find_spec("faster_fifo") else "not installed"

    def version(self) -> str:
        return importlib.metadata.version("faster-fifo")

    def link(self, kind: Kind, largest: int) -> Link:
        size = max(_SMALLEST, _MESSAGES * largest)
        module: Any = importlib.import_module("faster_fifo")
        match kind:
            case Kind.BYTES:
                queue = module.Queue(size, loads=bytes, dumps=_same)
            case Kind.STRUCT:
                queue = module.Queue(size, loads=_decoded, dumps=msgspec.msgpack.encode)
            case Kind.OBJECT:
                queue = module.Queue(size)
        return _Send(queue), _Receive(queue)
