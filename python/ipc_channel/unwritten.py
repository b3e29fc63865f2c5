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
    global _given_up
    if _given_up != _core.generation():
        try:
            if _core.wait_until_written(_SILENT):
                return
            _log("this process ends when its messages have been read: %s; Ctrl-C ends it now")
            _core.wait_until_written()
        except KeyboardInterrupt:
            _given_up = _core.generation()
            _log("this process ends, and messages that were sent are lost: %s")
            if _is_started_by_multiprocessing():
                # Nothing runs after this, not even what empties the buffers.
                for stream in (sys.stdout, sys.stderr):
                    with contextlib.suppress(AttributeError, OSError, ValueError):
                        stream.flush()
                raise
    if _given_up == _core.generation():
        _end_as_interrupted()


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

atexit.register(wait)
# A child of multiprocessing ends without running what atexit has; it does run what `threading` has, for which
# `concurrent.futures` uses the same function.
_register = getattr(threading, "_register_atexit", None)
if _register is not None:
    # Refused when the interpreter is ending already: atexit's turn is still to come.
    with contextlib.suppress(RuntimeError):
        _register(wait)
