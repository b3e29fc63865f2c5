"""The codec of typed channels: MessagePack, validated by msgspec. No pickle anywhere near it.

A handle inside a message is encoded as an extension value that holds its index among the message's handles.
The annotation at the place where it stands decides what it becomes at the receiver; what the peer says about
it is only compared with that.
"""

import functools
import types
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, cast, get_args

import msgspec

from ipc_channel._core import LABEL_PICKLED, LABEL_TYPED, Parcel, ReceiverEnd, SenderEnd
from ipc_channel.codecs.forms import accepted, examine
from ipc_channel.codecs.frames import Encoding, Incoming, Outgoing, innermost, stack
from ipc_channel.codecs.kinds import LABEL_NAMES, Kind, describe, kind_of
from ipc_channel.errors import DecodeError, EncodeError

if TYPE_CHECKING:
    from ipc_channel._core import Delivery, Handle

__all__ = ["TypedCodec", "typed_codec"]

_EXTENSION: Final = 73
"""The MessagePack extension type of handles; its data is the index, 4 bytes, big-endian."""

_NO_HANDLES: Final = Incoming([])

_ENDS: Final = (SenderEnd, ReceiverEnd)


class TypedCodec:
    """Encodes and decodes messages of one type. Made by :func:`typed_codec`."""

    def __init__(self, form: Any) -> None:
        self.label = LABEL_TYPED
        self.form = form
        """The type, as the user wrote it."""
        classes = accepted(form)
        self.accepts: type | tuple[type, ...] | None = (
            classes[0] if classes is not None and len(classes) == 1 else classes
        )
        self.encode: Callable[[Any], bytes | Parcel]
        self.encoding: Encoding | None = None
        self.decode: Callable[[bytes], Any]
        self.decode_delivery: Callable[[Delivery], Any] | None
        if examine(form):
            encoder = msgspec.msgpack.Encoder(enc_hook=_encode_handle)
            decoder = msgspec.msgpack.Decoder(form, dec_hook=_HandleDecoder())
            self.encoding = Encoding(encoder.encode, Outgoing, Parcel)
            self.encode = self.encoding.encode
            self.decode = functools.partial(_decode_plain, decoder.decode)
            self.decode_delivery = functools.partial(_decode_delivery, decoder.decode)
        else:
            # No Python at all between the transport and msgspec.
            self.encode = msgspec.msgpack.Encoder().encode
            self.decode = msgspec.msgpack.Decoder(form).decode
            self.decode_delivery = None

    def __repr__(self) -> str:
        return f"<codec of {describe(self.form)}>"


def typed_codec(form: Any) -> TypedCodec:
    """The codec of messages of type ``form``; one object for the same type, as far as types can be compared.

    Raises TypeError if messages of that type cannot be carried safely, and says why.
    """
    try:
        hash(form)
    except TypeError:  # Annotated with something mutable, for example
        return TypedCodec(form)
    # `A | B` equals `B | A`; the spelling keeps them apart, so that each channel shows the type it was given.
    plain_class = isinstance(form, type) and not isinstance(form, types.GenericAlias)
    return _cached(form, None if plain_class else repr(form))


@functools.lru_cache(maxsize=512)
def _cached(form: Any, spelling: str | None) -> TypedCodec:
    del spelling
    return TypedCodec(form)


def _encode_handle(handle: Any) -> msgspec.msgpack.Ext:
    kind = kind_of(type(handle))
    if kind is None:
        raise TypeError(f"{type(handle).__qualname__} is not a type that a typed channel can carry")
    if isinstance(handle, _ENDS) and handle.label == LABEL_PICKLED:
        raise EncodeError(
            f"{handle!r} unpickles what it receives, so it cannot travel through a typed channel: its peer could "
            "make this program run code; send it through channel(), or make it with channel(T)"
        )
    if kind.generic and handle.label != LABEL_TYPED and handle.label != LABEL_PICKLED:
        raise EncodeError(
            f"{handle!r} is for {LABEL_NAMES.get(handle.label, 'unknown messages')}, and the annotation means one for "
            "typed messages; annotate it as OpaqueSender or OpaqueReceiver and send what to_opaque() gives"
        )
    frame = innermost()
    assert isinstance(frame, Outgoing)
    return msgspec.msgpack.Ext(_EXTENSION, frame.record(handle).to_bytes(4, "big"))


def _decode_plain(decode: Callable[[bytes], Any], payload: bytes) -> Any:
    # A frame even so: without it an index in this payload would reach for the handles of an outer message.
    frames = stack.frames
    frames.append(_NO_HANDLES)
    try:
        return decode(payload)
    finally:
        frames.pop()


def _decode_delivery(decode: Callable[[bytes], Any], delivery: "Delivery") -> Any:
    if delivery.buffers:
        raise DecodeError("the message has out-of-band buffers, which no typed channel sends")
    frame = Incoming(delivery.handles)
    frames = stack.frames
    frames.append(frame)
    try:
        message = decode(delivery.payload)
        frame.finish()
    except BaseException:
        frame.discard()
        raise
    finally:
        frames.pop()
    return message


class _HandleDecoder:
    """The ``dec_hook`` of one decoder: makes what the annotation says out of the handle of that index."""

    __slots__ = ("_makers",)

    def __init__(self) -> None:
        # By identity: the decoder keeps its annotations alive, and hashing them costs more than the rest.
        # They are kept here too, so that the key holds even if the decoder does not.
        self._makers: dict[int, tuple[Any, Callable[[Handle], Any]]] = {}

    def __call__(self, form: Any, value: Any) -> Any:
        if type(value) is not msgspec.msgpack.Ext or value.code != _EXTENSION or memoryview(value.data).nbytes != 4:
            raise TypeError(f"expected the handle of a {describe(form)}, got {type(value).__name__}")
        _, make = self._makers.get(id(form)) or self._remember(form)
        frame = stack.frames[-1]
        assert isinstance(frame, Incoming)
        handle = frame.claim(int.from_bytes(value.data, "big"))
        try:
            made = make(handle)
        except BaseException:
            handle.close()
            raise
        frame.made(made)
        return made

    def _remember(self, form: Any) -> "tuple[Any, Callable[[Handle], Any]]":
        kind = kind_of(form)
        assert kind is not None
        if kind.generic:
            (parameter,) = get_args(form)
            make = functools.partial(_make_typed, kind, typed_codec(parameter))
        else:
            make = functools.partial(_make, kind)
        self._makers[id(form)] = (form, make)
        return self._makers[id(form)]


def _make(kind: Kind, handle: "Handle") -> Any:
    """A handle whose class has no parameter: bytes and opaque ends, SharedMemory, Fd."""
    kind.check(handle)
    if isinstance(handle, _ENDS) and handle.label == LABEL_PICKLED:
        raise TypeError("a typed channel never gives out an end that unpickles")
    return kind.cls(handle) if kind.codec is None else kind.cls(handle, kind.codec)


def _make_typed(kind: Kind, codec: TypedCodec, handle: "Handle") -> Any:
    kind.check(handle)
    end = cast("SenderEnd | ReceiverEnd", handle)
    if end.label != LABEL_TYPED:
        raise TypeError(
            f"expected a {kind.cls.__name__} for {describe(codec.form)}, "
            f"got an end for {LABEL_NAMES.get(end.label, 'unknown messages')}"
        )
    return kind.cls(end, codec)
