"""Processes made by fork: what they return, what they leave open, and how they end.

Apart from the tests, so that a process that forks thousands of times need not import pytest.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import gc
import os
import pickle
import resource
import select
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from typing import Any, Final, Generic, NoReturn, Self, TypeVar

import ipc_channel as ipc
from ipc_channel import _core
from tests.support import leaks

R = TypeVar("R")

TIMEOUT: Final = 40.0
"""Seconds after which something that should have happened never will."""

LIFETIME: Final = 55
"""Seconds after which a child writes down where its threads are and dies: less than a test is given, unless it says."""

PR_SET_PDEATHSIG: Final = 1
PR_SET_CHILD_SUBREAPER: Final = 36

_libc: Final = ctypes.CDLL(None, use_errno=True)


class FailedError(AssertionError):
    """A child raised, was killed, left something behind, or did not end in time."""


class Process(Generic[R]):
    """A child that runs ``function(*arguments)`` and returns its value; killed and reaped at the end of the block.

    Of the inherited ends it keeps those among the arguments and closes the others. What it holds more when the
    function has returned than it held before, and ``grace`` seconds later, is a failure, unless ``checked`` is False.
    After ``lifetime`` seconds it ends by itself.
    """

    def __init__(
        self,
        function: Callable[..., R],
        *arguments: Any,
        checked: bool = True,
        grace: float = leaks.GRACE,
        lifetime: int = LIFETIME,
    ) -> None:
        self._outcome = os.memfd_create("outcome")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads, in newer Pythons
            self.pid = os.fork()
        if self.pid == 0:
            _run(self._outcome, function, arguments, grace if checked else None, lifetime)
        self._pidfd = os.pidfd_open(self.pid)
        self._status: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.kill()
        self.wait()
        os.close(self._pidfd)
        os.close(self._outcome)

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Send it a signal; nothing happens when it has ended."""
        if self._status is None:
            os.kill(self.pid, number)

    @property
    def running(self) -> bool:
        """Whether it has not ended yet."""
        return self._status is None and not ended(self._pidfd, 0)

    def wait(self, timeout: float = TIMEOUT) -> int:
        """Wait for its end; the exit code, or the negative number of the signal."""
        if self._status is None:
            if not ended(self._pidfd, timeout):
                self.kill(signal.SIGALRM)  # it says where it is
                ended(self._pidfd, 5)
                self.kill()
                os.waitpid(self.pid, 0)
                self._status = -signal.SIGALRM
                raise FailedError(f"child {self.pid} was still running after {timeout} s")
            self._status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self._status

    def result(self, timeout: float = TIMEOUT) -> R:
        """Wait for its end and return what the function returned."""
        code = self.wait(timeout)
        written = os.pread(self._outcome, os.fstat(self._outcome).st_size, 0)
        if not written:
            raise FailedError(f"child {self.pid} ended without an outcome, exit code {code}")
        value: R
        failure: str | None
        value, failure = pickle.loads(written)
        if failure is not None:
            raise FailedError(f"child {self.pid} failed:\n{failure}")
        return value


def _run(
    outcome: int, function: Callable[..., Any], arguments: tuple[Any, ...], grace: float | None, lifetime: int
) -> NoReturn:
    value: Any = None
    failure: str | None = None
    try:
        start_as_child(lifetime=lifetime)
        unraisable: list[str] = []
        sys.unraisablehook = lambda event: unraisable.append(f"{event.exc_value!r} in {event.object!r}")
        # What was inherited as garbage is the parent's: it is not collected, and not reported, here.
        gc.freeze()
        ipc.close_inherited(keep=ends_among(arguments))
        before = None
        if grace is not None:
            warm_up()
            before = leaks.take()
        try:
            value = function(*arguments)
        except BaseException:
            failure = traceback.format_exc()
        else:
            gc.collect()
            left = [] if before is None or grace is None else leaks.leaked_since(before, grace)
            if left or unraisable:
                failure = "\n".join(["left behind:", *left, "unraisable:", *unraisable])
        os.pwrite(outcome, pickle.dumps((value, failure)), 0)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(0)


def start_as_child(with_parent: bool = True, lifetime: int = LIFETIME) -> None:
    """First thing in a child: it outlives neither its time nor, unless it may, its parent."""
    if with_parent:
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    faulthandler.register(signal.SIGALRM, file=2, all_threads=True, chain=True)
    signal.alarm(lifetime)


def adopt_orphans() -> None:
    """Children of children that are killed become this process's own, and are reaped as they die."""
    _libc.prctl(PR_SET_CHILD_SUBREAPER, 1)


def warm_up() -> None:
    """Use what a process makes once and keeps: the descriptor that wakes a thread, and whatever else there is."""
    sender, receiver = ipc.bytes_channel()
    with sender, receiver:
        for size in (*[8] * 64, 70_000):
            sender.send(bytes(size))
            receiver.recv(TIMEOUT)
        for timeout in (0.0005, 0.005, 0.05, 0.5):
            before = resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw
            with contextlib.suppress(ipc.RecvTimeout):
                raise AssertionError(f"nobody sent {receiver.recv(timeout)!r}")
            if resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw > before:
                return  # it did sleep: on a busy machine the time may be over before the wait begins


def ends_among(value: Any) -> list[Any]:
    """Every end in nested lists, tuples and dicts."""
    return list(_ends_among(value))


def _ends_among(value: Any) -> Iterator[Any]:
    if isinstance(value, _core.SenderEnd | _core.ReceiverEnd | ipc.ReceiverSet):
        yield value
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _ends_among(each)
    elif isinstance(value, dict):
        yield from _ends_among(list(value.values()))


def ended(pidfd: int, timeout: float) -> bool:
    """Wait for the end of a process, be it a child or not."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(round(timeout * 1000)))


def readable(descriptor: int, timeout: float) -> bool:
    """What poll(2) says of a descriptor."""
    return ended(descriptor, timeout)
