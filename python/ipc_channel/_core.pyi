"""The extension module: the transport as Python objects, without any codec of its own.

Private. The product's classes derive from the classes here; what is hot (``send``, ``recv``, iteration)
is inherited unchanged, so no Python frame lies between a caller and the transport.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, Protocol, Self, final, type_check_only

from typing_extensions import Buffer, disjoint_base

from ipc_channel.codecs.frames import Encoding

__all__ = [
    "Delivery",
    "Departure",
    "File",
    "Foreign",
    "LABEL_BYTES",
    "LABEL_PICKLED",
    "LABEL_RUST",
    "LABEL_RUST_0_20",
    "LABEL_RUST_0_21",
    "LABEL_TYPED",
    "Listener",
    "Memory",
    "Parcel",
    "Prepared",
    "ReceiverEnd",
    "ReceiverSetCore",
    "Receiving",
    "RustPlan",
    "SenderEnd",
    "Sending",
    "View",
    "Waiter",
    "adopt_file",
    "adopt_memory",
    "adopt_receiver",
    "adopt_sender",
    "open_envelope",
    "channel",
    "close_handles",
    "close_inherited",
    "connect",
    "decode",
    "generation",
    "native_max_inline",
    "rust_max_packet",
    "unwritten",
    "wait_until_written",
]

LABEL_BYTES: Final = 0
"""Label of an end whose messages are raw bytes."""
LABEL_TYPED: Final = 1
"""Label of an end whose messages msgspec validates."""
LABEL_PICKLED: Final = 2
"""Label of an end whose messages are unpickled: only for trusted peers."""
LABEL_RUST: Final = 3
"""Label of an end whose other side is the Rust crate, 0.22 to 0.23."""
LABEL_RUST_0_21: Final = 4
"""Likewise, 0.21."""
LABEL_RUST_0_20: Final = 5
"""Likewise, 0.20."""

@type_check_only
class Codec(Protocol):
    """What the product plugs into :class:`Sending` and :class:`Receiving`.

    One for Rust programs has ``about`` as well, a str: what people are told that its messages are.
    """

    @property
    def label(self) -> int: ...
    @property
    def accepts(self) -> type | tuple[type, ...] | None:
        """``isinstance`` check made on every message before ``encode``; None checks nothing."""
    @property
    def encode(self) -> Callable[[Any], bytes | Parcel] | None:
        """None: the message itself is a contiguous buffer and is the payload."""
    @property
    def encoding(self) -> Encoding | None:
        """If ``encode`` is that of an Encoding: this, of which the extension module does the steps itself. It may be
        missing."""
    @property
    def decode(self) -> Callable[[bytes], Any] | None:
        """Decodes a message that carries neither handles nor buffers. None: the payload is the message."""
    @property
    def decode_delivery(self) -> Callable[[Delivery], Any] | None:
        """Decodes a message that carries handles or buffers. None: such a message is a DecodeError."""

type Handle = SenderEnd | ReceiverEnd | Memory | File

@final
class Parcel:
    """An encoded message that carries more than bytes. Handles are in the order of their indices.

    The same sender, region or file may occur several times and is duplicated for each; a receiver that occurs
    twice is an EncodeError of the send.
    """

    def __new__(cls, payload: Buffer, handles: Sequence[Handle] = ..., buffers: Sequence[Buffer] = ...) -> Self: ...

@final
class Delivery:
    """A received message before decoding. Dropping it closes whatever was not taken."""

    @property
    def payload(self) -> bytes: ...
    @property
    def handles(self) -> list[Handle]:
        """Takes the handles out: bare ends, regions and files of this module's own classes; once only.

        Those of a message from a Rust program are :class:`Foreign`, each of them.
        """
    @property
    def buffers(self) -> list[Buffer]:
        """The out-of-band buffers, read-only or writable as they were sent."""
    @property
    def plain(self) -> bool:
        """Whether it carries neither handles nor buffers."""
    def __len__(self) -> int: ...
    def close(self) -> None: ...

@final
class View:
    """Part of a received message where it lies: what :attr:`Delivery.buffers` are."""

    def __buffer__(self, flags: int, /) -> memoryview: ...

@type_check_only
class RustHandles(Protocol):
    """Makes objects of the handles of one message. An index is whatever the peer wrote."""

    def end(self, make: Any, index: int, /) -> Any: ...
    def region(self, make: Any, index: int | None, /) -> Any:
        """None: an empty region, for which nothing travels."""

@final
class RustPlan:
    """A type as Rust's serde sees it: encodes and decodes its values as postcard or bincode do."""

    def __new__(cls, layout: str, nodes: Sequence[tuple[Any, ...]], places: Sequence[str], root: str) -> Self:
        """Each node is the name of its kind and what that needs; parts are given by their places in ``nodes``,
        of which the first one is the message. ``places`` are the nodes' names for errors, ``root`` the message's.

        TypeError for a type that has no values, or too many in no bytes.
        """
    def encode(self, message: Any, /) -> bytes | Parcel:
        """EncodeError, which names the place in the message."""
    def decode(self, payload: Buffer, handles: RustHandles | None = None, /) -> Any:
        """DecodeError, which names the place in the message. Bytes that follow it are ignored."""

def decode(codec: Codec, delivery: Delivery) -> Any:
    """Decode as ``Receiving.recv`` does, DecodeError included."""

@final
class Waiter:
    """Something to wait for in an event loop, whose descriptor lives as long as this object."""

    def fileno(self) -> int:
        """Readable when a try that found nothing, or no room, may now succeed, and when the end was closed."""
    def close(self) -> None: ...

@disjoint_base
class SenderEnd:
    """A sending end. The constructor takes the end out of ``source``, which is then closed as converted."""

    def __new__(cls, source: SenderEnd, codec: Codec | None = None, /) -> Self: ...
    @property
    def codec(self) -> Codec | None:
        """What was given to the constructor."""
    @property
    def label(self) -> int: ...
    @property
    def version(self) -> int | None:
        """The label of the crate's version that may be at the other side; None: this package is."""
    @property
    def closed(self) -> bool: ...
    @property
    def state(self) -> str:
        """ "open", or why not: "closed", "sent", "converted", "added", "started"."""
    @property
    def peer_pid(self) -> int | None:
        """The process at the other side, known only for ends of ``connect`` and of a one-shot server."""
    def close(self) -> None: ...
    def fileno(self) -> int:
        """The socket, for waiting until it is writable. ClosedError."""
    def waiter(self) -> Waiter:
        """A descriptor of its own to wait for: see :class:`Waiter`. ClosedError."""
    def clone_end(self) -> SenderEnd: ...
    def counters(self) -> tuple[int, int, int]:
        """Messages, payload bytes and handles sent through this object."""
    def lane(self) -> tuple[int, int] | None:
        """Messages under way and the memory for them; None while nothing but the socket is used."""
    @property
    def capacity(self) -> int | None: ...
    def envelope(self) -> int:
        """A new descriptor that holds a duplicate of this end, for ``open_envelope`` in another process."""
    def duplicate_fd(self) -> int:
        """A new descriptor (close-on-exec) of the socket, owned by the caller."""

@disjoint_base
class Sending(SenderEnd):
    """A sending end with a codec."""

    def __new__(cls, source: SenderEnd, codec: Codec, /) -> Self: ...
    @property
    def codec(self) -> Codec: ...
    def send(self, message: Any, timeout: float | None = None) -> None: ...
    def try_send(self, message: Any) -> None: ...
    def send_many(self, messages: Iterable[Any]) -> None: ...
    def flush(self, timeout: float | None = None) -> None: ...
    def prepare(self, message: Any) -> Prepared:
        """Encode now, publish later: what ``asend`` is made of."""
    def try_publish(self, prepared: Prepared) -> bool:
        """False when there is no room. Raises as ``send`` does."""

@final
class Prepared:
    """An encoded message that has not been sent. Its handles have not moved."""

@final
class Departure:
    """A receiver on its way to another process: not usable here until ``abort``; gone after ``commit``."""

    @property
    def fd(self) -> int:
        """A descriptor that holds the end, for ``open_envelope`` in another process; still owned by this object."""
    def commit(self) -> None:
        """Close our copy: the receiver was moved ("started")."""
    def abort(self) -> None:
        """Give the end back to the receiver, untouched. Also what happens when this is dropped uncommitted."""

@disjoint_base
class ReceiverEnd:
    """A receiving end. The constructor takes the end out of ``source``, which is then closed as converted."""

    def __new__(cls, source: ReceiverEnd, codec: Codec | None = None, /) -> Self: ...
    @property
    def codec(self) -> Codec | None:
        """What was given to the constructor."""
    @property
    def label(self) -> int: ...
    @property
    def version(self) -> int | None: ...
    @property
    def closed(self) -> bool: ...
    @property
    def state(self) -> str: ...
    @property
    def peer_pid(self) -> int | None: ...
    def close(self) -> None: ...
    def fileno(self) -> int:
        """Readable exactly while a message or the end of the stream is there."""
    def counters(self) -> tuple[int, int, int]:
        """Messages, payload bytes and handles received through this object."""
    def lanes(self) -> tuple[int, int]:
        """How many sending processes have a lane here, and the bytes in them that are not yet received."""
    def attend(self, waiter: Waiter) -> None:
        """From now on ``waiter`` tells of every message again."""
    def neglect(self, waiter: Waiter) -> None:
        """Nobody waits for ``waiter`` until ``attend``, so that nobody need ring for it."""
    def has_news(self) -> bool | None:
        """Whether a message can be seen without asking the kernel; None if none can be seen coming so."""
    def waiter(self) -> Waiter:
        """A descriptor of its own to wait for: see :class:`Waiter`. ClosedError."""
    def duplicate_fd(self) -> int:
        """A new descriptor (close-on-exec) of the socket, owned by the caller."""
    def depart(self) -> Departure: ...

@disjoint_base
class Receiving(ReceiverEnd):
    """A receiving end with a codec."""

    def __new__(cls, source: ReceiverEnd, codec: Codec, /) -> Self: ...
    @property
    def codec(self) -> Codec: ...
    def recv(self, timeout: float | None = None) -> Any: ...
    def try_recv(self) -> Any: ...
    def recv_or(self, otherwise: Any) -> Any:
        """The message that is there; if none is, ``otherwise``."""
    def recv_many(self, max_messages: int | None = None, timeout: float | None = None) -> list[Any]: ...
    def recv_view(self, timeout: float | None = None) -> memoryview:
        """TypeError unless the messages are raw bytes."""
    def poll(self, timeout: float | None = 0.0) -> bool: ...
    def __iter__(self) -> Self: ...
    def __next__(self) -> Any: ...

def channel(capacity: int = 0, version: int | None = None) -> tuple[SenderEnd, ReceiverEnd]:
    """Two bare connected ends, labelled as bytes until a codec takes them.

    ``version`` is the label of the crate's version that may be at the other side.
    """

def open_envelope(fd: int) -> SenderEnd | ReceiverEnd:
    """Take ownership of what ``envelope`` or a departure has made, and take the end out.

    ProtocolError if it holds none: then the descriptor stays the caller's.
    """

def adopt_sender(fd: int, label: int) -> SenderEnd:
    """Take ownership of an inherited or received descriptor. ProtocolError if it is no channel socket."""

def adopt_receiver(fd: int, label: int) -> ReceiverEnd: ...
def adopt_memory(fd: int) -> Memory:
    """Take ownership of a region's descriptor. ProtocolError if it is no sealed memfd."""

def adopt_file(fd: int) -> File:
    """Take ownership of a descriptor, made close-on-exec; the File is ``owned``."""

@disjoint_base
class ReceiverSetCore:
    """Receivers by token, and one wait for all of them."""

    def __new__(cls) -> Self: ...
    def add(self, receiver: ReceiverEnd) -> int:
        """Moves the receiver in; ``receiver`` is closed as added. Returns its token, never reused."""
    def remove(self, token: int) -> ReceiverEnd:
        """Takes a receiver out. KeyError."""
    def select(self, timeout: float | None = None) -> list[tuple[int, Delivery | Exception | None]]:
        """At least one event, or an empty list at the timeout. None: the end of that stream; it has left the set.

        An exception (ProtocolError, TooManyHandles) is for that message alone. At most one message
        a receiver in each call, so no receiver starves. Raises ClosedError when the set is closed meanwhile,
        and returns an empty list after ``wake``.
        """
    def wake(self) -> None:
        """Make a running ``select``, or else the next one, return an empty list."""
    def __len__(self) -> int: ...
    def fileno(self) -> int: ...
    def waiter(self) -> Waiter:
        """A descriptor of its own to wait for: see :class:`Waiter`. ClosedError."""
    @property
    def closed(self) -> bool: ...
    def close(self) -> None:
        """Closes every receiver in it."""

@disjoint_base
class Listener:
    """A one-shot server's socket."""

    def __new__(cls, allow_uid: int | None = None, version: int | None = None) -> Self: ...
    @property
    def name(self) -> str: ...
    @property
    def closed(self) -> bool: ...
    def fileno(self) -> int:
        """Readable when ``accept`` may have something to do."""
    def waiter(self) -> Waiter:
        """A descriptor of its own to wait for: see :class:`Waiter`. ClosedError."""
    def accept(self, timeout: float | None = None) -> tuple[ReceiverEnd, Delivery]:
        """Wait for a client's first message, and go on listening.

        AcceptTimeout; ClosedError after ``served`` or ``close``.
        """
    def turn_away(self) -> None:
        """The client whose message was accepted last is not the one: another may have its seat."""

    def served(self) -> None:
        """Stop listening: the one client is served. Others are told so until ``close``."""
    def close(self) -> None: ...

def connect(name: str, timeout: float | None = ..., version: int | None = None) -> SenderEnd:
    """ConnectError with the reason."""

@disjoint_base
class Memory:
    """A region of shared memory: a sealed memfd, mapped here.

    The constructor shares the region of ``source`` and closes that one.
    """

    def __new__(cls, source: Memory, /) -> Self: ...
    @staticmethod
    def create_region(size: int, mutable: bool = False) -> Memory:
        """Zero-filled. Writable until frozen; never frozen if ``mutable``."""
    @staticmethod
    def copy_of(content: Buffer, /) -> Memory:
        """A frozen copy of a C-contiguous buffer of bytes. BufferError if it is none."""
    def freeze(self) -> None:
        """Nobody can write to it from now on. BufferError while a writable view exists."""
    @property
    def frozen(self) -> bool: ...
    @property
    def mutable(self) -> bool: ...
    @property
    def closed(self) -> bool: ...
    def clone_region(self) -> Memory: ...
    def duplicate_fd(self) -> int:
        """A new descriptor (close-on-exec) of the region, which is frozen first unless mutable. BufferError."""
    def close(self) -> None:
        """BufferError while a view exists."""
    def __len__(self) -> int: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...

@disjoint_base
class File:
    """An open file to be duplicated into messages (borrowed), or received from one (owned)."""

    def __new__(cls, source: File | int, /) -> Self: ...
    @property
    def closed(self) -> bool: ...
    @property
    def owned(self) -> bool: ...
    def fileno(self) -> int: ...
    def detach(self) -> int:
        """The descriptor, now the caller's to close."""
    def close(self) -> None: ...

@final
class Foreign:
    """What came beside a message from a Rust program: it becomes what the message's type says, once."""

    @property
    def socket_like(self) -> bool:
        """Whether it can be an end; otherwise it can be a region."""
    def sender(self, label: int, version: int) -> SenderEnd:
        """ProtocolError if it is no channel's socket."""
    def receiver(self, label: int, version: int) -> ReceiverEnd: ...
    def memory(self) -> Memory:
        """A frozen copy. ProtocolError if it is no memory."""
    def close(self) -> None: ...

def close_handles(handles: Sequence[Handle | Foreign]) -> None:
    """Close received handles, or what was made of them; files of unknown kind all at once, since closing one may take
    its time. Memory of which there are views stays open."""

def rust_max_packet(version: int) -> int:
    """The largest payload, in bytes, that a Rust program gets in one packet."""

def unwritten() -> list[tuple[str, int]]:
    """For each channel of which messages wait in this process: its codec, and how many."""

def wait_until_written(timeout: float | None = None) -> bool:
    """Wait until no message does; whether none does."""

def generation() -> int:
    """Changes in every child made by fork."""

def close_inherited(keep: Sequence[SenderEnd | ReceiverEnd | ReceiverSetCore | Listener]) -> int:
    """Close every end that this process inherited through fork, except ``keep``; how many were closed."""

def native_max_inline() -> int:
    """The largest body, in bytes, that travels inside a packet; larger ones travel in a sealed memfd."""
