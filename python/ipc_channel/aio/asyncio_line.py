"""Waiting in asyncio by its own locks and callbacks, which cost a fraction of what works with every loop."""

import asyncio
import threading
import time
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

from ipc_channel.aio.line import AT_ONCE, Line

if TYPE_CHECKING:
    from ipc_channel._core import Receiving, Sending, Waiter

__all__ = ["AsyncioLine", "line_of"]

_FIRST_PATIENCE: Final = 100e-6
_MOST_PATIENCE: Final = 500e-6
_SHORT: Final = 1e-3
"""Seconds: after so short a sleep, most of which is the time to fall asleep and to wake, it is worth while to let the
loop turn for a moment before the next one."""
_TRIES: Final = 24
_PAUSE: Final = 96
"""After so many moments in vain there are none before so many sleeps."""


class AsyncioLine(Line):
    """Of one loop and one end.

    The loop watches a receiver's descriptor from the first wait on, until it has news that nobody waits for: so two
    processes that talk to each other do not register it anew for each message. It is a descriptor of its own, so that
    a callback that the user has registered with the loop for ``fileno()`` stays.
    """

    __slots__ = ("_future", "_patience", "_told", "_vain", "_waiter", "hurried", "lock", "loop")

    most_hurried: Final = 4 * AT_ONCE
    """Messages that a loop takes before other tasks run: some tens of microseconds' worth, as much as a turn of
    asyncio's loop takes itself."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self.loop: asyncio.AbstractEventLoop = loop
        self.lock: asyncio.Lock = asyncio.Lock()
        self.hurried: int = self.most_hurried
        """Messages that a loop has taken since other tasks ran."""
        self._patience = _FIRST_PATIENCE
        """Seconds for which the loop turns before the next sleep, if it has nothing else to do."""
        self._vain = 0
        """How often that was in vain, since it was not."""
        self._waiter: Waiter | None = None
        self._future: asyncio.Future[None] | None = None
        self._told = False
        """A task was told of news, and may not have looked yet."""

    def _turn(self) -> "_Turn":
        return _Turn(self)

    async def checkpoint(self) -> None:
        self.hurried = 0
        await asyncio.sleep(0)

    async def _news(self, receiver: "Receiving") -> None:
        self.hurried = 0
        began = time.monotonic()
        if receiver.has_news() is not None:
            if self._vain < _TRIES:
                until = began + self._patience
                while began < until:
                    if receiver.has_news():
                        self._vain = 0
                        return
                    await asyncio.sleep(0)
                    began = time.monotonic()
            self._vain = (self._vain + 1) % _PAUSE
        await self._sleep(receiver)
        slept = time.monotonic() - began
        # Longer than the other side needs to wake up; else both would give up just before the other comes.
        self._patience = min(2 * slept, _MOST_PATIENCE) if slept < _SHORT else self._patience / 2

    async def _sleep(self, receiver: "Receiving") -> None:
        waiter = self._waiter
        if waiter is None:
            waiter = self._waiter = receiver.waiter()
            try:
                self.loop.add_reader(waiter, self._wake)
            except BaseException:
                self._let_go()
                raise
        else:
            receiver.attend(waiter)
        self._future = future = self.loop.create_future()
        try:
            await future
        finally:
            self._future = None
            receiver.neglect(waiter)

    def _wake(self) -> None:
        """The descriptor is readable."""
        if self._future is not None:
            _set(self._future)
            self._told = True
        elif self._told:
            # The loop has looked once more before the task that was told could take the message.
            self._told = False
        elif self._waiter is not None:
            self.loop.remove_reader(self._waiter)
            self._let_go()

    def _let_go(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            waiter.close()

    async def _room(self, sender: "Sending") -> None:
        self.hurried = 0
        # Anew for each wait, since what is to be waited for changes.
        future = self.loop.create_future()
        waiter = sender.waiter()
        try:
            self.loop.add_reader(waiter, _set, future)
            try:
                await future
            finally:
                self.loop.remove_reader(waiter)
        finally:
            waiter.close()


class _Turn:
    """Of one task in a line. A context manager written out, since a generator's costs more than the rest of a call."""

    __slots__ = ("_line",)

    def __init__(self, line: AsyncioLine) -> None:
        self._line = line

    async def __aenter__(self) -> None:
        await self._line.lock.acquire()
        try:
            await self._line.checkpoint()
        except BaseException:
            self._line.lock.release()
            raise

    async def __aexit__(self, *_: object) -> None:
        self._line.lock.release()


def _set(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)


def _task_loop() -> asyncio.AbstractEventLoop | None:
    """The loop whose task calls; None if asyncio is not at work here."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return None
    # Trio can run as asyncio's guest, in callbacks of its loop.
    return None if asyncio.current_task(loop) is None else loop


_lines: Final[WeakKeyDictionary[Any, WeakKeyDictionary[asyncio.AbstractEventLoop, AsyncioLine]]] = WeakKeyDictionary()
"""By end and by loop: threads may use one end, each with a loop of its own."""

_making: Final = threading.Lock()


def line_of(end: Any) -> AsyncioLine | None:
    """The line of an end in the loop of the calling task, which ``end.line`` is from now on; None if that is no task
    of asyncio's."""
    loop = _task_loop()
    line: AsyncioLine | None = end.line
    if line is not None and line.loop is loop:
        return line
    if loop is None:
        end.line = None
        return None
    with _making:
        lines = _lines.setdefault(end, WeakKeyDictionary())
        line = lines.get(loop)
        if line is None:
            line = lines[loop] = AsyncioLine(loop)
    end.line = line
    return line
