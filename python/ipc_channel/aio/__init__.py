"""Waiting in asyncio and trio. Imported only by the async methods.

Every call takes its turn, tries, and waits for the end's descriptor until the try succeeds. A try that took or
sent a message returns without another await, so a cancellation comes either before it or not at all.

Under trio each call is a checkpoint. Under asyncio a call that finds what it wants returns at once, as those of
asyncio's own queues and streams do; but after so many of them in a row the other tasks get their turn.
"""

import contextlib
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final, TypeVar

from ipc_channel.aio.line import Line, line_of
from ipc_channel.errors import Full

if TYPE_CHECKING:
    from ipc_channel._core import Prepared, Waitable
    from ipc_channel.receiver import ReceiverOf
    from ipc_channel.sender import SenderOf

__all__ = ["arecv", "arecv_many", "asend", "asend_many", "repeat"]

T = TypeVar("T")

_NOTHING: Final = object()


async def repeat(action: Callable[[], T | None], waitable: "Waitable") -> T:
    """Take a turn with ``waitable`` and call ``action``, again after each wait, until it returns something."""
    from ipc_channel.aio import turns

    async with turns.turn(waitable):
        while (result := action()) is None:
            await turns.news(waitable)
        return result


async def arecv(receiver: "ReceiverOf[T]") -> T:
    """``recv``. A cancelled call has taken no message."""
    line = line_of(receiver)
    if line is not None and line.may_try():
        message: Any = receiver._try_recv_or(_NOTHING)
        if message is not _NOTHING:
            return message  # type: ignore[no-any-return]

    async with line or turns.turn(receiver):
        ...
