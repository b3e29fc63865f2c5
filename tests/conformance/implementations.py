"""What the conformance suite runs against: the one place that knows how each implementation is called.

A test asks its ``implementation`` for ends and messages and for nothing else, so another implementation
(another codec, another wire) is one more entry in ``IMPLEMENTATIONS``.
"""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Final

from msgspec import Struct, field

import ipc_channel as ipc
from ipc_channel import _core


class Kind(enum.Enum):
    """What a channel carries."""

    DATA = "data"
    """``bytes``, without handles."""
    PARCELS = "parcels"
    """What ``Implementation.parcel`` makes: ``bytes`` and handles."""


DATA: Final = Kind.DATA
PARCELS: Final = Kind.PARCELS


class Ability(enum.Enum):
    """What not every implementation can do. The crate's frames can do none of these."""

    FILES = "files"
    """Messages carry open files."""
    CAPACITY = "capacity"
    """Channels can be bounded."""
    MANY_HANDLES = "many handles"
    """A message carries any number of handles."""
    OUTLIVING = "outliving"
    """A message of any size outlives its sender from the moment on when it is sent."""
    SEAT = "seat"
    """A one-shot server's second client is told so at once."""


class TypedParcel(Struct):
    """Handles of every sort, where the data channels are ``channel(bytes)`` or ``channel()``."""

    payload: bytes = b""
    senders: list[ipc.Sender[bytes]] = field(default_factory=list)
    receivers: list[ipc.Receiver[bytes]] = field(default_factory=list)
    parcel_senders: list[ipc.Sender[TypedParcel]] = field(default_factory=list)
    parcel_receivers: list[ipc.Receiver[TypedParcel]] = field(default_factory=list)
    opaque_senders: list[ipc.OpaqueSender] = field(default_factory=list)
    opaque_receivers: list[ipc.OpaqueReceiver] = field(default_factory=list)
    regions: list[ipc.SharedMemory] = field(default_factory=list)
    files: list[ipc.Fd] = field(default_factory=list)


class BytesParcel(Struct):
    """The same where the data channels are ``bytes_channel()``."""

    payload: bytes = b""
    senders: list[ipc.BytesSender] = field(default_factory=list)
    receivers: list[ipc.BytesReceiver] = field(default_factory=list)
    parcel_senders: list[ipc.Sender[BytesParcel]] = field(default_factory=list)
    parcel_receivers: list[ipc.Receiver[BytesParcel]] = field(default_factory=list)
    opaque_senders: list[ipc.OpaqueSender] = field(default_factory=list)
    opaque_receivers: list[ipc.OpaqueReceiver] = field(default_factory=list)
    regions: list[ipc.SharedMemory] = field(default_factory=list)
    files: list[ipc.Fd] = field(default_factory=list)


class RustParcel(Struct):
    """The same for Rust programs, to which no files are sent."""

    payload: bytes = b""
    senders: list[ipc.Sender[bytes]] = field(default_factory=list)
    receivers: list[ipc.Receiver[bytes]] = field(default_factory=list)
    parcel_senders: list[ipc.Sender[RustParcel]] = field(default_factory=list)
    parcel_receivers: list[ipc.Receiver[RustParcel]] = field(default_factory=list)
    opaque_senders: list[ipc.OpaqueSender] = field(default_factory=list)
    opaque_receivers: list[ipc.OpaqueReceiver] = field(default_factory=list)
    regions: list[ipc.SharedMemory] = field(default_factory=list)


class Implementation(ABC):
    """An implementation under test."""

    name: str
    lacks: frozenset[Ability] = frozenset()
    """What it cannot do. A test that is about one of these is marked with ``needs``."""
    parcel: Callable[..., Any]
    """Makes a message of a channel of parcels; the arguments are the fields of ``TypedParcel``."""

    @abstractmethod
    def make_channel(self, kind: Kind, capacity: int | None = None) -> tuple[Any, Any]:
        """A new channel's two ends."""

    @abstractmethod
    def make_server(self, kind: Kind) -> Any:
        """A one-shot server of such a channel."""

    @abstractmethod
    def connect(self, name: str, kind: Kind) -> Any:
        """The sender of a one-shot server's client."""

    @abstractmethod
    def end_types(self, kind: Kind) -> tuple[Any, Any]:
        """What the two ends are declared as by a subprocess that inherits them."""

    @abstractmethod
    def restore(self, opaque: Any, kind: Kind) -> Any:
        """The end that an opaque one was."""

    def make_receiver_set(self) -> Any:
        """An empty receiver set."""
        return ipc.ReceiverSet()

    def make_router(self, **options: Any) -> Any:
        """A router without routes."""
        return ipc.Router(**options)

    def make_memory(self, content: bytes) -> Any:
        """A region of shared memory."""
        return ipc.SharedMemory.from_bytes(content)

    def payload_filling_a_packet(self, kind: Kind, handles: int = 0) -> bytes:
        """The largest payload that travels inside a packet, as data or in a parcel with so many files."""
        probe = bytes(60_000)
        sender, receiver = self.make_channel(kind)
        with sender, receiver, open("/dev/null") as null:
            message = probe if kind is DATA else self.parcel(payload=probe, files=[ipc.Fd(null)] * handles)
            sender.send(message)
            received = receiver.recv()
            for file in [] if kind is DATA else received.files:
                file.close()
            overhead = sender.statistics().bytes - len(probe) + 4 * handles
        return bytes(_core.native_max_inline() - overhead)

    def __repr__(self) -> str:
        return self.name


class Typed(Implementation):
    """``channel(T)``: msgspec on native packets."""

    name = "typed"
    parcel = TypedParcel
    _types: Final[dict[Kind, Any]] = {DATA: bytes, PARCELS: TypedParcel}

    def make_channel(self, kind: Kind, capacity: int | None = None) -> tuple[Any, Any]:
        return ipc.channel(self._types[kind], capacity=capacity)

    def make_server(self, kind: Kind) -> Any:
        return ipc.OneShotServer(self._types[kind])

    def connect(self, name: str, kind: Kind) -> Any:
        return ipc.connect(name, self._types[kind])

    def end_types(self, kind: Kind) -> tuple[Any, Any]:
        return ipc.Sender[self._types[kind]], ipc.Receiver[self._types[kind]]

    def restore(self, opaque: Any, kind: Kind) -> Any:
        return opaque.to(self._types[kind])


class Pickled(Implementation):
    """``channel()``: pickle on native packets."""

    name = "pickled"
    parcel = TypedParcel

    def make_channel(self, kind: Kind, capacity: int | None = None) -> tuple[Any, Any]:
        return ipc.channel(capacity=capacity)

    def make_server(self, kind: Kind) -> Any:
        return ipc.OneShotServer()

    def connect(self, name: str, kind: Kind) -> Any:
        return ipc.connect(name)

    def end_types(self, kind: Kind) -> tuple[Any, Any]:
        return ipc.Sender, ipc.Receiver

    def restore(self, opaque: Any, kind: Kind) -> Any:
        return opaque.to(trusted=True)


class Bytes(Implementation):
    """``bytes_channel()`` for data, and typed channels to carry its ends."""

    name = "bytes"
    parcel = BytesParcel

    def make_channel(self, kind: Kind, capacity: int | None = None) -> tuple[Any, Any]:
        if kind is DATA:
            return ipc.bytes_channel(capacity=capacity)
        return ipc.channel(BytesParcel, capacity=capacity)

    def make_server(self, kind: Kind) -> Any:
        return ipc.BytesOneShotServer() if kind is DATA else ipc.OneShotServer(BytesParcel)

    def connect(self, name: str, kind: Kind) -> Any:
        return ipc.connect_bytes(name) if kind is DATA else ipc.connect(name, BytesParcel)

    def end_types(self, kind: Kind) -> tuple[Any, Any]:
        if kind is DATA:
            return ipc.BytesSender, ipc.BytesReceiver
        return ipc.Sender[BytesParcel], ipc.Receiver[BytesParcel]

    def restore(self, opaque: Any, kind: Kind) -> Any:
        return opaque.to(bytes if kind is DATA else BytesParcel)


class Rust(Implementation):
    """``codec="rust"``: the frames of the Rust crate, with Python at both ends."""

    parcel = RustParcel
    lacks = frozenset(Ability)
    _types: Final[dict[Kind, Any]] = {DATA: bytes, PARCELS: RustParcel}

    def __init__(self, codec: Any) -> None:
        self.name = codec
        self._codec = codec

    def make_channel(self, kind: Kind, capacity: int | None = None) -> tuple[Any, Any]:
        return ipc.channel(self._types[kind], capacity=capacity, codec=self._codec)

    def make_server(self, kind: Kind) -> Any:
        return ipc.OneShotServer(self._types[kind], codec=self._codec)

    def connect(self, name: str, kind: Kind) -> Any:
        return ipc.connect(name, self._types[kind], codec=self._codec)

    def end_types(self, kind: Kind) -> tuple[Any, Any]:
        return ipc.Sender[self._types[kind]], ipc.Receiver[self._types[kind]]

    def restore(self, opaque: Any, kind: Kind) -> Any:
        return opaque.to(self._types[kind])

    def payload_filling_a_packet(self, kind: Kind, handles: int = 0) -> bytes:
        probe = bytes(60_000)
        sender, receiver = self.make_channel(kind)
        with sender, receiver:
            sender.send(probe if kind is DATA else self.parcel(payload=probe))
            receiver.recv()
            overhead = sender.statistics().bytes - len(probe)
            largest = _core.rust_max_packet(sender.version)
        return bytes(largest - overhead - handles * 8)


IMPLEMENTATIONS: Final[dict[str, Implementation]] = {
    each.name: each for each in (Typed(), Pickled(), Bytes(), Rust("rust"), Rust("rust-0.20"))
}
"""By name, which is what travels to child processes."""
