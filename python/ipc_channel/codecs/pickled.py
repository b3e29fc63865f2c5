"""The codec of untyped channels: pickle protocol 5, with large buffers beside the stream. Only for trusted peers.

A handle inside a message reduces itself to its index: see :mod:`~ipc_channel.codecs.reduction`.
``__reduce_ex__`` rather than a Pickler of our own: a subclass of Pickler costs twice the time of a small message.
"""

import pickle
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from ipc_channel._core import LABEL_PICKLED, Parcel
from ipc_channel.codecs.frames import Encoding, Incoming, OutgoingPickle, innermost, stack
from ipc_channel.errors import EncodeError

if TYPE_CHECKING:
    from ipc_channel._core import Delivery

__all__ = ["PICKLED", "PickledCodec"]


def _dump(message: Any, dumps: Callable[..., bytes] = pickle.dumps) -> bytes:
    return dumps(message, 5, buffer_callback=_put_aside)


def _put_aside(buffer: pickle.PickleBuffer) -> None:
    frame = innermost()
    assert isinstance(frame, OutgoingPickle)
    frame.buffers.append(buffer)


def _finish(payload: bytes, frame: OutgoingPickle) -> Parcel:
    return Parcel(payload, frame, [_flat(buffer) for buffer in frame.buffers])


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
        self.encoding: Encoding = Encoding(_dump, OutgoingPickle, _finish)
        self.encode: Callable[[Any], bytes | Parcel] = self.encoding.encode
        self.decode: Callable[[bytes], Any] = pickle.loads
        self.decode_delivery = _decode_delivery

    def __repr__(self) -> str:
        return "<codec of pickled objects>"


PICKLED: Final = PickledCodec()
