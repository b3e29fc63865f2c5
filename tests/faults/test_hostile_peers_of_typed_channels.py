"""A typed channel whose peer sends pickle, ends that would unpickle, or handles that do not fit."""

from __future__ import annotations

import os
import pickle
import socket
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

import ipc_channel as ipc
from tests.faults.forging import ALL_SEALS, FILE, MEMORY, RECEIVER, SENDER, entry, header, honest, memory_file
from tests.support.packets import send_packet, socket_of, socket_pair

BYTES, TYPED, PICKLED, RUST = range(4)


class Bomb:
    """Runs code when it is unpickled."""

    went_off = False

    def __reduce__(self) -> tuple[Any, ...]:
        return Bomb.go_off, ()

    @staticmethod
    def go_off() -> int:
        Bomb.went_off = True
        return 1


@pytest.fixture(autouse=True)
def no_bomb_goes_off() -> Iterator[None]:
    """Whatever a test here sends, none of it runs."""
    Bomb.went_off = False
    yield
    assert not Bomb.went_off


class Everything(msgspec.Struct):
    """A place for each kind of handle."""

    typed_sender: ipc.Sender[int] | None = None
    typed_receiver: ipc.Receiver[int] | None = None
    bytes_sender: ipc.BytesSender | None = None
    bytes_receiver: ipc.BytesReceiver | None = None
    opaque_sender: ipc.OpaqueSender | None = None
    opaque_receiver: ipc.OpaqueReceiver | None = None
    memory: ipc.SharedMemory | None = None
    file: ipc.Fd | None = None


def index(number: int) -> msgspec.msgpack.Ext:
    """How a message refers to one of its handles."""
    return msgspec.msgpack.Ext(73, number.to_bytes(4, "big"))


def packet(message: Any, handles: list[tuple[int, int]]) -> bytes:
    """A packet with that message and handles of these kinds and labels."""
    payload = msgspec.msgpack.encode(message)
    table = b"".join(entry(kind, label) for kind, label in handles)
    body = table + payload
    return header(handles=len(handles), payload=len(payload), body=len(body)) + body


@pytest.fixture
def channel() -> Iterator[tuple[socket.socket, ipc.Sender[Everything], ipc.Receiver[Everything]]]:
    """A typed channel and a way past its sender."""
    sender, receiver = ipc.channel(Everything)
    with sender, receiver, socket_of(sender) as raw:
        yield raw, sender, receiver


def refused(channel: Any, data: bytes, descriptors: list[int], error: type[Exception] = ipc.DecodeError) -> None:
    """It is refused, the descriptors are closed, and the next message arrives."""
    raw, sender, receiver = channel
    send_packet(raw, data, descriptors)
    sender.send(Everything())
    with pytest.raises(error):
        receiver.recv(20)
    assert receiver.recv(20) == Everything()


def test_a_pickle_is_garbage(channel: Any) -> None:
    for data in (pickle.dumps(Bomb()), pickle.dumps([Bomb()] * 10, protocol=0), pickle.dumps(Bomb(), protocol=5)):
        refused(channel, honest(data), [])


def test_a_peer_that_takes_it_for_an_untyped_channel(channel: Any) -> None:
    raw, _, receiver = channel
    with socket.socket(fileno=os.dup(raw.fileno())) as duplicate:
        from ipc_channel import _core
        from ipc_channel.codecs.pickled import PICKLED as UNTYPED

        with ipc.Sender[Any](_core.adopt_sender(duplicate.detach(), UNTYPED.label), UNTYPED) as untyped:
            untyped.send(Bomb())
            untyped.send({"opaque_sender": None})
    for _ in range(2):
        with pytest.raises(ipc.DecodeError):
            receiver.recv(20)


ENDS = {
    "typed_sender": (SENDER, TYPED),
    "typed_receiver": (RECEIVER, TYPED),
    "bytes_sender": (SENDER, BYTES),
    "bytes_receiver": (RECEIVER, BYTES),
}


@pytest.mark.parametrize("kind", [SENDER, RECEIVER], ids=["sender", "receiver"])
@pytest.mark.parametrize("label", [BYTES, TYPED, PICKLED, 3, 255])
@pytest.mark.parametrize("field", ENDS)
def test_an_end_of_another_kind_than_the_annotation_says(channel: Any, field: str, kind: int, label: int) -> None:
    one, other = socket_pair()
    with one, other:
        data = packet({field: index(0)}, [(kind, label)])
        if (kind, label) == ENDS[field]:
            raw, _, receiver = channel
            send_packet(raw, data, [one.fileno()])
            with getattr(receiver.recv(20), field) as end:
                assert not end.closed
        else:
            refused(channel, data, [one.fileno()])
        one.close()
        other.settimeout(20)
        assert other.recv(1) == b"", "the refused end is closed"


@pytest.mark.parametrize(("field", "kind"), [("opaque_sender", SENDER), ("opaque_receiver", RECEIVER)])
def test_an_opaque_end_that_would_unpickle_is_refused(channel: Any, field: str, kind: int) -> None:
    one, other = socket_pair()
    with one, other:
        refused(channel, packet({field: index(0)}, [(kind, PICKLED)]), [one.fileno()])


@pytest.mark.parametrize("label", [BYTES, TYPED, RUST, 255])
def test_an_opaque_receiver_whose_label_lies_never_unpickles(channel: Any, label: int) -> None:
    raw, _, receiver = channel
    one, other = socket_pair()
    with one, other:
        send_packet(raw, packet({"opaque_receiver": index(0)}, [(RECEIVER, label)]), [one.fileno()])
        send_packet(other, honest(pickle.dumps(Bomb())))
        try:
            opaque = receiver.recv(20).opaque_receiver
        except ipc.DecodeError:
            return
        with opaque:
            with pytest.raises(TypeError):
                opaque.to(trusted=True)
            for form in (int, bytes):
                try:
                    restored = opaque.to(form)
                except TypeError:
                    continue
                with restored:
                    if isinstance(restored, ipc.BytesReceiver):
                        assert restored.recv(20) == pickle.dumps(Bomb())
                    elif label == RUST:
                        assert isinstance(restored.recv(20), int)  # the first bytes of the pickle, as a number
                    else:
                        with pytest.raises(ipc.DecodeError):
                            restored.recv(20)
                return
        assert label not in (BYTES, TYPED)


@pytest.mark.parametrize(
    ("message", "count"),
    [
        ({}, 1),
        ({"file": None}, 1),
        ({"file": index(1)}, 1),
        ({"file": index(2**32 - 1)}, 1),
        ({"file": index(0), "memory": index(0)}, 1),
        ({"file": index(0)}, 2),
        ({"file": 0}, 1),
        ({"file": msgspec.msgpack.Ext(73, b"")}, 1),
        ({"file": msgspec.msgpack.Ext(73, bytes(5))}, 1),
        ({"file": msgspec.msgpack.Ext(74, bytes(4))}, 1),
        ({"memory": index(0)}, 1),
        ({"typed_sender": index(0)}, 1),
        ({"file": index(0), "typed_sender": "text"}, 1),
        ([index(0)], 1),
    ],
    ids=repr,
)
def test_handles_that_are_not_where_the_type_has_a_place(channel: Any, message: Any, count: int) -> None:
    reading, writing = os.pipe()
    try:
        refused(channel, packet(message, [(FILE, 0)] * count), [writing] * count)
    finally:
        os.close(writing)
    try:
        assert os.read(reading, 1) == b"", "the refused files are closed"
    finally:
        os.close(reading)


def test_memory_and_files_are_not_taken_for_each_other(channel: Any) -> None:
    with memory_file(b"memory", ALL_SEALS) as memory:
        refused(channel, packet({"file": index(0)}, [(MEMORY, 0)]), [memory])
        refused(channel, packet({"memory": index(0)}, [(FILE, 0)]), [memory])


def test_deep_nesting_is_an_error_for_itself() -> None:
    sender, receiver = ipc.channel(Any)  # type: ignore[arg-type]
    with sender, receiver, socket_of(sender) as raw:
        send_packet(raw, honest(b"\x91" * 60_000 + b"\xc0"))
        sender.send(1)
        with pytest.raises(ipc.DecodeError):
            receiver.recv(20)
        assert receiver.recv(20) == 1


def test_a_length_inside_a_message_that_promises_more_than_there_is() -> None:
    sender, receiver = ipc.channel(list[bytes])
    with sender, receiver, socket_of(sender) as raw:
        for lie in (b"\xdd\xff\xff\xff\xff", b"\x91\xc6\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff"):
            send_packet(raw, honest(lie))
            with pytest.raises(ipc.DecodeError):
                receiver.recv(20)
