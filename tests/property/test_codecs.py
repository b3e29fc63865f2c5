"""Whatever is sent arrives, with the handles inside, wherever they are and however many."""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import math
import pickle
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import Struct

import ipc_channel as ipc
from ipc_channel import _core
from ipc_channel.codecs.pickled import PICKLED
from ipc_channel.codecs.typed import typed_codec
from tests.support.payloads import Payloads

settings.register_profile(
    "channels", deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow], database=None
)
settings.load_profile("channels")


class Fruit(enum.Enum):
    APPLE = "apple"
    PEAR = "pear"


class Leaf(Struct, tag=True):
    number: int
    text: str
    raw: bytes
    ratio: float
    fruit: Fruit | None


class Branch(Struct, tag=True):
    children: list[Branch | Leaf]
    names: dict[str, int]


@dataclasses.dataclass
class Carrier:
    """What a tree of handles is made of, in typed and in pickled messages."""

    label: str
    sender: ipc.Sender[int] | None
    receiver: ipc.Receiver[str] | None
    memory: ipc.SharedMemory | None
    children: list[Carrier]


integers = st.integers(-(2**63), 2**63 - 1)
leaves = st.builds(
    Leaf, integers, st.text(), st.binary(), st.floats(allow_nan=False), st.none() | st.sampled_from(Fruit)
)
trees = st.recursive(
    leaves, lambda inner: st.builds(Branch, st.lists(inner, max_size=4), st.dictionaries(st.text(), integers))
)

scalars = st.none() | st.booleans() | integers | st.floats(allow_nan=False) | st.text() | st.binary()
objects = st.recursive(
    scalars, lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner), max_leaves=20
)


@dataclasses.dataclass
class Shape:
    """A plan of a Carrier: which handles it has."""

    label: str
    sender: bool
    receiver: bool
    content: bytes | None
    children: list[Shape]


shapes = st.recursive(
    st.builds(Shape, st.text(max_size=5), st.booleans(), st.booleans(), st.none() | st.binary(), st.just([])),
    lambda inner: st.builds(
        Shape, st.text(max_size=5), st.booleans(), st.booleans(), st.none(), st.lists(inner, max_size=4)
    ),
    max_leaves=15,
)


class Workshop:
    """Makes carriers after a plan, keeps the other ends, and checks that what arrives works."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self.stack = stack
        self.others: list[Any] = []

    def build(self, shape: Shape) -> Carrier:
        sender: Any = None
        receiver: Any = None
        memory = None
        if shape.sender:
            sender, other = ipc.channel(int)
            self.others.append(self.stack.enter_context(other))
        if shape.receiver:
            other, receiver = ipc.channel(str)
            self.others.append(self.stack.enter_context(other))
        if shape.content is not None:
            memory = self.stack.enter_context(ipc.SharedMemory.from_bytes(shape.content))
        for end in (sender, receiver):
            if end is not None:
                self.stack.enter_context(end)
        return Carrier(shape.label, sender, receiver, memory, [self.build(child) for child in shape.children])

    def own(self, carrier: Carrier) -> None:
        """Close a received carrier when the test is over."""
        for handle in (carrier.sender, carrier.receiver, carrier.memory):
            if handle is not None:
                self.stack.enter_context(handle)
        for child in carrier.children:
            self.own(child)

    def check(self, shape: Shape, carrier: Carrier, number: int = 0) -> int:
        assert carrier.label == shape.label
        if shape.sender:
            assert carrier.sender is not None
            carrier.sender.send(number)
            assert self.others[number].recv(timeout=10) == number
            number += 1
        else:
            assert carrier.sender is None
        if shape.receiver:
            assert carrier.receiver is not None
            self.others[number].send(str(number))
            assert carrier.receiver.recv(timeout=10) == str(number)
            number += 1
        else:
            assert carrier.receiver is None
        if shape.content is None:
            assert carrier.memory is None
        else:
            assert carrier.memory == shape.content
        assert len(carrier.children) == len(shape.children)
        for child_shape, child in zip(shape.children, carrier.children, strict=True):
            number = self.check(child_shape, child, number)
        return number


@given(message=trees)
def test_typed_messages(message: Leaf | Branch) -> None:
    codec = typed_codec(Leaf | Branch)
    encoded = codec.encode(message)
    assert isinstance(encoded, bytes)
    assert codec.decode(encoded) == message


@given(messages=st.lists(objects, max_size=20))
def test_pickled_messages(messages: list[Any]) -> None:
    sender, receiver = ipc.channel()
    with receiver:
        with sender:
            sender.send_many(messages)
        assert list(receiver) == messages


@given(messages=st.lists(st.binary() | st.binary(min_size=10, max_size=12).map(lambda part: part * 7000), max_size=5))
def test_bytes(messages: list[bytes]) -> None:
    sender, receiver = ipc.bytes_channel()
    with receiver:
        with sender:
            sender.send_many(messages)
        assert list(receiver) == messages


@given(buffers=st.lists(st.tuples(st.binary(max_size=100), st.booleans(), st.integers(0, 3)), max_size=8))
def test_pickle_buffers(buffers: list[tuple[bytes, bool, int]]) -> None:
    contents = [content * 1000**size if size < 2 else content * 300 for content, _, size in buffers]
    message = [
        pickle.PickleBuffer(content if readonly else bytearray(content))
        for content, (_, readonly, _) in zip(contents, buffers, strict=True)
    ]
    sender, receiver = ipc.channel()
    with sender, receiver:
        sender.send(message)
        received = receiver.recv()
    assert [bytes(part) for part in received] == contents
    assert [memoryview(part).readonly for part in received] == [readonly for _, readonly, _ in buffers]


@pytest.mark.parametrize("typed", [True, False])
@given(shape=shapes)
def test_handles_anywhere(typed: bool, shape: Shape) -> None:
    with contextlib.ExitStack() as stack:
        workshop = Workshop(stack)
        outer: Any = ipc.channel(Carrier) if typed else ipc.channel()
        stack.enter_context(outer.sender)
        stack.enter_context(outer.receiver)
        carrier = workshop.build(shape)
        outer.sender.send(carrier)
        received = outer.receiver.recv()
        workshop.own(received)
        assert workshop.check(shape, received) == len(workshop.others)


@pytest.mark.parametrize("typed", [True, False])
@given(shape=shapes, repetitions=st.integers(1, 3))
def test_a_failed_send_leaves_every_handle_as_it_was(typed: bool, shape: Shape, repetitions: int) -> None:
    with contextlib.ExitStack() as stack:
        workshop = Workshop(stack)
        outer: Any = ipc.channel(tuple[Carrier, Any]) if typed else ipc.channel()
        stack.enter_context(outer.sender)
        stack.enter_context(outer.receiver)
        carrier = workshop.build(shape)
        for _ in range(repetitions):
            with pytest.raises(ipc.EncodeError):
                outer.sender.send((carrier, lambda: None))
        with pytest.raises(ipc.Empty):
            outer.receiver.try_recv()
        assert workshop.check(shape, carrier) == len(workshop.others)


@given(payload=st.binary(max_size=200))
def test_garbage_is_a_decode_error_or_a_valid_message(payload: bytes) -> None:
    bare_sender, bare_receiver = _core.channel()
    codec = typed_codec(list[Carrier | None])
    with (
        ipc.BytesSender(bare_sender, Payloads(_core.LABEL_TYPED)) as sender,
        ipc.Receiver(bare_receiver, codec) as receiver,
    ):
        sender.send(payload)
        sender.send(b"\x90")
        with contextlib.suppress(ipc.DecodeError):
            assert isinstance(receiver.recv(), list)
        assert receiver.recv() == []


@given(number=st.floats())
def test_floats_keep_their_bits(number: float) -> None:
    codec = typed_codec(float)
    encoded = codec.encode(number)
    assert isinstance(encoded, bytes)
    decoded = codec.decode(encoded)
    assert math.copysign(1, decoded) == math.copysign(1, number)
    assert decoded == number or (math.isnan(decoded) and math.isnan(number))
    assert msgspec.msgpack.decode(encoded) == number or math.isnan(number)


@given(message=objects)
def test_a_plain_pickled_message_is_one_block_of_bytes(message: Any) -> None:
    encoded = PICKLED.encode(message)
    assert isinstance(encoded, bytes)
    assert PICKLED.decode(encoded) == message
