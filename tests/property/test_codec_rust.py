"""The codec of channels to Rust programs agrees with Rust about every value, and about bytes that stand for none."""

from __future__ import annotations

import contextlib
import dataclasses
import ipaddress
import math
import pathlib
import struct
from collections.abc import Iterator
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from msgspec import Struct

import ipc_channel as ipc
from ipc_channel.codecs.rust import VERSIONS, RustCodec, rust_codec
from ipc_channel.rust import Duration, Err, Ok, SocketAddrV4, SocketAddrV6, Some, SystemTime
from tests.support.rust_peers import BUILD_TIMEOUT, Echo, Layout
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

pytestmark = pytest.mark.timeout(BUILD_TIMEOUT)

agreement = settings(deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow], max_examples=50)

LAYOUTS: dict[Layout, Any] = {"postcard": VERSIONS["rust"], "bincode": VERSIONS["rust-0.20"]}
FORMS: dict[str, Any] = {
    "numbers": Numbers,
    "texts": Texts,
    "containers": Containers,
    "shapes": list[Shape],
    "tree": Tree,
    "standard": Standard,
    "pages": Page[Color | None],
}


@pytest.fixture(scope="module")
def echo() -> Iterator[Echo]:
    with Echo() as running:
        yield running


def unsigned(bits: int) -> st.SearchStrategy[int]:
    edges = st.integers(0, bits - 1).map(lambda shift: 2**shift)
    return st.integers(0, 2**bits - 1) | edges | st.just(2**bits - 1)


def signed(bits: int) -> st.SearchStrategy[int]:
    return unsigned(bits).map(lambda number: number - 2 ** (bits - 1))


def pair(bits: int) -> st.SearchStrategy[tuple[int, int]]:
    return st.tuples(unsigned(bits), signed(bits))


single = st.floats(width=32)
texts = st.text(st.characters(exclude_categories=["Cs"]))
ipv4 = st.ip_addresses(v=4)
ipv6 = st.ip_addresses(v=6).map(lambda address: cast("ipaddress.IPv6Address", address))
ports = unsigned(16)
nanoseconds = st.integers(0, 999_999_999)
paths = texts.map(pathlib.Path)

shapes = st.one_of(
    st.just(Nothing()),
    st.builds(Circle, single),
    st.builds(Rectangle, unsigned(16), unsigned(16)),
    st.builds(Polygon, st.lists(st.tuples(signed(32), signed(32))), st.booleans()),
)
trees = st.recursive(
    st.builds(Tree, signed(32)),
    lambda inner: st.builds(Tree, signed(32), st.none() | inner, st.none() | inner, st.lists(inner, max_size=3)),
    max_leaves=20,
)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "numbers": st.builds(
        Numbers,
        *(st.booleans(), pair(8), pair(16), pair(32), pair(64), pair(128), pair(64)),
        *(single, st.floats(), st.characters(exclude_categories=["Cs"])),
    ),
    "texts": st.builds(
        Texts,
        *(texts, texts, st.binary(), st.binary(min_size=4, max_size=4), paths),
        st.binary().map(lambda name: name.decode("utf-8", "surrogateescape")),
    ),
    "containers": st.builds(
        Containers,
        items=st.lists(unsigned(16)),
        maybe=st.none() | unsigned(8),
        nested=st.none() | st.builds(Some, st.none() | st.booleans()),
        table=st.dictionaries(texts, st.lists(signed(32), max_size=3), max_size=3),
        members=st.sets(unsigned(8)),
        array=st.tuples(single, single, single),
        unit=st.none(),
        single=st.tuples(unsigned(8)),
        pairs=st.lists(st.tuples(signed(64), texts), max_size=4),
        keyed=st.dictionaries(st.tuples(unsigned(8), st.booleans()), st.none() | texts, max_size=3),
    ),
    "shapes": st.lists(shapes),
    "tree": trees,
    "standard": st.builds(
        Standard,
        st.builds(Duration, unsigned(64), nanoseconds),
        st.builds(SystemTime, unsigned(63), nanoseconds),
        *(ipv4, ipv6, ipv4 | ipv6),
        st.builds(SocketAddrV4, ipv4, ports),
        st.builds(SocketAddrV4, ipv4, ports) | st.builds(SocketAddrV6, ipv6, ports),
        st.builds(Ok, unsigned(16)) | st.builds(Err, texts),
    ),
    "pages": st.builds(
        Page,
        *(unsigned(64), st.lists(st.none() | st.sampled_from(Color)), st.none() | unsigned(64), st.none()),
    ),
}


def comparable(value: Any) -> Any:
    """Equal for equal values: floats by their bits, but all NaNs alike; dicts and sets without an order."""
    if isinstance(value, float):
        return "NaN" if math.isnan(value) else struct.pack("d", value)
    if isinstance(value, dict):
        return frozenset((comparable(key), comparable(item)) for key, item in value.items())
    if isinstance(value, set):
        return frozenset(map(comparable, value))
    if isinstance(value, list | tuple):
        return type(value), tuple(map(comparable, value))
    if isinstance(value, Struct):
        return type(value), tuple(comparable(getattr(value, name)) for name in value.__struct_fields__)
    if dataclasses.is_dataclass(value):
        return type(value), comparable(list(vars(value).values()))
    return type(value), value


def codec_of(layout: Layout, name: str) -> RustCodec:
    return rust_codec(FORMS[name], LAYOUTS[layout])


def encoded(codec: RustCodec, value: Any) -> bytes:
    payload = codec.encode(value)
    assert isinstance(payload, bytes)
    return payload


def check(echo: Echo, layout: Layout, name: str, payload: bytes) -> bool:
    """Whether these bytes stand for a value, about which the two sides must agree."""
    codec = codec_of(layout, name)
    theirs = echo.again(layout, name, payload)
    if theirs is None:
        with pytest.raises(ipc.DecodeError):
            codec.decode(payload)
        return False
    ours = codec.decode(payload)
    assert comparable(ours) == comparable(codec.decode(theirs))
    # And back: what this side makes of it is the same for the other.
    again = echo.again(layout, name, encoded(codec, ours))
    assert again is not None
    assert comparable(codec.decode(again)) == comparable(ours)
    return True


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", FORMS)
def test_values_survive(name: str, layout: Layout, echo: Echo) -> None:
    codec = codec_of(layout, name)

    @agreement
    @given(VALUES[name])
    def survives(value: Any) -> None:
        payload = encoded(codec, value)
        assert comparable(codec.decode(payload)) == comparable(value)
        assert check(echo, layout, name, payload)

    survives()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", FORMS)
def test_damaged_bytes(name: str, layout: Layout, echo: Echo) -> None:
    codec = codec_of(layout, name)
    damage = st.lists(st.tuples(st.integers(0, 300), st.sampled_from([0, 1, 2, 3, 0x7F, 0x80, 0xFF]) | unsigned(8)))

    @agreement
    @given(VALUES[name], damage, st.integers(0, 300))
    def agreed(value: Any, changes: list[tuple[int, int]], cut: int) -> None:
        payload = bytearray(encoded(codec, value))
        for place, byte in changes:
            if place < len(payload):
                payload[place] = byte
        check(echo, layout, name, bytes(payload[: len(payload) - cut] if cut < len(payload) else payload))

    agreed()


bytes_of_a_peer = st.lists(st.integers(0, 3) | st.sampled_from([0x80, 0xFF]) | unsigned(8), max_size=150).map(bytes)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", FORMS)
def test_any_bytes(name: str, layout: Layout, echo: Echo) -> None:
    @agreement
    @given(bytes_of_a_peer)
    @example(b"")
    @example(b"\x80" * 40)
    @example(b"\xff" * 40)
    def agreed(payload: bytes) -> None:
        check(echo, layout, name, payload)

    agreed()


class Carrier(Struct):
    """Handles of every kind, to be reached by indices that the peer chooses."""

    sender: ipc.Sender[int] | None
    receivers: list[ipc.Receiver[str]]
    memory: ipc.SharedMemory | None
    opaque: dict[int, ipc.OpaqueSender]
    children: list[Carrier]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_indices_of_handles_that_do_not_exist(layout: Layout) -> None:
    """Without handles in the message there is one region that may be named: the empty one."""
    codec = rust_codec(list[Carrier], LAYOUTS[layout])

    def close(carriers: list[Carrier]) -> None:
        for carrier in carriers:
            if carrier.memory is not None:
                assert len(carrier.memory) == 0
                carrier.memory.close()
            assert carrier.sender is None
            assert not carrier.receivers
            assert not carrier.opaque
            close(carrier.children)

    @agreement
    @given(bytes_of_a_peer)
    def decoded(payload: bytes) -> None:
        with contextlib.suppress(ipc.DecodeError):
            close(codec.decode(payload))

    decoded()
