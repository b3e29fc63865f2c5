"""Untyped channels: any picklable object, handles and large buffers inside it."""

from __future__ import annotations

import array
import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest

import ipc_channel as ipc
from ipc_channel import _core
from ipc_channel.codecs.pickled import PICKLED
from ipc_channel.codecs.reduction import revive


class Holder:
    """A plain class with a handle in it."""

    def __init__(self, end: Any) -> None:
        self.end = end


class Local(msgspec.Struct):
    n: int


def roundtrip(message: Any) -> Any:
    sender, receiver = ipc.channel()
    with sender, receiver:
        sender.send(message)
        return receiver.recv()


@pytest.mark.parametrize(
    "message",
    [None, 1, "text", b"bytes", {"a": [1, (2, {3})]}, 1j, Local(1), range(3), b"x" * 300_000, ValueError("v").args],
    ids=lambda message: type(message).__name__,
)
def test_messages_come_as_they_went(message: Any) -> None:
    assert roundtrip(message) == message


def test_a_plain_payload_is_decoded_by_pickle_itself() -> None:
    assert PICKLED.decode is pickle.loads
    assert isinstance(PICKLED.encode({"a": 1}), bytes)


def test_what_cannot_be_pickled_raises_where_it_is_sent() -> None:
    sender, receiver = ipc.channel()
    inner, inner_receiver = ipc.channel(int)
    with sender, receiver, inner, inner_receiver:
        with pytest.raises(ipc.EncodeError) as caught:
            sender.send([inner, lambda: None])
        assert isinstance(caught.value.__cause__, pickle.PicklingError | AttributeError)
        with pytest.raises(ipc.Empty):
            receiver.try_recv()
        inner.send(1)
        assert inner_receiver.recv() == 1


class TestBuffers:
    def test_a_numpy_array_travels_beside_the_stream(self) -> None:
        array = np.arange(100_000, dtype="f8").reshape(100, 1000)
        parcel = PICKLED.encode(array)
        assert isinstance(parcel, _core.Parcel)
        received = roundtrip({"array": array})["array"]
        assert np.array_equal(received, array)
        assert received.flags.writeable

    def test_what_was_read_only_is_read_only_again(self) -> None:
        array = np.arange(10_000)
        array.flags.writeable = False
        received = roundtrip(array)
        assert np.array_equal(received, array)
        assert not received.flags.writeable

    @pytest.mark.parametrize("size", [0, 1, 100_000, 3_000_000])
    @pytest.mark.parametrize("kind", [bytes, bytearray])
    def test_pickle_buffers(self, kind: Callable[[bytes], Any], size: int) -> None:
        content = kind(bytes(range(256)) * (size // 256) + b"x" * (size % 256))
        received = roundtrip([pickle.PickleBuffer(content)])[0]
        assert bytes(received) == bytes(content)
        assert memoryview(received).readonly == (kind is bytes)

    def test_fortran_order_and_strides(self) -> None:
        fortran = np.asfortranarray(np.arange(12).reshape(3, 4))
        strided = np.arange(20)[::2]
        first, second = roundtrip([fortran, strided])
        assert np.array_equal(first, fortran)
        assert np.array_equal(second, strided)

    def test_buffers_and_handles_together(self) -> None:
        inner, inner_receiver = ipc.channel(int)
        with inner_receiver:
            array, end = roundtrip((np.ones(5), inner))
            with end:
                end.send(int(array.sum()))
            assert inner_receiver.recv() == 5

    def test_a_buffer_that_is_not_contiguous(self) -> None:
        sender, receiver = ipc.channel()
        with sender, receiver:
            with pytest.raises(ipc.EncodeError, match="contiguous"):
                sender.send(pickle.PickleBuffer(memoryview(array.array("b", range(10)))[::2]))
            with pytest.raises(ipc.Empty):
                receiver.try_recv()


class TestHandles:
    def test_ends_carry_their_codec(self) -> None:
        typed, pickling, raw = ipc.channel(int | str), ipc.channel(), ipc.bytes_channel()
        opaque = ipc.channel(float)
        received = roundtrip(
            {
                "typed": Holder(typed.sender),
                "pickling": (pickling.receiver,),
                "raw": [raw.sender],
                "opaque": opaque.sender.to_opaque(),
            }
        )
        with typed.receiver, received["typed"].end as end:
            assert repr(end) == "<Sender[int | str] open>"
            end.send("text")
            assert typed.receiver.recv() == "text"
        with pickling.sender, received["pickling"][0] as receiver:
            pickling.sender.send({1j})
            assert receiver.recv() == {1j}
        with raw.receiver, received["raw"][0] as end:
            assert isinstance(end, ipc.BytesSender)
            end.send(b"raw")
            assert raw.receiver.recv() == b"raw"
        with opaque.receiver, received["opaque"].to(float) as end:
            end.send(1.5)
            assert opaque.receiver.recv() == 1.5

    def test_every_class_of_them(self) -> None:
        bytes_channel, typed = ipc.bytes_channel(), ipc.channel(int)
        with ipc.SharedMemory.from_bytes(b"shared") as memory, open("/dev/null", "rb") as file:
            received = roundtrip([bytes_channel.receiver, typed.receiver.to_opaque(), memory, ipc.Fd(file)])
        with received[0], bytes_channel.sender:
            bytes_channel.sender.send(b"1")
            assert received[0].recv() == b"1"
        with typed.sender, received[1].to(int) as receiver:
            typed.sender.send(2)
            assert receiver.recv() == 2
        with received[2]:
            assert received[2] == b"shared"
        with received[3]:
            assert received[3].owned

    def test_the_same_object_twice_is_one_object_again(self) -> None:
        inner_sender, inner_receiver = ipc.channel(int)
        first, second, third, fourth = roundtrip([inner_sender, inner_sender, inner_receiver, inner_receiver])
        assert first is second
        assert third is fourth
        with first, third:
            first.send(1)
            assert third.recv() == 1

    def test_a_type_that_cannot_be_pickled(self) -> None:
        class Hidden(msgspec.Struct):
            n: int

        inner, inner_receiver = ipc.channel(Hidden)
        with inner, inner_receiver:
            with pytest.raises(ipc.EncodeError):
                roundtrip(inner)
            assert not inner.closed

    def test_more_of_them_than_a_packet_holds(self) -> None:
        inner, inner_receiver = ipc.channel(int)
        with inner, inner_receiver:
            received = roundtrip([inner.clone() for _ in range(300)])
            for number, end in enumerate(received):
                with end:
                    end.send(number)
                assert inner_receiver.recv() == number

    def test_a_failed_send_leaves_them(self) -> None:
        sender, receiver = ipc.channel()
        inner, inner_receiver = ipc.channel(int)
        with sender, inner, inner_receiver:
            receiver.close()
            with pytest.raises(ipc.ReceiverGone):
                sender.send([inner, inner_receiver])
            inner.send(1)
            assert inner_receiver.recv() == 1


class SendsWhilePickled:
    """Sends a message of its own, with a handle in it, while an outer message is being pickled."""

    channel: Any = None

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __reduce__(self) -> Any:
        self.channel.send(self.inner)
        return (int, ())


class ReceivesWhileUnpickled:
    channel: Any = None
    received: Any = None

    def __reduce__(self) -> Any:
        return (ReceivesWhileUnpickled._receive, ())

    @staticmethod
    def _receive() -> int:
        ReceivesWhileUnpickled.received = ReceivesWhileUnpickled.channel.recv()
        return 7


class PicklesInside:
    """Brings its content along as a pickle inside the pickle."""

    def __init__(self, content: Any) -> None:
        self.content = content

    def __reduce__(self) -> Any:
        return (pickle.loads, (pickle.dumps(self.content),))


class PicklesAndForgets(PicklesInside):
    def __reduce__(self) -> Any:
        pickle.dumps(self.content)
        return (int, ())


class TestReentrance:
    @pytest.mark.parametrize("typed", [False, True])
    def test_a_send_inside_reduce_arrives_first_and_steals_nothing(
        self, monkeypatch: pytest.MonkeyPatch, typed: bool
    ) -> None:
        side = ipc.channel(ipc.Sender[int]) if typed else ipc.channel()
        main = ipc.channel()
        ends = [ipc.channel(int) for _ in range(3)]
        monkeypatch.setattr(SendsWhilePickled, "channel", side.sender)
        with main.sender, main.receiver, side.sender, side.receiver:
            main.sender.send([ends[0].sender, SendsWhilePickled(ends[1].sender), ends[2].sender])
            first, _, last = main.receiver.recv()
            inner = side.receiver.recv()
            for number, (end, channel) in enumerate(zip((first, inner, last), ends, strict=True)):
                with end, channel.receiver:
                    end.send(number)
                    assert channel.receiver.recv() == number

    def test_a_failing_outer_message_takes_nothing_of_the_inner_one(self, monkeypatch: pytest.MonkeyPatch) -> None:
        side, main = ipc.channel(), ipc.channel()
        kept, moved = ipc.channel(int), ipc.channel(int)
        monkeypatch.setattr(SendsWhilePickled, "channel", side.sender)
        with main.sender, main.receiver, side.sender, side.receiver, kept.sender, kept.receiver:
            with pytest.raises(ipc.EncodeError):
                main.sender.send([kept.sender, SendsWhilePickled(moved.sender), lambda: None])
            assert not kept.sender.closed
            with side.receiver.recv() as end, moved.receiver:
                end.send(1)
                assert moved.receiver.recv() == 1

    def test_a_receive_inside_unpickling(self, monkeypatch: pytest.MonkeyPatch) -> None:
        side, main = ipc.channel(), ipc.channel()
        outer, inner = ipc.channel(int), ipc.channel(int)
        monkeypatch.setattr(ReceivesWhileUnpickled, "channel", side.receiver)
        with main.sender, main.receiver, side.sender, side.receiver:
            side.sender.send(inner.sender)
            main.sender.send([ReceivesWhileUnpickled(), outer.sender])
            seven, end = main.receiver.recv()
            assert seven == 7
            with end, outer.receiver:
                end.send(1)
                assert outer.receiver.recv() == 1
            with ReceivesWhileUnpickled.received as end, inner.receiver:
                end.send(2)
                assert inner.receiver.recv() == 2

    def test_a_pickle_inside_the_pickle_may_hold_ends(self) -> None:
        inner = ipc.channel(int)
        first, nested = roundtrip([inner.sender, PicklesInside([inner.sender])])
        with first, nested[0], inner.receiver:
            assert first is not nested[0]
            first.send(1)
            nested[0].send(2)
            assert [inner.receiver.recv(), inner.receiver.recv()] == [1, 2]

    def test_a_receiver_in_two_pickles_of_one_message(self) -> None:
        inner = ipc.channel(int)
        with inner.sender, inner.receiver:
            with pytest.raises(ipc.EncodeError, match="twice"):
                roundtrip([inner.receiver, PicklesInside(inner.receiver)])
            assert not inner.receiver.closed

    def test_a_handle_that_belongs_to_nothing_in_the_message(self) -> None:
        inner = ipc.channel(int)
        with inner.receiver:
            with pytest.raises(ipc.DecodeError, match="belong to nothing"):
                roundtrip(PicklesAndForgets(inner.sender))
            with pytest.raises(ipc.Disconnected):
                inner.receiver.recv()


class Unwilling:
    def __reduce__(self) -> Any:
        return (Unwilling._refuse, ())

    @staticmethod
    def _refuse() -> None:
        raise KeyError("unwilling")


def test_an_error_while_unpickling_is_for_that_message_alone_and_closes_its_ends() -> None:
    sender, receiver = ipc.channel()
    claimed, unclaimed = ipc.channel(int), ipc.channel(int)
    with sender, receiver, claimed.receiver, unclaimed.receiver:
        sender.send([claimed.sender, Unwilling(), unclaimed.sender])
        sender.send("next")
        with pytest.raises(ipc.DecodeError) as caught:
            receiver.recv()
        assert isinstance(caught.value.__cause__, KeyError)
        for inner in (claimed.receiver, unclaimed.receiver):
            with pytest.raises(ipc.Disconnected):
                inner.recv()
        assert receiver.recv() == "next"


HANDLES = {
    "sender": lambda: ipc.channel(int),
    "bytes": ipc.bytes_channel,
    "memory": lambda: (ipc.SharedMemory.from_bytes(b"x"),),
    "file": lambda: (ipc.Fd(0),),
}


class TestOutsideAMessage:
    @pytest.mark.parametrize("kind", HANDLES)
    @pytest.mark.parametrize("dump", [pickle.dumps, lambda x: pickle.Pickler(io.BytesIO()).dump(x), copy.copy])
    def test_pickling_and_copying_say_what_to_do(self, kind: str, dump: Callable[[Any], Any]) -> None:
        for handle in HANDLES[kind]():
            with handle, pytest.raises(TypeError, match=r"multiprocessing|clone"):
                dump(handle)

    def test_deepcopy_of_what_holds_one(self) -> None:
        sender, receiver = ipc.channel()
        with sender, receiver, pytest.raises(TypeError, match="clone"):
            copy.deepcopy({"end": sender})

    def test_reviving_one_without_a_message(self) -> None:
        with pytest.raises(ipc.DecodeError):
            revive(ipc.Sender, 0)

    def test_pickling_in_a_hook_of_a_typed_message_is_outside(self) -> None:
        """Between frames: the innermost message is being decoded, so nothing is being pickled for a channel."""

        sender, receiver = ipc.channel()
        inner = ipc.channel(int)
        with sender, receiver, inner.sender, inner.receiver:
            sender.send([np.ones(1), PicklesWhileUnpickled()])  # a buffer, so that there is a frame
            PicklesWhileUnpickled.end = inner.sender
            with pytest.raises(ipc.DecodeError) as caught:
                receiver.recv()
            assert isinstance(caught.value.__cause__, TypeError)
            assert not inner.sender.closed


class PicklesWhileUnpickled:
    end: Any = None

    def __reduce__(self) -> Any:
        return (PicklesWhileUnpickled._pickle, ())

    @staticmethod
    def _pickle() -> bytes:
        return pickle.dumps(PicklesWhileUnpickled.end)
