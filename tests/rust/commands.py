"""What a peer can be told: the types of ``tests/rust_peers/peer/src``, as annotations."""

from __future__ import annotations

from typing import Any, TypeAlias, Union

import msgspec
from msgspec import Struct

import ipc_channel as ipc
from ipc_channel.rust import u8, u32, u64, usize
from tests.support.rust_types import Color, Containers, Numbers, Page, Shape, Standard, Texts, Tree

# The four enums of the crate's own benchmark.


class Small0(Struct, tag=0):
    pass


class Small1(Struct, tag=1):
    pass


class Small2(Struct, tag=2):
    first: u32
    second: u32


class Small3(Struct, tag=3):
    first: u32
    second: u32
    third: u32


class Small4(Struct, tag=4):
    text: str


class Small5(Struct, tag=5):
    pass


class Small6(Struct, tag=6):
    pass


Small: TypeAlias = Small0 | Small1 | Small2 | Small3 | Small4 | Small5 | Small6

MEDIUM: list[Any] = [msgspec.defstruct(f"Medium{index}", [("value", u32)], tag=index) for index in range(27)]
Medium: Any = Union[tuple(MEDIUM)]  # noqa: UP007


class Fractured0(Struct, tag=0):
    pass


class Fractured1(Struct, tag=1):
    items: list[usize]


class Fractured2(Struct, tag=2):
    a: usize
    b: usize
    c: usize
    d: usize
    e: usize
    f: usize
    g: usize
    h: usize
    i: usize
    j: usize


class Fractured3(Struct, tag=3):
    only: usize


class Fractured4(Struct, tag=4):
    first: usize
    second: usize
    third: usize


Fractured: TypeAlias = Fractured0 | Fractured1 | Fractured2 | Fractured3 | Fractured4


class Nested0(Struct, tag=0):
    pass


class Nested1(Struct, tag=1):
    small: Small


class Nested2(Struct, tag=2):
    medium: Medium


class Nested3(Struct, tag=3):
    fractured: Fractured


class Nested4(Struct, tag=4):
    number: usize


Nested: TypeAlias = Nested0 | Nested1 | Nested2 | Nested3 | Nested4


class Parcel(Struct):
    """A message that holds everything that can be in one."""

    number: u64 = 0
    content: bytes = b""
    senders: list[ipc.Sender[u64]] = []
    receivers: list[ipc.Receiver[u64]] = []
    raw_senders: list[ipc.BytesSender] = []
    raw_receivers: list[ipc.BytesReceiver] = []
    opaque_senders: list[ipc.OpaqueSender] = []
    opaque_receivers: list[ipc.OpaqueReceiver] = []
    memory: list[ipc.SharedMemory] = []
    inner: list[Parcel] = []

    def ends(self) -> list[Any]:
        """Everything in it that can be closed."""
        found = [
            *self.senders, *self.receivers, *self.raw_senders, *self.raw_receivers,
            *self.opaque_senders, *self.opaque_receivers, *self.memory,
        ]  # fmt: skip
        for parcel in self.inner:
            found += parcel.ends()
        return found

    def close(self) -> None:
        """Close all of them."""
        for end in self.ends():
            end.close()


class Recipe(Struct):
    """How many of each a peer shall put into a parcel."""

    content: u64 = 0
    senders: u32 = 0
    receivers: u32 = 0
    raw_senders: u32 = 0
    raw_receivers: u32 = 0
    opaque_senders: u32 = 0
    opaque_receivers: u32 = 0
    memory: list[u64] = []


class Uses(Struct):
    """What the ends and regions of a parcel held."""

    content: u64
    received: list[list[u64]]
    raw: list[list[bytes]]
    memory: list[tuple[u64, u8, u8]]


class Tally(Struct):
    """What has come of numbered messages."""

    messages: u64
    bytes: u64
    right: bool
    end: str


class Event(Struct):
    """Of a set of receivers or a router. No value: it was the last one of that index."""

    index: u64
    value: u64 | None


# Loops: what is sent comes back.


class LoopNumbers(Struct, tag=0):
    to: ipc.Receiver[Numbers]
    back: ipc.Sender[Numbers]


class LoopTexts(Struct, tag=1):
    to: ipc.Receiver[Texts]
    back: ipc.Sender[Texts]


class LoopContainers(Struct, tag=2):
    to: ipc.Receiver[Containers]
    back: ipc.Sender[Containers]


class LoopShapes(Struct, tag=3):
    to: ipc.Receiver[list[Shape]]
    back: ipc.Sender[list[Shape]]


class LoopTree(Struct, tag=4):
    to: ipc.Receiver[Tree]
    back: ipc.Sender[Tree]


class LoopStandard(Struct, tag=5):
    to: ipc.Receiver[Standard]
    back: ipc.Sender[Standard]


class LoopPage(Struct, tag=6):
    to: ipc.Receiver[Page[Color | None]]
    back: ipc.Sender[Page[Color | None]]


class LoopParcel(Struct, tag=7):
    to: ipc.Receiver[Parcel]
    back: ipc.Sender[Parcel]


class LoopBytes(Struct, tag=8):
    to: ipc.BytesReceiver
    back: ipc.BytesSender


class LoopSmall(Struct, tag=9):
    to: ipc.Receiver[Small]
    back: ipc.Sender[Small]


class LoopMedium(Struct, tag=10):
    to: ipc.Receiver[Medium]
    back: ipc.Sender[Medium]


class LoopFractured(Struct, tag=11):
    to: ipc.Receiver[Fractured]
    back: ipc.Sender[Fractured]


class LoopNested(Struct, tag=12):
    to: ipc.Receiver[Nested]
    back: ipc.Sender[Nested]


class LoopMemory(Struct, tag=13):
    """Each byte is one more when it comes back."""

    to: ipc.Receiver[ipc.SharedMemory]
    back: ipc.Sender[ipc.SharedMemory]
    in_place: bool


class LoopUnit(Struct, tag=14):
    to: ipc.Receiver[None]
    back: ipc.Sender[None]


AnyLoop: TypeAlias = (
    LoopNumbers
    | LoopTexts
    | LoopContainers
    | LoopShapes
    | LoopTree
    | LoopStandard
    | LoopPage
    | LoopParcel
    | LoopBytes
    | LoopSmall
    | LoopMedium
    | LoopFractured
    | LoopNested
    | LoopMemory
    | LoopUnit
)

# Commands


class Ping(Struct, tag=0):
    answer: ipc.Sender[u32]


class Loop(Struct, tag=1):
    through: AnyLoop


class Use(Struct, tag=2):
    parcel: Parcel
    answer: ipc.Sender[Uses]


class Make(Struct, tag=3):
    recipe: Recipe
    to: ipc.Sender[Parcel]
    seen: ipc.Sender[u64]


class Flood(Struct, tag=4):
    to: ipc.BytesSender
    count: u64
    size: u64


class Hold(Struct, tag=5):
    messages: ipc.BytesReceiver
    permission: ipc.Receiver[None]
    tally: ipc.Sender[Tally]


class Select(Struct, tag=6):
    receivers: list[ipc.Receiver[u64]]
    events: ipc.Sender[Event]


class Route(Struct, tag=7):
    receivers: list[ipc.Receiver[u64]]
    events: ipc.Sender[Event]


class Feed(Struct, tag=8):
    senders: list[ipc.Sender[u64]]
    count: u64


Command: TypeAlias = Ping | Loop | Use | Make | Flood | Hold | Select | Route | Feed


class Hello(Struct):
    """The first message of a peer that connects."""

    process: u32
    commands: ipc.Sender[Command]


def numbered(number: int, size: int) -> bytes:
    """A message as ``Flood`` makes it and ``Hold`` expects it."""
    return number.to_bytes(8, "little") + bytes([number % 251]) * (size - 8)
