"""What the kernel shows of Unix sockets: the ``sock_diag`` netlink interface, read-only.

Every user may ask. The answer covers the Unix sockets of the caller's network namespace. Formats are
those of ``linux/netlink.h``, ``linux/sock_diag.h`` and ``linux/unix_diag.h``, in the machine's byte order.
"""

import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

RCV_SHUTDOWN: Final = 1
"""Bit of :attr:`UnixSocket.shutdown`: nothing can be read from the socket any more."""
SEND_SHUTDOWN: Final = 2
"""Bit of :attr:`UnixSocket.shutdown`: nothing can be written to the socket any more."""

_NETLINK_SOCK_DIAG: Final = 4
_SOCK_DIAG_BY_FAMILY: Final = 20
_NLM_F_REQUEST: Final = 0x1
_NLM_F_DUMP_INTR: Final = 0x10
_NLM_F_DUMP: Final = 0x300
_NLMSG_ERROR: Final = 2
_NLMSG_DONE: Final = 3

_UNIX_DIAG_NAME: Final = 0
_UNIX_DIAG_PEER: Final = 2
_UNIX_DIAG_RQLEN: Final = 4
_UNIX_DIAG_SHUTDOWN: Final = 6
_SHOW_NAME_PEER_AND_QUEUES: Final = 0x1 | 0x4 | 0x10
_EVERY_STATE: Final = 0xFFFFFFFF

_TCP_LISTEN: Final = 10  # Unix sockets borrow TCP's state numbers

# struct nlmsghdr: length, type, flags, sequence, port
_HEADER: Final = struct.Struct("=IHHII")
# struct unix_diag_req: family, protocol, padding, states, inode, show, cookie
_REQUEST: Final = struct.Struct("=BBHIIIII")
# struct unix_diag_msg: family, type, state, padding, inode, cookie
_SOCKET: Final = struct.Struct("=BBBBIII")
# struct nlattr: length, type
_ATTRIBUTE: Final = struct.Struct("=HH")
_WORD: Final = struct.Struct("=I")
_QUEUES: Final = struct.Struct("=II")

_RECEIVE_SIZE: Final = 1 << 18
_ATTEMPTS: Final = 5


@dataclass(frozen=True, slots=True)
class UnixSocket:
    """One Unix socket as the kernel shows it."""

    inode: int
    """The number in the ``socket:[...]`` links below ``/proc/PID/fd``."""
    kind: int
    """``socket.SOCK_STREAM``, ``SOCK_DGRAM`` or ``SOCK_SEQPACKET``."""
    listening: bool
    name: bytes
    """The bound address: empty if unnamed, beginning with a zero byte if abstract."""
    peer: int
    """Inode of the connected socket; 0 if there is none or it has been closed."""
    unread: int
    """Bytes that wait to be read here; for a listening socket, connections that wait to be accepted."""
    shutdown: int
    """Bits :data:`RCV_SHUTDOWN` and :data:`SEND_SHUTDOWN`."""


def unix_sockets() -> dict[int, UnixSocket]:
    """Every Unix socket of this network namespace, by inode.

    Raises:
        OSError: the kernel does not offer ``sock_diag`` for Unix sockets (some sandboxes).
    """
    found: dict[int, UnixSocket] = {}
    # A dump that the kernel marks as interrupted may have skipped sockets; another one settles it. On a
    # machine so busy that every dump is interrupted, the union of a few is the best there is.
    for _ in range(_ATTEMPTS):
        complete = True
        for entry in _dump():
            if entry is None:
                complete = False
            else:
                found[entry.inode] = entry
        if complete:
            break
    return found


def _dump() -> Iterator[UnixSocket | None]:
    """One dump; None stands for the kernel's remark that the dump was interrupted."""
    request = _REQUEST.pack(
        socket.AF_UNIX, 0, 0, _EVERY_STATE, 0, _SHOW_NAME_PEER_AND_QUEUES, _EVERY_STATE, _EVERY_STATE
    )
    header = _HEADER.pack(_HEADER.size + len(request), _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST | _NLM_F_DUMP, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG) as netlink:
        netlink.bind((0, 0))
        netlink.settimeout(10.0)
        netlink.send(header + request)
        while True:
            data = netlink.recv(_RECEIVE_SIZE)
            for kind, flags, body in _messages(data):
                if flags & _NLM_F_DUMP_INTR:
                    yield None
                if kind == _NLMSG_DONE:
                    return
                if kind == _NLMSG_ERROR:
                    _raise_error(body)
                if kind == _SOCK_DIAG_BY_FAMILY:
                    yield _parse(body)


def _messages(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """The netlink messages of one datagram: type, flags and body."""
    offset = 0
    while offset + _HEADER.size <= len(data):
        length, kind, flags, _, _ = _HEADER.unpack_from(data, offset)
        if length < _HEADER.size:
            raise OSError("the kernel sent a netlink message with a wrong length")
        yield kind, flags, data[offset + _HEADER.size : offset + length]
        offset += _aligned(length)


def _raise_error(body: bytes) -> None:
    (number,) = struct.unpack_from("=i", body)
    if number:
        raise OSError(-number, "the kernel refused to list Unix sockets through sock_diag")


def _parse(body: bytes) -> UnixSocket:
    _, kind, state, _, inode, _, _ = _SOCKET.unpack_from(body)
    name, peer, unread, shutdown = b"", 0, 0, 0
    offset = _SOCKET.size
    while offset + _ATTRIBUTE.size <= len(body):
        length, attribute = _ATTRIBUTE.unpack_from(body, offset)
        if length < _ATTRIBUTE.size:
            break
        value = body[offset + _ATTRIBUTE.size : offset + length]
        if attribute == _UNIX_DIAG_NAME:
            name = value
        elif attribute == _UNIX_DIAG_PEER:
            (peer,) = _WORD.unpack_from(value)
        elif attribute == _UNIX_DIAG_RQLEN:
            unread, _ = _QUEUES.unpack_from(value)
        elif attribute == _UNIX_DIAG_SHUTDOWN:
            shutdown = value[0]
        offset += _aligned(length)
    return UnixSocket(inode, kind, state == _TCP_LISTEN, name, peer, unread, shutdown)


def _aligned(length: int) -> int:
    """Netlink pads messages and attributes to four bytes."""
    return (length + 3) & ~3
