"""Children that are stopped at a system call, or at an instruction, of one's choice (ptrace).

A random moment is hardly ever that between two system calls which follow each other; counting finds each of them.
"""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Callable
from typing import Final, Self

from tests.lanes.processes import start_as_child

TRACEME: Final = 0
SINGLESTEP: Final = 9
SYSCALL: Final = 24
CONT: Final = 7
DETACH: Final = 17
SETOPTIONS: Final = 0x4200
EXITKILL: Final = 0x100000
SYSGOOD: Final = 1

_libc: Final = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_libc.ptrace.restype = ctypes.c_long


def _ptrace(request: int, pid: int, data: int = 0) -> None:
    if _libc.ptrace(request, pid, None, data) == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"ptrace: {os.strerror(number)}")


class Stepped:
    """A child made by fork that runs ``prepare``, stops, and runs ``body`` as far as it is let.

    At the end of the block it is killed where it is, and reaped.
    """

    def __init__(self, prepare: Callable[[], object], body: Callable[[], object]) -> None:
        self.pid = os.fork()
        self.code: int | None = None
        if self.pid == 0:
            _run(prepare, body)
        status = os.waitpid(self.pid, 0)[1]
        if not os.WIFSTOPPED(status):
            raise AssertionError(f"the child cannot be traced, or failed before it began: {status}")
        _ptrace(SETOPTIONS, self.pid, EXITKILL | SYSGOOD)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        if self.code is None:
            os.kill(self.pid, signal.SIGKILL)
            self.code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def system_calls(self, count: int) -> bool:
        """Go on to the count-th beginning or end of a system call from here; False if the child ended before."""
        return all(self._step(SYSCALL) for _ in range(count))

    def instructions(self, count: int) -> bool:
        """Go on by so many instructions; False if the child ended before."""
        return all(self._step(SINGLESTEP) for _ in range(count))

    def run_to_end(self) -> int:
        """Go on without stops; its exit code."""
        while self._step(CONT):
            pass
        assert self.code is not None
        return self.code

    def _step(self, how: int) -> bool:
        if self.code is not None:
            return False
        _ptrace(how, self.pid)
        status = os.waitpid(self.pid, 0)[1]
        if os.WIFSTOPPED(status):
            return True
        self.code = os.waitstatus_to_exitcode(status)
        return False


def _run(prepare: Callable[[], object], body: Callable[[], object]) -> None:
    code = 1
    try:
        start_as_child()
        prepare()
        _ptrace(TRACEME, 0)
        os.kill(os.getpid(), signal.SIGSTOP)
        body()
        code = 0
    finally:
        os._exit(code)
