"""Every type of the mapping at its extremes, decoded and encoded by the crate, and back."""

from __future__ import annotations

import ipaddress
import pathlib
from typing import Any

import pytest

from ipc_channel.rust import Array, Duration, Ok, SocketAddrV4, Some, SystemTime, f32
from tests.rust import commands as c
from tests.rust.peers import Peer
from tests.rust.produced import CONTAINERS, LEAST, MOST, NO_CONTAINERS, NO_TEXTS, PAGE, SHAPES, STANDARD, TEXTS, TREE
from tests.support.rust_types import Color, Containers, Numbers, Page, Shape, Standard, Texts, Tree


def _deep(depth: int) -> Tree:
    tree = Tree(0)
    for value in range(depth):
        tree = Tree(value, tree if value % 2 else None, None if value % 2 else tree, [Tree(-value)])
    return tree


def _containers(**fields: Any) -> Containers:
    return Containers(**{name: fields.get(name, getattr(CONTAINERS, name)) for name in Containers.__struct_fields__})


VALUES: dict[str, tuple[Any, Any, list[Any]]] = {
    "numbers": (c.LoopNumbers, Numbers, [LEAST, MOST]),
    "texts": (
        c.LoopTexts,
        Texts,
        [
            NO_TEXTS,
            TEXTS,
            Texts("x" * (1 << 20), "", bytes(1 << 20), bytes(4), pathlib.Path("/"), "\udcff" * 300),
        ],
    ),
    "containers": (
        c.LoopContainers,
        Containers,
        [
            NO_CONTAINERS,
            CONTAINERS,
            _containers(nested=Some(True), maybe=0, members={0, 127, 128, 255}),
            _containers(nested=Some(False), keyed={(index, index % 2 == 0): None for index in range(256)}),
            _containers(table={str(index): [index] * (index % 3) for index in range(1000)}),
        ],
    ),
    "shapes": (c.LoopShapes, list[Shape], [[], SHAPES, SHAPES * 1000]),
    "tree": (c.LoopTree, Tree, [TREE, _deep(60)]),
    "standard": (
        c.LoopStandard,
        Standard,
        [
            STANDARD,
            Standard(
                Duration(),
                SystemTime(),
                ipaddress.IPv4Address(0),
                ipaddress.IPv6Address(2**128 - 1),
                ipaddress.IPv4Address("10.0.0.1"),
                SocketAddrV4(ipaddress.IPv4Address(0), 0),
                SocketAddrV4(ipaddress.IPv4Address(1), 1),
                Ok(65535),
            ),
        ],
    ),
    "page": (c.LoopPage, Page[Color | None], [PAGE, Page(0, [], None, None), Page(1, [*Color], 2**64 - 1, None)]),
}


@pytest.mark.parametrize("name", VALUES)
def test_values_come_back(peer: Peer, name: str) -> None:
    kind, form, values = VALUES[name]
    with peer.loop(kind, form) as loop:
        for value in values:
            returned = loop.turn(value)
            assert returned == value
            assert type(returned) is type(value)


def test_many_values_come_back_in_order(peer: Peer) -> None:
    with peer.loop(c.LoopNumbers, Numbers) as loop:
        for _ in range(100):
            loop.there.send(LEAST)
            loop.there.send(MOST)
        assert [loop.back.recv(30) for _ in range(200)] == [LEAST, MOST] * 100


def test_floats_are_exact_where_rust_has_them(peer: Peer) -> None:
    """A value of 32 bits that Python has rounded is the one that comes back."""
    with peer.loop(c.LoopContainers, Containers) as loop:
        once = loop.turn(_containers(array=(0.1, 1e-45, -0.0)))
        again = loop.turn(once)
        assert again == once
        assert str(again.array[2]) == "-0.0"
        assert again.array[0] != 0.1


def test_the_types_are_those_of_the_documents() -> None:
    """All of them stand in what is compared above; nothing was forgotten when one was added."""
    import ipc_channel.rust as rust

    used = {
        "Array", "Duration", "Err", "FixedBytes", "IpAddr", "Ipv4Addr", "Ipv6Addr", "Ok", "Option", "OsString",
        "PathBuf", "Result", "SocketAddr", "SocketAddrV4", "SocketAddrV6", "Some", "SystemTime", "char", "f32", "f64",
        "i8", "i16", "i32", "i64", "i128", "isize", "u8", "u16", "u32", "u64", "u128", "usize",
    }  # fmt: skip
    assert used == set(rust.__all__)
    assert Array[f32, Any]
