"""What senders and receivers have in common."""

import functools
import importlib
import types
from typing import TYPE_CHECKING, Any

from ipc_channel._core import LABEL_BYTES, LABEL_PICKLED
from ipc_channel.codecs.kinds import LABEL_NAMES, describe
from ipc_channel.codecs.reduction import reduce_handle
from ipc_channel.ownership import Owner

if TYPE_CHECKING:
    from ipc_channel._core import Codec

__all__ = ["End", "aio"]

_STATES = {
    "sent": "moved by a send",
    "converted": "converted to another end",
    "added": "moved into a receiver set",
    "started": "moved to another process",
}


@functools.cache
def aio() -> types.ModuleType:
    """:mod:`ipc_channel.aio`, imported when it is needed: it takes as long as all of this package."""
    return importlib.import_module("ipc_channel.aio")


class End(Owner):
    """An end of a channel: what it shows of itself, and how it gets into a pickled message."""

    __slots__ = ()

    if TYPE_CHECKING:

        @property
        def codec(self) -> Codec | None: ...
        @property
        def label(self) -> int: ...
        @property
        def state(self) -> str: ...
        @property
        def peer_pid(self) -> int | None: ...

    def __repr__(self) -> str:
        name = type(self).__name__
        codec = self.codec
        if codec is None:
            name += f" for {LABEL_NAMES.get(self.label, 'unknown messages')}"
        elif codec.label == LABEL_PICKLED:
            name += "[Any]"
        elif codec.label != LABEL_BYTES:  # typed, for Python or for Rust
            form: Any = getattr(codec, "form")  # noqa: B009
            name += f"[{describe(form)}]"
        peer = self.peer_pid
        return f"<{name} {_STATES.get(self.state, self.state)}{'' if peer is None else f', peer process {peer}'}>"

    def __reduce_ex__(self, protocol: Any, /) -> Any:
        return reduce_handle(self)  # type: ignore[arg-type]
