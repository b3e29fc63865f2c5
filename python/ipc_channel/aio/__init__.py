"""Channels in asyncio and trio. Imported only by the async methods.

Every call takes its turn, tries, and waits for the end's descriptor until the try succeeds. Each is a checkpoint:
other tasks run, and a cancellation comes before anything is done. Under asyncio there is one exception: in a loop over
a receiver other tasks run before the first message, whenever it waits, and after so many messages, since a turn of
asyncio's loop costs several times as much as a message.
"""

import contextlib
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

from ipc_channel.aio import asyncio_line
from ipc_channel.aio.line import Line, Waitable
from ipc_channel.errors import Empty

if TYPE_CHECKING:
    from ipc_channel._core import Receiving, Sending

__all__ = ["arecv", "arecv_many", "asend", "asend_many", "begin", "repeat"]

T = TypeVar("T")


def _line_of(end: Any) -> Line:
    line = asyncio_line.line_of(end)
    if line is not None:
        return line
    from ipc_channel.aio import anyio_line

    return anyio_line.line_of(end)


async def repeat(action: Callable[[], T | None], waitable: Waitable) -> T:
    """Take a turn with ``waitable`` and call ``action``, again after each wait, until it returns something."""
    from ipc_channel.aio import anyio_line

    return await anyio_line.line_of(waitable).repeat(action, waitable)


async def arecv(receiver: "Receiving") -> Any:
    """``recv``. A cancelled call has taken no message."""
    return await _line_of(receiver).take(receiver, receiver.recv_or)


async def arecv_many(receiver: "Receiving", max_messages: int | None) -> list[Any]:
    """``recv_many``. A cancelled call has taken no message."""

    def take(otherwise: Any) -> Any:
        try:
            return receiver.recv_many(max_messages, 0.0)
        except Empty:
            return otherwise

    messages: list[Any] = await _line_of(receiver).take(receiver, take)
    return messages


def begin(receiver: "Receiving") -> None:
    """A loop over ``receiver`` begins: there is a checkpoint before its first message."""
    line = asyncio_line.line_of(receiver)
    if line is not None:
        line.hurried = line.most_hurried


async def asend(sender: "Sending", message: Any) -> None:
    """``send``. A cancelled call has sent nothing."""
    await _line_of(sender).send(sender, message)


async def asend_many(sender: "Sending", messages: Iterable[Any]) -> None:
    """``send_many``. Whatever exception ends it has the number of messages sent in ``sent``."""
    sent = 0

    def count() -> int:
        nonlocal sent
        sent += 1
        return sent

    try:
        await _line_of(sender).send_many(sender, messages, count)
    except BaseException as error:
        # Not every exception has room for it: the iterable may raise one with slots.
        with contextlib.suppress(AttributeError):
            error.sent = sent  # type: ignore[attr-defined]
        raise
