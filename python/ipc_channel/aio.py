"""Waiting in asyncio and trio. Imported only by the async methods.

Every call takes its turn, tries, and waits for the end's descriptor until the try succeeds. A try that took or
sent a message returns without another await, so a cancellation comes either before it or not at all.

Under trio each call is a checkpoint. Under asyncio one that finds what it wants returns at once, as those of
asyncio's own queues and streams do, but after so many of them in a row the loop gets its turn.
"""

import asyncio
import contextlib
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar
from weakref import WeakKeyDictionary

from ipc_channel.errors import Empty

if TYPE_CHECKING:
    import anyio
    from anyio.lowlevel import RunVar

    from ipc_channel._core import Prepared, Receiving, Sending, Waiter

__all__ = ["arecv", "arecv_many", "asend", "asend_many", "repeat"]

T = TypeVar("T")

_AT_ONCE: Final = 64
"""Messages that are taken or sent before other tasks run."""


class Waitable(Protocol):
    """Whatever has a descriptor to wait for."""

    def waiter(self) -> "Waiter": ...


class _Line:
    """The tasks of one asyncio loop that wait for one end, one after the other as they came.

    The loop watches the end's descriptor from the first wait on, until it has news that nobody waits for: so two
    processes that talk to each other do not register it anew for each message. It is a descriptor of its own, so that
    a callback that the user has registered with the loop for ``fileno()`` stays.
    """

    __slots__ = ("_calls", "_future", "_turn", "_waiter", "loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._turn = asyncio.Lock()
        self._calls = 0
        self._waiter: Waiter | None = None
        self._future: asyncio.Future[None] | None = None

    def may_try(self) -> bool:
        """Whether nobody stands in line, and the loop has had its turn lately."""
        self._calls += 1
        return self._calls < _AT_ONCE and not self._turn.locked()

    async def repeat(self, action: Callable[[], T | None], waitable: Waitable) -> T:
        """Take a turn and call ``action``, again after each wait, until it returns something."""
        async with self._turn:
            if self._calls >= _AT_ONCE:
                self._calls = 0
                await asyncio.sleep(0)
            while (result := action()) is None:
                await self._news(waitable)
            return result

    async def _news(self, waitable: Waitable) -> None:
        self._calls = 0
        self._future = future = self.loop.create_future()
        try:
            if self._waiter is None:
                waiter = waitable.waiter()
                try:
                    self.loop.add_reader(waiter, self._wake)
                except BaseException:
                    waiter.close()
                    raise
                self._waiter = waiter
            await future
        finally:
            self._future = None

    def _wake(self) -> None:
        if self._future is not None:
            if not self._future.done():
                self._future.set_result(None)
        elif self._waiter is not None:
            self.loop.remove_reader(self._waiter)
            self._waiter.close()
            self._waiter = None
