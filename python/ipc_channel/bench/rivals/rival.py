"""The interface behind which every library sends and receives."""

from collections.abc import Callable, Iterable, Iterator
from enum import Enum
from itertools import repeat, starmap
from typing import Any, Protocol

__all__ = ["Kind", "Link", "NotCarried", "ReceivePort", "Rival", "SendPort", "one_by_one"]


class Kind(Enum):
    """What kind of messages a link carries. Each rival does it in its own best way."""

    BYTES = "bytes"
    """Raw bytes."""
    STRUCT = "struct"
    """:class:`~ipc_channel.bench.messages.Item`; libraries that know only bytes get it as MessagePack of msgspec."""
    OBJECT = "object"
    """Any picklable object."""


class NotCarried(Exception):
    """This rival has no links of this kind."""


class SendPort(Protocol):
    """The sending side of a link. Goes to another process as an argument of it, as long as it has not been opened."""

    def open(self) -> Callable[[Any], object]:
        """Make it ready, in the process that sends; the library's own function that sends one message."""
        ...

    def open_batch(self) -> Callable[[Iterable[Any]], object]:
        """Instead of ``open``: the library's own function that sends many messages. May raise NotCarried."""
        ...

    def close(self) -> None:
        """Let go of it in this process, opened or not, sent away or not."""
        ...


class ReceivePort(Protocol):
    """The receiving side of a link."""

    def open(self) -> Callable[[], Any]:
        """Make it ready, in the process that receives; the library's own function that receives one message."""
        ...

    def messages(self, count: int) -> Iterator[Any]:
        """The next messages, in the library's own best way of a loop; once opened."""
        ...

    def batches(self, count: int) -> Iterator[list[Any]]:
        """The same in lists, in the library's own way of receiving many at once. May raise NotCarried."""
        ...

    def close(self) -> None:
        """Let go of it in this process, opened or not, sent away or not."""
        ...


Link = tuple[SendPort, ReceivePort]
"""One direction."""


class Rival(Protocol):
    """A library, or this package."""

    @property
    def key(self) -> str:
        """For the command line and the JSON."""
        ...

    @property
    def title(self) -> str:
        """The name of the library."""
        ...

    @property
    def column(self) -> str:
        """A short name, for a column."""
        ...

    def missing(self) -> str | None:
        """Why it cannot be measured here, or None."""
        ...

    def version(self) -> str:
        """What is measured exactly; once it is not missing."""
        ...

    def link(self, kind: Kind, largest: int) -> Link:
        """A new link for messages of at most about ``largest`` bytes. May raise NotCarried."""
        ...


def one_by_one(receive: Callable[[], Any], count: int) -> Iterator[Any]:
    """The fastest loop over a function that there is: without a line of Python for each call."""
    return starmap(receive, repeat((), count))
