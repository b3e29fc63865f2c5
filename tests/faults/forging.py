"""Packets of the native wire made by hand, field by field, so that each field can be forged."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import socket
import struct
from collections.abc import Iterator, Sequence
from typing import Final

from tests.support.packets import send_packet, socket_pair, wrong_descriptor

HEADER: Final = struct.Struct("<4sBBBBIIIIQQQQQ")
VERSION: Final = 2
MESSAGE, LANE, DOOR, LINK, SOURCE, NEXT = range(6)
"""Kinds of packets."""
ENTRY: Final = struct.Struct("<BBBBI")
"""A handle in a packet's table: kind, label, extra, slots, capacity."""
BODY_IN_FILE: Final = 1
SENDER, RECEIVER, MEMORY, FILE = range(4)
MAX_DIRECT: Final = 250
"""Handles beyond these travel in chains."""
FDS_A_LINK: Final = 253
"""Descriptors in one packet of a chain."""

F_SEAL_SEAL, F_SEAL_SHRINK, F_SEAL_GROW, F_SEAL_WRITE = 1, 2, 4, 8
ALL_SEALS: Final = F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE
F_ADD_SEALS: Final = 1033
MFD_HUGETLB: Final = 4


def header(
    *,
    magic: bytes = b"ipcN",
    flags: int = 0,
    version: int = VERSION,
    kind: int = MESSAGE,
    zero: int = 0,
    handles: int = 0,
    buffers: int = 0,
    chains: int = 0,
    reserved: int = 0,
    payload: int = 0,
    body: int = 0,
    stamp: int = 0,
    ticket: int = 0,
    rest: int = 0,
) -> bytes:
    """The 64 bytes at the start of every packet."""
    counts = (handles, buffers, chains, reserved)
    return HEADER.pack(magic, flags, version, kind, zero, *counts, payload, body, stamp, ticket, rest)


def honest(payload: bytes) -> bytes:
    """A packet as the package itself sends it."""
    return header(payload=len(payload), body=len(payload)) + payload


def entry(kind: int, label: int = 0, *, extra: int = 0, slots: int = 0, capacity: int = 0) -> bytes:
    """A handle as its packet describes it."""
    return ENTRY.pack(kind, label, extra, slots, capacity)


def with_handles(kinds: Sequence[int], label: int = 0, *, payload: bytes = b"", chains: int = 0) -> bytes:
    """A packet that says it carries handles of these kinds."""
    table = b"".join(entry(kind, label) for kind in kinds)
    body = table + payload
    return header(handles=len(kinds), chains=chains, payload=len(payload), body=len(body)) + body


@contextlib.contextmanager
def chain(links: Sequence[tuple[bytes, int]], descriptor: int) -> Iterator[int]:
    """The socket of a chain: for each link an index as raw bytes and how many duplicates of ``descriptor``."""
    inlet, outlet = socket_pair()
    with outlet:
        with inlet:
            for index, count in links:
                send_packet(inlet, index, [descriptor] * count)
        yield outlet.fileno()


def link(index: int) -> bytes:
    """A link's index as it stands in the chain."""
    return index.to_bytes(4, "little")


@contextlib.contextmanager
def memory_file(content: bytes, seals: int, *, sparse: int = 0, flags: int = 0) -> Iterator[int]:
    """A memory file with that content, or of ``sparse`` bytes without pages, sealed so."""
    number = os.memfd_create("forged", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING | flags)
    try:
        if sparse:
            os.ftruncate(number, sparse)
        elif content:
            os.write(number, content)
        if seals:
            fcntl.fcntl(number, F_ADD_SEALS, seals)
        yield number
    finally:
        os.close(number)


def has_huge_pages() -> bool:
    """Whether the kernel makes memory files of huge pages (reserving none)."""
    try:
        os.close(os.memfd_create("huge", MFD_HUGETLB))
    except OSError:
        return False
    return True


NO_SOCKETS: Final = (
    *("pipe", "tcp", "tcp listener", "stream socket", "datagram socket", "seqpacket listener"),
    *("file", "directory", "path", "device", "event counter", "epoll", "unsealed memfd", "sealed memfd"),
)
"""Kinds of descriptors that are no channel's socket."""

NO_MEMORY: Final = (
    *(kind for kind in NO_SOCKETS if kind != "sealed memfd"),
    *("seqpacket socket", "memfd that may shrink", "huge pages"),
)
"""Kinds of descriptors that are no shared memory."""


@contextlib.contextmanager
def descriptor_of(kind: str) -> Iterator[int]:
    """A descriptor of one of those kinds; closed at the end of the block."""
    with contextlib.ExitStack() as closing:
        match kind:
            case "tcp listener":
                number = closing.enter_context(socket.create_server(("127.0.0.1", 0))).fileno()
            case "datagram socket":
                number = closing.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)).fileno()
            case "seqpacket listener":
                listener = closing.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
                listener.bind("")  # the kernel chooses an abstract name
                listener.listen()
                number = listener.fileno()
            case "seqpacket socket":
                pair = socket_pair()
                number = closing.enter_context(pair[0]).fileno()
                closing.enter_context(pair[1])
            case "device":
                number = closing.enter_context(open("/dev/null")).fileno()
            case "event counter":
                number = os.eventfd(0, os.EFD_CLOEXEC)
                closing.callback(os.close, number)
            case "epoll":
                number = closing.enter_context(select.epoll()).fileno()
            case "sealed memfd":
                number = closing.enter_context(memory_file(b"sealed", ALL_SEALS))
            case "memfd that may shrink":
                seals = F_SEAL_GROW | F_SEAL_WRITE
                number = closing.enter_context(memory_file(b"shrinks", seals))
            case "huge pages":
                number = closing.enter_context(memory_file(b"", F_SEAL_SHRINK, flags=MFD_HUGETLB))
            case _:
                number = closing.enter_context(wrong_descriptor(kind))
        yield number
