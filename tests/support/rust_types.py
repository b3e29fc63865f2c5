"""The types of ``tests/rust_peers/encodings/src/types.rs``, as annotations."""

from __future__ import annotations

import enum
import ipaddress
import pathlib
from dataclasses import dataclass
from typing import Generic, Literal, NamedTuple, TypeVar

from msgspec import Struct

from ipc_channel.rust import (
    Array,
    Duration,
    FixedBytes,
    IpAddr,
    Option,
    OsString,
    Result,
    SocketAddr,
    SocketAddrV4,
    SystemTime,
    char,
    f32,
    i8,
    i16,
    i32,
    i64,
    i128,
    isize,
    u8,
    u16,
    u32,
    u64,
    u128,
    usize,
)

T = TypeVar("T")


class Numbers(Struct):
    flag: bool
    tiny: tuple[u8, i8]
    small: tuple[u16, i16]
    medium: tuple[u32, i32]
    large: tuple[u64, i64]
    huge: tuple[u128, i128]
    size: tuple[usize, isize]
    single: f32
    double: float
    letter: char


@dataclass
class Texts:
    text: str
    boxed: str
    raw: bytes
    digest: FixedBytes[Literal[4]]
    path: pathlib.Path
    name: OsString


class Containers(Struct, kw_only=True):
    items: list[u16]
    maybe: u8 | None
    nested: Option[bool | None]
    table: dict[str, list[i32]]
    members: set[u8]
    array: Array[f32, Literal[3]]
    unit: None
    single: tuple[u8]
    pairs: list[tuple[int, str]]
    keyed: dict[tuple[u8, bool], str | None]


class Nothing(Struct, tag=0):
    pass


class Circle(Struct, tag=1):
    radius: f32


class Rectangle(Struct, tag=2):
    width: u16
    height: u16


class Polygon(Struct, tag=3):
    points: list[tuple[i32, i32]]
    closed: bool


Shape = Nothing | Circle | Rectangle | Polygon


class Tree(Struct):
    value: i32
    left: Tree | None = None
    right: Tree | None = None
    more: list[Tree] = []


class Standard(Struct):
    span: Duration
    time: SystemTime
    four: ipaddress.IPv4Address
    six: ipaddress.IPv6Address
    any: IpAddr
    socket_four: SocketAddrV4
    socket: SocketAddr
    outcome: Result[u16, str]


class Color(enum.Enum):
    RED = "red"
    GREEN = "green"
    BLUE = "blue"


class Page(NamedTuple, Generic[T]):
    id: u64
    items: list[T]
    next: u64 | None
    marker: None
