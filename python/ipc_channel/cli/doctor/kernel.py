"""Tries, one by one, the services of the kernel that the transport is made of."""

import contextlib
import errno
import fcntl
import os
import secrets
import socket
import struct
import tempfile
from collections.abc import Callable

from ipc_channel.cli.doctor.check import Check, Status
from ipc_channel.cli.sock_diag import unix_sockets

_GROUP = "kernel services"
_MFD_NOEXEC_SEAL = 0x8
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL


class _NotWorking(Exception):
    """A service is there but does not do what it should."""


def checks() -> list[Check]:
    """Every service, whether it works or not."""
    return [
        _tried(
            "SOCK_SEQPACKET pairs",
            _seqpacket,
            "every channel is such a pair; its direction and the end of its stream come from the kernel",
            "channels cannot work here: use a Linux kernel with Unix sockets and no sandbox that blocks them",
        ),
        _tried(
            "descriptors in packets (SCM_RIGHTS)",
            _rights,
            "ends, shared memory and files inside messages",
            "nothing but bytes can be sent: run outside the sandbox that blocks SCM_RIGHTS",
        ),
        _tried(
            "memfd_create and seals",
            _memfd,
            "shared memory and large messages",
            "large messages and SharedMemory cannot work: allow memfd_create and fcntl(F_ADD_SEALS) in the sandbox",
        ),
        _tried(
            "connecting through /proc/self/fd",
            _path_of_descriptor,
            "one-shot servers leave no file behind",
            "OneShotServer and connect cannot work: mount /proc, and make the folder for temporary files"
            " writable (TMPDIR)",
        ),
        _tried(
            "abstract socket names",
            _abstract,
            "one-shot servers let one client in at a time",
            "connect cannot work: run outside the sandbox that blocks abstract Unix sockets",
        ),
        _tried(
            "SO_PEERCRED",
            _credentials,
            "one-shot servers refuse other users",
            "one-shot servers cannot tell who connects: use a kernel or sandbox that supports SO_PEERCRED",
        ),
        _tried(
            "sock_diag",
            _sock_diag,
            "ipc-channel inspect",
            "only `ipc-channel inspect` needs it: load the module unix_diag, or leave the sandbox",
            failure="warning",
        ),
    ]


def _tried(name: str, attempt: Callable[[], str], used_for: str, advice: str, *, failure: Status = "failure") -> Check:
    try:
        return Check(_GROUP, name, attempt(), used_for)
    except (OSError, _NotWorking) as error:
        return Check(_GROUP, name, f"does not work: {error}", used_for, failure, advice)


def _seqpacket() -> str:
    sender, receiver = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with sender, receiver:
        sender.shutdown(socket.SHUT_RD)
        sender.send(b"first")
        sender.send(b"second")
        sender.close()
        if [receiver.recv(64), receiver.recv(64), receiver.recv(64)] != [b"first", b"second", b""]:
            raise _NotWorking("packets do not arrive as they were sent")
    return "works"


def _rights() -> str:
    sender, receiver = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with sender, receiver, open(os.devnull, "rb") as file:
        socket.send_fds(sender, [b"x"], [file.fileno()])
        _, fds, _, _ = socket.recv_fds(receiver, 1, 1)
        try:
            if len(fds) != 1 or not os.path.samestat(os.fstat(fds[0]), os.fstat(file.fileno())):
                raise _NotWorking("a descriptor does not arrive")
        finally:
            for fd in fds:
                os.close(fd)
    return "works"


def _memfd() -> str:
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        # As the transport does: a strict sysctl vm.memfd_noexec demands the flag, old kernels do not know it.
        fd = os.memfd_create("ipc-channel-doctor", flags | _MFD_NOEXEC_SEAL)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        fd = os.memfd_create("ipc-channel-doctor", flags)
    try:
        os.write(fd, b"content")
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
        try:
            os.pwrite(fd, b"changed", 0)
        except PermissionError:
            return "works"
        raise _NotWorking("a sealed memfd can still be written to")
    finally:
        os.close(fd)


def _path_of_descriptor() -> str:
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener,
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client,
    ):
        with tempfile.TemporaryDirectory(prefix="ipc-channel-") as folder:
            path = os.path.join(folder, "socket")
            try:
                listener.bind(path)
            except OSError as error:
                raise _NotWorking(f"binding a socket in {tempfile.gettempdir()}: {error}") from error
            listener.listen(1)
            fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            client.settimeout(5.0)
            client.connect(f"/proc/self/fd/{fd}")
        finally:
            os.close(fd)
    return "works"


def _abstract() -> str:
    name = b"\0ipc-channel-doctor-" + secrets.token_hex(8).encode()
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as first,
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as second,
    ):
        first.bind(name)
        with contextlib.suppress(OSError):
            second.bind(name)
            raise _NotWorking("two sockets can have the same name")
    return "works"


def _credentials() -> str:
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with one, other:
        found = one.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid, uid, _ = struct.unpack("3i", found)
    if (pid, uid) != (os.getpid(), os.geteuid()):
        raise _NotWorking(f"the kernel says process {pid} of user {uid}, which is wrong")
    return "works"


def _sock_diag() -> str:
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with one, other:
        sockets = unix_sockets()
        first, second = (os.fstat(end.fileno()).st_ino for end in (one, other))
        if first not in sockets or sockets[first].peer != second:
            raise _NotWorking("the kernel does not show which sockets are connected")
    return "works"


def packets_held(size: int) -> int:
    """How many packets of ``size`` bytes a fresh channel takes before anything is read; measured.

    Raises:
        OSError: not even one fits.
    """
    sender, receiver = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with sender, receiver:
        sender.setblocking(False)
        packet = bytes(size)
        count = 0
        try:
            while True:
                sender.send(packet)
                count += 1
        except BlockingIOError:
            # A packet larger than the whole buffer is EMSGSIZE, not EAGAIN.
            return count
