"""The messages of ``tests/rust_peers/peer/src/produce.rs``, made here: the same values in the same order."""

from __future__ import annotations

import ipaddress
import math
import pathlib
from collections.abc import Iterator
from typing import Any, Final

import ipc_channel as ipc
from ipc_channel.rust import Duration, Err, SocketAddrV4, SocketAddrV6, Some, SystemTime
from tests.rust.commands import Parcel
from tests.support.rust_types import (
    Circle,
    Color,
    Containers,
    Nothing,
    Numbers,
    Page,
    Polygon,
    Rectangle,
    Shape,
    Standard,
    Texts,
    Tree,
)

SIZES: Final = (0, 1, 7, 8, 9, 4096, 212_440, 212_448, 212_449, 212_952, 212_953, 1_000_000)
"""Of the messages of bytes."""

F32_MAX: Final = 3.4028234663852886e38
F64_MAX: Final = 1.7976931348623157e308


def sample(size: int) -> bytes:
    """A message of bytes."""
    return bytes(index % 251 for index in range(251)) * (size // 251) + bytes(range(size % 251))


def _signed(bits: int) -> tuple[int, int]:
    return -(2 ** (bits - 1)), 2 ** (bits - 1) - 1


LEAST: Final = Numbers(
    False,
    *((0, _signed(bits)[0]) for bits in (8, 16, 32, 64, 128, 64)),
    -F32_MAX,
    -F64_MAX,
    "\0",
)
MOST: Final = Numbers(
    True,
    *((2**bits - 1, _signed(bits)[1]) for bits in (8, 16, 32, 64, 128, 64)),
    F32_MAX,
    F64_MAX,
    "\U0010ffff",
)
NO_TEXTS: Final = Texts("", "", b"", b"\0\x01\xfe\xff", pathlib.Path(), "")
TEXTS: Final = Texts("ü" * (1 << 19), "aü€🦀\0", bytes(range(256)), b"\xff" * 4, pathlib.Path("/tmp/ü"), "a\udcff")
NO_CONTAINERS: Final = Containers(
    items=[], maybe=None, nested=None, table={}, members=set(), array=(0.0, 0.0, 0.0), unit=None, single=(0,),
    pairs=[], keyed={},
)  # fmt: skip
CONTAINERS: Final = Containers(
    items=list(range(300)),
    maybe=255,
    nested=Some(None),
    table={"one": [-(2**31), 2**31 - 1]},
    members={200},
    array=(1.5, -1.5, math.inf),
    unit=None,
    single=(1,),
    pairs=[(-(2**63), "least"), (2**63 - 1, "most")],
    keyed={(9, True): "nine"},
)
SHAPES: Final[list[Shape]] = [
    Nothing(),
    Circle(1.5),
    Rectangle(65535, 0),
    Polygon([(-(2**31), 2**31 - 1)], True),
]
TREE: Final = Tree(1, Tree(2), None, [Tree(3), Tree(4)])
PAGE: Final[Page[Color | None]] = Page(2**64 - 1, [Color.BLUE, None, Color.RED], 0, None)
STANDARD: Final = Standard(
    Duration(2**64 - 1, 999_999_999),
    SystemTime(1_000_000_000, 1),
    ipaddress.IPv4Address("255.255.255.255"),
    ipaddress.IPv6Address("::1"),
    ipaddress.IPv6Address("::"),
    SocketAddrV4(ipaddress.IPv4Address("127.0.0.1"), 65535),
    SocketAddrV6(ipaddress.IPv6Address("::1"), 443),
    Err("no"),
)

VALUES: Final[tuple[tuple[Any, Any], ...]] = (
    (Numbers, LEAST),
    (Numbers, MOST),
    (Texts, NO_TEXTS),
    (Texts, TEXTS),
    (Containers, NO_CONTAINERS),
    (Containers, CONTAINERS),
    (list[Shape], SHAPES),
    (Tree, TREE),
    (Page[Color | None], PAGE),
    (Standard, STANDARD),
)
"""Types, and values of them, without handles."""


def parcels(codec: Any) -> Iterator[tuple[Parcel, list[Any]]]:
    """Messages with ends and regions of each kind, and the ends that stay here."""
    for content, depth in ((b"small", 2), (b"\xa5" * 700_000, 1)):
        kept: list[Any] = []
        yield _parcel(codec, content, depth, kept), kept


def _parcel(codec: Any, content: bytes, depth: int, kept: list[Any]) -> Parcel:
    from ipc_channel.rust import u64

    sender, receiver = ipc.channel(u64, codec=codec)
    opaque_sender, opaque_receiver = ipc.channel(u64, codec=codec)
    raw_sender, raw_receiver = ipc.bytes_channel(codec=codec)
    memory = [ipc.SharedMemory.from_bytes(b"memory"), ipc.SharedMemory.create(0), ipc.SharedMemory.filled(depth, 5000)]
    kept += memory
    return Parcel(
        depth,
        content,
        [sender.clone(), sender],
        [receiver],
        [raw_sender],
        [raw_receiver],
        [opaque_sender.to_opaque()],
        [opaque_receiver.to_opaque()],
        memory,
        [_parcel(codec, b"inner", each, kept) for each in range(depth)],
    )
