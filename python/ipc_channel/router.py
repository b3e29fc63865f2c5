"""A thread that waits on many receivers and calls back."""

import enum
import logging
import os
import queue
import threading
import time
import weakref
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, Literal, Never, Self, TypeVar, cast, overload

from ipc_channel.errors import ClosedError, TooManyHandles
from ipc_channel.opaque import OpaqueMessage, OpaqueReceiver
from ipc_channel.receiver import BytesReceiver, Receiver
from ipc_channel.receiver_set import AnyReceiver, Closed, Event, Received, ReceiverSet, Undecodable

__all__ = ["END", "End", "Router", "default_router"]

T = TypeVar("T")

logger: logging.Logger = logging.getLogger("ipc_channel.router")


class End(enum.Enum):
    """The type of :data:`END`."""

    END = "END"

    def __repr__(self) -> str:
        return "ipc_channel.END"


END: Final[Literal[End.END]] = End.END
"""The last item in a queue of :meth:`Router.route_to_queue`: no message follows."""


class _Route:
    """A receiver's callbacks. It is its own key in the router's set, so it is dropped when its stream ends."""

    __slots__ = ("callback", "finish", "on_close", "once", "starved")

    def __init__(
        self,
        callback: Callable[[Any], object] | None,
        on_close: Callable[[], object] | None = None,
        finish: Callable[[], object] | None = None,
        once: bool = False,
    ) -> None:
        self.callback = callback
        self.on_close = on_close  # at the end of the stream
        self.finish = finish  # at the end of the stream and at shutdown
        self.once = once
        self.starved = False  # whether it waits for descriptors, which was reported


STARVED_PAUSE: Final = 0.05
"""Seconds until a message that met the limit on open files is tried again."""


class Router:
    """A thread that owns a :class:`ReceiverSet` and calls back for each message (upstream: ``RouterProxy``).

    The thread starts with the first route. It is a daemon: it never keeps the interpreter from exiting. All
    callbacks run in it, one at a time, so a slow one delays the others, but never an ``add_route``. What a
    callback raises, and a message that cannot be decoded, is given to ``on_error``, or else to the log
    (``ipc_channel.router``), and the thread goes on. In a child made by fork the router starts anew, without routes.

    >>> import ipc_channel as ipc
    >>> sender, receiver = ipc.channel(int)
    >>> with ipc.Router() as router:
    ...     numbers = router.route_to_new_queue(receiver)
    ...     sender.send(7)
    ...     sender.close()
    ...     print([numbers.get(), numbers.get()])
    [7, ipc_channel.END]
    """

    def __init__(self, *, on_error: Callable[[BaseException], object] | None = None) -> None:
        """
        Args:
            on_error: Called in the router's thread with what a callback raised, or with the
                :class:`DecodeError`, :class:`ProtocolError` or :class:`TooManyHandles` of one message.
        """
        self._on_error = on_error
        self._shut = False
        self._begin()
        _routers.add(self)

    def _begin(self) -> None:
        """The state of a router without routes: when it is made, and in a forked child."""
        self._lock = threading.RLock()  # for a short moment only; never held while a callback runs
        # Both are made by the first route: a router without routes holds nothing and need not be shut down.
        self._set: ReceiverSet[_Route] | None = None
        self._thread: threading.Thread | None = None
        # Held by the thread, which says at last that it is over. No Event: what a signal's handler raises in the middle
        # of one leaves it locked for ever. This lock may stay locked, too, but nobody waits for it then.
        self._running = threading.Lock()
        self._over = False

    @overload
    def add_route(
        self, receiver: Receiver[T], callback: Callable[[T], object], on_close: Callable[[], object] | None = None
    ) -> None: ...
    @overload
    def add_route(
        self, receiver: BytesReceiver, callback: Callable[[bytes], object], on_close: Callable[[], object] | None = None
    ) -> None: ...
    @overload
    def add_route(
        self,
        receiver: OpaqueReceiver,
        callback: Callable[[OpaqueMessage], object],
        on_close: Callable[[], object] | None = None,
    ) -> None: ...
    def add_route(
        self,
        receiver: AnyReceiver,
        callback: Callable[[Any], object],
        on_close: Callable[[], object] | None = None,
    ) -> None:
        """Call ``callback(message)`` for each message (upstream: ``add_typed_route``).

        It returns at once, whatever the router is doing, and may be called by a callback.

        Args:
            receiver: Moves into the router: it is closed here afterwards.
            callback: Called in the router's thread. Dropped when the stream ends.
            on_close: Called once, without arguments, when the stream has ended; not at :meth:`shutdown`.

        Raises:
            ClosedError: The router was shut down, or the receiver is closed. The receiver is untouched.
        """
        self._add(receiver, _Route(callback, on_close))

    @overload
    def add_one_shot_route(
        self, receiver: Receiver[T], callback: Callable[[T], object], on_close: Callable[[], object] | None = None
    ) -> None: ...
    @overload
    def add_one_shot_route(
        self, receiver: BytesReceiver, callback: Callable[[bytes], object], on_close: Callable[[], object] | None = None
    ) -> None: ...
    @overload
    def add_one_shot_route(
        self,
        receiver: OpaqueReceiver,
        callback: Callable[[OpaqueMessage], object],
        on_close: Callable[[], object] | None = None,
    ) -> None: ...
    def add_one_shot_route(
        self,
        receiver: AnyReceiver,
        callback: Callable[[Any], object],
        on_close: Callable[[], object] | None = None,
    ) -> None:
        """Call ``callback(message)`` for the first message alone (upstream: ``add_typed_one_shot_route``).

        The callback is dropped after it. Later messages are received and thrown away, so they do not hurt their sender.

        Args:
            receiver: Moves into the router: it is closed here afterwards.
            callback: Called in the router's thread, at most once.
            on_close: Called once, without arguments, if the stream ends before the first message.

        Raises:
            ClosedError: The router was shut down, or the receiver is closed. The receiver is untouched.
        """
        self._add(receiver, _Route(callback, on_close, once=True))

    @overload
    def route_to_queue(
        self, receiver: Receiver[T], queue: "queue.Queue[T | End] | queue.SimpleQueue[T | End]"
    ) -> None: ...
    @overload
    def route_to_queue(
        self, receiver: BytesReceiver, queue: "queue.Queue[bytes | End] | queue.SimpleQueue[bytes | End]"
    ) -> None: ...
    @overload
    def route_to_queue(
        self,
        receiver: OpaqueReceiver,
        queue: "queue.Queue[OpaqueMessage | End] | queue.SimpleQueue[OpaqueMessage | End]",
    ) -> None: ...
    def route_to_queue(self, receiver: AnyReceiver, queue: "queue.Queue[Any] | queue.SimpleQueue[Any]") -> None:
        """Put each message into a queue of this process, and :data:`END` last.

        ``END`` comes after the last message of the stream, and when the router is shut down.

        Args:
            receiver: Moves into the router: it is closed here afterwards.
            queue: A ``queue.Queue`` without ``maxsize``, or a ``queue.SimpleQueue``. (To wait for room in a
                bounded one, and let the router's other routes wait too: ``add_route(receiver, queue.put)``.)

        Raises:
            ValueError: The queue is bounded.
            ClosedError: The router was shut down, or the receiver is closed. The receiver is untouched.
        """
        if getattr(queue, "maxsize", 0) > 0:
            raise ValueError(
                "a full queue would stop all routes of the router: use one without maxsize, "
                "or add_route(receiver, queue.put) if they may wait"
            )
        self._add(receiver, _Route(queue.put, finish=lambda: queue.put(END)))

    @overload
    def route_to_new_queue(self, receiver: Receiver[T]) -> "queue.SimpleQueue[T | End]": ...
    @overload
    def route_to_new_queue(self, receiver: BytesReceiver) -> "queue.SimpleQueue[bytes | End]": ...
    @overload
    def route_to_new_queue(self, receiver: OpaqueReceiver) -> "queue.SimpleQueue[OpaqueMessage | End]": ...
    def route_to_new_queue(self, receiver: AnyReceiver) -> "queue.SimpleQueue[Any]":
        """:meth:`route_to_queue` with a new queue, which is returned
        (upstream: ``route_ipc_receiver_to_new_crossbeam_receiver``).
        """
        fresh: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.route_to_queue(cast("Receiver[Any]", receiver), fresh)
        return fresh

    def shutdown(self) -> None:
        """Stop the thread, close all receivers and drop all callbacks. Later routes raise ClosedError.
        Messages that no callback has been given are dropped with their receivers.

        It waits for a running callback, unless that callback is the caller. Again is fine.
        """
        with self._lock:
            self._shut = True
            self._wake()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            # Not `join` alone: one that Ctrl-C interrupts may take the thread for ended from then on (CPython 3.11).
            while not self._over:
                if self._running.acquire(timeout=1):
                    self._running.release()
            thread.join()

    @property
    def closed(self) -> bool:
        """Whether :meth:`shutdown` was called."""
        return self._shut

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.shutdown()

    def __repr__(self) -> str:
        if self._shut:
            return "<Router shut down>"
        receivers = self._set
        return f"<Router of {0 if receivers is None else len(receivers)} routes>"

    def _add(self, receiver: AnyReceiver, route: _Route) -> None:
        with self._lock:
            if self._shut:
                raise ClosedError("this Router was shut down; make a new one")
            if self._set is None:
                self._start()
            assert self._set is not None
            self._set.add(receiver, route)

    def _start(self) -> None:
        self._set = ReceiverSet()
        thread = threading.Thread(
            target=self._run, args=(self._set, self._running), name="ipc_channel router", daemon=True
        )
        try:
            self._running.acquire()
            thread.start()
        except BaseException:  # no more threads can be had
            self._set.close()
            self._set = None
            self._running = threading.Lock()
            raise
        self._thread = thread

    def _wake(self) -> None:
        if self._set is not None:
            self._set._wake()

    def _run(self, receivers: ReceiverSet[_Route], running: threading.Lock) -> None:
        try:
            # Another set: a callback forked, this is the child, and the router has started anew.
            while not self._shut and receivers is self._set:
                self._turn(receivers)
        finally:
            try:
                if receivers is self._set:
                    self._end(receivers)
            finally:
                if receivers is self._set:
                    self._over = True
                running.release()

    def _turn(self, receivers: ReceiverSet[_Route]) -> None:
        """One wait and the callbacks of what it gave. No reference to a callback survives it."""
        events = receivers._wait()
        starved = False
        for event in events:
            if self._shut:
                return
            starved |= self._dispatch(receivers, event)
        if starved:
            time.sleep(STARVED_PAUSE)

    def _dispatch(self, receivers: ReceiverSet[_Route], event: Event[_Route]) -> bool:
        """Do what an event asks for; whether its message waits for descriptors."""
        route = event.key
        match event:
            case Received(message=message):
                route.starved = False
                self._guard(self._deliver, receivers, route, message)
            case Closed():
                for callback in (route.on_close, route.finish):
                    if callback is not None:
                        self._guard(callback)
            case Undecodable(error=TooManyHandles() as error):
                if not route.starved:
                    route.starved = True
                    self._report(error)
                return True
            case Undecodable(error=error):
                self._report(error)
        return False

    def _deliver(self, receivers: ReceiverSet[_Route], route: _Route, message: Any) -> None:
        callback = route.callback
        if callback is None:
            message.close()  # of a one-shot route that has been called
            return
        if route.once:
            route.callback = route.on_close = None
            # Opaque from now on: what comes is not even decoded.
            receiver = receivers.remove(route)
            receivers.add(receiver if isinstance(receiver, OpaqueReceiver) else receiver.to_opaque(), route)
        callback(message)

    def _guard(self, callback: Callable[..., object], *arguments: Any) -> None:
        try:
            callback(*arguments)
        except BaseException as error:  # noqa: BLE001  SystemExit too: one route's failure is not the others'
            self._report(error)

    def _report(self, error: BaseException) -> None:
        if self._on_error is not None:
            try:
                self._on_error(error)
            except BaseException:
                logger.exception("the on_error of a Router raised")
            return
        logger.error("a route of a Router failed: %s", error, exc_info=error)

    def _end(self, receivers: ReceiverSet[_Route]) -> None:
        """What the thread does last: close the receivers, drop the callbacks, and say so to the queues."""
        with self._lock:
            self._shut = True  # also when the wait itself failed
            routes = list(receivers)
            receivers.close()
        for route in routes:
            if route.finish is not None:
                self._guard(route.finish)

    def _inherited(self) -> list[Never]:
        """For ``close_inherited``: what it would close. A router starts anew in the child by itself."""
        return []

    def _begin_in_child(self) -> None:
        inherited = self._set
        self._begin()
        if inherited is not None:
            inherited.close()


_routers: "weakref.WeakSet[Router]" = weakref.WeakSet()
_default: Router | None = None
_default_lock = threading.Lock()


def default_router() -> Router:
    """The router of this process, made at the first call (upstream: ``ROUTER``). In a forked child it starts anew.

    >>> default_router() is default_router()
    True
    """
    global _default
    with _default_lock:
        if _default is None:
            _default = Router()
        return _default


def _after_fork_in_child() -> None:
    global _default_lock
    _default_lock = threading.Lock()
    for router in list(_routers):
        router._begin_in_child()


os.register_at_fork(after_in_child=_after_fork_in_child)
