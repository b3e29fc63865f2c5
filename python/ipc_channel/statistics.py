"""What went through an end, as numbers."""

from dataclasses import dataclass

__all__ = ["ReceiverStatistics", "SenderStatistics"]


@dataclass(frozen=True, slots=True)
class SenderStatistics:
    """What one sender object has sent since it was made. A clone counts for itself.

    >>> import ipc_channel as ipc
    >>> sender, receiver = ipc.bytes_channel()
    >>> with sender, receiver:
    ...     sender.send(b"seven b")
    ...     sender.statistics()
    SenderStatistics(messages=1, bytes=7, handles=0, backlog=None, memory=0)
    """

    messages: int
    """Messages sent."""
    bytes: int
    """Their encoded size in bytes."""
    handles: int
    """Ends, shared memory and files inside them."""
    backlog: int | None
    """Messages of this process that the receiver has not taken yet, as far as it has told; None while they go by the
    channel's socket, which does not tell. Towards a Rust program: those that are still kept in this process."""
    memory: int
    """Bytes of memory for them."""


@dataclass(frozen=True, slots=True)
class ReceiverStatistics:
    """What one receiver object has received since it was made.

    >>> import ipc_channel as ipc
    >>> sender, receiver = ipc.bytes_channel()
    >>> with sender, receiver:
    ...     sender.send_many([b"one", b"two"])
    ...     _ = receiver.recv()
    ...     receiver.statistics()
    ReceiverStatistics(messages=1, bytes=3, handles=0, lanes=0, backlog_bytes=0)
    """

    messages: int
    """Messages received."""
    bytes: int
    """Their encoded size in bytes."""
    handles: int
    """Ends, shared memory and files inside them."""
    lanes: int
    """Sending processes that share memory with this one."""
    backlog_bytes: int
    """What waits in that memory, in bytes."""
