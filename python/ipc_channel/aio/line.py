"""What tasks do that use one end: one after the other as they came, each until it has what it wants."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

if TYPE_CHECKING:
    from ipc_channel._core import Receiving, Sending, Waiter

__all__ = ["AT_ONCE", "NOTHING", "Line", "Waitable"]

T = TypeVar("T")

NOTHING: Final[Any] = object()
"""Stands for a message that is not there."""

AT_ONCE: Final = 64
"""Messages that are taken or sent before other tasks run."""


class Waitable(Protocol):
    """Whatever has a descriptor to wait for."""

    def waiter(self) -> "Waiter": ...


class Line(ABC):
    """The tasks of one event loop that wait for one end.

    A try that took or sent a message is not followed by another await, so a cancellation comes either before it or
    not at all.
    """

    __slots__ = ("standing",)

    def __init__(self) -> None:
        self.standing: int = 0
        """Tasks in the line, the one whose turn it is included."""

    @abstractmethod
    def _turn(self) -> AbstractAsyncContextManager[None]:
        """Waits until those who came before are done. A checkpoint."""

    @abstractmethod
    async def checkpoint(self) -> None:
        """Lets other tasks run, and a cancellation come."""

    @abstractmethod
    async def _news(self, receiver: "Receiving") -> None:
        """Wait until another try to receive may succeed."""

    @abstractmethod
    async def _room(self, sender: "Sending") -> None:
        """Wait until another try to send may succeed."""

    async def take(self, receiver: "Receiving", take: Callable[[Any], T]) -> T:
        """Call ``take``, again after each wait, until it returns something else than :data:`NOTHING`. A checkpoint."""
        self.standing += 1
        try:
            async with self._turn():
                while (message := take(NOTHING)) is NOTHING:
                    await self._news(receiver)
                return message
        finally:
            self.standing -= 1

    async def send(self, sender: "Sending", message: Any) -> None:
        """Send a message. A checkpoint."""
        async with self._turn():
            await self._publish(sender, message)

    async def send_many(self, sender: "Sending", messages: Iterable[Any], count: Callable[[], int]) -> None:
        """Send each message. A checkpoint before the first, and after so many. ``count`` is called after each."""
        async with self._turn():
            for message in messages:
                await self._publish(sender, message)
                if count() % AT_ONCE == 0:
                    await self.checkpoint()

    async def _publish(self, sender: "Sending", message: Any) -> None:
        prepared = sender.prepare(message)
        while not sender.try_publish(prepared):
            await self._room(sender)
