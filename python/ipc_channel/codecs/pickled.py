"""The codec of untyped channels: pickle protocol 5, with large buffers beside the stream. Only for trusted peers.

A handle inside a message reduces itself to its index; its ``__reduce_ex__`` calls :func:`reduce_handle`.
``__reduce_ex__`` rather than a Pickler of our own: a subclass of Pickler costs twice the time of a small message.
"""

import pickle
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, cast

from ipc_channel._core import LABEL_PICKLED, LABEL_TYPED, Parcel, ReceiverEnd, SenderEnd
from ipc_channel.codecs.frames import Incoming, OutgoingPickle, stack
from ipc_channel.codecs.kinds import LABEL_NAMES, kind_of
from ipc_channel.codecs.typed import TypedCodec, typed_codec
from ipc_channel.errors import DecodeError, EncodeError

if TYPE_CHECKING:
    from ipc_channel._core import Delivery, Handle

__all__ = ["PICKLED", "PickledCodec", "make_handle", "reduce_handle", "revive"]


def _encode(message: Any, dumps: Callable[..., bytes] = pickle.dumps) -> bytes | Parcel:
    frame = OutgoingPickle()
    buffers: list[pickle.PickleBuffer] = []
    frames = stack.frames
    frames.append(frame)
    try:
        payload = dumps(message, 5, buffer_callback=buffers.append)
    finally:
        frames.pop()
    if frame or buffers:
        return Parcel(payload, frame, [_flat(buffer) for buffer in buffers])
    return payload


def _flat(buffer: pickle.PickleBuffer) -> memoryview:
    try:
        return buffer.raw()
    except BufferError as error:
        raise EncodeError("a PickleBuffer in the message is not contiguous: send a contiguous copy") from error


def _decode_delivery(delivery: "Delivery") -> Any:
    frame = Incoming(delivery.handles)
    frames = stack.frames
    frames.append(frame)
    try:
        message = pickle.loads(delivery.payload, buffers=delivery.buffers)
        frame.finish()
    except BaseException:
        frame.discard()
        raise
    finally:
        frames.pop()
    return message


class PickledCodec:
    """Takes and gives any picklable object."""

    def __init__(self) -> None:
        self.label = LABEL_PICKLED
        self.accepts: None = None
        self.encode = _encode
        self.decode: Callable[[bytes], Any] = pickle.loads
        self.decode_delivery = _decode_delivery

    def __repr__(self) -> str:
        return "<codec of pickled objects>"


PICKLED: Final = PickledCodec()


def reduce_handle(handle: "Handle") -> Any:
    """What ``__reduce_ex__`` of every handle returns.

    Inside a message of a channel it is the index among the message's handles. Elsewhere ``multiprocessing``
    may be at work, whose own rules then decide. TypeError, saying what to do, if a handle cannot be pickled here.
    """
    frames = stack.frames
    if frames:
        frame = frames[-1]
        if isinstance(frame, OutgoingPickle):
            return revive, (type(handle), frame.record(handle), *_form_of(handle))
    if "multiprocessing.reduction" in sys.modules:
        from ipc_channel.processes.multiprocessing import reduce_end

        return reduce_end(handle)
    raise TypeError(
        f"{handle!r} cannot be pickled by itself: send it inside a message of a channel, pass it to a "
        "multiprocessing.Process as an argument, or to a subprocess with ipc_channel.passing()"
    )


def _form_of(handle: "Handle") -> tuple[Any, ...]:
    """The type of its messages, if it has one: it travels by pickle, next to the index."""
    if isinstance(handle, SenderEnd | ReceiverEnd):
        codec: object = handle.codec
        if isinstance(codec, TypedCodec):
            return (codec.form,)
    return ()


def revive(cls: type[Any], index: int, *form: Any) -> Any:
    """What a pickled handle calls at the receiver: make ``cls`` of the handle with that index."""
    frames = stack.frames
    frame = frames[-1] if frames else None
    if not isinstance(frame, Incoming):
        raise DecodeError(f"a pickled {cls.__name__} means something only inside the message that it came with")
    handle = frame.claim(index)
    try:
        made = make_handle(cls, handle, form)
    except BaseException:
        handle.close()
        raise
    frame.made(made)
    return made


def make_handle(cls: type[Any], handle: "Handle", form: tuple[Any, ...]) -> Any:
    """A ``cls`` made of a handle that came without its codec; ``form`` holds the type of a typed end's messages.

    Raises TypeError, and leaves the handle as it is, if that is something else.
    """
    # A subclass of the user's has no kind of its own, but is made like the class that it extends.
    kind = next((kind for base in cls.__mro__ if (kind := kind_of(base)) is not None), None)
    if kind is None:
        raise TypeError(f"{cls.__qualname__} is no class of handles")
    kind.check(handle)
    if not kind.generic:
        return cls(handle) if kind.codec is None else cls(handle, kind.codec)
    end = cast("SenderEnd | ReceiverEnd", handle)
    label = LABEL_TYPED if form else LABEL_PICKLED
    if end.label != label:
        raise TypeError(
            f"expected an end for {LABEL_NAMES[label]}, got one for {LABEL_NAMES.get(end.label, 'unknown messages')}"
        )
    return cls(end, typed_codec(form[0]) if form else PICKLED)
