"""Handles in pickles: what one is reduced to, and what is made of that.

Apart from the codec, since every class of handles needs it, and not every program the codec.
"""

import sys
from typing import TYPE_CHECKING, Any, cast

from ipc_channel._core import LABEL_BYTES, LABEL_PICKLED, ReceiverEnd, SenderEnd
from ipc_channel.codecs.choice import codec_for, codec_of_end
from ipc_channel.codecs.frames import Incoming, OutgoingPickle, stack
from ipc_channel.codecs.kinds import LABEL_NAMES, kind_of
from ipc_channel.errors import DecodeError

if TYPE_CHECKING:
    from ipc_channel._core import Handle
    from ipc_channel.codecs.rust import RustCodec
    from ipc_channel.codecs.typed import TypedCodec

__all__ = ["form_of", "make_handle", "reduce_handle", "revive"]


def reduce_handle(handle: "Handle") -> Any:
    """What ``__reduce_ex__`` of every handle returns.

    Inside a message of a channel it is the index among the message's handles. Elsewhere ``multiprocessing``
    may be at work, whose own rules then decide. TypeError, saying what to do, if a handle cannot be pickled here.
    """
    frames = stack.frames
    if frames:
        frame = frames[-1]
        if isinstance(frame, OutgoingPickle):
            return revive, (type(handle), frame.record(handle), *form_of(handle))
    if "multiprocessing.reduction" in sys.modules:
        from ipc_channel.processes.multiprocessing import reduce_end

        return reduce_end(handle)
    raise TypeError(
        f"{handle!r} cannot be pickled by itself: send it inside a message of a channel, pass it to a "
        "multiprocessing.Process as an argument, or to a subprocess with ipc_channel.passing()"
    )


def form_of(handle: "Handle") -> tuple[Any, ...]:
    """The type of its messages, if it is an end that was given one: it travels by pickle, next to the index."""
    if isinstance(handle, SenderEnd | ReceiverEnd):
        codec = handle.codec
        if codec is not None and codec.label not in (LABEL_BYTES, LABEL_PICKLED):  # typed, for Python or for Rust
            return (cast("TypedCodec | RustCodec", codec).form,)
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
    codec = codec_of_end(form[0], end.label) if form else codec_for()
    if end.label != codec.label:
        raise TypeError(
            f"expected an end for {LABEL_NAMES[codec.label]}, "
            f"got one for {LABEL_NAMES.get(end.label, 'unknown messages')}"
        )
    return cls(end, codec)
