"""Receiving ends. ``recv``, iteration and their like are the extension module's own methods."""

import types
from typing import TYPE_CHECKING, Any, Generic, Literal, Self, TypeVar, overload

from ipc_channel._core import ReceiverEnd, Receiving
from ipc_channel.codecs.choice import UNSET, chosen_codec
from ipc_channel.codecs.kinds import Kind, register
from ipc_channel.codecs.raw import RAW
from ipc_channel.ends import End, aio
from ipc_channel.errors import Disconnected

if TYPE_CHECKING:
    from typing_extensions import TypeForm

    from ipc_channel.statistics import ReceiverStatistics

__all__ = ["BytesReceiver", "OpaqueReceiver", "Receiver"]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class _ReceiverOf(Receiving, End, Generic[T_co]):
    """What typed, pickling and bytes receivers have in common."""

    line: Any = None
    """Of the tasks of an event loop that wait for it; see :mod:`ipc_channel.aio`."""

    if TYPE_CHECKING:

        def recv(self, timeout: float | None = None) -> T_co:
            """Wait for a message, ``timeout`` seconds at most.

            Raises RecvTimeout, Disconnected at the end of the stream, DecodeError or ProtocolError for that message
            alone, TooManyHandles (the message stays), ClosedError, ForkError.
            """
            ...

        def try_recv(self) -> T_co:
            """The next message, or Empty if there is none yet. Raises as ``recv`` does."""
            ...

        def recv_many(self, max_messages: int | None = None, timeout: float | None = None) -> list[T_co]:
            """Wait for a message and return all that are there, ``max_messages`` (or a million) at most.

            Raises as ``recv`` does.
            """
            ...

        def __next__(self) -> T_co: ...

    async def arecv(self) -> T_co:
        """Receive from asyncio or trio; a checkpoint. Cancelling it loses no message. Raises as ``recv`` does."""
        message: T_co = await aio().arecv(self)
        return message

    async def arecv_many(self, max_messages: int | None = None) -> list[T_co]:
        """Wait for a message, from asyncio or trio, and return all that are there, ``max_messages`` at most."""
        messages: list[T_co] = await aio().arecv_many(self, max_messages)
        return messages

    def __aiter__(self) -> Self:
        aio().begin(self)
        return self

    async def __anext__(self) -> T_co:
        message: T_co
        try:
            # In one piece: most messages of a loop are there already, and each call more costs as much as one. Which
            # event loop it is does not matter before something is to be waited for.
            line = self.line
            if line is not None and line.hurried < line.most_hurried and not line.standing:
                line.hurried += 1
                message = self.recv_or(line)
                if message is not line:
                    return message
            message = await aio().arecv(self)
        except Disconnected:
            raise StopAsyncIteration from None
        return message

    def to_opaque(self) -> "OpaqueReceiver":
        """The same end without its type; this object is closed. Raises ClosedError."""
        return OpaqueReceiver(self)

    def statistics(self) -> "ReceiverStatistics":
        """What was received through this object so far, and what is waiting in memory."""
        from ipc_channel.statistics import ReceiverStatistics

        return ReceiverStatistics(*self.counters(), *self.lanes())


class Receiver(_ReceiverOf[T_co]):
    """The receiving end of a :func:`~ipc_channel.channel`.

    Threads may share it: each message goes to one of them. One process uses it at a time; inside a message it moves.
    A loop over it, ``for`` or ``async for``, ends when every sender is gone and everything sent has been received.

    >>> import ipc_channel as ipc
    >>> sender, receiver = ipc.channel(int)
    >>> with sender:
    ...     sender.send_many(range(3))
    >>> with receiver:
    ...     list(receiver)
    [0, 1, 2]
    """

    if not TYPE_CHECKING:
        # Not typing's own: its cache hands out `Receiver[B | A]` for `Receiver[A | B]`.
        __class_getitem__ = classmethod(types.GenericAlias)


class BytesReceiver(_ReceiverOf[bytes]):
    """The receiving end of a :func:`~ipc_channel.bytes_channel`.

    ``recv_view`` gives a ``memoryview`` instead of ``bytes``: a large message is then not copied.

    >>> import ipc_channel as ipc
    >>> sender, receiver = ipc.bytes_channel()
    >>> with sender, receiver:
    ...     sender.send(b"")
    ...     receiver.recv(timeout=1.0)
    b''
    """

    if TYPE_CHECKING:

        def recv_view(self, timeout: float | None = None) -> memoryview:
            """As ``recv``, but where the message lies: a large one is not copied, and its memory is used again when
            the view is released.

            The sending process could still write to that memory: copy before a check that must hold.

            >>> import ipc_channel as ipc
            >>> sender, receiver = ipc.bytes_channel()
            >>> with sender, receiver:
            ...     sender.send(bytes(1 << 20))
            ...     with receiver.recv_view() as view:
            ...         len(view)
            1048576
            """
            ...

    else:
        __class_getitem__ = None


class OpaqueReceiver(ReceiverEnd, End):
    """A receiver whose type is forgotten: it can be passed on, and turned back with :meth:`to`.

    >>> import ipc_channel as ipc
    >>> sender, receiver = ipc.channel(str)
    >>> with sender, receiver.to_opaque() as opaque, opaque.to(str) as restored:
    ...     sender.send("still the same channel")
    ...     restored.recv()
    'still the same channel'
    """

    @overload
    def to(  # type: ignore[overload-overlap]
        self, message_type: type[bytes], /
    ) -> Receiver[bytes] | BytesReceiver: ...  # pyright: ignore[reportOverlappingOverload]
    @overload
    def to(self, message_type: "TypeForm[T]", /) -> Receiver[T]: ...
    @overload
    def to(self, /, *, trusted: Literal[True]) -> Receiver[Any]: ...
    def to(self, message_type: Any = UNSET, /, *, trusted: bool = False) -> Any:
        """The receiver again; this object is closed.

        ``to(T)`` for an end of ``channel(T)``; ``to(trusted=True)`` for one of ``channel()``, which unpickles whatever
        its senders send; ``to(bytes)`` gives the BytesReceiver of a ``bytes_channel()``.

        Raises TypeError, and leaves this object as it is, if the end is of another kind; ClosedError.
        """
        codec = chosen_codec(self.label, message_type, trusted, repr(self))
        if codec is RAW:
            return BytesReceiver(self, codec)
        receiver: Receiver[Any] = Receiver(self, codec)
        return receiver


register(Kind(Receiver, ReceiverEnd, generic=True))
register(Kind(BytesReceiver, ReceiverEnd, codec=RAW))
register(Kind(OpaqueReceiver, ReceiverEnd))
