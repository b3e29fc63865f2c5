"""Sending ends. ``send`` and its like are the extension module's own methods: no Python lies in their way."""

import types
from typing import TYPE_CHECKING, Any, Generic, Literal, Self, TypeVar, overload

from ipc_channel._core import SenderEnd, Sending
from ipc_channel.codecs.choice import UNSET, chosen_codec
from ipc_channel.codecs.kinds import Kind, register
from ipc_channel.codecs.raw import RAW
from ipc_channel.ends import End, aio

if TYPE_CHECKING:
    from collections.abc import Iterable

    from typing_extensions import Buffer, TypeForm

    from ipc_channel.statistics import SenderStatistics
else:
    # The parameter of a base class tells type checkers something, and nothing else; the real one is slow to import.
    Buffer = Any

__all__ = ["BytesSender", "OpaqueSender", "Sender"]

T = TypeVar("T")
T_contra = TypeVar("T_contra", contravariant=True)


class _SenderOf(Sending, End, Generic[T_contra]):
    """What typed, pickling and bytes senders have in common."""

    line: Any = None
    """Of the tasks of an event loop that wait for it; see :mod:`ipc_channel.aio`."""

    if TYPE_CHECKING:

        def send(self, message: T_contra, timeout: float | None = None) -> None:
            """Send a message. Raises EncodeError, ReceiverGone, ClosedError, TooManyHandles."""

        def try_send(self, message: T_contra) -> None:
            """Send a message without ever waiting. Raises Full, and what ``send`` raises."""

        def send_many(self, messages: Iterable[T_contra]) -> None:
            """Send each message in turn, faster than a loop. The exception's ``sent`` says how many went."""

    async def asend(self, message: T_contra) -> None:
        """Send from asyncio or trio; a checkpoint. If it is cancelled, nothing was sent. Raises as ``send`` does."""
        await aio().asend(self, message)

    async def asend_many(self, messages: "Iterable[T_contra]") -> None:
        """Send each message in turn from asyncio or trio.

        Any exception, that of a cancellation included, says in its ``sent`` how many messages went.
        """
        await aio().asend_many(self, messages)

    def clone(self) -> Self:
        """Another sender of the same channel, to be closed, or sent away, by itself. Raises ClosedError."""
        return type(self)(self.clone_end(), self.codec)

    def to_opaque(self) -> "OpaqueSender":
        """The same end without its type; this object is closed. Raises ClosedError."""
        return OpaqueSender(self)

    def statistics(self) -> "SenderStatistics":
        """What was sent through this object so far, and what is under way."""
        from ipc_channel.statistics import SenderStatistics

        return SenderStatistics(*self.counters(), *(self.lane() or (None, 0)))


class Sender(_SenderOf[T_contra]):
    """The sending end of a :func:`~ipc_channel.channel`. Threads may share it.

    Inside a message it moves: after the send it is closed here. Send ``sender.clone()`` to keep one.
    In a typed message annotate it with the type of its messages, as in ``reply: Sender[Answer]``.

    >>> import ipc_channel as ipc
    >>> sender, receiver = ipc.channel(int)
    >>> with sender, receiver:
    ...     sender.send(42)
    ...     receiver.recv()
    42
    >>> sender
    <Sender[int] closed>
    """

    if not TYPE_CHECKING:
        # Not typing's own: its cache hands out `Sender[B | A]` for `Sender[A | B]`.
        __class_getitem__ = classmethod(types.GenericAlias)


class BytesSender(_SenderOf[Buffer]):
    """The sending end of a :func:`~ipc_channel.bytes_channel`: takes any contiguous buffer.

    >>> import ipc_channel as ipc
    >>> sender, receiver = ipc.bytes_channel()
    >>> with sender, receiver:
    ...     sender.send(memoryview(b"raw"))
    ...     receiver.recv()
    b'raw'
    """

    if not TYPE_CHECKING:
        __class_getitem__ = None


class OpaqueSender(SenderEnd, End):
    """A sender whose type is forgotten: it can be passed on, and turned back with :meth:`to`.

    >>> import ipc_channel as ipc
    >>> sender, receiver = ipc.channel(str)
    >>> with receiver, sender.to_opaque() as opaque, opaque.to(str) as restored:
    ...     restored.send("still the same channel")
    ...     receiver.recv()
    'still the same channel'
    """

    @overload
    def to(  # type: ignore[overload-overlap]
        self, message_type: type[bytes], /
    ) -> Sender[bytes] | BytesSender: ...  # pyright: ignore[reportOverlappingOverload]
    @overload
    def to(self, message_type: "TypeForm[T]", /) -> Sender[T]: ...
    @overload
    def to(self, /, *, trusted: Literal[True]) -> Sender[Any]: ...
    def to(self, message_type: Any = UNSET, /, *, trusted: bool = False) -> Any:
        """The sender again; this object is closed.

        ``to(T)`` for an end of ``channel(T)``; ``to(trusted=True)`` for one of ``channel()``; ``to(bytes)`` gives the
        BytesSender of a ``bytes_channel()``. That the messages are of type ``T`` is what the caller says:
        the receiver finds out.

        Raises TypeError, and leaves this object as it is, if the end is of another kind; ClosedError.
        """
        codec = chosen_codec(self.label, message_type, trusted, repr(self))
        if codec is RAW:
            return BytesSender(self, codec)
        sender: Sender[Any] = Sender(self, codec)
        return sender

    def clone(self) -> Self:
        """Another opaque sender of the same channel. Raises ClosedError."""
        return type(self)(self.clone_end())


register(Kind(Sender, SenderEnd, generic=True))
register(Kind(BytesSender, SenderEnd, codec=RAW))
register(Kind(OpaqueSender, SenderEnd))
