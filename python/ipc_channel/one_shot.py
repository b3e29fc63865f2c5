"""How two processes that share nothing yet find each other: a server that serves one client, by name."""

import threading
import warnings
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from ipc_channel import _core
from ipc_channel.codecs.choice import UNSET, codec_for, version_label
from ipc_channel.codecs.raw import RAW
from ipc_channel.errors import AcceptTimeout, ClosedError, ForkError
from ipc_channel.ownership import Closing
from ipc_channel.receiver import BytesReceiver, Receiver
from ipc_channel.sender import BytesSender, Sender

if TYPE_CHECKING:
    from typing_extensions import TypeForm

    from ipc_channel.codecs.choice import CodecName

__all__ = ["BytesOneShotServer", "OneShotServer", "connect", "connect_bytes"]

T = TypeVar("T")
R = TypeVar("R")  # the receiver
M = TypeVar("M")  # its messages


class _Listener(_core.Listener):
    """In Python, so that it can be referred to weakly."""


class _Server(Closing, Generic[R, M]):
    """What servers of every codec have in common."""

    def __init__(self, make: Any, codec: "_core.Codec", allow_uid: int | None, version: int | None) -> None:
        self._make = make
        self._codec = codec
        self._served = False
        # A client and its first message, taken from the listener and not yet returned.
        self._taken: list[tuple[_core.ReceiverEnd, _core.Delivery]] = []
        self._serving = threading.RLock()  # held while the first message is decoded
        self._generation = _core.generation()
        # None once closed; whoever still waits in it holds a reference of their own.
        self._listener: _Listener | None = _Listener(allow_uid, version)
        self._name = self._listener.name

    @property
    def name(self) -> str:
        """What a client gives to ``connect``: a short string for an argument or an environment variable."""
        return self._name

    def accept(self, timeout: float | None = None) -> tuple[R, M]:
        """Wait for the client and its first message (upstream: ``IpcOneShotServer::accept``).

        A client that connects and says nothing is not waited for alone: another one may come first.

        Args:
            timeout: Seconds; None and ``math.inf`` wait as long as it takes, 0 does not wait.

        Returns:
            The receiver of the client's messages, and the first of them. The server is then closed.

        Raises:
            AcceptTimeout: Nothing was sent within the timeout. The server goes on waiting.
            DecodeError: A client's first message could not be decoded. That client was dropped; accept again.
            TooManyHandles: The limit on open files was met. The message is still there; accept again.
            ClosedError: The server is closed, or has served its client.
            ForkError: The server belongs to the process that forked this one.
            ValueError: The timeout is negative or NaN.
        """
        listener = self._usable()
        if not self._taken:
            # One call into C for all of it: Ctrl-C between the call and its storing would lose the client.
            self._taken.extend(map(listener.accept, (timeout,)))
        with self._serving:
            self._usable()  # another thread may have served meanwhile
            return self._serve(listener)

    async def aaccept(self) -> tuple[R, M]:
        """:meth:`accept` for asyncio and trio. Cancelled, it has taken nothing. For a timeout use
        ``asyncio.timeout`` or ``anyio.fail_after``. Raises as ``accept`` does.
        """
        from ipc_channel import aio

        return await aio.repeat(self._accept_now, self._usable())

    def _accept_now(self) -> tuple[R, M] | None:
        try:
            return self.accept(0)
        except AcceptTimeout:
            return None

    def _serve(self, listener: _Listener) -> tuple[R, M]:
        end, delivery = self._taken[0]
        try:
            message = _core.decode(self._codec, delivery)
        except Exception:
            del self._taken[0]
            end.close()
            listener.turn_away()
            raise
        receiver = self._make(end, self._codec)
        del self._taken[0]
        self._served = True
        listener.served()
        return receiver, message

    @property
    def closed(self) -> bool:
        """Whether it was closed, or has served its client."""
        return self._served or self._listener is None

    def close(self) -> None:
        """Stop waiting for a client; whoever waits in ``accept`` gets ClosedError. Again is fine."""
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.close()
        while self._taken:
            end, delivery = self._taken.pop()
            delivery.close()
            end.close()

    def _usable(self) -> _Listener:
        if self._generation != _core.generation():
            raise ForkError("this server belongs to the process that forked this one: make a new one here")
        if self._served:
            raise ClosedError("this server has served its one client; make a new one for the next")
        if self._listener is None:
            raise ClosedError("this server is closed")
        return self._listener

    def _inherited(self) -> "list[_core.Listener]":
        """For ``close_inherited``: what it would close."""
        return [] if self._listener is None else [self._listener]

    def __repr__(self) -> str:
        state = "served" if self._served else "closed" if self.closed else self._name
        return f"<{type(self).__name__} {state}>"

    # The default argument keeps the function while the interpreter shuts down and clears its modules.
    def __del__(self, warn: Any = warnings.warn, generation: Any = _core.generation) -> None:
        if getattr(self, "_listener", None) is None:  # also when the constructor failed
            return
        if not self._served and self._generation == generation():
            warn(f"unclosed {self!r}", ResourceWarning, stacklevel=2, source=self)
        self.close()


class OneShotServer(_Server[Receiver[T], T]):
    """Waits for one client that knows its name (upstream: ``IpcOneShotServer``).

    Only processes of the same user can connect. Clients may connect before :meth:`accept`. Nothing lies in the
    file system that could stay behind, whichever side is killed. Clients that send garbage, leave without a
    message or stay silent do not use the server up.

    >>> import threading
    >>> import ipc_channel as ipc
    >>> def client(name: str) -> None:
    ...     with ipc.connect(name, str) as sender:
    ...         sender.send("hello")
    >>> with ipc.OneShotServer(str) as server:
    ...     thread = threading.Thread(target=client, args=[server.name])
    ...     thread.start()
    ...     receiver, first = server.accept(timeout=10)
    ...     thread.join()
    >>> with receiver:
    ...     print(first, list(receiver))
    hello []
    """

    @overload
    def __init__(self: "OneShotServer[Any]", /, *, allow_uid: int | None = None) -> None: ...
    @overload
    def __init__(
        self, type: "TypeForm[T]", /, *, allow_uid: int | None = None, codec: "CodecName | None" = None
    ) -> None: ...
    def __init__(self, type: Any = UNSET, /, *, allow_uid: int | None = None, codec: "CodecName | None" = None) -> None:
        """
        Args:
            type: The type of the messages, any type that ``channel(T)`` takes. Without it any picklable object
                comes through, so every client must be trusted.
            allow_uid: Another user whose processes may connect as well. The name then shows in
                ``/proc/net/unix``, though nobody else can use it.
            codec: As for ``channel``: the client may be a Rust program, by ``IpcSender::connect``. The name is then a
                path in the temporary directory, which stays behind if this process is killed.

        Raises TypeError for a type that no channel can carry, ValueError if there is no such codec.
        """
        super().__init__(Receiver, codec_for(type, codec), allow_uid, version_label(codec))


class BytesOneShotServer(_Server[BytesReceiver, bytes]):
    """A :class:`OneShotServer` of a bytes channel: its client comes by :func:`connect_bytes`.

    >>> import ipc_channel as ipc
    >>> with ipc.BytesOneShotServer() as server, ipc.connect_bytes(server.name) as sender:
    ...     sender.send(b"raw")
    ...     receiver, first = server.accept()
    ...     receiver.close()
    >>> first
    b'raw'
    """

    def __init__(self, *, allow_uid: int | None = None, codec: "CodecName | None" = None) -> None:
        """
        Args:
            allow_uid: As for :class:`OneShotServer`.
            codec: As for :class:`OneShotServer`.
        """
        super().__init__(BytesReceiver, RAW, allow_uid, version_label(codec))


@overload
def connect(name: str, /, *, timeout: float | None = 1.0) -> Sender[Any]: ...
@overload
def connect(
    name: str, type: "TypeForm[T]", /, timeout: float | None = 1.0, *, codec: "CodecName | None" = None
) -> Sender[T]: ...
def connect(
    name: str, type: Any = UNSET, /, timeout: float | None = 1.0, *, codec: "CodecName | None" = None
) -> Sender[Any]:
    """Become the client of a :class:`OneShotServer` (upstream: ``IpcSender::connect``).

    Args:
        name: The server's ``name``.
        type: The type of the messages, the same as the server's; without it the server's must be without too.
        timeout: Seconds to wait while another client is connected that might leave without a message; None and
            ``math.inf`` wait as long as it takes, 0 does not wait.
        codec: That of the server, which may be an ``IpcOneShotServer`` in a Rust program.

    Returns:
        The sender; what is sent waits for ``accept``.

    Raises:
        ConnectError: No server has that name, it has served already, it is another user's, or another client
            is connected to it; the message says which.
        ValueError: The timeout is negative or NaN, or there is no such codec.
        TypeError: No channel can carry that type.

    For an example see :class:`OneShotServer`.
    """
    chosen = codec_for(type, codec)
    return Sender[Any](_core.connect(name, timeout, version_label(codec)), chosen)


def connect_bytes(name: str, /, timeout: float | None = 1.0, *, codec: "CodecName | None" = None) -> BytesSender:
    """Become the client of a :class:`BytesOneShotServer`; otherwise as :func:`connect`."""
    return BytesSender(_core.connect(name, timeout, version_label(codec)), RAW)
