"""Not run, but checked by pyright and mypy: what they infer for channels and their ends."""

from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal, NamedTuple, NewType, Optional, TypedDict, Union, assert_type

from msgspec import Struct
from typing_extensions import Buffer

import ipc_channel as ipc


class Answer(Struct):
    text: str


class Request(Struct, tag=True):
    number: int
    reply: ipc.Sender[Answer]


class Stop(Struct, tag=True):
    pass


class Point(NamedTuple):
    x: int
    y: int


class Movie(TypedDict):
    name: str


UserId = NewType("UserId", int)


def inferred_from_the_argument() -> None:
    assert_type(ipc.channel(), ipc.Channel[Any])
    assert_type(ipc.channel(Request), ipc.Channel[Request])
    assert_type(ipc.channel(int), ipc.Channel[int])
    assert_type(ipc.channel(None), ipc.Channel[None])
    assert_type(ipc.channel(int | str), ipc.Channel[int | str])
    assert_type(ipc.channel(Union[int, str]), ipc.Channel[int | str])
    assert_type(ipc.channel(Request | Stop), ipc.Channel[Request | Stop])
    assert_type(ipc.channel(Optional[int]), ipc.Channel[int | None])
    assert_type(ipc.channel(list[int]), ipc.Channel[list[int]])
    assert_type(ipc.channel(dict[str, list[Request]]), ipc.Channel[dict[str, list[Request]]])
    assert_type(ipc.channel(tuple[int, ...]), ipc.Channel[tuple[int, ...]])
    assert_type(ipc.channel(Annotated[int, "described"]), ipc.Channel[int])
    assert_type(ipc.channel(Literal["a", "b"]), ipc.Channel[Literal["a", "b"]])
    assert_type(ipc.channel(Point), ipc.Channel[Point])
    assert_type(ipc.channel(Movie), ipc.Channel[Movie])
    assert_type(ipc.channel(UserId), ipc.Channel[UserId])
    assert_type(ipc.channel(Any), ipc.Channel[Any])
    assert_type(ipc.channel(ipc.Sender[int]), ipc.Channel[ipc.Sender[int]])
    assert_type(ipc.channel(ipc.SharedMemory | None), ipc.Channel[ipc.SharedMemory | None])
    assert_type(ipc.bytes_channel(), ipc.BytesChannel)


def unpacked() -> None:
    sender, receiver = ipc.channel(Request)
    assert_type(sender, ipc.Sender[Request])
    assert_type(receiver, ipc.Receiver[Request])
    assert_type(ipc.channel(Request).sender, ipc.Sender[Request])
    raw_sender, raw_receiver = ipc.bytes_channel()
    assert_type(raw_sender, ipc.BytesSender)
    assert_type(raw_receiver, ipc.BytesReceiver)


def sending(sender: ipc.Sender[int], raw: ipc.BytesSender) -> None:
    sender.send(1, timeout=1.0)
    sender.try_send(2)
    sender.send_many(range(3))
    assert_type(sender.clone(), ipc.Sender[int])
    assert_type(sender.to_opaque(), ipc.OpaqueSender)
    assert_type(sender.statistics(), ipc.SenderStatistics)
    assert_type(sender.closed, bool)
    with sender as entered:
        assert_type(entered, ipc.Sender[int])
    raw.send(b"bytes")
    raw.send(memoryview(b"view"))
    raw.send_many([b"a", bytearray(b"b")])
    sender.send("text")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    sender.try_send(None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    sender.send_many(["text"])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
    raw.send("text")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def receiving(receiver: ipc.Receiver[Request], raw: ipc.BytesReceiver) -> None:
    assert_type(receiver.recv(), Request)
    assert_type(receiver.recv(timeout=1.0), Request)
    assert_type(receiver.try_recv(), Request)
    assert_type(receiver.recv_many(10), list[Request])
    assert_type(receiver.poll(0.1), bool)
    assert_type(receiver.fileno(), int)
    assert_type(receiver.statistics(), ipc.ReceiverStatistics)
    assert_type(receiver.to_opaque(), ipc.OpaqueReceiver)
    for message in receiver:
        assert_type(message, Request)
        assert_type(message.reply, ipc.Sender[Answer])
    assert_type(raw.recv(), bytes)
    assert_type(list(raw), list[bytes])
    with receiver as entered:
        assert_type(entered, ipc.Receiver[Request])


def consume(stream: AsyncIterator[int]) -> None:
    print(stream)


async def asynchronous(sender: ipc.Sender[int], receiver: ipc.Receiver[int], raw: ipc.BytesReceiver) -> None:
    await sender.asend(1)
    await sender.asend_many([1, 2])
    assert_type(await receiver.arecv(), int)
    assert_type(await receiver.arecv_many(), list[int])
    async for message in receiver:
        assert_type(message, int)
    async for part in raw:
        assert_type(part, bytes)
    consume(receiver)
    await sender.asend("text")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def variance(numbers: ipc.Receiver[bool], anything: ipc.Sender[object]) -> None:
    """Who receives bools receives ints; who may send any object may send a string."""
    receiver: ipc.Receiver[int] = numbers
    sender: ipc.Sender[str] = anything
    print(receiver, sender)
    wrong: ipc.Receiver[str] = numbers  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    print(wrong)


def opaque(sender: ipc.OpaqueSender, receiver: ipc.OpaqueReceiver, message: ipc.OpaqueMessage) -> None:
    assert_type(sender.to(int | str), ipc.Sender[int | str])
    assert_type(sender.to(bytes), ipc.Sender[bytes] | ipc.BytesSender)
    assert_type(sender.to(trusted=True), ipc.Sender[Any])
    assert_type(sender.clone(), ipc.OpaqueSender)
    assert_type(receiver.to(Request), ipc.Receiver[Request])
    assert_type(receiver.to(bytes), ipc.Receiver[bytes] | ipc.BytesReceiver)
    assert_type(receiver.to(bytes).recv(), bytes)
    assert_type(receiver.to(trusted=True), ipc.Receiver[Any])
    assert_type(message.to(list[int]), list[int])
    assert_type(message.to(bytes), bytes)


def memory(buffer: Buffer) -> None:
    with ipc.SharedMemory.from_bytes(buffer) as region:
        assert_type(region, ipc.SharedMemory)
        assert_type(region[0], int)
        assert_type(region[1:2], bytes)
        assert_type(region.clone(), ipc.SharedMemory)
        assert_type(region.take(), bytearray)
        assert_type(memoryview(region), memoryview[int])
        assert_type(bytes(region), bytes)
    created = ipc.SharedMemory.create(10, mutable=True)
    created[0] = 1
    created[0:2] = b"ab"
    created[0] = "a"  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]


def files() -> None:
    with open("/dev/null", "rb") as file:
        assert_type(ipc.Fd(file), ipc.Fd)
        assert_type(ipc.Fd(0).detach(), int)
    ipc.Fd("name")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def errors(error: ipc.EncodeError) -> None:
    assert_type(error.sent, int | None)
    assert isinstance(error, ValueError)


def names() -> None:
    """Those that the package imports when they are first named are known, and others are not."""
    assert_type(ipc.default_router(), ipc.Router)
    assert_type(ipc.ReceiverSet(), ipc.ReceiverSet[int])
    ipc.Rooter()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
