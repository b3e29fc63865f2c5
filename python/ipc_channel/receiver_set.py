"""One wait for many receivers."""

import itertools
import math
import threading
import time
import warnings
from collections import deque
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, cast

from typing_extensions import TypeVar

from ipc_channel import _core
from ipc_channel.errors import ClosedError, ForkError
from ipc_channel.opaque import OpaqueMessage, OpaqueReceiver
from ipc_channel.ownership import Closing
from ipc_channel.receiver import BytesReceiver, Receiver

__all__ = ["AnyReceiver", "Closed", "Event", "Received", "ReceiverSet", "Undecodable"]

K = TypeVar("K", bound=Hashable, default=int)

AnyReceiver: TypeAlias = Receiver[Any] | BytesReceiver | OpaqueReceiver
"""What a set takes in."""


@dataclass(frozen=True, slots=True)
class Received(Generic[K]):
    """A message came on the receiver that was added as ``key``."""

    key: K
    message: Any


@dataclass(frozen=True, slots=True)
class Closed(Generic[K]):
    """The stream of the receiver that was added as ``key`` has ended, and it has left the set."""

    key: K


@dataclass(frozen=True, slots=True)
class Undecodable(Generic[K]):
    """One message of the receiver that was added as ``key`` could not be had; the receiver stays in the set.

    ``error`` is what ``recv`` would have raised: :class:`DecodeError`, :class:`ProtocolError`, or
    :class:`TooManyHandles`, after which the message is still there and is tried again by the next select.
    """

    key: K
    error: Exception


Event: TypeAlias = Received[K] | Closed[K] | Undecodable[K]


class _Core(_core.ReceiverSetCore):
    """In Python, so that it can be referred to weakly."""


class _Member:
    """A receiver in the set: what is needed to decode its messages, and to give it back."""

    __slots__ = ("codec", "key", "kind", "label")

    def __init__(self, key: Any, receiver: AnyReceiver) -> None:
        self.key = key
        self.label = receiver.label
        self.kind = type(receiver)
        self.codec = receiver.codec

    def decode(self, delivery: _core.Delivery) -> Any:
        if self.codec is None:
            return OpaqueMessage(delivery, self.label)
        return _core.decode(self.codec, delivery)

    def restore(self, end: _core.ReceiverEnd) -> AnyReceiver:
        if self.codec is None:
            return OpaqueReceiver(end)
        return cast("type[Receiver[Any]]", self.kind)(end, self.codec)


class ReceiverSet(Closing, Generic[K]):
    """Receivers under keys, and one wait for all of them (upstream: ``IpcReceiverSet``).

    It is fair: one call returns at most one message of each receiver, so a flood on one does not starve the
    others. Threads may share a set; each message goes to one of them. Ctrl-C or cancellation in a select loses
    no message: what had been taken already is returned by the next one.

    >>> import ipc_channel as ipc
    >>> numbers, numbers_receiver = ipc.channel(int)
    >>> lines, lines_receiver = ipc.bytes_channel()
    >>> with ipc.ReceiverSet[str]() as receivers:
    ...     _ = receivers.add(numbers_receiver, "numbers")
    ...     _ = receivers.add(lines_receiver, "lines")
    ...     numbers.send(7)
    ...     print(receivers.select())
    ...     lines.close()
    ...     print(receivers.select())
    ...     numbers.close()
    [Received(key='numbers', message=7)]
    [Closed(key='lines')]
    """

    def __init__(self) -> None:
        # None once closed; whoever still waits in it holds a reference of their own.
        self._core: _Core | None = _Core()
        self._generation = _core.generation()
        self._members: dict[int, _Member] = {}  # by the extension's tokens
        self._tokens: dict[K, int] = {}
        self._counter = itertools.count()
        # Taken from the sockets and not yet decoded: (token, what came). Filled without the lock below.
        self._taken: deque[tuple[int, _core.Delivery | Exception | None]] = deque()
        # Decoded by a select that was interrupted before it could return them.
        self._decoded: list[Event[K]] = []
        # Members that were removed while a select might still hold a message of theirs.
        self._removed: list[int] = []
        self._selecting = 0
        self._decoding = threading.RLock()  # held while messages are decoded; a hook may select on the same set
        self._table = threading.RLock()  # held for the fields above, never while anything of the user's runs

    def add(self, receiver: AnyReceiver, key: K | None = None) -> K:
        """Move a receiver in; a select that is running in another thread waits for it too from now on.

        Args:
            receiver: A ``Receiver``, ``BytesReceiver`` or ``OpaqueReceiver``. It is closed here afterwards;
                :meth:`remove` gives it back. Messages of an opaque one come as :class:`OpaqueMessage`.
            key: What its events are to be called. By default an int that this set has not given out before.

        Returns:
            The key.

        Raises:
            KeyError: The key is in use. The receiver is untouched, as it is after every other error.
            ClosedError: The receiver or the set is closed.
            ForkError: The set belongs to the process that forked this one.
        """
        if not isinstance(cast("object", receiver), _core.ReceiverEnd):
            raise TypeError(f"a ReceiverSet holds receivers, not {type(receiver).__name__}")
        core = self._usable()
        with self._table:
            if key is None:
                key = self._free_key()
            elif key in self._tokens:
                raise KeyError(key)
            # One call into C, so that Ctrl-C cannot leave a receiver in the set that has no entry here.
            self._members.update(zip(map(core.add, (receiver,)), (_Member(key, receiver),), strict=True))
            self._tokens[key] = next(reversed(self._members))
        return key

    def remove(self, key: K) -> Any:
        """Take a receiver out, of the kind that was added, with the messages that no select has taken.

        Only when a select was interrupted by Ctrl-C may one message of this receiver have been taken and not
        returned; the next select still returns it, under this key.

        Raises:
            KeyError: No such key, or its stream has ended.
            ClosedError: The set is closed.
            ForkError: The set belongs to the process that forked this one.
        """
        core = self._usable()
        with self._table:
            token = self._tokens[key]
            try:
                end = core.remove(token)
            except KeyError:
                # Its end was taken by a select that has not returned yet: Closed is still to come.
                raise KeyError(key) from None
            receiver = self._members[token].restore(end)
            del self._tokens[key]
            self._removed.append(token)
            self._forget_removed()
            emptied = not self._tokens
        if emptied:
            core.wake()  # a select that now waits for nothing has to notice
        return receiver

    def select(self, timeout: float | None = None) -> list[Event[K]]:
        """Wait for messages and ends of streams.

        Args:
            timeout: Seconds; None and ``math.inf`` wait as long as it takes, 0 does not wait.

        Returns:
            At least one event; none at the timeout. At most one message of each receiver.

        Raises:
            ValueError: The set is empty, so nothing could ever come, or the timeout is negative or NaN.
            ClosedError: The set is closed, or was closed meanwhile by another thread.
            ForkError: The set belongs to the process that forked this one.
        """
        deadline = _deadline(timeout)
        while True:
            core = self._usable()
            if events := self._decode_taken():
                return events
            if not self._tokens:
                raise ValueError("nothing can be selected from an empty ReceiverSet: add a receiver first")
            remaining = None if deadline is None else max(deadline - time.monotonic(), 0.0)
            self._take(core, remaining)
            if events := self._decode_taken():
                return events
            if remaining == 0.0:
                return []

    def try_select(self) -> list[Event[K]]:
        """What is there now, without waiting: like ``select(0)``, and empty for an empty set."""
        if not self._tokens and not self._taken and not self._decoded:
            self._usable()
            return []
        return self.select(0)

    async def aselect(self) -> list[Event[K]]:
        """:meth:`select` for asyncio and trio. Cancelled, it has taken nothing. For a timeout use
        ``asyncio.timeout`` or ``anyio.move_on_after``.

        Raises:
            ValueError: The set is empty.
            ClosedError: The set is closed, or was closed meanwhile.
            ForkError: The set belongs to the process that forked this one.
        """
        from ipc_channel import aio

        return await aio.repeat(self._select_now, self._usable())

    def fileno(self) -> int:
        """A descriptor that is readable when :meth:`try_select` has something to return. ClosedError, ForkError."""
        return self._usable().fileno()

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return self._core is None

    def close(self) -> None:
        """Close every receiver in the set, and wake whoever waits in it with ClosedError. Again is fine."""
        core, self._core = self._core, None
        if core is not None:
            core.close()
        self._tokens = {}
        self._members = {}
        # Replaced, not cleared: another thread may be in the middle of them, and returns what it has. Nothing is
        # locked: in a forked child another thread of the parent may have held the locks.
        self._taken = deque()
        self._decoded = []

    def __len__(self) -> int:
        return len(self._tokens)

    def __iter__(self) -> Iterator[K]:
        """The keys, in the order in which they were added."""
        return iter(list(self._tokens))

    def __contains__(self, key: object) -> bool:
        return key in self._tokens

    def __repr__(self) -> str:
        if self.closed:
            return "<ReceiverSet closed>"
        if self._generation != _core.generation():
            return "<ReceiverSet of the process that forked this one>"
        return f"<ReceiverSet of {len(self._tokens)} receivers>"

    # The default argument keeps the function while the interpreter shuts down and clears its modules.
    def __del__(self, warn: Any = warnings.warn, generation: Any = _core.generation) -> None:
        if getattr(self, "_core", None) is None:  # also when the constructor failed
            return
        if self._generation == generation():  # the parent's is the parent's to close
            warn(f"unclosed {self!r}", ResourceWarning, stacklevel=2, source=self)
        self.close()

    def _usable(self) -> _Core:
        if self._generation != _core.generation():
            raise ForkError("this ReceiverSet belongs to the process that forked this one: make a new ReceiverSet here")
        if self._core is None:
            raise ClosedError("this ReceiverSet is closed")
        return self._core

    def _inherited(self) -> "list[_core.ReceiverSetCore]":
        """For ``close_inherited``: what it would close."""
        return [] if self._core is None else [self._core]

    def _wake(self) -> None:
        """For a router: make ``_wait`` return."""
        core = self._core
        if core is not None:
            core.wake()

    def _free_key(self) -> K:
        while True:
            key = cast("K", next(self._counter))
            if key not in self._tokens:
                return key

    def _wait(self) -> list[Event[K]]:
        """``select`` for a router: an empty set waits too, and ``_wake`` ends the wait with no event."""
        events = self._decode_taken()
        if not events:
            self._take(self._usable(), None)
            events = self._decode_taken()
        return events

    def _select_now(self) -> list[Event[K]] | None:
        """For ``aselect``: None when there is nothing yet."""
        return self.select(0) or None

    def _take(self, core: _Core, timeout: float | None) -> None:
        """Wait, and move what came from the sockets into ``_taken``; nothing when woken or at the timeout."""
        with self._table:
            self._selecting += 1
        try:
            # One call into C for all of it: were the list handed to Python code first, Ctrl-C could strike
            # before it is stored, and the messages in it would be lost.
            self._taken.extend(itertools.chain.from_iterable(map(core.select, (timeout,))))
        finally:
            with self._table:
                self._selecting -= 1

    def _decode_taken(self) -> list[Event[K]]:
        """Decode what was taken. Interrupted, it keeps what it has for the next call."""
        if not self._taken and not self._decoded:
            return []
        events: list[Event[K]] = []
        try:
            with self._decoding:
                events, self._decoded = self._decoded, events
                taken = self._taken
                while taken:
                    event = self._decode(*taken[0])
                    # From here to the deletion no instruction looks for signals, so a message can be neither
                    # lost nor returned twice.
                    events += (event,)
                    del taken[0]
                with self._table:
                    self._forget_removed()
                    if not self._tokens and self._selecting:
                        self._wake()  # another thread waits for nothing, and has to notice
        except BaseException:
            self._decoded[:0] = events
            self._wake()  # fileno() is readable while something is kept here
            raise
        return events

    def _decode(self, token: int, came: "_core.Delivery | Exception | None") -> Event[K]:
        with self._table:  # waits for an ``add`` that has its token and is about to enter it
            member = self._members.get(token)
        if member is None:
            raise ClosedError("this ReceiverSet was closed by another thread")
        if came is None:
            with self._table:
                if self._tokens.get(member.key) == token:
                    del self._tokens[member.key]
                self._removed.append(token)
            return Closed(member.key)
        if isinstance(came, Exception):
            return Undecodable(member.key, came)
        try:
            return Received(member.key, member.decode(came))
        except Exception as error:  # noqa: BLE001  a lack of memory too is this message's alone
            return Undecodable(member.key, error)

    def _forget_removed(self) -> None:
        """Drop members of which no select can hold a message any more. Called with ``_table`` held."""
        if self._removed and not self._selecting and not self._taken:
            for token in self._removed:
                self._members.pop(token, None)
            self._removed.clear()


def _deadline(timeout: float | None) -> float | None:
    """The monotonic time of a timeout in seconds; None for never."""
    if timeout is None or timeout == math.inf:
        return None
    if not timeout >= 0:  # NaN included
        raise ValueError(f"a timeout is a number of seconds that is not negative, or None; not {timeout}")
    return time.monotonic() + timeout
