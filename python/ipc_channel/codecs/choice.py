"""Which codec an end gets: by the type that was given, or, if it arrived without one, by its label too.

The modules of the codecs are imported here, when the first end needs one: to import msgspec takes longer than to
import all of this package.
"""

import functools
from typing import TYPE_CHECKING, Any, Final

from ipc_channel._core import LABEL_BYTES, LABEL_PICKLED, LABEL_TYPED
from ipc_channel.codecs.raw import RAW

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Literal, TypeAlias

    from ipc_channel._core import Codec

    CodecName: TypeAlias = Literal["rust", "rust-0.21", "rust-0.20"]
    """What ``codec=`` takes: the versions of the crate that a program at the other side may use."""

__all__ = ["UNSET", "chosen_codec", "codec_for", "codec_of_end", "version_label"]

UNSET: Final[Any] = object()
"""Stands for "no type was given", since None is a type that messages can have."""


def codec_for(form: Any = UNSET, name: "CodecName | None" = None) -> "Codec":
    """The codec for messages of type ``form``, or for any picklable object if there is none.

    ``name`` is that of a codec for Rust programs. Raises TypeError if messages of that type cannot be carried safely.
    """
    if name is not None:
        from ipc_channel.codecs.rust import rust_codec, version_named

        if form is UNSET:
            raise TypeError(f"codec={name!r} needs the type of the messages: a Rust program cannot unpickle")
        return rust_codec(form, version_named(name))
    if form is UNSET:
        return _pickled()
    return _typed()(form)


# Asked for with every channel: an import statement takes many times as long to see that nothing is to be done.


@functools.cache
def _pickled() -> "Codec":
    from ipc_channel.codecs.pickled import PICKLED

    return PICKLED


@functools.cache
def _typed() -> "Callable[[Any], Codec]":
    from ipc_channel.codecs.typed import typed_codec

    return typed_codec


def version_label(name: "CodecName | None") -> int | None:
    """How the core calls the version of the crate that ``codec=`` names. ValueError if there is no such codec."""
    if name is None:
        return None
    from ipc_channel.codecs.rust import version_named

    return version_named(name).label


def codec_of_end(form: Any, label: int) -> "Codec":
    """The codec of an end that came from another process, for messages of that type; by its label it is one of ours
    or one for Rust programs."""
    if form is not UNSET and label not in (LABEL_BYTES, LABEL_TYPED, LABEL_PICKLED):
        from ipc_channel.codecs.rust import rust_codec, version_of

        version = version_of(label)
        if version is not None:
            return rust_codec(form, version)
    return codec_for(form)


def chosen_codec(label: int | None, form: Any, trusted: bool, name: str) -> "Codec":
    """The codec for messages labelled so, if it is what the caller asked for; otherwise TypeError.

    ``form`` is the type of the messages or UNSET; ``trusted`` allows pickle; ``name`` is what errors call the thing.
    """
    if form is not UNSET and trusted:
        raise TypeError("to() takes the type of the messages or trusted=True, not both")
    if label == LABEL_PICKLED:
        if not trusted:
            raise TypeError(f"{name} is for pickled messages: use to(trusted=True), if every peer may run code here")
        return codec_for()
    if trusted:
        raise TypeError(f"{name} is not for pickled messages: use to() with the type of its messages")
    if label == LABEL_BYTES:
        if form is not bytes:
            raise TypeError(f"{name} is for raw bytes: use to(bytes)")
        return RAW
    if form is UNSET:
        raise TypeError(f"{name} is for typed messages: use to() with their type")
    if label == LABEL_TYPED:
        return codec_for(form)
    from ipc_channel.codecs.rust import rust_codec, version_of

    version = version_of(label)
    if version is None:
        raise TypeError(f"{name} has an unknown label ({label})")
    return rust_codec(form, version)
