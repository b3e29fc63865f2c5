"""What can go wrong, as types.

Every error derives from :class:`IpcError`, and also from the exception that users of ``queue``, ``socket``
and ``multiprocessing`` already catch. This module imports nothing of the package: the extension module finds
its exceptions here by name.
"""

import queue

__all__ = [
    "AcceptTimeout",
    "BacklogFull",
    "ClosedError",
    "ConnectError",
    "DecodeError",
    "Disconnected",
    "Empty",
    "EncodeError",
    "ForkError",
    "Full",
    "IpcError",
    "KernelError",
    "ProtocolError",
    "ReceiverGone",
    "RecvTimeout",
    "SendTimeout",
    "TooManyHandles",
]


class IpcError(Exception):
    """The base of every error of this package.

    >>> issubclass(Disconnected, IpcError) and issubclass(Disconnected, EOFError)
    True
    """

    sent: int | None = None
    """Raised by ``send_many`` or ``asend_many``: how many messages had been sent before. Otherwise None."""


class Empty(IpcError, queue.Empty):
    """``try_recv`` found no message, but senders still exist."""


class Full(IpcError, queue.Full):
    """``try_send`` found no room."""


class RecvTimeout(Empty, TimeoutError):
    """No message came within the timeout of a receive. The stream goes on; try again."""


class SendTimeout(Full, TimeoutError):
    """No room came free within the timeout of a send. Nothing was sent."""


class AcceptTimeout(IpcError, TimeoutError):
    """No client sent a first message to a one-shot server within the timeout. The server goes on waiting."""


class Disconnected(IpcError, EOFError):
    """The end of the stream: every sender is gone, and everything they sent has been delivered."""


class ReceiverGone(IpcError, BrokenPipeError):
    """The receiver was closed, or its process has ended: nobody will ever read what would be sent."""


class ClosedError(IpcError, ValueError):
    """This object was closed here, or moved away, so this process can no longer use it."""


class EncodeError(IpcError, ValueError):
    """The message cannot be sent as it is. Nothing was sent, and the ends in it are untouched.

    Where another exception was the reason, it is the ``__cause__``.
    """


class DecodeError(IpcError, ValueError):
    """One message could not be decoded and is gone; the next receive gives the next one.

    Whatever handles it carried are closed. Where another exception was the reason, it is the ``__cause__``.
    """


class ProtocolError(IpcError, ConnectionError):
    """The peer sent something that no sender of this package sends. That packet is gone; the channel goes on."""


class ConnectError(IpcError, ConnectionError):
    """``connect`` did not reach a one-shot server; the message says why."""


class ForkError(IpcError, RuntimeError):
    """This object belongs to another process, on the other side of a fork."""


class TooManyHandles(IpcError, OSError):
    """The limit on open files was met while sending or receiving handles.

    On a receive the message is still there: close something or raise ``ulimit -n``, then try again.
    """


class BacklogFull(IpcError, MemoryError):
    """The memory budget for unread messages is used up. Nothing was sent."""


class KernelError(IpcError, OSError):
    """The kernel refused a call for a reason that is no part of this package's contract; see ``errno``."""
