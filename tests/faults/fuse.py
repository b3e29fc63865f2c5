"""A file of a FUSE server that stops answering: ``fstat`` and ``close`` on it hang, and no signal ends that.

The server is a process of its own with a life of seconds: its end fails whatever hangs, so nothing outlives a test.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NoReturn

LIFE: Final = 15
"""Seconds after which the server ends by itself."""

_CLONE_NEWNS = 0x00020000
_MS_NOSUID, _MS_NODEV, _MS_REC, _MS_PRIVATE = 2, 4, 16384, 1 << 18
_MNT_DETACH = 2
_OPEN, _FLUSH, _INIT = 14, 25, 26
_HEADER = struct.Struct("<IIQQ")
_libc = ctypes.CDLL(None, use_errno=True)


class UnavailableError(Exception):
    """This process may not mount, or the kernel has no FUSE."""


def _call(name: str, *arguments: object) -> None:
    if getattr(_libc, name)(*arguments) != 0:
        raise UnavailableError(f"{name}: {os.strerror(ctypes.get_errno())}")


class HungFile:
    """Answers until ``hang`` is called."""

    def __init__(self, path: str, server: int, commands: int, answers: int) -> None:
        self.path = path
        self._server = server
        self._commands = commands
        self._answers = answers

    def hang(self) -> None:
        """From now on nothing is answered."""
        os.write(self._commands, b"h")
        assert os.read(self._answers, 1) == b"h"

    @property
    def alive(self) -> bool:
        """Whether the server is still there: once it has ended, nothing hangs any more."""
        return os.waitid(os.P_PID, self._server, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None


@contextlib.contextmanager
def hung_file() -> Iterator[HungFile]:
    """Such a file. Moves this process into a mount namespace of its own, so it is for children only."""
    _call("unshare", _CLONE_NEWNS)
    _call("mount", b"none", b"/", None, _MS_REC | _MS_PRIVATE, None)
    try:
        device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise UnavailableError(str(error)) from None
    handle, path = tempfile.mkstemp()
    os.close(handle)
    inward, commands = os.pipe()
    answers, outward = os.pipe()
    try:
        options = f"fd={device},rootmode=100644,user_id={os.getuid()},group_id={os.getgid()}"
        _call("mount", b"hung", path.encode(), b"fuse", _MS_NOSUID | _MS_NODEV, options.encode())
        server = os.fork()
        if server == 0:
            _serve(device, inward, outward)
        os.close(device)  # the server's is the only one: its end aborts the connection
        try:
            yield HungFile(path, server, commands, answers)
        finally:
            os.kill(server, signal.SIGKILL)
            os.waitpid(server, 0)
            _call("umount2", path.encode(), _MNT_DETACH)
    finally:
        for number in (inward, commands, answers, outward):
            os.close(number)
        Path(path).unlink()


def _serve(device: int, commands: int, answers: int) -> NoReturn:
    """Answer what opening and closing take, until told not to."""
    try:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(LIFE)
        os.set_blocking(commands, False)
        os.set_blocking(device, False)
        hanging = False
        while True:
            signal.sigtimedwait([], 0.001)
            with contextlib.suppress(BlockingIOError):
                os.write(answers, os.read(commands, 1))
                hanging = True
            with contextlib.suppress(BlockingIOError):
                answer = _answer(os.read(device, 1 << 17))
                if answer and not hanging:
                    os.write(device, answer)
    finally:
        os._exit(1)


def _answer(request: bytes) -> bytes:
    _, operation, unique, _ = _HEADER.unpack_from(request)
    body = b""
    if operation == _INIT:
        _, minor = struct.unpack_from("<II", request, 40)
        body = struct.pack("<IIIIHHII", 7, min(minor, 31), 0, 0, 12, 10, 4096, 1).ljust(64, b"\0")
    elif operation == _OPEN:
        body = struct.pack("<QII", 1, 0, 0)
    elif operation != _FLUSH:
        return b""
    return struct.pack("<IiQ", 16 + len(body), 0, unique) + body
