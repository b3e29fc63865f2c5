"""The codec of channels to Rust programs: what it carries, what it refuses and how it says so."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import gc
import ipaddress
import pathlib
import resource
import textwrap
import threading
import tracemalloc
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any, ClassVar, Final, Generic, Literal, NamedTuple, NewType, Optional, TypedDict, TypeVar

import msgspec
import pytest
from msgspec import Struct
from typing_extensions import TypeAliasType

import ipc_channel as ipc
from ipc_channel import _core
from ipc_channel.codecs.choice import UNSET, chosen_codec
from ipc_channel.codecs.rust import VERSIONS, RustCodec, RustVersion, rust_codec, version_of
from ipc_channel.rust import (
    Array,
    Duration,
    Err,
    FixedBytes,
    Ok,
    Option,
    OsString,
    PathBuf,
    Result,
    Some,
    SystemTime,
    char,
    f32,
    i8,
    i64,
    i128,
    u8,
    u16,
    u32,
    u64,
    u128,
)
from tests.support.snippets import run_snippet

T = TypeVar("T")
U = TypeVar("U")

RUST = VERSIONS["rust"]
OLD = VERSIONS["rust-0.20"]


class Color(enum.Enum):
    RED = "red"
    GREEN = "green"


class Permissions(enum.Flag):
    READ = 1
    WRITE = 2


class Item(Struct):
    size: u8
    name: str = ""


class Request(Struct):
    items: list[Item]
    labels: dict[str, u8] = {}


class Circle(Struct, tag=0):
    radius: f32


class Square(Struct, tag=2):
    side: u8


class Far(Struct, tag=2**32 - 1):
    pass


class Alone(Struct, tag=3):
    size: u16


class Named(Struct, tag="named"):
    size: u8


class AlsoZero(Struct, tag=0):
    pass


class Node(Struct):
    value: u8
    next: Node | None = None


class Endless(Struct):
    inner: Endless


class EndlessInTwo(Struct):
    inner: tuple[EndlessInTwo, u8]


class Box(Struct, Generic[T]):
    content: T


class Two(Struct, Generic[T, U]):
    first: T
    second: U
    again: Two[U, T] | None = None


class Inherited(Box[u8]):
    more: u16


class Nested(Two[T, list[T]], Generic[T], kw_only=True):
    own: T


class Growing(Struct, Generic[T]):
    inner: Growing[list[T]] | None


class ByKeyword(Struct, kw_only=True):
    first: u8
    second: str = ""


class Positive(Struct):
    number: i64

    def __post_init__(self) -> None:
        if self.number < 0:
            raise ValueError("negative")
        if self.number == 0:
            raise KeyboardInterrupt


class Frozen(Struct, frozen=True):
    size: u8


@dataclasses.dataclass
class Point:
    kind: ClassVar[str] = "point"
    x: u8
    y: u8 = 0


@dataclasses.dataclass(slots=True)
class Slotted(Generic[T]):
    content: T
    y: u8 = dataclasses.field(default=0, kw_only=True)


@dataclasses.dataclass
class Computed:
    x: u8
    double: u8 = dataclasses.field(init=False)


@dataclasses.dataclass
class NeedsMore:
    x: u8
    factor: dataclasses.InitVar[int]


class Pair(NamedTuple, Generic[T]):
    left: T
    right: str


class Typed(TypedDict):
    x: int


class WithTime(Struct):
    when: datetime.datetime


class Deep(Struct):
    table: dict[str, list[WithTime | None]]


class Forward(Struct):
    inner: Missing  # type: ignore[name-defined]  # noqa: F821


class Cautious(Struct):
    size: u8

    def __getattribute__(self, name: str) -> Any:
        return 7 if name == "size" else super().__getattribute__(name)


class Reply(Struct):
    to: ipc.Sender[u8]
    others: list[ipc.Sender[u8]] = []
    memory: ipc.SharedMemory | None = None
    last: u8 = 0


class Talk(Struct):
    back: ipc.Sender[Talk]


class Everything(Struct):
    bytes_sender: ipc.BytesSender
    bytes_receiver: ipc.BytesReceiver
    opaque_sender: ipc.OpaqueSender
    opaque_receiver: ipc.OpaqueReceiver
    receiver: ipc.Receiver[str]


class WithFile(Struct):
    file: ipc.Fd


class WithPickled(Struct):
    end: ipc.Sender


class WithWrongEnd(Struct):
    end: ipc.Sender[list[WithTime]]


UserId = NewType("UserId", u16)
Json = TypeAliasType("Json", "list[Json] | None")
Own = TypeAliasType("Own", "Own | Circle | Square")
Chain = TypeAliasType("Chain", tuple[T, "Chain[T] | None"], type_params=(T,))


def coded(form: Any, message: Any, version: RustVersion = RUST) -> bytes:
    payload = rust_codec(form, version).encode(message)
    assert isinstance(payload, bytes)
    return payload


def roundtrip(form: Any, message: Any) -> Any:
    for version in VERSIONS.values():
        received = rust_codec(form, version).decode(coded(form, message, version))
        assert received == message
        assert type(received) is type(message)
    return received


@pytest.mark.parametrize(
    ("form", "message"),
    [
        (bool, True),
        (Request, Request([Item(1, "a"), Item(2)], {"x": 3})),
        (Circle | Square, Square(4)),
        (Circle | Square | Far | None, Far()),
        (Circle | Square | None, None),
        (Alone, Alone(5)),
        (list[Alone], [Alone(5)]),
        (Node, Node(1, Node(2, Node(3)))),
        (Box[u8], Box(3)),
        (Box[Box[Color]], Box(Box(Color.GREEN))),
        (Two[u8, str], Two(1, "a", Two("b", 2))),
        (Inherited, Inherited(1, 300)),
        (Nested[u8], Nested(1, [2, 3], Two([4], 5), own=6)),
        (ByKeyword, ByKeyword(first=1, second="a")),
        (Point, Point(1, 2)),
        (Slotted[str], Slotted("a", y=3)),
        (Pair[u8], Pair(1, "a")),
        (tuple[u8, ...], (1, 2, 3)),
        (tuple[()], ()),
        (frozenset[str], frozenset({"a", "b"})),
        (dict[Frozen, set[Color]], {Frozen(1): {Color.RED}}),
        (dict[tuple[u8, str | None], bytearray], {(1, None): bytearray(b"x")}),
        (set[FixedBytes[Literal[2]]], {b"ab"}),
        (UserId, UserId(300)),
        (Annotated[u16, "described"], 300),
        (Annotated[str, msgspec.Meta(description="no constraint")], "a"),
        (Final[int], 5),
        (Optional[u8], 5),  # noqa: UP045
        (Json, [[], None, [[None]]]),
        (Chain[u8], (1, (2, None))),
        (TypeAliasType("Shapes", Circle | Square) | Far | None, Square(1)),
        (Option[Option[u8]], Some(Some(1))),
        (Result[None, str], Ok(None)),
        (Result[list[Node], Result[u8, None]], Err(Err(None))),
        (Array[Circle, Literal[2]], (Circle(1.0), Circle(-0.5))),
        (Array[u8, 3], (1, 2, 3)),
        (pathlib.PurePosixPath, pathlib.PurePosixPath("a/b")),
        (Positive, Positive(5)),
    ],
    ids=str,
)
def test_messages_come_as_they_went(form: Any, message: Any) -> None:
    roundtrip(form, message)


class TestNumbers:
    @pytest.mark.parametrize(
        ("form", "value", "name"),
        [
            *((u8, value, "u8") for value in (-1, 256)),
            *((i8, value, "i8") for value in (-129, 128)),
            *((u16, value, "u16") for value in (-1, 2**16)),
            *((u32, value, "u32") for value in (-1, 2**32)),
            *((u64, value, "u64") for value in (-1, 2**64, -(2**64))),
            *((i64, value, "i64") for value in (-(2**63) - 1, 2**63)),
            *((int, value, "i64") for value in (-(2**63) - 1, 2**63)),
            *((u128, value, "u128") for value in (-1, 2**128, -(2**127))),
            *((i128, value, "i128") for value in (-(2**127) - 1, 2**127)),
            *((f32, value, "f32") for value in (1e39, -1e39, 3.5e38)),
            *((form, 10**400, name) for form, name in ((float, "f64"), (f32, "f32"))),
        ],
    )
    def test_what_does_not_fit(self, form: Any, value: float, name: str) -> None:
        with pytest.raises(ipc.EncodeError, match=f"^message: .* does not fit {name}$"):
            coded(form, value)

    def test_bools_are_ints_and_ints_are_floats_for_type_checkers_and_here(self) -> None:
        assert coded(u8, True) == b"\x01"
        assert coded(float, 2) == coded(float, 2.0)
        assert coded(float, True) == coded(float, 1.0)

    @pytest.mark.parametrize(
        ("form", "value", "expected"),
        [
            (int, 1.0, "int"),
            (int, "1", "int"),
            (bool, 1, "bool"),
            (float, "1", "float"),
            (int, decimal.Decimal(1), "int"),
        ],
    )
    def test_nothing_else_is_converted(self, form: Any, value: Any, expected: str) -> None:
        with pytest.raises(ipc.EncodeError, match=f"^message: expected {expected}, got {type(value).__name__}$"):
            coded(form, value)

    def test_a_float_is_rounded_to_f32(self) -> None:
        received = rust_codec(f32, RUST).decode(coded(f32, 0.1))
        assert received != 0.1
        assert abs(received - 0.1) < 1e-8


class TestStrings:
    @pytest.mark.parametrize("form", [str, char, PathBuf])
    def test_surrogates_are_in_no_rust_string(self, form: Any) -> None:
        value: Any = pathlib.Path("\udcff") if form is PathBuf else "\udcff"
        with pytest.raises(ipc.EncodeError, match="surrogate"):
            coded(form, value)

    @pytest.mark.parametrize("value", ["", "ab"])
    def test_a_char_is_one_character(self, value: str) -> None:
        with pytest.raises(ipc.EncodeError, match="one character"):
            coded(char, value)

    @pytest.mark.parametrize("form", [bytes, bytearray, FixedBytes[Literal[3]]])
    @pytest.mark.parametrize("make", [bytes, bytearray, memoryview, lambda value: memoryview(value)[::1]])
    def test_bytes_of_any_kind(self, form: Any, make: Callable[[bytes], Any]) -> None:
        received = rust_codec(form, RUST).decode(coded(form, make(b"abc")))
        assert received == b"abc"
        assert type(received) is (bytearray if form is bytearray else bytes)

    @pytest.mark.parametrize("value", ["text", [1, 2], None])
    def test_nothing_else_is_bytes(self, value: Any) -> None:
        with pytest.raises(ipc.EncodeError, match="expected bytes, got"):
            coded(bytes, value)

    def test_an_os_string_is_any_bytes_as_python_has_them(self) -> None:
        assert roundtrip(OsString, b"\xff/a".decode("utf-8", "surrogateescape")) == "\udcff/a"
        with pytest.raises(ipc.EncodeError):
            coded(OsString, "\ud800")
        with pytest.raises(ipc.DecodeError, match="no variant 1"):
            rust_codec(OsString, RUST).decode(b"\x01\x00")

    def test_an_address_with_a_scope(self) -> None:
        with pytest.raises(ipc.EncodeError, match="scope"):
            coded(ipaddress.IPv6Address, ipaddress.IPv6Address("fe80::1%eth0"))


class TestTimes:
    def test_conversions(self) -> None:
        span = datetime.timedelta(days=3, microseconds=1)
        assert Duration.from_timedelta(span).to_timedelta() == span
        with pytest.raises(ValueError):
            Duration.from_timedelta(-span)
        with pytest.raises(OverflowError):
            Duration(2**64 - 1).to_timedelta()
        time = datetime.datetime(2100, 2, 3, 4, 5, 6, 7, tzinfo=datetime.timezone(datetime.timedelta(hours=2)))
        assert SystemTime.from_datetime(time).to_datetime() == time
        with pytest.raises(ValueError):
            SystemTime.from_datetime(datetime.datetime(2000, 1, 1))
        with pytest.raises(ValueError):
            SystemTime.from_datetime(datetime.datetime(1969, 1, 1, tzinfo=datetime.UTC))

    def test_nanoseconds_carry_as_in_rust(self) -> None:
        assert Duration(1, 2_000_000_001) == Duration(3, 1)
        assert rust_codec(Duration, RUST).decode(b"\x01\x80\xa8\xd6\xb9\x07") == Duration(3, 0)
        with pytest.raises(ValueError):
            Duration(2**64 - 1, 1_000_000_000)
        with pytest.raises(ValueError):
            SystemTime(2**63)
        with pytest.raises(ipc.DecodeError, match="Duration: Duration is 0 to"):
            rust_codec(Duration, RUST).decode(b"\xff" * 9 + b"\x01\x80\x94\xeb\xdc\x03")


class TestWhatDoesNotMap:
    @pytest.mark.parametrize(
        ("form", "text"),
        [
            (Any, "message: nothing in Rust's serde is known for Any"),
            (object, "message: .* object"),
            (list[Any], r"message\[\.\.\.\]: .* Any"),
            (datetime.timedelta, "use ipc_channel.rust.Duration"),
            (Deep, r"WithTime\.when: nothing in Rust's serde is known for datetime; use ipc_channel.rust.SystemTime"),
            (decimal.Decimal, "Decimal"),
            (Typed, "Typed"),
            (memoryview, "use bytes"),
            (Sequence[int], "use list or tuple"),
            (Literal[1], "message: "),
            (int | str, "int is none; wrap it in one"),
            (Circle | str, "str is none"),
            (Circle | Named, "Named is none"),
            (Circle | Item | None, "Item is none"),
            (Circle | ipc.Sender[int], r"Sender\[int\] is none"),
            (ipaddress.IPv4Address | Circle, "IPv4Address is none"),
            (Circle | AlsoZero, "AlsoZero and Circle have the same tag 0"),
            (Named, "Named is none"),
            (Some[int], "Some stands beside None only"),
            (Circle | Some[int] | None, "Some stands beside None only"),
            (Json | None, "None could mean two things"),
            (TypeAliasType("Maybe", u8 | None) | None, "None could mean two things"),
            (list, r"list needs the types"),
            (tuple, r"tuple needs the types"),
            (dict, r"dict needs the types"),
            (Array, "needs its length"),
            (Array[u8, Literal["a"]], "needs its length"),
            (Array[u8, -1], "needs its length"),
            (FixedBytes, "needs its length"),
            (Box, r"Box\.content: ~T stands for any type"),
            (dict[list[int], int], r"message\.keys\(\): .* hashable"),
            (set[Item], r"Item|hashable"),
            (dict[tuple[Frozen, Point], int], "hashable"),
            (set[set[int]], "hashable"),
            (Permissions, "flags like Permissions"),
            (enum.Enum("Empty", []), "no members"),
            (Endless, "Endless: every value of it would contain another one"),
            (EndlessInTwo, "every value of it would contain another one"),
            (Growing[u8], "types without end"),
            (Own, "types without end"),
            (Computed, r"Computed\.double: the constructor of Computed does not take it"),
            (NeedsMore, "NeedsMore: its constructor needs factor"),
            (Forward, "annotations of Forward cannot be understood"),
            (Annotated[int, msgspec.Meta(ge=0)], "is not checked"),
            (Annotated[u8, msgspec.Meta(le=3)], "is not checked"),
            (Annotated[u8, u16.__metadata__[0]], "one type of u8 and u16"),  # type: ignore[attr-defined]
            (Array[None, Literal[100_000]], "items that take no bytes"),
            (ipc.Fd, "no open files"),
            (WithFile, r"WithFile\.file: .* no open files"),
            (WithPickled, r"WithPickled\.end: Sender needs the type of its messages"),
            (ipc.Sender[Any], r"Sender needs the type"),
            (WithWrongEnd, r"WithTime\.when: "),
            (ipc.Receiver[ipc.Sender[WithTime]], r"WithTime\.when: "),
            ("int", "message: "),
            (5, "message: "),
        ],
        ids=str,
    )
    def test_it_is_a_type_error_that_names_the_place(self, form: Any, text: str) -> None:
        with pytest.raises(TypeError, match=text):
            rust_codec(form, RUST)

    def test_a_class_that_can_only_be_made_by_hand(self) -> None:
        class Odd(NamedTuple):
            x: u8

        Odd.__annotations__.clear()
        with pytest.raises(TypeError, match=r"Odd\.x: it has no type"):
            rust_codec(Odd, RUST)


class TestEncodeErrors:
    @pytest.mark.parametrize(
        ("form", "message", "text"),
        [
            (Request, Request([Item(1), Item(2), Item(3), Item(300)]), "Request.items[3].size: 300 does not fit u8"),
            (Request, Request([], {"a": 1, "b": -1}), "Request.labels['b']: -1 does not fit u8"),
            (Request, Request([], {5: 1}), "Request.labels.keys()[0]: expected str, got int"),  # type: ignore[dict-item]
            (Request, Item(1), "Request: expected Request, got Item"),
            (Request, Request((Item(1),)), "Request.items: expected list, got tuple"),  # type: ignore[arg-type]
            (Circle | Square, Square(300), "message.side: 300 does not fit u8"),
            (Circle | Square, Item(1), "message: expected Circle | Square, got Item"),
            (Circle | Square | None, 5, "message: expected Circle | Square, got int"),
            (Alone, Circle(1.0), "Alone: expected Alone, got Circle"),
            (list[tuple[u8, str]], [(1, "a"), (1, 2)], "message[1][1]: expected str, got int"),
            (tuple[u8, u8], (1,), "message: expected a tuple of 2 items, got one of 1"),
            (tuple[u8, ...], [1], "message: expected tuple, got list"),
            (Array[u8, Literal[2]], (1,), "message: 1 items where there are always 2"),
            (FixedBytes[Literal[2]], b"abc", "message: 3 bytes where there are always 2"),
            (set[u8], frozenset([1]), "message: expected set, got frozenset"),
            (frozenset[u8], {1}, "message: expected frozenset, got set"),
            (dict[u8, u8], [], "message: expected dict, got list"),
            (Color, "red", "message: expected Color, got str"),
            (Option[u8], 5, "message: expected Some, got int"),
            (Option[u8], Some(300), "message.value: 300 does not fit u8"),
            (None, 0, "message: expected None, got int"),
            (Point, Point(1, 256), "Point.y: 256 does not fit u8"),
            (Pair[u8], (1, "a"), "Pair: expected Pair, got tuple"),
            (PathBuf, "/tmp", "message: expected Path, got str"),
            (ipaddress.IPv4Address, "127.0.0.1", "message: expected IPv4Address, got str"),
            (list[u8], [10**100], f"message[0]: {10**59}... does not fit u8"),
        ],
        ids=str,
    )
    def test_they_name_the_place(self, form: Any, message: Any, text: str) -> None:
        with pytest.raises(ipc.EncodeError) as caught:
            coded(form, message)
        assert str(caught.value) == text

    def test_a_message_that_contains_itself(self) -> None:
        node = Node(1)
        node.next = node
        with pytest.raises(ipc.EncodeError, match="nested more than 500 deep"):
            coded(Node, node)

    def test_an_attribute_that_was_deleted(self) -> None:
        item = Item(1)
        del item.name
        with pytest.raises(ipc.EncodeError, match=r"Item\.name: ") as caught:
            coded(Item, item)
        assert isinstance(caught.value.__cause__, AttributeError)

    def test_a_property_that_raises_is_the_cause(self) -> None:
        class Broken(Frozen, frozen=True):
            @property
            def size(self) -> int:  # type: ignore[override]
                raise KeyError("broken")

        with pytest.raises(ipc.EncodeError, match=r"Frozen\.size: ") as caught:
            coded(Frozen, Broken(1))
        assert isinstance(caught.value.__cause__, KeyError)

    def test_what_is_changed_while_it_is_encoded(self) -> None:
        items: list[Any] = []

        class Shrinking(Frozen, frozen=True):
            def __getattribute__(self, name: str) -> Any:
                if name == "size":
                    items.pop()
                return super().__getattribute__(name)

        items[:] = [Shrinking(1), Shrinking(2), Shrinking(3)]
        with pytest.raises(ipc.EncodeError, match="changed while it was encoded"):
            coded(list[Frozen], items)

        table: dict[int, Any] = {}

        class Growing(Frozen, frozen=True):
            def __getattribute__(self, name: str) -> Any:
                if name == "size":
                    table[len(table)] = Frozen(1)
                return super().__getattribute__(name)

        table[0] = Growing(1)
        with pytest.raises(ipc.EncodeError, match="changed while it was encoded"):
            coded(dict[u8, Frozen], table)

    def test_interrupts_are_not_wrapped(self) -> None:
        class Interrupting(Frozen, frozen=True):
            def __getattribute__(self, name: str) -> Any:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            coded(Frozen, Interrupting(1))


class TestObjects:
    def test_an_object_of_a_class_that_extends_the_one_that_is_named(self) -> None:
        class Special(Item):
            more: str = ""

        assert coded(Item, Special(5, "a", "b")) == coded(Item, Item(5, "a"))

    def test_a_class_may_decide_what_its_attributes_are(self) -> None:
        assert coded(Cautious, Cautious(1)) == b"\x07"

    def test_a_message_inside_of_the_encoding_of_another(self) -> None:
        class Asking(Frozen, frozen=True):
            @property
            def size(self) -> int:  # type: ignore[override]
                return coded(list[u8], [1, 2, 3])[0]

        assert coded(tuple[str, Frozen, str], ("a", Asking(1), "b")) == b"\x01a\x03\x01b"

    def test_a_message_inside_of_the_decoding_of_another(self) -> None:
        made: list[Any] = []

        class Asking(Struct):
            size: u8

            def __post_init__(self) -> None:
                made.append(rust_codec(tuple[u8, u8, Frozen], RUST).decode(b"\x01\x02\x03"))

        decoded = rust_codec(tuple[str, Asking, str], RUST).decode(b"\x01a\x05\x01b")
        assert decoded == ("a", Asking(5), "b")
        assert made[0] == (1, 2, Frozen(3))

    def test_the_codec_does_not_keep_what_it_has_carried(self) -> None:
        class Weak(Struct, weakref=True):
            size: u8

        codec = rust_codec(tuple[Weak, Weak], RUST)
        first, second = codec.decode(b"\x01\x02")
        with pytest.raises(ipc.DecodeError):
            codec.decode(b"\x01")
        references = [weakref.ref(first), weakref.ref(second)]
        del first, second
        gc.collect()
        assert [reference() for reference in references] == [None, None]


class TestDecodeErrors:
    @pytest.mark.parametrize(
        ("form", "payload", "text"),
        [
            (
                Request,
                b"\x02\x01\x00\x05\x80",
                r"^Request\.items\[1\]\.name: the message ends in the middle of a value$",
            ),
            (Request, b"\x00\x01\x01a", r"^Request\.labels\['a'\]: the message ends"),
            (Request, b"\x00\x01\x05a", r"^Request\.labels\.keys\(\)\[0\]: it would have 5 items or bytes"),
            (bool, b"\x02", "^message: 2 is no bool$"),
            (u8 | None, b"\x02", "neither None"),
            (str, b"\x01\xff", "^message: a string is not UTF-8$"),
            (char, b"\x00", "a char is not UTF-8"),
            (u16, b"\x80\x80\x04", "more bits than its type"),
            (Color, b"\x02", "^message: Color has no variant 2$"),
            (Circle | Square, b"\x01", r"^message: Circle \| Square has no variant 1$"),
            (Circle | Square, b"\x02", r"^message\.side: "),
            (Alone, b"\x00\x05", "Alone has no variant 0"),
            (list[u64], b"\x05\x00\x00", "it would have 5 items or bytes, and the message goes on for 2 bytes only"),
            (Positive, b"\x01", "^Positive: negative$"),
            (list[Positive], b"\x02\x02\x01", r"^message\[1\]: negative$"),
        ],
        ids=str,
    )
    def test_they_name_the_place(self, form: Any, payload: bytes, text: str) -> None:
        with pytest.raises(ipc.DecodeError, match=text):
            rust_codec(form, RUST).decode(payload)

    def test_what_a_constructor_raises_is_the_cause(self) -> None:
        with pytest.raises(ipc.DecodeError) as caught:
            rust_codec(Positive, RUST).decode(b"\x01")
        assert isinstance(caught.value.__cause__, ValueError)
        with pytest.raises(KeyboardInterrupt):
            rust_codec(Positive, RUST).decode(b"\x00")

    def test_what_the_real_crates_accept(self) -> None:
        """Numbers longer than necessary, and anything after the value."""
        assert rust_codec(u16, RUST).decode(b"\x81\x80\x00") == 1
        assert rust_codec(str, RUST).decode(b"\x81\x00arest") == "a"
        assert rust_codec(u16, OLD).decode(b"\x01\x00rest") == 1

    def test_the_payload_may_be_any_buffer(self) -> None:
        decode: Callable[[Any], Any] = rust_codec(list[str], RUST).decode
        for make in (bytes, bytearray, memoryview):
            assert decode(make(b"\x01\x01a")) == ["a"]
        with pytest.raises(TypeError):
            decode("text")


class TestCost:
    """A peer's bytes cost no more than their number accounts for."""

    HUGE = b"\xff\xff\xff\xff\xff\xff\xff\xff\x7f"

    @pytest.mark.parametrize(
        "form",
        [
            list[u8],
            list[None],
            tuple[None, ...],
            list[tuple[()]],
            set[None],
            frozenset[None],
            dict[None, None],
            dict[None, u8],
            list[list[None]],
            list[Array[None, Literal[60_000]]],
            str,
            bytes,
            bytearray,
            dict[str, str],
            list[Box[None]],
        ],
        ids=str,
    )
    def test_lengths_that_the_message_does_not_have(self, form: Any) -> None:
        decode = rust_codec(form, RUST).decode
        for payload in (self.HUGE, b"\xff\xff\xff\x7f" * 3):
            tracemalloc.start()
            try:
                with pytest.raises(ipc.DecodeError):
                    decode(payload)
                _, peak = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
            assert peak < 4_000_000

    def test_many_short_sequences_of_units_count_together(self) -> None:
        decode = rust_codec(list[list[None]], RUST).decode
        assert sum(map(len, decode(b"\x02" + b"\xff\xff\x01" * 2))) == 2 * 32767
        for payload in (b"\x03" + b"\xff\xff\x01" * 3, b"\x7f" + b"\xff\xff\x03" * 127):
            with pytest.raises(ipc.DecodeError, match="items that take no bytes"):
                decode(payload)
        with pytest.raises(ipc.DecodeError, match="items that take no bytes"):
            rust_codec(list[Array[None, Literal[60_000]]], RUST).decode(b"\x02")

    def test_units_are_no_error_as_long_as_they_are_few(self) -> None:
        assert len(roundtrip(list[None], [None] * 60_000)) == 60_000

    @pytest.mark.parametrize("version", [RUST, OLD], ids=lambda version: version.name)
    def test_depth(self, version: RustVersion) -> None:
        """Also in a thread with little stack."""
        outcomes: list[Any] = []
        # Each level is one of the option and one of the struct.
        node = Node(0)
        for number in range(248):
            node = Node(number % 256, node)

        def decode() -> None:
            codec = rust_codec(Node, version)
            payload = codec.encode(node)
            assert isinstance(payload, bytes)
            outcomes.append(coded(Node, codec.decode(payload), version) == payload)
            outcomes.extend(self.refusal(codec, level) for level in (b"\x00\x01" * 251, b"\x00\x01" * 1_000_000))

        before = threading.stack_size(512 * 1024)
        try:
            thread = threading.Thread(target=decode)
            thread.start()
        finally:
            threading.stack_size(before)
        thread.join()
        assert outcomes[0] is True
        assert all("nested more than 500 deep" in outcome for outcome in outcomes[1:])
        assert len(outcomes) == 3

    def test_a_message_for_which_there_is_no_memory(self) -> None:
        source = """
            import ipc_channel as ipc
            from ipc_channel.codecs.rust import VERSIONS, rust_codec

            text = "x" * 700_000_000
            for form in (str, list[str]):
                try:
                    rust_codec(form, VERSIONS["rust"]).encode(text if form is str else [text])
                except (ipc.EncodeError, MemoryError) as error:
                    print(error)
        """
        printed = run_snippet(textwrap.dedent(source), limits={resource.RLIMIT_AS: 1 << 30}).stdout
        assert printed.splitlines() == [
            "message: there is not enough memory to encode it",
            "message[0]: there is not enough memory to encode it",
        ]

    @staticmethod
    def refusal(codec: RustCodec, payload: bytes) -> str:
        try:
            codec.decode(payload)
        except ipc.DecodeError as error:
            return str(error)
        return "accepted"

    def test_a_deep_message_has_a_short_error(self) -> None:
        assert len(self.refusal(rust_codec(Node, RUST), b"\x00\x01" * 1000)) < 1000


def ends(form: Any, version: RustVersion = RUST) -> tuple[ipc.Sender[Any], ipc.Receiver[Any]]:
    """A channel of this codec."""
    sender, receiver = _core.channel(version=version.label)
    codec = rust_codec(form, version)
    return ipc.Sender(sender, codec), ipc.Receiver(receiver, codec)


@pytest.fixture(params=list(VERSIONS))
def version(request: pytest.FixtureRequest) -> RustVersion:
    return VERSIONS[request.param]


class TestHandles:
    def test_a_sender_moves_and_works(self, version: RustVersion) -> None:
        outer, outer_inbox = ends(Reply, version)
        reply, inbox = ends(u8, version)
        with outer, outer_inbox, inbox:
            clone = reply.clone()
            outer.send(Reply(reply, [clone], None, 5))
            assert (reply.state, clone.state) == ("sent", "sent")
            received = outer_inbox.recv()
            assert received.last == 5
            with received.to, received.others[0] as other:
                received.to.send(1)
                other.send(2)
                with pytest.raises(ipc.EncodeError, match="300 does not fit u8"):
                    other.send(300)
            assert list(inbox) == [1, 2]

    def test_the_same_end_twice_is_there_twice(self) -> None:
        outer, outer_inbox = ends(Reply)
        reply, inbox = ends(u8)
        with outer, outer_inbox, inbox:
            outer.send(Reply(reply, [reply, reply]))
            received = outer_inbox.recv()
            for end in (received.to, *received.others):
                with end:
                    end.send(7)
            assert list(inbox) == [7, 7, 7]

    def test_shared_memory_is_duplicated_and_may_be_empty(self, version: RustVersion) -> None:
        form = list[ipc.SharedMemory]
        outer, inbox = ends(form, version)
        with (
            outer,
            inbox,
            ipc.SharedMemory.from_bytes(b"abc") as memory,
            ipc.SharedMemory.create(0) as empty,
        ):
            outer.send([memory, empty, memory])
            received = inbox.recv()
            assert [bytes(each) for each in received] == [b"abc", b"", b"abc"]
            assert all(each.frozen for each in received)
            assert memory == b"abc"
            for each in received:
                each.close()

    def test_every_kind_of_end(self) -> None:
        outer, outer_inbox = ends(Everything)
        bytes_one, bytes_two = ipc.bytes_channel(codec="rust"), ipc.bytes_channel(codec="rust")
        (typed_one, inbox_one), (typed_two, inbox_two), (typed_three, inbox_three) = ends(u8), ends(str), ends(str)
        with outer, outer_inbox:
            outer.send(
                Everything(
                    bytes_one.sender, bytes_two.receiver, typed_one.to_opaque(), inbox_two.to_opaque(), inbox_three
                )
            )
            received = outer_inbox.recv()
        with bytes_one.receiver, received.bytes_sender:
            received.bytes_sender.send(b"1")
            assert bytes_one.receiver.recv() == b"1"
        with bytes_two.sender, received.bytes_receiver:
            bytes_two.sender.send(b"2")
            assert received.bytes_receiver.recv() == b"2"
        with inbox_one, received.opaque_sender.to(u8) as sender:
            assert repr(sender) == f"<Sender[{u8!r}] open>".replace("typing.", "")
            sender.send(3)
            assert inbox_one.recv() == 3
        with typed_two, received.opaque_receiver.to(str) as receiver:
            typed_two.send("4")
            assert receiver.recv() == "4"
        with typed_three, received.receiver:
            typed_three.send("5")
            assert received.receiver.recv() == "5"

    def test_a_channel_that_carries_its_own_kind(self) -> None:
        sender, inbox = ends(Talk)
        with inbox:
            sender.send(Talk(sender.clone()))
            with sender, inbox.recv().back as back:
                back.send(Talk(back.clone()))
                inbox.recv().back.close()

    @pytest.mark.parametrize(
        ("make", "text"),
        [
            (lambda: ipc.channel(int), "is an end for typed messages"),
            (ipc.channel, "is an end for pickled messages"),
            (lambda: ends(u8, OLD), 'of the Rust crate 0.20, .* make it with codec="rust"'),
        ],
    )
    @pytest.mark.parametrize("opaque", [False, True])
    def test_ends_that_a_rust_program_does_not_understand_stay(
        self, make: Callable[[], Any], text: str, opaque: bool
    ) -> None:
        form: Any = tuple[ipc.OpaqueSender] if opaque else tuple[ipc.Sender[u8]]
        outer, outer_inbox = ends(form)
        wrong, inbox = make()
        with outer, outer_inbox, inbox:
            end = wrong.to_opaque() if opaque else wrong
            with end, pytest.raises(ipc.EncodeError, match=r"^message\[0\]: .*" + text):
                outer.send((end,))
            assert outer_inbox.poll() is False
            assert end.state == "closed"

    @pytest.mark.parametrize("codec", [None, "rust-0.20"])
    @pytest.mark.parametrize("opaque", [False, True])
    def test_bytes_ends_of_another_kind_of_channel_stay(self, codec: Any, opaque: bool) -> None:
        form: Any = tuple[ipc.OpaqueSender] if opaque else tuple[ipc.BytesSender]
        outer, outer_inbox = ends(form)
        sender, inbox = ipc.bytes_channel(codec=codec)
        with outer, outer_inbox, inbox, sender.to_opaque() if opaque else sender as end:
            with pytest.raises(ipc.EncodeError, match=r'is an end for raw bytes.*make it with codec="rust"'):
                outer.send((end,))
            assert end.state == "open"
            assert outer_inbox.poll() is False

    @pytest.mark.parametrize("value", [5, None, "sender"])
    def test_what_is_no_end(self, value: Any) -> None:
        with pytest.raises(ipc.EncodeError, match=r"^Reply\.to: expected Sender\[.*u8.*\], got"):
            coded(Reply, Reply(value))

    def test_a_failed_send_leaves_the_ends(self) -> None:
        outer, outer_inbox = ends(Reply)
        reply, inbox = ends(u8)
        with outer, outer_inbox, inbox, reply, ipc.SharedMemory.from_bytes(b"abc") as memory:
            with pytest.raises(ipc.EncodeError, match=r"Reply\.last"):
                outer.send(Reply(reply, [], memory, 256))
            reply.send(3)
            assert inbox.recv() == 3


class Forger:
    """Sends bytes and handles as they are."""

    def __init__(self, payload: bytes, *handles: Any) -> None:
        self.label = _core.LABEL_RUST
        self.about = "forgeries"
        self.accepts = None
        self.encode = lambda message: _core.Parcel(payload, handles)
        self.decode = None
        self.decode_delivery = None


def forged(form: Any, payload: bytes, *handles: Any) -> Any:
    """What a receiver of that type makes of them."""
    bare_sender, bare_receiver = _core.channel(version=RUST.label)
    with (
        ipc.Sender[Any](bare_sender, Forger(payload, *handles)) as sender,
        ipc.Receiver[Any](bare_receiver, rust_codec(form, RUST)) as receiver,
    ):
        sender.send(None)
        return receiver.recv()


class TestForgedHandles:
    """Whatever the payload says of them: nothing stays open that nobody has."""

    @pytest.fixture
    def end(self) -> Iterator[ipc.Sender[int]]:
        sender, receiver = ends(u8)
        with receiver, sender:
            yield sender
            sender.close()
            # Nobody else holds the channel: what arrived was closed.
            with pytest.raises(ipc.Disconnected):
                receiver.recv(timeout=10)

    def test_an_index_that_is_not_there(self, end: ipc.Sender[int]) -> None:
        with pytest.raises(ipc.DecodeError, match=r"^Reply\.to: the message refers to handle 1"):
            forged(Reply, b"\x01\x00\x00\x00", end.clone())
        with pytest.raises(ipc.DecodeError, match="handle 18446744073709551615"):
            forged(Reply, b"\xff" * 9 + b"\x01\x00\x00\x00", end.clone())

    def test_an_index_twice(self, end: ipc.Sender[int]) -> None:
        with pytest.raises(ipc.DecodeError, match=r"^Reply\.others\[0\]: .* handle 0"):
            forged(Reply, b"\x00\x01\x00\x00\x00", end.clone())

    def test_the_rest_of_the_message_is_wrong(self, end: ipc.Sender[int]) -> None:
        with pytest.raises(ipc.DecodeError, match=r"^Reply\.last: "), ipc.SharedMemory.from_bytes(b"a") as memory:
            forged(Reply, b"\x00\x00\x01\x00", end.clone(), memory)

    def test_a_region_is_no_end(self) -> None:
        with pytest.raises(ipc.DecodeError, match="refers to handle 0"), ipc.SharedMemory.from_bytes(b"a") as memory:
            forged(ipc.Receiver[u8], b"\x00", memory)

    def test_the_annotation_alone_says_what_a_socket_is(self, end: ipc.Sender[int]) -> None:
        with forged(ipc.Receiver[u8], b"\x00", end.clone()) as received:
            assert isinstance(received, ipc.Receiver)
            assert received.poll() is False

    def test_no_handles_at_all(self) -> None:
        with pytest.raises(ipc.DecodeError, match=r"^Reply\.to: the message refers to handle 0, which"):
            rust_codec(Reply, RUST).decode(b"\x00\x00\x00\x00")
        with pytest.raises(ipc.DecodeError, match=r"message: it needs a handle, and the message carries none$"):
            rust_codec(ipc.Sender[u8], RUST).decode(b"\x00")

    def test_handles_that_nothing_refers_to_are_closed_without_an_error(self, end: ipc.Sender[int]) -> None:
        """A program that uses the crate may send what a failed send has left over."""
        with ipc.SharedMemory.from_bytes(b"a") as memory:
            received = forged(Reply, b"\x01\x00\x00\x05", end.clone(), end.clone(), memory)
            assert received.last == 5
            received.to.close()
            assert forged(str, b"\x01a", end.clone(), memory) == "a"

    def test_ends_and_regions_are_counted_apart(self, end: ipc.Sender[int]) -> None:
        with ipc.SharedMemory.from_bytes(b"a") as memory:
            received = forged(Reply, b"\x00\x01\x01\x01\x00\x05", memory, end.clone(), end.clone())
        with received.to, received.others[0], received.memory:
            assert received.memory == b"a"


class TestCodecObjects:
    def test_versions(self) -> None:
        assert [version.name for version in VERSIONS.values()] == ["rust", "rust-0.21", "rust-0.20"]
        assert len({version.label for version in VERSIONS.values()}) == 3
        assert coded(u16, 300, RUST) == coded(u16, 300, VERSIONS["rust-0.21"]) != coded(u16, 300, OLD)
        assert version_of(_core.LABEL_RUST_0_20) is OLD
        assert version_of(_core.LABEL_TYPED) is None

    def test_the_same_type_and_version_have_one_codec(self) -> None:
        assert rust_codec(list[Item], RUST) is rust_codec(list[Item], RUST)
        assert rust_codec(list[Item], RUST) is not rust_codec(list[Item], OLD)
        assert repr(rust_codec(Request, OLD)) == "<codec of Request for rust-0.20>"

    def test_a_type_that_cannot_be_hashed(self) -> None:
        form = Annotated[u16, ["unhashable"]]
        with pytest.raises(TypeError):
            hash(form)
        assert roundtrip(Box[form], Box(300)) == Box(300)  # type: ignore[valid-type]

    def test_encoding_has_no_python_in_between(self) -> None:
        codec = rust_codec(Request, RUST)
        assert isinstance(codec.encode.__self__, _core.RustPlan)  # type: ignore[attr-defined]
        assert isinstance(codec.decode.__self__, _core.RustPlan)  # type: ignore[attr-defined]

    def test_an_opaque_end_gets_the_codec_of_its_label(self) -> None:
        for version in VERSIONS.values():
            assert chosen_codec(version.label, u8, False, "it") is rust_codec(u8, version)
        with pytest.raises(TypeError, match="use to\\(\\) with their type"):
            chosen_codec(RUST.label, UNSET, False, "it")
        with pytest.raises(TypeError, match="not for pickled messages"):
            chosen_codec(RUST.label, UNSET, True, "it")

    def test_a_plan_is_not_kept_alive_by_itself(self) -> None:
        class Local(Struct):
            back: ipc.Sender[int]

        codec = RustCodec(Local, RUST)
        reference = weakref.ref(codec)
        del codec
        gc.collect()
        assert reference() is None


class TestPlans:
    """The extension module checks what it is given; the product never gives it anything else."""

    @pytest.mark.parametrize(
        ("layout", "nodes", "error"),
        [
            ("json", [("unit",)], ValueError),
            ("postcard", [], TypeError),
            ("postcard", [("nothing",)], ValueError),
            ("postcard", [("list", 7)], TypeError),
            ("postcard", [("list",)], ValueError),
            ("postcard", [("union", "E", [(1, str, 0), (0, int, 0)])], TypeError),
            ("postcard", [("object", Item, ["size"], [], False, None)], ValueError),
        ],
    )
    def test_wrong_nodes(self, layout: str, nodes: list[tuple[Any, ...]], error: type[Exception]) -> None:
        with pytest.raises(error):
            _core.RustPlan(layout, nodes, [], "message")
