"""Typed channels: what they carry, what they refuse, and what becomes of the handles inside."""

from __future__ import annotations

import collections.abc
import dataclasses
import datetime
import decimal
import enum
import pathlib
import types
import uuid
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Generic, Literal, NamedTuple, NewType, Optional, TypedDict, TypeVar, Union

import msgspec
import pytest
from msgspec import Struct

import ipc_channel as ipc
from ipc_channel import _core
from ipc_channel.codecs.typed import TypedCodec, typed_codec

T = TypeVar("T")


class Color(enum.Enum):
    RED = "red"


class Point(Struct):
    x: int
    y: int = 0


class Tagged(Struct, tag=True):
    n: int


class OtherTagged(Struct, tag=True):
    s: str


class Answer(Struct):
    text: str


class Request(Struct):
    number: int
    reply: ipc.Sender[Answer]
    more: ipc.Receiver[int] | None = None


class Box(Struct, Generic[T]):
    end: ipc.Sender[T]


@dataclasses.dataclass
class InDataclass:
    end: ipc.Sender[int]


class InNamedTuple(NamedTuple):
    end: ipc.Sender[int]
    n: int


class InTypedDict(TypedDict):
    end: ipc.Sender[int]


class Node(Struct):
    reply: ipc.Sender[Node]
    children: list[Node] = []


class Everything(Struct):
    bytes_sender: ipc.BytesSender
    bytes_receiver: ipc.BytesReceiver
    opaque_sender: ipc.OpaqueSender
    opaque_receiver: ipc.OpaqueReceiver
    memory: ipc.SharedMemory
    file: ipc.Fd


class Picky(Struct):
    end: ipc.Sender[int] | None
    n: int

    def __post_init__(self) -> None:
        if self.n < 0:
            raise KeyError("negative")


UserId = NewType("UserId", int)


def ends_in(value: Any) -> Iterator[Any]:
    """Everything closable inside a message."""
    if hasattr(value, "close"):
        yield value
    elif isinstance(value, dict):
        for pair in value.items():
            yield from ends_in(pair)
    elif isinstance(value, list | tuple | set | frozenset):
        for item in value:
            yield from ends_in(item)
    elif isinstance(value, Struct):
        yield from ends_in([getattr(value, name) for name in value.__struct_fields__])
    elif dataclasses.is_dataclass(value):
        yield from ends_in(list(vars(value).values()))


def roundtrip(form: Any, message: Any) -> Any:
    sender, receiver = ipc.channel(form)
    with sender, receiver:
        sender.send(message)
        return receiver.recv()


@pytest.mark.parametrize(
    ("form", "message"),
    [
        (None, None),
        (bool, True),
        (int, -5),
        (float, 2.5),
        (float, 3),
        (str, "ä"),
        (bytes, b"\0"),
        (list[int], [1, 2]),
        (tuple[int, str], (1, "a")),
        (set[int], {1}),
        (dict[str, list[float]], {"a": [1.5]}),
        (int | str, "a"),
        (Union[int, str], 1),  # noqa: UP007
        (Optional[int], None),  # noqa: UP045
        (Literal["a", 1], 1),
        (Annotated[int, msgspec.Meta(ge=0)], 3),
        (UserId, UserId(7)),
        (Any, {"a": [1, None]}),
        (Color, Color.RED),
        (Point, Point(1, 2)),
        (Tagged | OtherTagged, OtherTagged("x")),
        (datetime.date, datetime.date(2020, 1, 1)),
        (decimal.Decimal, decimal.Decimal("1.5")),
        (uuid.UUID, uuid.UUID(int=1)),
        (collections.abc.Sequence[int], [1]),
    ],
)
def test_messages_come_as_they_went(form: Any, message: Any) -> None:
    received = roundtrip(form, message)
    assert received == message
    assert type(received) is type(message) or form is float


def test_a_type_without_handles_is_encoded_and_decoded_by_msgspec_itself() -> None:
    codec = typed_codec(list[Point])
    assert isinstance(codec.encode, types.BuiltinMethodType)
    assert isinstance(codec.encode.__self__, msgspec.msgpack.Encoder)
    assert isinstance(codec.decode, types.BuiltinMethodType)
    assert isinstance(codec.decode.__self__, msgspec.msgpack.Decoder)
    assert codec.decode_delivery is None


class TestCodecObjects:
    def test_the_same_type_has_one_codec(self) -> None:
        assert typed_codec(list[Point]) is typed_codec(list[Point])

    def test_unions_keep_the_order_in_which_they_were_written(self) -> None:
        assert repr(typed_codec(int | str)) == "<codec of int | str>"
        assert repr(typed_codec(str | int)) == "<codec of str | int>"
        for form in (Tagged | OtherTagged, OtherTagged | Tagged):
            sender, receiver = ipc.channel(form)
            with sender, receiver:
                assert repr(sender) == f"<Sender[{form!r}] open>"
        assert ipc.Sender[int | str].__args__ == (int | str,)
        assert repr(ipc.Sender[int | str]) != repr(ipc.Sender[str | int])

    def test_a_type_that_cannot_be_hashed(self) -> None:
        form = Annotated[int, ["unhashable"]]
        with pytest.raises(TypeError):
            hash(form)
        assert roundtrip(form, 4) == 4


class TestOutermostType:
    @pytest.mark.parametrize(
        ("form", "wrong"),
        [
            (int, "1"),
            (None, 0),
            (Point, {"x": 1}),
            (list[int], (1,)),
            (Point | None, Tagged(1)),
            (int | str, 1.5),
            (Literal[1], "1"),
            (Annotated[str, "text"], 1),
            (UserId, "7"),
            (InTypedDict, []),
            (ipc.Sender[int], 5),
            (Color, "red"),
            (collections.abc.Mapping[str, int], [("a", 1)]),
            (bytes, "text"),
        ],
    )
    def test_send_refuses_another_one(self, form: Any, wrong: Any) -> None:
        sender, receiver = ipc.channel(form)
        with sender, receiver:
            with pytest.raises(ipc.EncodeError):
                sender.send(wrong)
            with pytest.raises(ipc.Empty):
                receiver.try_recv()

    @pytest.mark.parametrize(
        ("form", "message"),
        [
            (float, 1),
            (int, True),
            (bytes, bytearray(b"x")),
            (collections.abc.Sequence[int], (1, 2)),
            (Any, object),
        ],
    )
    def test_it_accepts_all_that_msgspec_encodes_as_that(self, form: Any, message: Any) -> None:
        accepts = typed_codec(form).accepts
        assert accepts is None or isinstance(message, accepts)

    def test_what_is_wrong_deeper_inside_is_a_decode_error_of_that_message_alone(self) -> None:
        sender, receiver = ipc.channel(list[int])
        with sender, receiver:
            sender.send(["a"])  # type: ignore[list-item]
            sender.send([1])
            with pytest.raises(ipc.DecodeError) as caught:
                receiver.recv()
            assert isinstance(caught.value.__cause__, msgspec.ValidationError)
            assert receiver.recv() == [1]

    def test_what_cannot_be_encoded_names_its_type(self) -> None:
        sender, receiver = ipc.channel(list[Any])
        with sender, receiver:
            with pytest.raises(ipc.EncodeError, match="complex"):
                sender.send([1j])
            with pytest.raises(ipc.Empty):
                receiver.try_recv()


class TestHandlesAnywhere:
    @pytest.mark.parametrize(
        ("form", "make"),
        [
            (ipc.Sender[int], lambda end: end),
            (ipc.Sender[int] | None, lambda end: end),
            (Annotated[ipc.Sender[int], "described"], lambda end: end),
            (Box[int], lambda end: Box(end)),
            (InDataclass, lambda end: InDataclass(end)),
            (InNamedTuple, lambda end: InNamedTuple(end, 1)),
            (InTypedDict, lambda end: InTypedDict(end=end)),
            (list[ipc.Sender[int]], lambda end: [end]),
            (tuple[ipc.Sender[int], ...], lambda end: (end,)),
            (tuple[int, ipc.Sender[int]], lambda end: (1, end)),
            (set[ipc.Sender[int]], lambda end: {end}),
            (frozenset[ipc.Sender[int]], lambda end: frozenset([end])),
            (dict[str, ipc.Sender[int] | None], lambda end: {"a": None, "b": end}),
            (dict[ipc.Sender[int], int], lambda end: {end: 1}),
            (collections.abc.Sequence[ipc.Sender[int]], lambda end: [end]),
        ],
    )
    def test_a_sender_arrives_and_works(self, form: Any, make: Callable[[Any], Any]) -> None:
        inner, inner_receiver = ipc.channel(int)
        with inner_receiver:
            received = roundtrip(form, make(inner))
            assert inner.state == "sent"
            (end,) = ends_in(received)
            with end:
                end.send(5)
            assert inner_receiver.recv() == 5
            with pytest.raises(ipc.Disconnected):
                inner_receiver.recv()

    def test_every_kind_of_handle(self) -> None:
        bytes_one, bytes_two = ipc.bytes_channel(), ipc.bytes_channel()
        typed_one, typed_two = ipc.channel(int), ipc.channel(str)
        with ipc.SharedMemory.from_bytes(b"shared") as memory, open("/dev/zero", "rb") as file:
            message = Everything(
                bytes_one.sender,
                bytes_two.receiver,
                typed_one.sender.to_opaque(),
                typed_two.receiver.to_opaque(),
                memory,
                ipc.Fd(file),
            )
            received = roundtrip(Everything, message)
        with bytes_one.receiver, received.bytes_sender:
            received.bytes_sender.send(b"1")
            assert bytes_one.receiver.recv() == b"1"
        with bytes_two.sender, received.bytes_receiver:
            bytes_two.sender.send(b"2")
            assert received.bytes_receiver.recv() == b"2"
        with typed_one.receiver, received.opaque_sender.to(int) as sender:
            sender.send(3)
            assert typed_one.receiver.recv() == 3
        with typed_two.sender, received.opaque_receiver.to(str) as receiver:
            typed_two.sender.send("4")
            assert receiver.recv() == "4"
        with received.memory:
            assert received.memory == b"shared"
        with received.file, open(received.file.fileno(), "rb", closefd=False) as opened:
            assert opened.read(2) == b"\0\0"

    def test_recursive_types(self) -> None:
        replies, inbox = ipc.channel(Node)
        with inbox:
            child = Node(replies.clone())
            received = roundtrip(Node, Node(replies, [child]))
            with received.reply, received.children[0].reply as reply:
                reply.send(Node(received.reply.clone()))
                with inbox.recv().reply as third:
                    assert isinstance(third, ipc.Sender)

    def test_the_annotation_decides_how_the_received_end_decodes(self) -> None:
        inner, inner_receiver = ipc.channel(str)
        with inner_receiver, roundtrip(ipc.Sender[int], inner) as end:
            assert repr(end) == "<Sender[int] open>"
            end.send(1)
            with pytest.raises(ipc.DecodeError):
                inner_receiver.recv()

    def test_the_same_sender_several_times_is_a_duplicate_each(self) -> None:
        inner, inner_receiver = ipc.channel(int)
        with inner_receiver:
            received = roundtrip(list[ipc.Sender[int]], [inner, inner, inner])
            assert len({id(end) for end in received}) == 3
            for number, end in enumerate(received):
                end.send(number)
                end.close()
            assert list(inner_receiver) == [0, 1, 2]

    def test_the_same_receiver_twice_is_refused_and_stays(self) -> None:
        inner_sender, inner = ipc.channel(int)
        sender, receiver = ipc.channel(list[ipc.Receiver[int]])
        with sender, receiver, inner_sender, inner:
            with pytest.raises(ipc.EncodeError, match="twice"):
                sender.send([inner, inner])
            inner_sender.send(1)
            assert inner.recv() == 1

    def test_memory_twice_and_more_handles_than_a_packet_holds(self) -> None:
        with ipc.SharedMemory.from_bytes(b"abc") as memory:
            received = roundtrip(list[ipc.SharedMemory], [memory] * 300)
            assert len(received) == 300
            for region in received:
                assert region == b"abc"
                region.close()


class TestFailedSends:
    def test_an_error_after_an_end_leaves_it_untouched(self) -> None:
        inner, inner_receiver = ipc.channel(int)
        sender, receiver = ipc.channel(tuple[ipc.Sender[int], ipc.Sender[int], Any])
        with sender, receiver, inner, inner_receiver:
            with pytest.raises(ipc.EncodeError):
                sender.send((inner, inner, 1j))
            inner.send(1)
            assert inner_receiver.recv() == 1

    def test_no_receiver(self) -> None:
        inner, inner_receiver = ipc.channel(int)
        sender, receiver = ipc.channel(ipc.Sender[int])
        with sender, inner, inner_receiver:
            receiver.close()
            with pytest.raises(ipc.ReceiverGone):
                sender.send(inner)
            inner.send(1)
            assert inner_receiver.recv() == 1

    @pytest.mark.parametrize("times", [1, 2])
    def test_a_closed_end_inside(self, times: int) -> None:
        inner, inner_receiver = ipc.channel(int)
        with inner_receiver:
            inner.close()
            with pytest.raises(ipc.ClosedError):
                roundtrip(list[ipc.Sender[int]], [inner] * times)

    def test_a_moved_end_says_what_to_do(self) -> None:
        inner, inner_receiver = ipc.channel(int)
        with inner_receiver:
            roundtrip(ipc.Sender[int], inner).close()
            with pytest.raises(ipc.ClosedError, match=r"send sender\.clone\(\) to keep one"):
                inner.send(1)

    def test_memory_with_a_writable_view(self) -> None:
        sender, receiver = ipc.channel(ipc.SharedMemory)
        with sender, receiver, ipc.SharedMemory.create(4) as memory:
            with memoryview(memory), pytest.raises(BufferError):
                sender.send(memory)
            with pytest.raises(ipc.Empty):
                receiver.try_recv()
            memory[0] = 1
            sender.send(memory)
            with receiver.recv() as received:
                assert received[0] == 1


class Foreign:
    pass


class HoldsForeign(Struct):
    inner: list[dict[str, Foreign]]


class HoldsBare(Struct):
    reply: ipc.Sender  # type: ignore[type-arg]


@pytest.mark.parametrize(
    ("form", "message"),
    [
        (Foreign, "contains Foreign"),
        (HoldsForeign, "HoldsForeign contains Foreign"),
        (pathlib.Path, "Path"),
        (object, "object"),
        (ipc.Sender[list[Foreign]], "contains Foreign"),
        (ipc.Receiver[ipc.Sender[Foreign]], "contains Foreign"),
        (ipc.ReceiverSet, "ReceiverSet"),
        (ipc.Sender, r"as in Sender\[int\]"),
        (HoldsBare, r"as in Sender\[int\]"),
        (list[ipc.Receiver[Any]], r"as in Receiver\[int\]"),
        (ipc.Sender[int] | int, "tagged Struct"),
        (ipc.Sender[int] | ipc.Receiver[int], "tagged Struct"),
        (ipc.Sender[int] | Tagged, "tagged Struct"),
        (list[ipc.Sender[int] | ipc.SharedMemory], "tagged Struct"),
        (ipc.Fd | str, "tagged Struct"),
        (dict[str, Point | Tagged], "Struct"),
    ],
)
def test_types_that_cannot_be_carried_are_refused_when_the_channel_is_made(form: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        ipc.channel(form)


class TestNoPickleNear:
    """A hostile peer must not be able to feed us pickle through an end that it sends, or gets."""

    @pytest.mark.parametrize("opaque", [False, True])
    @pytest.mark.parametrize("which", ["sender", "receiver"])
    def test_a_typed_channel_refuses_to_carry_an_end_that_pickles(self, opaque: bool, which: str) -> None:
        inner = ipc.channel()
        with inner.sender, inner.receiver:
            end: Any = getattr(inner, which)
            kind: Any = ipc.Sender[int] if which == "sender" else ipc.Receiver[int]
            if opaque:
                end = end.to_opaque()
                kind = ipc.OpaqueSender if which == "sender" else ipc.OpaqueReceiver
            with end, pytest.raises(ipc.EncodeError, match="unpickles"):
                roundtrip(kind, end)
            assert end.state == "closed"

    @pytest.mark.parametrize(
        "form",
        [ipc.Sender[int], ipc.OpaqueSender, ipc.BytesSender, ipc.Receiver[int], ipc.OpaqueReceiver, ipc.BytesReceiver],
    )
    def test_a_typed_channel_never_produces_one(self, form: Any) -> None:
        bare_sender, bare_receiver = _core.channel()
        inner_sender, inner_receiver = ipc.channel()
        end = inner_sender if "Sender" in repr(form) else inner_receiver
        with inner_sender, inner_receiver:
            with Hostile(bare_sender, [end]) as hostile, ipc.Receiver(bare_receiver, typed_codec(form)) as receiver:
                hostile.send(extension(0))
                with pytest.raises(ipc.DecodeError):
                    receiver.recv()
            assert end.closed


class HostileCodec:
    """Sends whatever payload with whatever handles."""

    def __init__(self, handles: list[Any]) -> None:
        self.label = _core.LABEL_TYPED
        self.accepts = None
        self.decode = None
        self.decode_delivery = None
        self.handles = handles

    def encode(self, payload: bytes) -> _core.Parcel:
        return _core.Parcel(payload, self.handles)


class Hostile(_core.Sending):
    def __new__(cls, bare: _core.SenderEnd, handles: list[Any]) -> Hostile:
        return super().__new__(cls, bare, HostileCodec(handles))

    def __enter__(self) -> Hostile:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def extension(index: int, code: int = 73, size: int = 4) -> bytes:
    return msgspec.msgpack.encode(msgspec.msgpack.Ext(code, index.to_bytes(size, "big")))


def array_of(*items: bytes) -> bytes:
    return bytes([0x90 + len(items)]) + b"".join(items)


@pytest.mark.parametrize(
    ("form", "payload"),
    [
        pytest.param(list[ipc.Sender[int]], array_of(extension(0)), id="one is not claimed"),
        pytest.param(list[ipc.Sender[int]], array_of(extension(0), extension(0)), id="one is claimed twice"),
        pytest.param(list[ipc.Sender[int]], array_of(extension(0), extension(7)), id="index out of range"),
        pytest.param(list[ipc.Sender[int]], array_of(extension(0), extension(2**32 - 1)), id="index -1"),
        pytest.param(list[ipc.Sender[int]], array_of(extension(0), extension(1, code=5)), id="another extension"),
        pytest.param(list[ipc.Sender[int]], array_of(extension(0), extension(1, size=2)), id="a short index"),
        pytest.param(list[ipc.Sender[int]], array_of(extension(0), b"\x05"), id="a number for an end"),
        pytest.param(list[ipc.Receiver[int]], array_of(extension(0), extension(1)), id="a sender for a receiver"),
        pytest.param(list[ipc.BytesSender], array_of(extension(0), extension(1)), id="a typed end for one of bytes"),
        pytest.param(list[ipc.SharedMemory], array_of(extension(0), extension(1)), id="an end for memory"),
        pytest.param(list[ipc.Fd], array_of(extension(0), extension(1)), id="an end for a file"),
        pytest.param(list[Any], array_of(extension(0), extension(1)), id="where no end belongs"),
        pytest.param(list[ipc.Sender[int]], array_of(extension(0), extension(1)) + b"\0", id="trailing garbage"),
        pytest.param(list[ipc.Sender[int]], b"", id="nothing"),
    ],
)
def test_forged_handles_are_a_decode_error_and_are_closed(form: Any, payload: bytes) -> None:
    """No warning either: what was made half-way is closed, not forgotten."""
    bare_sender, bare_receiver = _core.channel()
    one, one_receiver = ipc.channel(int)
    two, two_receiver = ipc.channel(int)
    codec = typed_codec(form)
    with one_receiver, two_receiver, ipc.Receiver(bare_receiver, codec) as receiver:
        with Hostile(bare_sender, [one, two]) as hostile:
            hostile.send(payload)
        with pytest.raises(ipc.DecodeError):
            receiver.recv()
        for inner in (one_receiver, two_receiver):
            with pytest.raises(ipc.Disconnected):
                inner.recv()
        with pytest.raises(ipc.Disconnected):
            receiver.recv()


def test_a_message_without_handles_cannot_reach_for_those_of_another() -> None:
    """An index in a message that is received while another one is decoded means its own handles: none."""
    inner_bare, inner_receiving = _core.channel()
    armed = False
    caught: list[BaseException] = []

    class Nosy(Struct):
        end: ipc.Sender[int]

        def __post_init__(self) -> None:
            if armed:
                with pytest.raises(ipc.DecodeError) as error:
                    thief.recv()
                caught.append(error.value)

    end, end_receiver = ipc.channel(int)
    with (
        Hostile(inner_bare, []) as hostile,
        ipc.Receiver(inner_receiving, typed_codec(ipc.Sender[int])) as thief,
        end_receiver,
    ):
        hostile.send(extension(1))
        message = (Nosy(end), end)
        armed = True
        nosy, second = roundtrip(tuple[Nosy, ipc.Sender[int]], message)
        with nosy.end, second:
            nosy.end.send(1)
            second.send(2)
        assert list(end_receiver) == [1, 2]
    assert len(caught) == 1


class TestErrorsWhileDecoding:
    def test_in_post_init_closes_the_ends_made_before(self) -> None:
        sender, receiver = ipc.channel(Picky)
        inner, inner_receiver = ipc.channel(int)
        message = Picky(inner, 1)
        message.n = -1
        with sender, receiver, inner_receiver:
            sender.send(message)
            sender.send(Picky(None, 2))
            with pytest.raises(ipc.DecodeError) as caught:
                receiver.recv()
            assert isinstance(caught.value.__cause__, KeyError)
            with pytest.raises(ipc.Disconnected):
                inner_receiver.recv()
            assert receiver.recv().n == 2

    def test_nesting_without_end(self) -> None:
        bare_sender, bare_receiver = _core.channel()
        codec: TypedCodec = typed_codec(Any)
        with Hostile(bare_sender, []) as hostile, ipc.Receiver(bare_receiver, codec) as receiver:
            hostile.send(b"\x91" * 100_000)
            hostile.send(b"\x01")
            with pytest.raises(ipc.DecodeError) as caught:
                receiver.recv()
            assert isinstance(caught.value.__cause__, RecursionError)
            assert receiver.recv() == 1

    def test_nesting_without_end_on_the_way_out(self) -> None:
        sender, receiver = ipc.channel(list[Any])
        endless: list[Any] = []
        endless.append(endless)
        with sender, receiver:
            with pytest.raises(ipc.EncodeError) as caught:
                sender.send(endless)
            assert isinstance(caught.value.__cause__, RecursionError)

    def test_handles_in_a_channel_whose_type_has_none(self) -> None:
        bare_sender, bare_receiver = _core.channel()
        end, end_receiver = ipc.channel(int)
        with (
            Hostile(bare_sender, [end]) as hostile,
            ipc.Receiver(bare_receiver, typed_codec(int)) as receiver,
            end_receiver,
        ):
            hostile.send(b"\x01")
            with pytest.raises(ipc.DecodeError):
                receiver.recv()
            with pytest.raises(ipc.Disconnected):
                end_receiver.recv()
