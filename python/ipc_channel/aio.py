"""Waiting in asyncio and trio. Imported only by the async methods, since it imports anyio.

Every call takes its turn, tries, and waits for the end's descriptor until the try succeeds. A try that took or
sent a message returns without another await, so a cancellation comes either before it or not at all.
"""

import contextlib
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Protocol, TypeVar
from weakref import WeakKeyDictionary

import anyio
from anyio.lowlevel import RunVar, checkpoint

from ipc_channel.errors import Empty

if TYPE_CHECKING:
    from ipc_channel._core import Prepared, Receiving, Sending, Waiter

__all__ = ["arecv", "arecv_many", "asend", "asend_many", "repeat"]

T = TypeVar("T")

_CHECKPOINT_EVERY = 64
"""Messages that ``asend_many`` sends before it lets other tasks run."""


class Waitable(Protocol):
    """Whatever has a descriptor to wait for."""

    def waiter(self) -> "Waiter": ...


_turns: RunVar["WeakKeyDictionary[Any, anyio.Lock]"] = RunVar("ipc_channel turns")


def _turn(waitable: Waitable) -> anyio.Lock:
    """The lock under which tasks of this event loop wait for ``waitable``, one after the other as they came.

    Taking it is a checkpoint. It belongs to the loop: other threads' loops have theirs.
    """
    turns: WeakKeyDictionary[Any, anyio.Lock] | None = _turns.get(None)
    if turns is None:
        turns = WeakKeyDictionary()
        _turns.set(turns)
    lock = turns.get(waitable)
    if lock is None:
        lock = turns[waitable] = anyio.Lock()
    return lock


async def _attempt(waitable: Waitable, action: Callable[[], T]) -> T:
    """Call ``action``, again after each wait for ``waitable``, until it raises no :class:`~ipc_channel.Empty`."""
    while True:
        with contextlib.suppress(Empty):
            return action()
        await _news(waitable)


async def repeat(action: Callable[[], T | None], waitable: Waitable) -> T:
    """Take a turn with ``waitable`` and call ``action``, again after each wait, until it returns something."""
    async with _turn(waitable):
        while (result := action()) is None:
            await _news(waitable)
        return result


async def _news(waitable: Waitable) -> None:
    # Of its own, so that a callback that the user registered with the loop for `fileno()` stays, and that
    # the descriptor outlives a `close` in another task or thread until this task has left.
    waiter = waitable.waiter()
    try:
        await anyio.wait_readable(waiter)
    finally:
        waiter.close()


async def arecv(receiver: "Receiving") -> Any:
    """``recv``. A cancelled call has taken no message."""
    async with _turn(receiver):
        return await _attempt(receiver, receiver.try_recv)


async def arecv_many(receiver: "Receiving", max_messages: int | None) -> list[Any]:
    """``recv_many``. A cancelled call has taken no message."""
    async with _turn(receiver):
        return await _attempt(receiver, lambda: receiver.recv_many(max_messages, 0.0))


async def asend(sender: "Sending", message: Any) -> None:
    """``send``. A cancelled call has sent nothing."""
    async with _turn(sender):
        await _publish(sender, sender.prepare(message))


async def asend_many(sender: "Sending", messages: Iterable[Any]) -> None:
    """``send_many``. Whatever exception ends it has the number of messages sent in ``sent``."""
    sent = 0
    try:
        async with _turn(sender):
            for message in messages:
                await _publish(sender, sender.prepare(message))
                sent += 1
                if sent % _CHECKPOINT_EVERY == 0:
                    await checkpoint()
    except BaseException as error:
        # Not every exception has room for it: the iterable may raise one with slots.
        with contextlib.suppress(AttributeError):
            error.sent = sent  # type: ignore[attr-defined]
        raise


async def _publish(sender: "Sending", prepared: "Prepared") -> None:
    while not sender.try_publish(prepared):
        await _news(sender)
