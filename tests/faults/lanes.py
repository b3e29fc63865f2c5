"""Lanes of the native wire made by hand: memory that is shared with a receiver, every word of it to be forged."""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from tests.faults.forging import F_ADD_SEALS, F_SEAL_SHRINK, LANE, LINK, header
from tests.support.packets import send_packet, socket_pair

PAGE: Final = 4096
TAIL, SENT, HEAD, TAKEN = 0, 8, 128, 256
"""Where the words are in the first page."""
PLAIN, FRAMED, SKIP, SWITCH = range(1, 5)
BELL: Final = b"\7"
NEXT_LINK: Final = 2**64 - 1


class Lane:
    """The producer's side of a lane with one ring, whose connection and memory the receiver gets."""

    def __init__(self, ring: int = 1 << 20) -> None:
        self.ring = ring
        self.file = os.memfd_create("hostile-lane", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(self.file, PAGE + ring)
        fcntl.fcntl(self.file, F_ADD_SEALS, F_SEAL_SHRINK)
        os.posix_fallocate(self.file, 0, PAGE + ring)
        self.memory = mmap.mmap(self.file, PAGE + ring)
        self.connection, self.theirs = socket_pair()
        self.tail = 0

    def close(self) -> None:
        """Let go of everything, as a producer that dies."""
        self.connection.close()
        self.theirs.close()
        self.memory.close()
        os.close(self.file)

    def announcement(self) -> bytes:
        """The packet that says where to begin."""
        return header(kind=LANE) + struct.pack("<7Q", PAGE, self.ring, 0, 0, 0, 0, 0)

    def descriptors(self) -> list[int]:
        """What goes with the announcement."""
        return [self.theirs.fileno(), self.file]

    def set(self, word: int, value: int) -> None:
        """Write a word of the first page."""
        struct.pack_into("<Q", self.memory, word, value)

    def record(self, kind: int, body: bytes, *, stamp: int | None = None, padding: int = 0) -> int:
        """Write a record behind the last one; where its body is in the memory."""
        at = PAGE + self.tail
        stamp = time.monotonic_ns() if stamp is None else stamp
        struct.pack_into("<QQ", self.memory, at, len(body) | padding << 48 | kind << 56, stamp)
        start = at + 16 + padding
        self.memory[start : start + len(body)] = body
        self.tail += (16 + padding + len(body) + 15) // 16 * 16
        return start

    def publish(self) -> None:
        """Show what was written, and ring."""
        self.set(TAIL, self.tail)
        self.connection.send(BELL)

    @contextmanager
    def link(self) -> Iterator[int]:
        """Announce a link and give out the descriptor of its sending side."""
        inlet, outlet = socket_pair()
        with inlet:
            with outlet:
                send_packet(self.connection, header(kind=LINK), [outlet.fileno()])
            yield inlet.fileno()
