"""Packets as the crate makes and understands them, in Python on raw sockets: a third opinion, beside both sides."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import struct
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.support.packets import receive_packet, send_packet

_SPACE_OF_64_HANDLES: Final = 528
"""CMSG_SPACE(512), which the newer versions keep free in every packet."""
_OVERHEAD: Final = 32
"""What the older versions keep free."""


@dataclass(frozen=True)
class Frames:
    """How one version of the crate cuts messages into packets. All sizes are in bytes."""

    header: int
    """8: the length of the message; 16: that of the first packet before it."""
    first: int
    """The largest part of a message in its first packet."""
    following: int
    """The largest packet after the first."""

    def sizes(self, total: int) -> list[int]:
        """The parts of a message of that length."""
        if total <= self.first:
            return [total]
        parts = [self.first]
        while total > sum(parts):
            parts.append(min(self.following, total - sum(parts)))
        return parts

    def boundaries(self, count: int) -> list[int]:
        """The lengths of messages that fill the first packet, and that one and 1, 2, ... of the following."""
        return [self.first + number * self.following for number in range(count)]

    def head(self, total: int) -> bytes:
        """The header of a message of that length."""
        first = min(total, self.first)
        return struct.pack("=QQ", 16 + first, total) if self.header == 16 else struct.pack("=Q", total)


def frames(codec: str) -> Frames:
    """Those of the version that ``codec=`` names, with the socket buffers of this machine."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        buffer = ours.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
    if codec == "rust":
        following = buffer - _SPACE_OF_64_HANDLES
        return Frames(16, (following - 16) & ~7, following)
    following = buffer - _OVERHEAD
    return Frames(8, (following - 8) & ~7, following)


@dataclass(frozen=True)
class Message:
    """What was on the wire."""

    head: bytes
    payload: bytes
    handles: tuple[str, ...]
    """"socket" or "memory", in their order, without that of the dedicated socket."""
    parts: tuple[int, ...]
    """How much of the payload each packet had."""


def receive(source: socket.socket, shape: Frames, keep: list[int] | None = None) -> Message | None:
    """The next message, or None at the end of the stream. Its handles are closed, or put into ``keep``."""
    packet, numbers = receive_packet(source)
    if not packet:
        return None
    try:
        head, payload = packet[: shape.header], packet[shape.header :]
        total = int.from_bytes(head[-8:], "little")
        if shape.header == 16:
            assert int.from_bytes(head[:8], "little") == len(packet)
        parts = [len(payload)]
        if total > len(payload):
            with socket.socket(fileno=numbers.pop()) as dedicated:
                while sum(parts) < total:
                    packet, more = receive_packet(dedicated)
                    assert packet
                    assert not more
                    parts.append(len(packet))
                    payload += packet
                # The sender keeps neither end.
                assert receive_packet(dedicated) == (b"", [])
        assert len(payload) == total
        handles = tuple("socket" if stat.S_ISSOCK(os.fstat(number).st_mode) else "memory" for number in numbers)
        if keep is not None:
            keep += numbers
            numbers = []
        return Message(head, payload, handles, tuple(parts))
    finally:
        for number in numbers:
            os.close(number)


def send(to: socket.socket, shape: Frames, payload: bytes, handles: Sequence[int] = ()) -> None:
    """Send a message of one packet as the crate does."""
    assert len(payload) <= shape.first
    send_packet(to, shape.head(len(payload)) + payload, handles)


@contextlib.contextmanager
def listening() -> Iterator[tuple[str, socket.socket]]:
    """A socket that clients of one-shot servers can connect to, and its name."""
    with (
        tempfile.TemporaryDirectory(prefix=".tmp") as folder,
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server,
    ):
        name = str(Path(folder) / "socket")
        server.bind(name)
        server.listen()
        server.settimeout(30)
        yield name, server
