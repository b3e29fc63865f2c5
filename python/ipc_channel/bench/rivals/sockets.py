"""Sockets as Python's own module has them: a yardstick, since a program of them would need all that a channel does."""

import platform
import socket
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from ipc_channel.bench.rivals.rival import Kind, Link, NotCarried, one_by_one

__all__ = ["Sockets", "socket_pair"]


def socket_pair() -> tuple[socket.socket, socket.socket]:
    """Two connected sockets that keep packets apart."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


class _SocketSend:
    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected

    def open(self) -> Callable[[Any], object]:
        return self._socket.send

    def open_batch(self) -> Callable[[Iterable[Any]], object]:
        raise NotCarried

    def close(self) -> None:
        self._socket.close()


class _SocketReceive:
    def __init__(self, connected: socket.socket, largest: int) -> None:
        self._socket = connected
        self._largest = largest

    def open(self) -> Callable[[], Any]:
        receive, largest = self._socket.recv, self._largest
        return lambda: receive(largest)

    def messages(self, count: int) -> Iterator[Any]:
        return one_by_one(self.open(), count)

    def batches(self, count: int) -> Iterator[list[Any]]:
        raise NotCarried

    def close(self) -> None:
        self._socket.close()


class Sockets:
    """``send`` and ``recv`` of a seqpacket pair."""

    key = "sockets"
    title = "Python's socket module"
    column = "socket module"

    def missing(self) -> str | None:
        return None

    def version(self) -> str:
        return f"Python {platform.python_version()}"

    def link(self, kind: Kind, largest: int) -> Link:
        if kind is not Kind.BYTES:
            raise NotCarried
        sending, receiving = socket_pair()
        return _SocketSend(sending), _SocketReceive(receiving, largest)
