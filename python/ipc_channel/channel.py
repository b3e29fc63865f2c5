"""Making channels."""

import types
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar, overload

from ipc_channel import _core
from ipc_channel.codecs.choice import UNSET, codec_for, version_label
from ipc_channel.codecs.raw import RAW
from ipc_channel.receiver import BytesReceiver, Receiver
from ipc_channel.sender import BytesSender, Sender

if TYPE_CHECKING:
    from typing_extensions import TypeForm

    from ipc_channel.codecs.choice import CodecName

__all__ = ["BytesChannel", "Channel", "bytes_channel", "channel"]

T = TypeVar("T")


class Channel(NamedTuple, Generic[T]):
    """The two ends of a new channel, as :func:`channel` returns them.

    >>> import ipc_channel as ipc
    >>> new = ipc.channel(int)
    >>> with new.sender, new.receiver:
    ...     new.sender.send(1)
    ...     new.receiver.recv()
    1
    """

    sender: Sender[T]
    receiver: Receiver[T]


if not TYPE_CHECKING:
    # Not typing's own: its cache hands out `Channel[B | A]` for `Channel[A | B]`.
    Channel.__class_getitem__ = classmethod(types.GenericAlias)


class BytesChannel(NamedTuple):
    """The two ends of a new channel of bytes, as :func:`bytes_channel` returns them.

    >>> import ipc_channel as ipc
    >>> new = ipc.bytes_channel()
    >>> with new.sender, new.receiver:
    ...     new.sender.send(bytearray(b"raw"))
    ...     new.receiver.recv()
    b'raw'
    """

    sender: BytesSender
    receiver: BytesReceiver


@overload
def channel(*, capacity: int | None = None) -> Channel[Any]: ...
@overload
def channel(
    message_type: "TypeForm[T]", /, *, capacity: int | None = None, codec: "CodecName | None" = None
) -> Channel[T]: ...
def channel(
    message_type: Any = UNSET, /, *, capacity: int | None = None, codec: "CodecName | None" = None
) -> Channel[Any]:
    """Make a channel and return its two ends, to be unpacked as ``sender, receiver``.

    ``channel(T)`` carries messages of type ``T``: anything that msgspec validates (``msgspec.Struct``, dataclasses,
    NamedTuple, TypedDict, enums, unions, builtins) and, anywhere inside, ends (``Sender[X]``, ``Receiver[X]``, bytes
    and opaque ones), ``SharedMemory`` and ``Fd``. The receiver validates each message, so the peer need not be trusted.
    ``send`` checks the outermost type only; what is wrong deeper inside is a DecodeError at the receiver.

    ``channel()`` carries any picklable object. Only for peers that you trust: unpickling runs code that they choose.

    ``channel(None)`` is a channel whose only message is None.

    ``send`` never waits for the receiver, unless ``capacity`` is given: then each sending process can have that many
    messages under way, and ``send`` waits for the receiver to take one.

    With ``codec="rust"`` either end can move to a program that uses Rust's ipc-channel crate, 0.22 or 0.23
    (``"rust-0.21"`` and ``"rust-0.20"`` are for those versions). The types of messages are then those of
    :mod:`ipc_channel.rust`, checked when they are sent. What the socket has no room for is kept in this process until
    the program reads: see :meth:`Sender.flush`. Such a channel cannot be bounded.

    Raises TypeError if messages of that type cannot be carried or validated; ValueError if ``capacity`` is not
    positive, or given with ``codec``, or if there is no such codec; TooManyHandles at the limit on open files.

    >>> import ipc_channel as ipc
    >>> sender, receiver = ipc.channel(dict[str, int])
    >>> with sender, receiver:
    ...     sender.send({"apples": 3})
    ...     receiver.recv()
    {'apples': 3}
    """
    chosen = codec_for(message_type, codec)
    sender, receiver = _core.channel(_checked(capacity, codec), version_label(codec))
    return Channel(Sender(sender, chosen), Receiver(receiver, chosen))


def bytes_channel(*, capacity: int | None = None, codec: "CodecName | None" = None) -> BytesChannel:
    """Make a channel of raw bytes: ``send`` takes any contiguous buffer, ``recv`` returns bytes.

    ``capacity`` and ``codec`` are those of :func:`channel`; with a codec the other end may be an ``IpcBytesSender`` or
    ``IpcBytesReceiver``. Raises ValueError and TooManyHandles as ``channel`` does.

    >>> import ipc_channel as ipc
    >>> sender, receiver = ipc.bytes_channel()
    >>> with sender, receiver:
    ...     sender.send(b"raw")
    ...     receiver.recv()
    b'raw'
    """
    sender, receiver = _core.channel(_checked(capacity, codec), version_label(codec))
    return BytesChannel(BytesSender(sender, RAW), BytesReceiver(receiver, RAW))


def _checked(capacity: int | None, codec: "CodecName | None") -> int:
    """The capacity as the core takes it: 0 for no limit."""
    if capacity is None:
        return 0
    if codec is not None:
        raise ValueError(
            f"capacity= is for channels of Python: one with codec={codec!r} cannot be bounded, since a Rust program "
            "does not tell what it has received"
        )
    if capacity < 1 or capacity >= 1 << 32:
        raise ValueError(f"capacity must be None or a number of messages from 1 on, not {capacity}")
    return capacity
