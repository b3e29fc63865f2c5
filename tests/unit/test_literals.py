"""Small messages of builtin values on untyped channels: not pickled, and nobody can tell."""

from __future__ import annotations

import collections
import contextlib
import math
import pickle
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

import ipc_channel as ipc
from ipc_channel._core import LABEL_PICKLED
from ipc_channel.codecs.typed import typed_codec
from tests.support.payloads import Payloads

PICKLE = b"\x80\x05"
MARK = b"\xc1"


UNTYPED: Any = Payloads(LABEL_PICKLED)


def payload_of(message: Any) -> bytes:
    sender, receiver = ipc.channel()
    with sender, ipc.Receiver(receiver, UNTYPED) as payloads:
        sender.send(message)
        payload = payloads.recv()
    assert isinstance(payload, bytes)
    return payload


def roundtrip(message: Any) -> Any:
    sender, receiver = ipc.channel()
    with sender, receiver:
        sender.send(message)
        return receiver.recv()


def nested(depth: int) -> list[Any]:
    """So many lists, one in the other."""
    return [nested(depth - 1)] if depth > 1 else []


MOST_NESTED = 16


def outline(value: Any, seen: dict[int, int] | None = None) -> Any:
    """Its types, its values exactly, the order of its dicts, and which dicts, lists and tuples are the same."""
    seen = {} if seen is None else seen
    if isinstance(value, float):
        return (float, "nan" if math.isnan(value) else value.hex())
    if not isinstance(value, dict | list | tuple):
        return (type(value), value)
    if value != ():
        if id(value) in seen:
            return ("again", seen[id(value)])
        seen[id(value)] = len(seen)
    items = value.items() if isinstance(value, dict) else value  # a dict's are tuples
    return (type(value), [outline(item, seen) for item in items])


LITERALS = [
    *(None, True, False, 0, 1, -1, -32, -33, 127, 128, 2**63 - 1, -(2**63), 0.0, -0.0, 1.5, math.inf, math.nan),
    *("", "text", "\0", "größer 😀", b"", b"bytes", [], {}, (), [[]], ({},), [1, [2, [3]]]),
    *({"a": 1, "b": [True, None]}, [(), ()], {1: "one", "1": 1, -1: None}, ("job", {"number": 7}, [1.5]), (1,), ([],)),
    *([(1, 2)], {"a": ()}, ((),), (((1,), 2), [(3,)])),
    *({"z": 1, "a": 2}, list(range(127)), tuple(range(127)), dict.fromkeys(range(127)), nested(MOST_NESTED)),
    *("x" * 4096, b"x" * 4096, ["x" * 4095, b"x"], {"x" * 4096: 1}, "é" * 2048),
    *([["x" * 31, "x" * 32, "é" * 15, "é" * 16], list(range(15)), list(range(16)), tuple(range(16))],),
    *(dict.fromkeys(range(15)), dict.fromkeys(range(16))),
    [sign * 2**power for power in range(63) for sign in (1, -1)],
    [sign * (2**power - less) for power in (5, 7, 8, 15, 31, 32, 63) for less in (1, 2) for sign in (1, -1)],
]


@pytest.mark.parametrize("message", LITERALS, ids=lambda message: repr(message)[:30])
def test_what_comes_back_as_it_went(message: Any) -> None:
    assert payload_of(message).startswith(MARK)
    assert outline(roundtrip(message)) == outline(message)


class Text(str):
    __slots__ = ()


class Count(int):
    pass


class Point(NamedTuple):
    x: int
    y: int


SHARED = [1]
HOLDER: tuple[list[int], dict[str, int]] = ([1], {})
CYCLE: list[Any] = []
CYCLE.append(CYCLE)

PICKLED = [
    *(2**63, -(2**63) - 1, "\ud800", Text("text"), Count(1), 1j, {1}, frozenset(), bytearray(b"x"), range(3)),
    *({True: 1}, {None: 1}, {1.5: 1}, {b"a": 1}, {(1,): 1}, {Text("a"): 1}, {2**70: 1}, {"\ud800": 1}),
    *(collections.OrderedDict(a=1), collections.Counter("ab"), [Count(1)], (Text("text"),), Point(1, 2)),
    *([HOLDER, HOLDER], (HOLDER, [HOLDER]), {"a": HOLDER, "b": ((HOLDER,),)}, [(1, 2)] * 2, [((1, []),)] * 2),
    *([SHARED, SHARED], [[1]] * 2, {"a": SHARED, "b": [SHARED]}, (SHARED, SHARED), nested(MOST_NESTED + 1)),
    *(
        "x" * 4097,
        "é" * 2049,
        ["x" * 2049, b"x" * 2048],
        {"x" * 4097: 1},
        [{"x" * 30: number} for number in range(137)],
    ),
    *(list(range(128)), tuple(range(128)), dict.fromkeys(range(128)), [[1], list(range(60)), list(range(70))]),
]


@pytest.mark.parametrize("message", PICKLED, ids=lambda message: repr(message)[:30])
def test_what_would_not_is_pickled(message: Any) -> None:
    assert payload_of(message).startswith(PICKLE)
    assert outline(roundtrip(message)) == outline(message)


def test_what_holds_itself_is_pickled() -> None:
    came = roundtrip(CYCLE)
    assert came[0] is came
    loop: dict[str, Any] = {"down": []}
    loop["down"].append(loop)
    came = roundtrip(loop)
    assert came["down"][0] is came


def test_what_is_in_a_message_once_and_elsewhere_too() -> None:
    parts = [[number] for number in range(4)]
    message = {"parts": list(parts), "first": {}}
    assert payload_of(message).startswith(MARK)
    assert outline(roundtrip(message)) == outline(message)


keys = st.text(max_size=5) | st.integers() | st.booleans() | st.none()
leaves = keys | st.floats() | st.binary(max_size=5) | st.just(SHARED) | st.just(HOLDER)
trees = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4) | st.tuples(inner, inner),
)


@given(message=trees)
def test_a_pickle_would_have_said_the_same(message: Any) -> None:
    assert outline(roundtrip(message)) == outline(pickle.loads(pickle.dumps(message)))


@pytest.fixture
def peer() -> Iterator[tuple[ipc.Sender[bytes], ipc.Receiver[Any]]]:
    sender, receiver = ipc.channel()
    with ipc.Sender(sender, UNTYPED) as raw, receiver:
        yield raw, receiver


@given(payload=st.binary(max_size=60))
def test_bytes_that_mean_nothing(payload: bytes) -> None:
    sender, receiver = ipc.channel()
    with ipc.Sender(sender, UNTYPED) as raw, receiver:
        raw.send(MARK + payload)
        raw.send(MARK + b"\xc0")
        with contextlib.suppress(ipc.DecodeError):
            receiver.recv()
        assert receiver.recv() is None


MALFORMED = [
    *(
        b"",
        b"\xc1",
        b"\xc1\xc1\x01",
        b"\xc1\xc1\x91",
        b"\x01\x01",
        b"\x81\x01",
        b"\xc1\x90\x90",
        b"\xd9\xff",
        b"\xcb\0",
    ),
    *(
        b"\xa1\xff",
        b"\xda\xff\xff",
        b"\xc5\x00\x02x",
        b"\xdc\xff\xff\x01",
        b"\xde\x00",
        b"\x81\x90\x01",
        b"\xc7\x00\x01",
    ),
    *(b"\x91" * MOST_NESTED + b"\x90", b"\x91" * 100_000, b"\xc1\x91" * 5000, b"\x81\x01" * 5000),
]


@pytest.mark.parametrize("payload", MALFORMED, ids=lambda payload: repr(payload)[:20])
def test_payloads_cut_short_or_too_long(peer: tuple[ipc.Sender[bytes], ipc.Receiver[Any]], payload: bytes) -> None:
    raw, receiver = peer
    raw.send(MARK + payload)
    with pytest.raises(ipc.DecodeError):
        receiver.recv()


@pytest.mark.parametrize("message", [1, {"number": 7}, [1, 2], None, (1,)])
def test_ends_of_different_types_find_out(message: Any) -> None:
    codec = typed_codec(Any)
    sender, receiver = ipc.channel()
    with ipc.Sender(sender, codec) as typed, receiver:
        typed.send(message)
        with pytest.raises(ipc.DecodeError):
            receiver.recv()
    sender, receiver = ipc.channel()
    with sender, ipc.Receiver(receiver, codec) as typed_receiver:
        sender.send(message)
        with pytest.raises(ipc.DecodeError):
            typed_receiver.recv()


def test_more_keys_than_are_remembered() -> None:
    sender, receiver = ipc.channel()
    with sender, receiver:
        for number in [*range(2000), *range(2000)]:
            message = {f"{number}": number, f"größe {number}": number, "same": "same", "": 0}
            sender.send(message)
            assert outline(receiver.recv()) == outline(message)


def test_every_way_of_receiving() -> None:
    message = {"number": 7, "items": [1, 2]}
    sender, receiver = ipc.channel()
    with sender, receiver:
        sender.send_many([message, (1, 2), message])
        assert receiver.recv_many(2) == [message, (1, 2)]
        assert receiver.try_recv() == message
        sender.send((message, 1))
        with ipc.ReceiverSet() as receivers:
            receivers.add(receiver)
            [event] = receivers.select()
    assert isinstance(event, ipc.Received)
    assert event.message == (message, 1)


def test_an_opaque_message() -> None:
    sender, receiver = ipc.channel()
    with sender, receiver.to_opaque() as opaque, ipc.ReceiverSet() as receivers:
        sender.send(("job", 1))
        receivers.add(opaque)
        [event] = receivers.select()
        assert isinstance(event, ipc.Received)
        assert event.message.to(trusted=True) == ("job", 1)
