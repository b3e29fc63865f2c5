"""The classes that travel inside messages as handles.

Codecs know them only through this table, which each of those modules fills for its own classes; so codecs
lie below the ends that use them.
"""

import re
from typing import TYPE_CHECKING, Any, NamedTuple, get_origin

from ipc_channel._core import (
    LABEL_BYTES,
    LABEL_PICKLED,
    LABEL_RUST,
    LABEL_RUST_0_20,
    LABEL_RUST_0_21,
    LABEL_TYPED,
)

if TYPE_CHECKING:
    from ipc_channel._core import Handle

LABEL_NAMES = {
    LABEL_BYTES: "raw bytes",
    LABEL_TYPED: "typed messages",
    LABEL_PICKLED: "pickled messages",
    LABEL_RUST: "messages of the Rust crate",
    LABEL_RUST_0_21: "messages of the Rust crate 0.21",
    LABEL_RUST_0_20: "messages of the Rust crate 0.20",
}
"""How error messages call the codec behind a label."""


class Kind(NamedTuple):
    """One class of handles."""

    cls: type[Any]
    """The public class; built as ``cls(handle)`` or, for generic ends, ``cls(handle, codec)``."""
    made_from: type[Any]
    """The extension module's class of what comes out of a delivery."""
    codec: Any = None
    """The codec of every end of this class, if it is always the same."""
    generic: bool = False
    """Whether the class is an end whose codec follows from its parameter, as in ``Sender[int]``."""

    def check(self, handle: "Handle") -> None:
        """TypeError if this is not what the class is made from."""
        if not isinstance(handle, self.made_from):
            raise TypeError(f"expected the handle of a {self.cls.__name__}, got {type(handle).__name__}")
        if self.codec is not None:
            label: int = getattr(handle, "label")  # noqa: B009  the handle is an end, or it would have no codec
            if label != self.codec.label:
                raise TypeError(
                    f"expected a {self.cls.__name__}, got an end for {LABEL_NAMES.get(label, 'unknown messages')}"
                )


_kinds: dict[type[Any], Kind] = {}


def register(kind: Kind) -> None:
    """Let messages carry a class of handles."""
    _kinds[kind.cls] = kind


def kind_of(form: Any) -> Kind | None:
    """The kind that a class or its parametrized form stands for, or None."""
    origin = form if isinstance(form, type) else get_origin(form)
    return _kinds.get(origin) if isinstance(origin, type) else None


def describe(form: Any) -> str:
    """A type as users write it, for ``repr`` and error messages."""
    if form is None or form is type(None):
        return "None"
    if isinstance(form, type) and get_origin(form) is None:
        return form.__qualname__
    return re.sub(r"\b(?:typing|ipc_channel\.\w+)\.", "", repr(form))
