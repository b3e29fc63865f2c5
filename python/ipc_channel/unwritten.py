"""The end of a process that holds messages for Rust programs: it waits until they have been read.

The transport keeps what a channel's socket has no room for, and its thread ends with the process. Imported when the
first sender of such a channel is made.
"""

import atexit
import contextlib
import threading

from ipc_channel import _core

__all__ = ["wait"]

_SILENT = 1.0
"""Seconds after which the log says what the process waits for."""


def wait() -> None:
    """Wait until nothing is held. Ctrl-C ends the wait, and what is held then is lost."""
    global _given_up
    if _given_up == _core.generation():
        return
    try:
        if _core.wait_until_written(_SILENT):
            return
        _log("this process ends when its messages have been read: %s; Ctrl-C ends it now")
        _core.wait_until_written()
    except KeyboardInterrupt:
        _given_up = _core.generation()
        _log("this process ends, and messages that were sent are lost: %s")


def _log(text: str) -> None:
    import logging

    held = [f"{count} for {about or 'a channel of raw bytes'}" for about, count in _core.unwritten()]
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
