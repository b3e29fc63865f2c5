"""A file of a FUSE server that stops answering: ``fstat`` and ``close`` on it hang."""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

_CLONE_NEWNS = 0x00020000
_MS_NOSUID, _MS_NODEV, _MS_REC, _MS_PRIVATE = 2, 4, 16384, 1 << 18
_MNT_FORCE, _MNT_DETACH = 1, 2
_INIT, _OPEN = 26, 14
_HEADER = struct.Struct("<IIQQ")
_libc = ctypes.CDLL(None, use_errno=True)


class UnavailableError(Exception):
    """This process may not mount, or the kernel has no FUSE."""


def _call(name: str, *arguments: object) -> None:
    if getattr(_libc, name)(*arguments) != 0:
        raise UnavailableError(f"{name}: {os.strerror(ctypes.get_errno())}")


@contextlib.contextmanager
def hung_file() -> Iterator[int]:
    """A descriptor of such a file, which answered when it was opened and does not any more.

    Moves this process into a mount namespace of its own, so it is for children only.
    """
    _call("unshare", _CLONE_NEWNS)
    _call("mount", b"none", b"/", None, _MS_REC | _MS_PRIVATE, None)
    try:
        device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise UnavailableError(str(error)) from None
    handle, place = tempfile.mkstemp()
    os.close(handle)
    try:
        options = f"fd={device},rootmode=100644,user_id={os.getuid()},group_id={os.getgid()}"
        _call("mount", b"hung", place.encode(), b"fuse", _MS_NOSUID | _MS_NODEV, options.encode())
        server = threading.Thread(target=_serve, args=(device,), daemon=True)
        server.start()
        try:
            file = os.open(place, os.O_RDONLY | os.O_CLOEXEC)
            try:
                yield file
            finally:
                # Ends whatever hangs with an error.
                _call("umount2", place.encode(), _MNT_FORCE | _MNT_DETACH)
                with contextlib.suppress(OSError):
                    os.close(file)
        finally:
            server.join()
    finally:
        os.close(device)
        Path(place).unlink()


def _serve(device: int) -> None:
    """Answer what opening takes, and nothing else, until the connection is aborted."""
    while True:
        try:
            request = os.read(device, 1 << 17)
        except OSError:
            return
        _, operation, unique, _ = _HEADER.unpack_from(request)
        if operation == _INIT:
            _, minor = struct.unpack_from("<II", request, 40)
            body = struct.pack("<IIIIHHII", 7, min(minor, 31), 0, 0, 12, 10, 4096, 1).ljust(64, b"\0")
        elif operation == _OPEN:
            body = struct.pack("<QII", 1, 0, 0)
        else:
            continue
        os.write(device, struct.pack("<IiQ", 16 + len(body), 0, unique) + body)
