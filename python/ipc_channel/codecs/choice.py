"""Which codec an end gets: by the type that was given, or, if it arrived without one, by its label too.

The modules of the codecs are imported here, when the first end needs one: to import msgspec takes longer than to
import all of this package.
"""

from typing import TYPE_CHECKING, Any, Final

from ipc_channel._core import LABEL_BYTES, LABEL_PICKLED, LABEL_TYPED
from ipc_channel.codecs.raw import RAW

if TYPE_CHECKING:
    from ipc_channel._core import Codec

__all__ = ["UNSET", "chosen_codec", "codec_for"]

UNSET: Final[Any] = object()
"""Stands for "no type was given", since None is a type that messages can have."""


def codec_for(form: Any = UNSET) -> "Codec":
    """The codec for messages of type ``form``, or for any picklable object if there is none.

    Raises TypeError if messages of that type cannot be carried safely.
    """
    if form is UNSET:
        from ipc_channel.codecs.pickled import PICKLED

        return PICKLED
    from ipc_channel.codecs.typed import typed_codec

    return typed_codec(form)


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
