"""Which handles belong to the message that this thread is encoding or decoding right now.

Encoders call hooks and ``__reduce__`` methods without saying for which message, and those may send or
receive other messages. So each thread keeps a stack of frames: one for each message in progress, the
innermost last. A frame lives for one call of a codec; no handle outlasts it there.
"""

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar

from ipc_channel._core import close_handles
from ipc_channel.errors import DecodeError

if TYPE_CHECKING:
    import pickle

    from ipc_channel._core import Handle, Parcel


OutgoingT = TypeVar("OutgoingT", bound="Outgoing")


class Outgoing(list["Handle"]):
    """The handles of a message that is being encoded, in the order of their indices."""

    __slots__ = ()

    def record(self, handle: "Handle") -> int:
        """Add a handle to the message and return its index.

        The same sender, region or file may be added again: each place gets a duplicate. A receiver that is added
        twice is refused when the message is sent.
        """
        self.append(handle)
        return len(self) - 1


class OutgoingPickle(Outgoing):
    """The same for a message that is being pickled: only there does ``__reduce_ex__`` mean this message."""

    __slots__ = ("buffers",)

    def __init__(self) -> None:
        self.buffers: list[pickle.PickleBuffer] = []


class Encoding:
    """Stands for the frame of a message that is being encoded and has no handles so far, as most never have.

    The extension module does for every message of a channel what :meth:`encode` does for one.
    """

    __slots__ = ("encoder", "finish", "make")

    def __init__(
        self,
        encoder: Callable[[Any], bytes],
        make: type[OutgoingT],
        finish: "Callable[[bytes, OutgoingT], bytes | Parcel]",
    ) -> None:
        self.encoder: Callable[[Any], bytes] = encoder
        """May look for its frame with :func:`innermost`."""
        self.make: type[Outgoing] = make
        self.finish: Callable[[bytes, Any], bytes | Parcel] = finish
        """Called with what the encoder returned and the frame, if there was one in the end."""

    def encode(self, message: Any) -> "bytes | Parcel":
        """Encode a message in a frame of its own."""
        frames = stack.frames
        frames.append(self)
        try:
            payload = self.encoder(message)
        finally:
            frame = frames.pop()
        return payload if frame is self else self.finish(payload, frame)


class Incoming:
    """The handles of a message that is being decoded, each to be claimed exactly once."""

    __slots__ = ("_made", "_unclaimed")

    def __init__(self, handles: "list[Handle]") -> None:
        self._unclaimed: list[Handle | None] = list(handles)
        self._made: list[Any] = []

    def claim(self, index: int) -> "Handle":
        """Take the handle of that index. DecodeError if there is none, or no longer."""
        handle = self._unclaimed[index] if 0 <= index < len(self._unclaimed) else None
        if handle is None:
            raise DecodeError(f"the message refers to handle {index}, which it does not carry or has used already")
        self._unclaimed[index] = None
        return handle

    def made(self, thing: Any) -> None:
        """Remember what was made of a claimed handle: it is closed if the rest of the message fails."""
        self._made.append(thing)

    def finish(self) -> None:
        """DecodeError if a handle was not claimed."""
        left = [handle for handle in self._unclaimed if handle is not None]
        if left:
            raise DecodeError(
                f"{len(left)} of the {len(self._unclaimed)} handles of the message belong to nothing in it"
            )

    def release(self) -> None:
        """Close the handles that were not claimed."""
        unclaimed, self._unclaimed = self._unclaimed, []
        close_handles([handle for handle in unclaimed if handle is not None])

    def discard(self) -> None:
        """Close everything, claimed or not: the message could not be decoded."""
        close_handles([thing for thing in (*self._made, *self._unclaimed) if thing is not None])


class _Stack(threading.local):
    def __init__(self) -> None:
        self.frames: list[Encoding | Outgoing | Incoming] = []


stack: Final[_Stack] = _Stack()
"""``stack.frames`` is this thread's list of messages in progress, innermost last."""


def innermost() -> Outgoing | Incoming | None:
    """The frame of the message that this thread is encoding or decoding; None if there is none."""
    frames = stack.frames
    if not frames:
        return None
    frame = frames[-1]
    if isinstance(frame, Encoding):
        frame = frames[-1] = frame.make()
    return frame
