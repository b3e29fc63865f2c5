"""Waiting in whatever event loop anyio knows."""

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakKeyDictionary

import anyio
from anyio.lowlevel import RunVar, checkpoint

from ipc_channel.aio.line import Line, Waitable

if TYPE_CHECKING:
    from ipc_channel._core import Receiving, Sending

__all__ = ["AnyioLine", "line_of"]

T = TypeVar("T")


class AnyioLine(Line):
    """Of one loop and one end, set or server."""

    __slots__ = ("__weakref__", "_lock")

    def __init__(self) -> None:
        super().__init__()
        self._lock = anyio.Lock()

    @asynccontextmanager
    async def _turn(self) -> AsyncGenerator[None]:
        async with self._lock:  # taking it is a checkpoint
            yield

    async def checkpoint(self) -> None:
        await checkpoint()

    async def _news(self, receiver: "Receiving") -> None:
        await _wait(receiver)

    async def _room(self, sender: "Sending") -> None:
        await _wait(sender)

    async def repeat(self, action: Callable[[], T | None], waitable: Waitable) -> T:
        """Take a turn and call ``action``, again after each wait, until it returns something."""
        async with self._turn():
            while (result := action()) is None:
                await _wait(waitable)
            return result


async def _wait(waitable: Waitable) -> None:
    # Of its own, so that a callback that the user registered with the loop for `fileno()` stays, and that
    # the descriptor outlives a `close` in another task or thread until this task has left.
    waiter = waitable.waiter()
    try:
        await anyio.wait_readable(waiter)
    finally:
        waiter.close()


_lines: RunVar["WeakKeyDictionary[Any, AnyioLine]"] = RunVar("ipc_channel lines")


def line_of(waitable: Any) -> AnyioLine:
    """The line of ``waitable`` in the calling task's loop: other threads' loops have theirs."""
    lines: WeakKeyDictionary[Any, AnyioLine] | None = _lines.get(None)
    if lines is None:
        lines = WeakKeyDictionary()
        _lines.set(lines)
    line = lines.get(waitable)
    if line is None:
        line = lines[waitable] = AnyioLine()
    return line
