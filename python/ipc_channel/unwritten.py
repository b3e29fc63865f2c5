"""The end of a process that holds messages for Rust programs: it waits until they have been read.

The transport keeps what a channel's socket has no room for, and its thread ends with the process. Imported when the
first sender of such a channel is made.
"""

import atexit
import contextlib
import sys
import threading

from ipc_channel import _core

__all__ = ["wait"]

_SILENT = 1.0
"""Seconds after which the log says what the process waits for."""


def wait() -> None:
    """Wait until nothing is held. Ctrl-C ends the wait: what is held then is lost, and the process was interrupted."""
    if _given_up != _core.generation():
        # This comes when threads have been joined, so what was still to be joined has been interrupted.
        interrupted = _waiter is not None and _waiter.is_alive() and _waiter is not threading.current_thread()
        try:
            if _core.wait_until_written(0.0 if interrupted else _SILENT):
                return
            if not interrupted:
                _log("this process ends when its messages have been read: %s; Ctrl-C ends it now")
                # Again and again: a signal that comes just before a wait begins does not end that one.
                while not _core.wait_until_written(_SILENT):
                    pass
                return
            _give_up()
        except KeyboardInterrupt:
            _give_up()
            if _is_started_by_multiprocessing():
                # Nothing runs after this, not even what empties the buffers.
                for stream in (sys.stdout, sys.stderr):
                    with contextlib.suppress(AttributeError, OSError, ValueError):
                        stream.flush()
                raise
    _end_as_interrupted()


def _give_up() -> None:
    global _given_up
    _given_up = _core.generation()
    _log("this process ends, and messages that were sent are lost: %s")


def _wait_before_threads() -> None:
    """The same, called when threads are still at work that the process waits for, and that may send more.

    They cannot be joined here, since some end when they are told to by a function like this one. So another thread, for
    which the process waits likewise, does that and waits again.
    """
    wait()
    if _threads_at_work():
        _wait_after_threads()


def _wait_after_threads() -> None:
    global _waiter
    if _is_started_by_multiprocessing():
        waiter = threading.Thread(target=_join_and_wait, name="ipc-channel-exit", daemon=False)
        # Where no thread can be had, what they send is lost if it is not read in time.
        with contextlib.suppress(RuntimeError):
            waiter.start()
            _waiter = waiter


def _join_and_wait() -> None:
    while threads := _threads_at_work():
        for thread in threads:
            thread.join()
    wait()


def _threads_at_work() -> list[threading.Thread]:
    """Those that the process waits for, but for the one that ends it and this one."""
    spared = (threading.main_thread(), threading.current_thread())
    return [thread for thread in threading.enumerate() if not thread.daemon and thread not in spared]


def _is_started_by_multiprocessing() -> bool:
    process = sys.modules.get("multiprocessing.process")
    return process is not None and process.parent_process() is not None


def _end_as_interrupted() -> None:
    """Make the interpreter end the process by SIGINT when everything else is done.

    It ignores what an exit hook raises, and the exit code would be 0. But it notes a KeyboardInterrupt that leaves code
    given as text, whoever catches it then, and forgets it when it runs the next such code.
    """
    with contextlib.suppress(KeyboardInterrupt):
        exec("raise KeyboardInterrupt")


def _log(text: str) -> None:
    import logging

    held = [f"{count} in a channel of {about or 'unknown type'}" for about, count in _core.unwritten()]
    logging.getLogger("ipc_channel").warning(text, ", ".join(held) or "none")


_given_up: int | None = None
"""The generation of the process that does not wait again."""

_waiter: threading.Thread | None = None
"""Joins other threads and waits."""

atexit.register(wait)
# A child of multiprocessing ends without running what atexit has; it does run what `threading` has, for which
# `concurrent.futures` uses the same function. That is before the process waits for its threads.
_register = getattr(threading, "_register_atexit", None)
if _register is not None:
    try:
        _register(_wait_before_threads)
    except RuntimeError:
        # The interpreter is ending already, and this is one of the threads that go on.
        _wait_after_threads()
