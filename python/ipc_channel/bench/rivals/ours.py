"""This package."""

import importlib.metadata
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

import ipc_channel as ipc
from ipc_channel.bench.messages import Item
from ipc_channel.bench.rivals.rival import Kind, Link
from ipc_channel.bench.subject import OURS

__all__ = ["Ours"]


class _Send:
    def __init__(self, sender: ipc.Sender[Any] | ipc.BytesSender) -> None:
        self._sender = sender

    def open(self) -> Callable[[Any], object]:
        return self._sender.send

    def open_batch(self) -> Callable[[Iterable[Any]], object]:
        return self._sender.send_many

    def close(self) -> None:
        self._sender.close()


class _Receive:
    def __init__(self, receiver: ipc.Receiver[Any] | ipc.BytesReceiver) -> None:
        self._receiver = receiver

    def open(self) -> Callable[[], Any]:
        return self._receiver.recv

    def messages(self, count: int) -> Iterator[Any]:
        return islice(self._receiver, count)

    def batches(self, count: int) -> Iterator[list[Any]]:
        while count:
            batch = self._receiver.recv_many(count)
            count -= len(batch)
            yield batch

    def close(self) -> None:
        self._receiver.close()


class Ours:
    """Channels of bytes, of structs, and of picklable objects."""

    key = OURS
    title = "ipc-channel (this package)"
    column = "ipc-channel"

    def missing(self) -> str | None:
        return None

    def version(self) -> str:
        try:
            return importlib.metadata.version("ipc-channel")
        except importlib.metadata.PackageNotFoundError:
            return "from the source tree"

    def link(self, kind: Kind, largest: int) -> Link:
        sender: ipc.Sender[Any] | ipc.BytesSender
        receiver: ipc.Receiver[Any] | ipc.BytesReceiver
        match kind:
            case Kind.BYTES:
                sender, receiver = ipc.bytes_channel()
            case Kind.STRUCT:
                sender, receiver = ipc.channel(Item)
            case Kind.OBJECT:
                sender, receiver = ipc.channel()
        return _Send(sender), _Receive(receiver)
