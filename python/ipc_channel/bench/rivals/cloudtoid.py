"""cloudtoid-interprocess: a ring in shared memory without locks."""

import importlib
import importlib.metadata
import importlib.util
import pickle
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from ipc_channel.bench.messages import Item
from ipc_channel.bench.rivals.rival import Kind, Link, one_by_one

__all__ = ["Cloudtoid"]

_SMALLEST: Final = 1 << 20
"""Bytes of the ring; a larger one is not faster."""
_MESSAGES: Final = 4
"""Large messages that the ring should hold."""
_BATCH: Final = 1000
_MEMORY: Final = Path("/dev/shm")
_NAME: Final = "bench"


class _Port:
    """One end of the queue, opened where it is used."""

    def __init__(self, folder: str, kind: Kind, size: int, *, owner: bool) -> None:
        self.folder = folder
        self.kind = kind
        self.size = size
        self._owner = owner
        self._end: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_owner": False}  # the process that made the folder removes it

    def end(self, class_name: str) -> Any:
        module: Any = importlib.import_module("cloudtoid_interprocess")
        self._end = getattr(module, class_name)(_NAME, self.size, self.folder)
        return self._end

    def close(self) -> None:
        if self._end is not None:
            self._end.close()
            self._end = None
        if self._owner:
            shutil.rmtree(self.folder, ignore_errors=True)


class _Send(_Port):
    def open(self) -> Callable[[Any], object]:
        publisher = self.end("Publisher")
        # It never waits for room, so its user has to. Giving the processor away is faster than asking again at once.
        try_send: Callable[[Any], bool] = publisher.try_send
        give_way = time.sleep
        match self.kind:
            case Kind.BYTES:

                def send(message: Any) -> None:
                    while not try_send(message):
                        give_way(0)

            case Kind.STRUCT:
                encode = msgspec.msgpack.Encoder().encode

                def send(message: Any) -> None:
                    encoded = encode(message)
                    while not try_send(encoded):
                        give_way(0)

            case Kind.OBJECT:
                dumps = pickle.dumps

                def send(message: Any) -> None:
                    encoded = dumps(message)
                    while not try_send(encoded):
                        give_way(0)

        return send

    def open_batch(self) -> Callable[[Iterable[Any]], object]:
        publisher = self.end("Publisher")
        try_send_batch: Callable[[list[Any]], int] = publisher.try_send_batch

        def send(batch: list[Any]) -> None:
            sent = try_send_batch(batch)
            while sent < len(batch):
                time.sleep(0)
                sent += try_send_batch(batch[sent:])

        def send_all(messages: Iterable[Any]) -> None:
            batch: list[Any] = []
            for message in messages:
                batch.append(message)
                if len(batch) == _BATCH:
                    send(batch)
                    batch = []
            if batch:
                send(batch)

        return send_all


class _Receive(_Port):
    def open(self) -> Callable[[], Any]:
        receive: Callable[[], Any] = self.end("Subscriber").receive
        match self.kind:
            case Kind.BYTES:
                self._receive = receive
            case Kind.STRUCT:
                decode = msgspec.msgpack.Decoder(Item).decode
                self._receive = lambda: decode(receive())
            case Kind.OBJECT:
                loads = pickle.loads
                self._receive = lambda: loads(receive())
        return self._receive

    def messages(self, count: int) -> Iterator[Any]:
        return one_by_one(self._receive, count)

    def batches(self, count: int) -> Iterator[list[Any]]:
        for message in self.messages(count):  # it has a batch for sending only
            yield [message]


class Cloudtoid:
    """``Publisher`` and ``Subscriber``, with the queue's file in memory."""

    key = "cloudtoid"
    title = "cloudtoid-interprocess"
    column = "cloudtoid"

    def missing(self) -> str | None:
        return None if importlib.util.find_spec("cloudtoid_interprocess") else "not installed"

    def version(self) -> str:
        return importlib.metadata.version("cloudtoid-interprocess")

    def link(self, kind: Kind, largest: int) -> Link:
        folder = tempfile.mkdtemp(prefix="ipc-channel-bench-", dir=_MEMORY if _MEMORY.is_dir() else None)
        size = max(_SMALLEST, _MESSAGES * largest)
        return _Send(folder, kind, size, owner=True), _Receive(folder, kind, size, owner=True)
