"""Not run, but checked by pyright and mypy: what Rust's types are to them."""

import ipaddress
import pathlib
from typing import Literal, TypeAlias, assert_type

from msgspec import Struct

import ipc_channel as ipc
from ipc_channel import rust
from ipc_channel.rust import (
    Array,
    Duration,
    Err,
    FixedBytes,
    IpAddr,
    Ok,
    Option,
    OsString,
    PathBuf,
    Result,
    SocketAddr,
    SocketAddrV4,
    SocketAddrV6,
    Some,
    SystemTime,
    char,
    f32,
    f64,
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

# For mypy an alias of a union is no type where it stands alone in an expression, unless it has a name.
Outcome: TypeAlias = Result[u8, str]
Maybe: TypeAlias = Option[u8]


class Numbers(Struct):
    a: u8
    b: u16
    c: u32
    d: u64
    e: u128
    f: usize
    g: i8
    h: i16
    i: i32
    j: i64
    k: i128
    size: isize
    m: f32
    n: f64
    o: rust.u8 | None


class Others(Struct):
    letter: char
    name: OsString
    path: PathBuf
    matrix: Array[Array[f32, Literal[3]], Literal[3]]
    digest: FixedBytes[Literal[32]]
    maybe: Option[Option[u8]]
    outcome: Result[list[u16], str]
    span: Duration
    time: SystemTime
    address: IpAddr
    socket: SocketAddr
    reply: ipc.Sender[Result[u8, None]]


def numbers(message: Numbers) -> None:
    assert_type(message.a, int)
    assert_type(message.k, int)
    assert_type(message.m, float)
    assert_type(message.o, int | None)
    Numbers(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 1.5, 2, None)


def others(message: Others) -> None:
    assert_type(message.letter, str)
    assert_type(message.name, str)
    assert_type(message.path, pathlib.Path)
    assert_type(message.matrix[0][0], float)
    assert_type(message.digest, bytes)
    assert_type(message.address, ipaddress.IPv4Address | ipaddress.IPv6Address)
    assert_type(message.socket, SocketAddrV4 | SocketAddrV6)
    assert_type(message.socket.port, int)
    assert_type(message.span.seconds, int)
    if message.maybe is not None:
        assert_type(message.maybe, Some[Some[int] | None])
        if message.maybe.value is not None:
            assert_type(message.maybe.value.value, int)


def results(outcome: Result[list[u16], str], message: Others) -> int:
    message.reply.send(Ok(5))
    message.reply.send(Err(None))
    match outcome:
        case Ok(numbers):
            assert_type(numbers, list[int])
            return len(numbers)
        case Err(error):
            assert_type(error, str)
            return 0


def channels() -> None:
    assert_type(ipc.channel(u8), ipc.Channel[int])
    assert_type(ipc.channel(list[f32]), ipc.Channel[list[float]])
    assert_type(ipc.channel(Outcome), ipc.Channel[Ok[int] | Err[str]])
    assert_type(ipc.channel(list[Result[u8, str]]), ipc.Channel[list[Ok[int] | Err[str]]])
    assert_type(ipc.channel(Maybe), ipc.Channel[Some[int] | None])
    assert_type(ipc.channel(Array[u8, Literal[3]]), ipc.Channel[tuple[int, ...]])
    assert_type(ipc.channel(Numbers), ipc.Channel[Numbers])


def made(array: Array[u8, Literal[3]], digest: FixedBytes[Literal[2]]) -> tuple[Option[str], Outcome]:
    assert_type(Some(5), Some[int])
    assert_type(array, tuple[int, ...])
    assert_type(digest, bytes)
    made((1, 2, 3), b"ab")
    return Some("a"), Ok(5)
