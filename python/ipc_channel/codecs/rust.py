"""The codec of channels whose other end is a program that uses the Rust crate.

The bytes are what serde makes of the Rust type that the annotations describe: postcard's, or bincode's for the
crate's older versions. Nothing in them says what an end is; the annotation at the place where it stands does.
"""

import functools
import types
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ipc_channel._core import (
    LABEL_BYTES,
    LABEL_RUST,
    LABEL_RUST_0_20,
    LABEL_RUST_0_21,
    Foreign,
    Memory,
    ReceiverEnd,
    RustPlan,
    SenderEnd,
)
from ipc_channel.codecs.frames import Incoming
from ipc_channel.codecs.kinds import LABEL_NAMES, Kind, describe
from ipc_channel.codecs.rust_schema import Schema
from ipc_channel.errors import EncodeError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ipc_channel._core import Delivery, Handle, Parcel

__all__ = ["VERSIONS", "RustCodec", "RustVersion", "rust_codec", "version_named", "version_of"]


class RustVersion(NamedTuple):
    """Versions of the crate that understand each other."""

    name: str
    """What ``codec=`` takes."""
    label: int
    layout: str
    """Which of serde's formats it uses."""


VERSIONS: Final = {
    version.name: version
    for version in (
        RustVersion("rust", LABEL_RUST, "postcard"),
        RustVersion("rust-0.21", LABEL_RUST_0_21, "postcard"),
        RustVersion("rust-0.20", LABEL_RUST_0_20, "bincode"),
    )
}


def version_named(name: Any) -> RustVersion:
    """The version that ``codec=`` names. ValueError if there is none."""
    version = VERSIONS.get(name) if isinstance(name, str) else None
    if version is None:
        raise ValueError(f"codec must be None or one of {', '.join(map(repr, VERSIONS))}, not {name!r}")
    return version


def version_of(label: int | None) -> RustVersion | None:
    """The version whose ends have that label, or None."""
    return next((version for version in VERSIONS.values() if version.label == label), None)


class RustCodec:
    """Encodes and decodes messages of one type for one version. Made by :func:`rust_codec`."""

    def __init__(self, form: Any, version: RustVersion) -> None:
        self.label: int = version.label
        self.form = form
        """The type, as the user wrote it."""
        self.about: str = describe(form)
        """The same as text."""
        self.version = version
        self.accepts: None = None
        plan, parameters, regions = _plan(form, version)
        self.encoding: None = None
        self.encode: Callable[[Any], bytes | Parcel] = plan.encode
        # A message whose regions are all empty has no handles, and the regions are made all the same.
        self.decode: Callable[[bytes], Any] = functools.partial(_decode, plan.decode) if regions else plan.decode
        # The extension module calls it without a detour where that is all there is to encoding and decoding.
        self.plan: RustPlan | None = None if regions else plan
        self.decode_delivery: Callable[[Delivery], Any] = functools.partial(_decode_delivery, plan.decode)
        # The messages of the ends inside are examined as well, so that a mistake shows here and not at the receiver.
        # A list and a loop, since `Node` may hold a `Sender[Node]`.
        seen = [form]
        while parameters:
            parameter = parameters.pop()
            if parameter not in seen:
                seen.append(parameter)
                parameters += _plan(parameter, version)[1]

    def __repr__(self) -> str:
        return f"<codec of {self.about} for {self.version.name}>"


def rust_codec(form: Any, version: RustVersion) -> RustCodec:
    """The codec of messages of type ``form``; one object for the same type, as far as types can be compared.

    Raises TypeError, naming the field, if a message of that type has no counterpart in Rust.
    """
    try:
        hash(form)
    except TypeError:  # Annotated with something mutable, for example
        return RustCodec(form, version)
    # `A | B` equals `B | A`; the spelling keeps them apart, so that each channel shows the type it was given.
    plain_class = isinstance(form, type) and not isinstance(form, types.GenericAlias)
    return _cached(form, version, None if plain_class else repr(form))


@functools.lru_cache(maxsize=512)
def _cached(form: Any, version: RustVersion, spelling: str | None) -> RustCodec:
    del spelling
    return RustCodec(form, version)


def _plan(form: Any, version: RustVersion) -> tuple[RustPlan, list[Any], bool]:
    """The plan of a type, the types of the messages of the ends in it, and whether there are regions in it."""

    def handle(kind: Kind, parameter: Any) -> tuple[Any, Any]:
        place = _Place(kind, parameter, version)
        return place.admit, place.make

    schema = Schema(form, handle)
    plan = RustPlan(version.layout, schema.nodes, schema.places, schema.root)
    return plan, schema.parameters, any(node[0] == "memory" for node in schema.nodes)


def _decode_delivery(decode: "Callable[[bytes, _Handles], Any]", delivery: "Delivery") -> Any:
    return _decode(decode, delivery.payload, delivery.handles)


def _decode(decode: "Callable[[bytes, _Handles], Any]", payload: bytes, found: "Sequence[Any]" = ()) -> Any:
    handles = _Handles(found)
    try:
        message = decode(payload, handles)
    except BaseException:
        handles.discard()
        raise
    # The crate sends handles that nothing in the message refers to, left over from a send that has failed.
    handles.release()
    return message


class _Handles:
    """The handles of a message that is being decoded: ends and regions are counted apart, as the crate does, to which
    every socket is an end and everything else a region."""

    __slots__ = ("_ends", "_regions")

    def __init__(self, handles: "Sequence[Any]") -> None:
        self._ends = Incoming([handle for handle in handles if handle.socket_like])
        self._regions = Incoming([handle for handle in handles if not handle.socket_like])

    def end(self, make: "Callable[[Any], Any]", index: int) -> Any:
        return _made(self._ends, make, self._ends.claim(index))

    def region(self, make: "Callable[[Any], Any]", index: int | None) -> Any:
        if index is None:
            empty = Memory.create_region(0)
            empty.freeze()
            return _made(self._regions, make, empty)
        return _made(self._regions, make, self._regions.claim(index))

    def release(self) -> None:
        self._ends.release()
        self._regions.release()

    def discard(self) -> None:
        self._ends.discard()
        self._regions.discard()


def _made(incoming: Incoming, make: "Callable[[Any], Any]", handle: "Handle") -> Any:
    try:
        made = make(handle)
    except BaseException:
        handle.close()
        raise
    incoming.made(made)
    return made


class _Place:
    """A place in a type where an end or a region stands."""

    def __init__(self, kind: Kind, parameter: Any, version: RustVersion) -> None:
        self._kind = kind
        self._parameter = parameter
        self._version = version

    def __repr__(self) -> str:
        name = self._kind.cls.__name__
        return f"{name}[{describe(self._parameter)}]" if self._kind.generic else name

    def admit(self, handle: Any) -> None:
        """Raise if the object must not be sent here."""
        kind = self._kind
        if not isinstance(handle, kind.cls):
            raise EncodeError(f"expected {self!r}, got {type(handle).__qualname__}")
        if not isinstance(handle, SenderEnd | ReceiverEnd):
            return
        if kind.generic:
            fits = handle.label == self._version.label
        elif kind.codec is not None:
            fits = handle.label == kind.codec.label
        else:
            fits = handle.label in (self._version.label, LABEL_BYTES)
        if not fits or handle.version != self._version.label:
            raise EncodeError(
                f"{handle!r} is an end for {LABEL_NAMES.get(handle.label, 'unknown messages')}, which the Rust program "
                f'at the other side would not understand; make it with codec="{self._version.name}"'
            )

    def make(self, handle: "Foreign | Memory") -> Any:
        """What the annotation says, made of a handle."""
        kind = self._kind
        codec = rust_codec(self._parameter, self._version) if kind.generic else kind.codec
        label = self._version.label if codec is None else codec.label
        made: Any = handle
        if isinstance(handle, Foreign):
            if kind.made_from is SenderEnd:
                made = handle.sender(label, self._version.label)
            elif kind.made_from is ReceiverEnd:
                made = handle.receiver(label, self._version.label)
            else:
                made = handle.memory()
        return kind.cls(made) if codec is None else kind.cls(made, codec)
