"""Packets on raw sockets: what a foreign or hostile program could send, and descriptors of the wrong kind."""

from __future__ import annotations

import array
import contextlib
import os
import socket
from collections.abc import Iterator, Sequence
from typing import Final, Protocol

MAX_PACKET: Final = 256 * 1024
"""More than the largest packet, in bytes."""

MAX_DESCRIPTORS: Final = 253
"""The kernel's limit of descriptors in one packet."""


class _Sender(Protocol):
    def duplicate_fd(self) -> int: ...


def socket_pair() -> tuple[socket.socket, socket.socket]:
    """A SOCK_SEQPACKET pair, as a channel is made of."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def socket_of(sender: _Sender) -> socket.socket:
    """A socket object on a duplicate of a sender's descriptor: what is sent on it is sent past the package."""
    return socket.socket(fileno=sender.duplicate_fd())


def address_of(name: str) -> str:
    """The socket address in a one-shot server's name, with the NUL of an abstract one."""
    if name.startswith("@"):
        return "\0" + name[1:]
    return name.partition("#")[0]


def raw_client(name: str) -> socket.socket:
    """A raw socket connected to a one-shot server: a client that follows none of the rules."""
    client = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        client.connect(address_of(name))
    except BaseException:
        client.close()
        raise
    return client


def send_packet(to: socket.socket, data: bytes, descriptors: Sequence[int] = ()) -> None:
    """One packet with descriptors (SCM_RIGHTS)."""
    control = []
    if descriptors:
        control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
    sent = to.sendmsg([data], control)
    assert sent == len(data)


def receive_packet(source: socket.socket) -> tuple[bytes, list[int]]:
    """One packet and its descriptors, which the caller closes. An empty packet is the end of the stream."""
    numbers = array.array("i")
    size = MAX_DESCRIPTORS * numbers.itemsize
    data, control, flags, _ = source.recvmsg(MAX_PACKET, socket.CMSG_SPACE(size), socket.MSG_CMSG_CLOEXEC)
    assert not flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC)
    for level, kind, content in control:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            numbers.frombytes(content[: len(content) - len(content) % numbers.itemsize])
    return data, list(numbers)


WRONG_DESCRIPTORS: Final = ("pipe", "tcp", "file", "directory", "unsealed memfd", "path", "stream socket")
"""Kinds that ``wrong_descriptor`` can make."""


@contextlib.contextmanager
def wrong_descriptor(kind: str) -> Iterator[int]:
    """A descriptor that no channel expects; closed at the end of the block."""
    with contextlib.ExitStack() as closing:
        match kind:
            case "pipe":
                number, other = os.pipe()
                closing.callback(os.close, other)
                closing.callback(os.close, number)
            case "tcp":
                number = closing.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM)).fileno()
            case "stream socket":
                pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
                number = closing.enter_context(pair[0]).fileno()
                closing.enter_context(pair[1])
            case "file" | "directory" | "path":
                flags = {"file": os.O_RDONLY, "directory": os.O_DIRECTORY, "path": os.O_PATH}[kind]
                number = os.open("/proc" if kind == "directory" else __file__, flags)
                closing.callback(os.close, number)
            case "unsealed memfd":
                number = os.memfd_create("unsealed", os.MFD_CLOEXEC)
                closing.callback(os.close, number)
                os.truncate(number, 4096)
            case _:
                raise ValueError(kind)
        yield number
