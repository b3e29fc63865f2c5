"""ZeroMQ over Unix sockets, by pyzmq."""

import importlib
import importlib.metadata
import importlib.util
import secrets
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, Final

import msgspec

from ipc_channel.bench.messages import Item
from ipc_channel.bench.rivals.rival import Kind, Link, NotCarried, one_by_one

__all__ = ["ZeroMQ"]

_QUEUED_MESSAGES: Final = 100_000
"""The high-water mark of small messages: with the default of 1,000, one way is a third slower."""
_QUEUED_BYTES: Final = 64 << 20
_COPIED: Final = 64 << 10
"""Up to here ZeroMQ copies, as pyzmq does by default: keeping track of a lent buffer costs more."""


class _Port:
    """A socket that is made where it is used."""

    def __init__(self, address: str, kind: Kind, largest: int) -> None:
        self.address = address
        self.kind = kind
        self.largest = largest
        self._context: Any = None
        self._socket: Any = None

    def socket(self, type_name: str) -> Any:
        zmq: Any = importlib.import_module("zmq")
        self._context = zmq.Context()
        self._socket = self._context.socket(getattr(zmq, type_name))
        self._socket.set_hwm(max(2, min(_QUEUED_MESSAGES, _QUEUED_BYTES // self.largest)))
        if type_name == "PULL":
            self._socket.bind(self.address)
        else:
            self._socket.connect(self.address)
        return self._socket

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close(linger=0)
            self._context.term()
            self._socket = None


class _Send(_Port):
    def open(self) -> Callable[[Any], object]:
        socket = self.socket("PUSH")
        send: Callable[..., object] = socket.send
        match self.kind:
            case Kind.BYTES:
                return send if self.largest <= _COPIED else partial(send, copy=False)
            case Kind.STRUCT:
                encode = msgspec.msgpack.Encoder().encode
                return lambda message: send(encode(message))
            case Kind.OBJECT:
                send_object: Callable[[Any], object] = socket.send_pyobj
                return send_object

    def open_batch(self) -> Callable[[Iterable[Any]], object]:
        raise NotCarried


class _Receive(_Port):
    def open(self) -> Callable[[], Any]:
        socket = self.socket("PULL")
        receive: Callable[[], Any] = socket.recv
        match self.kind:
            case Kind.BYTES:
                self._receive = receive
            case Kind.STRUCT:
                decode = msgspec.msgpack.Decoder(Item).decode
                self._receive = lambda: decode(receive())
            case Kind.OBJECT:
                self._receive = socket.recv_pyobj
        return self._receive

    def messages(self, count: int) -> Iterator[Any]:
        return one_by_one(self._receive, count)

    def batches(self, count: int) -> Iterator[list[Any]]:
        raise NotCarried


class ZeroMQ:
    """``PUSH`` and ``PULL`` over ``ipc://``, with an abstract address that leaves no file."""

    key = "pyzmq"
    title = "pyzmq"
    column = "pyzmq"

    def missing(self) -> str | None:
        return None if importlib.util.find_spec("zmq") else "not installed"

    def version(self) -> str:
        zmq: Any = importlib.import_module("zmq")
        return f"{importlib.metadata.version('pyzmq')} (libzmq {zmq.zmq_version()})"

    def link(self, kind: Kind, largest: int) -> Link:
        address = f"ipc://@ipc-channel-bench-{secrets.token_hex(8)}"
        return _Send(address, kind, largest), _Receive(address, kind, largest)
