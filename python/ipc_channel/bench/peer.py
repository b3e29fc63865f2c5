"""The other processes of a measurement."""

import signal
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from typing import Any, Final

__all__ = ["LIFETIME", "Control", "end_of_life", "peer"]

LIFETIME: Final = 400
"""Seconds after which the kernel ends any process of a measurement: one that waits for a dead peer, whose parent
was killed as well, would wait for ever."""

_LEAVE_TIMEOUT: Final = 10.0

Control = Connection
"""Between the measuring process and a peer: what to do next, and the answer that it is done. It is the same for
every rival, so that none is charged for another's way of answering."""


def end_of_life() -> None:
    """End this process after :data:`LIFETIME`, wherever it hangs."""
    signal.alarm(LIFETIME)


@contextmanager
def peer(function: Callable[..., None], *arguments: Any) -> Generator[Control, None, None]:
    """Run ``function(control, *arguments)`` in a new process; it is gone at the end of the block.

    The new process should return when ``control`` ends, which is when it is closed here.
    """
    import multiprocessing

    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_main, args=(function, theirs, arguments), daemon=True)
    with ours:
        with theirs:
            process.start()
        try:
            yield ours
        except BaseException:
            process.kill()
            raise
        finally:
            ours.close()
            process.join(_LEAVE_TIMEOUT)
            if process.exitcode is None:
                process.kill()
                process.join()
            process.close()


def _main(function: Callable[..., None], control: Control, arguments: tuple[Any, ...]) -> None:
    end_of_life()
    with control:
        with suppress(EOFError):  # the measuring process is done with us
            function(control, *arguments)
