"""Each value has the bytes that Rust's own crates give it, in both formats."""

from __future__ import annotations

import ipaddress
import math
import pathlib
import subprocess
from typing import Any, Literal, NewType

import pytest
from msgspec import Struct

import ipc_channel as ipc
from ipc_channel import _core
from ipc_channel.codecs.rust import VERSIONS, rust_codec
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
from tests.support.rust_peers import BUILD_TIMEOUT, program
from tests.support.rust_types import Circle, Color, Nothing, Numbers, Page, Polygon, Rectangle, Shape, Tree

pytestmark = pytest.mark.timeout(BUILD_TIMEOUT)

Id = NewType("Id", u64)


class Marker(Struct):
    pass


def tree(depth: int) -> Tree:
    if depth == 0:
        return Tree(0, more=[Tree(-1), Tree(-2)])
    return Tree(depth, tree(depth - 1))


def integers() -> dict[str, tuple[Any, Any]]:
    unsigned = {"u8": (u8, 8), "u16": (u16, 16), "u32": (u32, 32), "u64": (u64, 64), "u128": (u128, 128)}
    signed = {"i8": (i8, 8), "i16": (i16, 16), "i32": (i32, 32), "i64": (i64, 64), "i128": (i128, 128)}
    found: dict[str, tuple[Any, Any]] = {}
    for name, (form, bits) in {**unsigned, "usize": (usize, 64)}.items():
        found |= {
            f"{name}-min": (form, 0),
            f"{name}-max": (form, 2**bits - 1),
            f"{name}-minus-two": (form, 2**bits - 2),
        }
        found |= {f"{name}-one": (form, 1), f"{name}-127": (form, 127)}
    for name, (form, bits) in {**signed, "isize": (isize, 64), "int": (int, 64)}.items():
        rust = "i64" if name == "int" else name
        found |= {f"{rust}-min": (form, -(2 ** (bits - 1))), f"{rust}-max": (form, 2 ** (bits - 1) - 1)}
        found |= {f"{rust}-minus-two": (form, -2), f"{rust}-one": (form, 1), f"{rust}-127": (form, 127)}
    return found


SPECIMENS: dict[str, tuple[Any, Any]] = {
    **integers(),
    "true": (bool, True),
    "false": (bool, False),
    "unit": (None, None),
    "f32-pi": (f32, math.pi),
    "f32-max": (f32, 3.4028234663852886e38),
    "f32-least": (f32, 2.0**-149),
    "f32-infinite": (f32, -math.inf),
    "f64-pi": (float, math.pi),
    "f64-max": (f64, 1.7976931348623157e308),
    "f64-least": (f64, 2.0**-1074),
    "f64-infinite": (float, math.inf),
    "f64-minus-zero": (float, -0.0),
    "char-a": (char, "a"),
    "char-umlaut": (char, "ü"),
    "char-euro": (char, "€"),
    "char-crab": (char, "🦀"),
    "char-last": (char, "\U0010ffff"),
    "char-zero": (char, "\0"),
    "str-empty": (str, ""),
    "str-mixed": (str, "aü€🦀\0"),
    "str-megabyte": (str, "x" * (1 << 20)),
    "bytes-empty": (bytes, b""),
    "bytes-all": (bytes, bytes(range(256))),
    "array-of-bytes": (FixedBytes[Literal[3]], b"\x01\x02\xff"),
    "array": (Array[u32, Literal[3]], (1, 2, 2**32 - 1)),
    "array-empty": (Array[u32, Literal[0]], ()),
    "path": (PathBuf, pathlib.Path("/tmp/ü")),
    "os-string": (OsString, "a\udcff"),
    "option-none": (u8 | None, None),
    "option-some": (u8 | None, 5),
    "option-none-in-some": (Option[u8 | None], Some(None)),
    "option-some-in-some": (Option[Option[u8]], Some(Some(5))),
    "option-of-unit": (Option[None], Some(None)),
    "list": (list[int], [1, -1, 300]),
    "list-empty": (list[str], []),
    "list-of-units": (list[None], [None] * 300),
    "tuple": (tuple[u8, str, float], (1, "a", 2.5)),
    "set": (set[u16], {7}),
    "map": (dict[str, int], {"a": 1, "b": -1}),
    "map-empty": (dict[u8, u8], {}),
    "color": (tuple[Color, Color, Color], (Color.RED, Color.GREEN, Color.BLUE)),
    "shape-nothing": (Shape, Nothing()),
    "shape-circle": (Shape, Circle(1.5)),
    "shape-rectangle": (Shape, Rectangle(3, 400)),
    "shape-polygon": (Shape, Polygon([(0, -1), (100_000, 2)], True)),
    "shape-maybe": (Shape | None, Rectangle(1, 2)),
    "result-ok": (Result[u16, str], Ok(500)),
    "result-err": (Result[u16, str], Err("no")),
    "newtype": (Id, Id(300)),
    "unit-struct": (Marker, Marker()),
    "page": (Page[Color | None], Page(1, [Color.BLUE, None], 2, None)),
    "tree": (Tree, tree(5)),
    "numbers": (Numbers, Numbers(True, (1, -1), (2, -2), (3, -3), (4, -4), (5, -5), (6, -6), 7.5, -7.5, "z")),
    "duration": (Duration, Duration(2**64 - 1, 999_999_999)),
    "duration-zero": (Duration, Duration()),
    "system-time": (SystemTime, SystemTime(1_000_000_000, 1)),
    "ipv4": (ipaddress.IPv4Address, ipaddress.IPv4Address("192.168.0.1")),
    "ipv6": (ipaddress.IPv6Address, ipaddress.IPv6Address("::1")),
    "ip-4": (IpAddr, ipaddress.IPv4Address("255.255.255.255")),
    "ip-6": (IpAddr, ipaddress.IPv6Address("::1")),
    "socket-4": (SocketAddr, SocketAddrV4(ipaddress.IPv4Address("127.0.0.1"), 8080)),
    "socket-6": (SocketAddr, SocketAddrV6(ipaddress.IPv6Address("::1"), 443)),
    "socket-4-alone": (SocketAddrV4, SocketAddrV4(ipaddress.IPv4Address("127.0.0.1"), 65535)),
}


def printed(what: str) -> list[str]:
    run = subprocess.run([program("encodings"), what], capture_output=True, text=True, check=True)
    return run.stdout.splitlines()


@pytest.fixture(scope="module")
def specimens() -> dict[str, tuple[bytes, bytes]]:
    """By name, what postcard and what bincode make of it."""
    lines = (line.split(" ") for line in printed("specimens"))
    return {name: (bytes.fromhex(one[1:-1]), bytes.fromhex(other[1:-1])) for name, one, other in lines}


def test_every_specimen_is_compared(specimens: dict[str, tuple[bytes, bytes]]) -> None:
    assert specimens.keys() == SPECIMENS.keys()


@pytest.mark.parametrize("version", VERSIONS.values(), ids=VERSIONS)
@pytest.mark.parametrize("name", SPECIMENS)
def test_the_bytes_of(name: str, version: Any, specimens: dict[str, tuple[bytes, bytes]]) -> None:
    form, value = SPECIMENS[name]
    postcard, bincode = specimens[name]
    expected = bincode if version.name == "rust-0.20" else postcard
    codec = rust_codec(form, version)
    assert codec.encode(value) == expected
    decoded = codec.decode(expected)
    if form is f32:
        assert math.isclose(decoded, value, rel_tol=2**-23)
    else:
        assert (decoded, type(decoded)) == (value, type(value))
        assert not isinstance(value, float) or math.copysign(1, decoded) == math.copysign(1, value)


class Nobody(Struct, tag=0):
    pass


class Somebody(Struct, tag=1):
    sender: ipc.Sender[u8]


class Message(Struct):
    number: u16
    reply: ipc.Sender[u8]
    memory: ipc.SharedMemory
    inbox: ipc.Receiver[str]
    empty: ipc.SharedMemory
    maybe: ipc.Sender[u8] | None
    nothing: ipc.Sender[u8] | None
    many: list[tuple[ipc.SharedMemory, ipc.BytesSender]]
    named: dict[u8, ipc.OpaqueReceiver]
    choice: Nobody | Somebody


@pytest.mark.parametrize(("name", "line"), [("rust", 0), ("rust-0.20", 1)])
def test_where_handles_stand_there_are_the_indices_that_the_crate_writes(name: str, line: int) -> None:
    version = VERSIONS[name]
    codec = rust_codec(Message, version)
    outer_sender, outer_receiver = _core.channel(version=version.label)
    receivers = _core.ReceiverSetCore()
    with ipc.Sender(outer_sender, codec) as outer:
        token = receivers.add(outer_receiver)
        bare_sender, bare_receiver = _core.channel(version=version.label)
        inbox_sender, inbox = _core.channel(version=version.label)
        opaque_sender, opaque = _core.channel(version=version.label)
        raw = ipc.bytes_channel(codec=name)
        reply = ipc.Sender[int](bare_sender, rust_codec(u8, version))
        with ipc.SharedMemory.from_bytes(b"memory") as memory, ipc.SharedMemory.create(0) as empty:
            message = Message(
                300,
                reply,
                memory,
                ipc.Receiver(inbox, rust_codec(str, version)),
                empty,
                reply,
                None,
                [(memory, raw.sender), (memory, raw.sender)],
                {9: ipc.Receiver[int](opaque, rust_codec(u8, version)).to_opaque()},
                Somebody(reply),
            )
            outer.send(message)
        ((found, delivery),) = receivers.select(10)
        assert found == token
        assert isinstance(delivery, _core.Delivery)
        assert delivery.payload.hex() == printed("handles")[line]
        handles: list[Any] = list(delivery.handles)
        assert all(isinstance(handle, _core.Foreign) for handle in handles)
        ends, regions = 7, 3  # nothing travels for an empty region
        assert [handle.socket_like for handle in handles] == [True] * ends + [False] * regions
        for end in (bare_receiver, inbox_sender, opaque_sender, raw.receiver):
            end.close()
    receivers.close()
