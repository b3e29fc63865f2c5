"""Open files inside messages."""

import warnings
from typing import Any, Protocol, Self

from ipc_channel._core import File
from ipc_channel.codecs.kinds import Kind, register
from ipc_channel.codecs.reduction import reduce_handle
from ipc_channel.ownership import Owner

__all__ = ["Fd"]


class _HasFileno(Protocol):
    def fileno(self) -> int: ...


class Fd(File, Owner):
    """An open file that travels inside messages; the receiver gets a duplicate of the descriptor.

    ``Fd(file)`` refers to an open file of the caller's (a descriptor, or anything with ``fileno()``) and never
    closes it: keep it open until the message is sent. A received Fd owns its descriptor: use it by
    ``fileno()``, take it over with ``detach()``, or ``close()`` it.

    Raises ValueError for a negative descriptor.

    >>> import os, ipc_channel as ipc
    >>> reading, writing = os.pipe()
    >>> sender, receiver = ipc.channel()
    >>> with sender, receiver:
    ...     sender.send(ipc.Fd(writing))
    ...     with receiver.recv() as received:
    ...         os.write(received.fileno(), b"hello")
    5
    >>> os.read(reading, 5)
    b'hello'
    >>> os.close(reading); os.close(writing)
    """

    _file: Any

    def __new__(cls, source: "int | _HasFileno | File", /) -> Self:
        descriptor = source if isinstance(source, int | File) else source.fileno()
        if isinstance(descriptor, int) and descriptor < 0:
            raise ValueError(f"{descriptor} is no file descriptor")
        self = super().__new__(cls, descriptor)
        # Kept, so that a file object that nobody else holds is not closed before the message is sent.
        self._file = source if descriptor is not source else None
        return self

    def __del__(self, warn: Any = warnings.warn) -> None:
        if self.owned:
            super().__del__(warn)

    def __repr__(self) -> str:
        if self.closed:
            return "<Fd closed>"
        return f"<Fd {self.fileno()} {'owned' if self.owned else 'borrowed'}>"

    def __reduce_ex__(self, protocol: Any, /) -> Any:
        return reduce_handle(self)


register(Kind(Fd, File))
