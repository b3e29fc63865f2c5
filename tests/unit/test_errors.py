"""The exceptions: what else they are, and which of them uses of closed, moved and empty things raise."""

from __future__ import annotations

import inspect
import pickle
import queue
from typing import Any

import pytest

import ipc_channel as ipc
from ipc_channel import errors

ALSO = {
    "Empty": queue.Empty,
    "Full": queue.Full,
    "RecvTimeout": (ipc.Empty, TimeoutError),
    "SendTimeout": (ipc.Full, TimeoutError),
    "AcceptTimeout": TimeoutError,
    "Disconnected": EOFError,
    "ReceiverGone": BrokenPipeError,
    "ClosedError": ValueError,
    "EncodeError": ValueError,
    "DecodeError": ValueError,
    "ProtocolError": ConnectionError,
    "ConnectError": ConnectionError,
    "ForkError": RuntimeError,
    "TooManyHandles": OSError,
    "BacklogFull": MemoryError,
    "KernelError": OSError,
}


@pytest.mark.parametrize("name", ALSO)
def test_each_is_also_what_programmers_catch_already(name: str) -> None:
    error = getattr(ipc, name)
    also = ALSO[name] if isinstance(ALSO[name], tuple) else (ALSO[name],)
    for base in (ipc.IpcError, *also):
        assert issubclass(error, base)


def test_all_of_them_are_public_documented_and_leave_by_pickle() -> None:
    assert set(errors.__all__) == {*ALSO, "IpcError"}
    for name in errors.__all__:
        error = getattr(ipc, name)
        assert error is getattr(errors, name)
        assert inspect.getdoc(error)
        raised = error("what happened")
        assert str(raised) == "what happened"
        copied = pickle.loads(pickle.dumps(raised))
        assert type(copied) is error
        assert copied.args == raised.args
        assert raised.sent is None


def test_receiving() -> None:
    sender, receiver = ipc.channel(int)
    with receiver:
        with sender:
            with pytest.raises(ipc.Empty) as empty:
                receiver.try_recv()
            assert not isinstance(empty.value, TimeoutError)
            for timeout in (0, 0.0001):
                with pytest.raises(ipc.RecvTimeout):
                    receiver.recv(timeout=timeout)
            for wrong in (-1, -0.001, float("nan")):
                with pytest.raises(ValueError) as caught:
                    receiver.recv(timeout=wrong)
                assert not isinstance(caught.value, ipc.IpcError)
        with pytest.raises(ipc.Disconnected):
            receiver.recv()
        assert list(receiver) == []
    for use in (
        receiver.recv,
        receiver.try_recv,
        receiver.poll,
        receiver.fileno,
        receiver.to_opaque,
        receiver.recv_many,
    ):
        with pytest.raises(ipc.ClosedError, match="closed"):
            use()


def test_sending() -> None:
    sender, receiver = ipc.channel(int)
    with sender:
        receiver.close()
        with pytest.raises(ipc.ReceiverGone):
            sender.send(1)
        with pytest.raises(ipc.ReceiverGone):
            sender.try_send(1)
    for use in (lambda: sender.send(1), sender.clone, sender.fileno, sender.to_opaque, sender.flush):
        with pytest.raises(ipc.ClosedError, match="closed"):
            use()


def test_send_many_says_how_many_went() -> None:
    sender, receiver = ipc.channel(int)
    with sender, receiver:
        with pytest.raises(ipc.EncodeError) as caught:
            sender.send_many([1, 2, "three", 4])  # type: ignore[list-item]
        assert caught.value.sent == 2
        assert receiver.recv_many() == [1, 2]

        def failing() -> Any:
            yield 5
            raise KeyError("theirs")

        with pytest.raises(KeyError) as theirs:
            sender.send_many(failing())
        assert getattr(theirs.value, "sent") == 1  # noqa: B009
        assert receiver.recv() == 5


class TestMovedEnds:
    def test_by_a_send(self) -> None:
        outer, (inner, inner_receiver) = ipc.channel(), ipc.channel(int)
        with outer.sender, outer.receiver:
            outer.sender.send([inner, inner_receiver])
            with pytest.raises(ipc.ClosedError, match=r"moved by an earlier send; send sender\.clone\(\) to keep one"):
                inner.send(1)
            with pytest.raises(ipc.ClosedError, match="moved by an earlier send"):
                inner_receiver.recv()
            for end in outer.receiver.recv():
                end.close()

    def test_by_to_opaque(self) -> None:
        sender, receiver = ipc.channel(int)
        with sender.to_opaque(), receiver.to_opaque():
            for use in (lambda: sender.send(1), receiver.recv):
                with pytest.raises(ipc.ClosedError, match="to_opaque"):
                    use()


class TestOpaqueEnds:
    """The label of an end says which codec it needs; what the caller asks for must agree."""

    @pytest.mark.parametrize("which", ["sender", "receiver"])
    def test_only_the_right_way_back(self, which: str) -> None:
        ways: dict[str, Any] = {
            "typed": lambda opaque: opaque.to(int),
            "trusted": lambda opaque: opaque.to(trusted=True),
            "bytes": lambda opaque: opaque.to(bytes),
        }
        channels: dict[str, Any] = {"typed": ipc.channel(int), "trusted": ipc.channel(), "bytes": ipc.bytes_channel()}
        for right, channel in channels.items():
            with channel.sender, channel.receiver:
                opaque = getattr(channel, which).to_opaque()
                with opaque:
                    for way, back in ways.items():
                        if way == right or (right, way) == ("typed", "bytes"):
                            continue
                        with pytest.raises(TypeError, match=r"use to\("):
                            back(opaque)
                        assert not opaque.closed
                    with pytest.raises(TypeError):
                        opaque.to(int, trusted=True)
                    with pytest.raises(TypeError):
                        opaque.to()
                    with ways[right](opaque) as restored:
                        assert opaque.closed
                        assert type(restored) is type(getattr(channel, which))
                        assert repr(restored) == repr(restored)

    def test_to_bytes_of_a_typed_end_is_an_end_typed_as_bytes(self) -> None:
        sender, receiver = ipc.channel(bytes)
        with receiver, sender.to_opaque() as opaque, opaque.to(bytes) as restored:
            assert isinstance(restored, ipc.Sender)
            restored.send(b"x")
            assert receiver.recv() == b"x"

    def test_a_clone_of_an_opaque_sender(self) -> None:
        sender, receiver = ipc.channel(int)
        with receiver, sender.to_opaque() as opaque, opaque.clone().to(int) as one, opaque.to(int) as two:
            one.send(1)
            two.send(2)
            assert receiver.recv_many(2, timeout=10) == [1, 2]


class TestForgotten:
    @pytest.mark.parametrize("which", [0, 1])
    @pytest.mark.parametrize("make", [ipc.channel, ipc.bytes_channel, lambda: ipc.channel(bytes)])
    @pytest.mark.parametrize("opaque", [False, True])
    def test_an_end_that_is_collected_open_warns_and_is_closed(self, make: Any, which: int, opaque: bool) -> None:
        ends = list(make())
        with ends.pop(1 - which) as other:
            if opaque:
                ends.append(ends.pop().to_opaque())
            with pytest.warns(ResourceWarning, match="unclosed <") as caught:
                ends.clear()
            # The recorded warning keeps the end as its source; it is closed nevertheless.
            assert caught[0].source is not None
            expected = ipc.Disconnected if which == 0 else ipc.ReceiverGone
            with pytest.raises(expected):
                other.recv() if which == 0 else other.send(b"")

    def test_a_received_file(self) -> None:
        sender, receiver = ipc.channel(ipc.Fd)
        with sender, receiver:
            sender.send(ipc.Fd(0))
            with pytest.warns(ResourceWarning, match="unclosed <Fd"):
                receiver.recv()

    def test_moved_and_closed_ones_do_not_warn(self, recwarn: pytest.WarningsRecorder) -> None:
        outer, inner = ipc.channel(), ipc.channel()
        outer.sender.send(inner.sender)
        outer.receiver.recv().close()
        outer.sender.close()
        outer.receiver.close()
        inner.receiver.close()
        del outer, inner
        assert len(recwarn) == 0


class TestFd:
    def test_a_lent_one_is_never_closed(self) -> None:
        with open("/dev/null", "rb") as file:
            lent = ipc.Fd(file)
            assert lent.fileno() == file.fileno()
            assert not lent.owned
            assert repr(lent) == f"<Fd {file.fileno()} borrowed>"
            lent.close()
            assert lent.closed
            assert repr(lent) == "<Fd closed>"
            assert file.read() == b""
            del lent

    def test_a_received_one_is_handed_over_by_detach(self) -> None:
        sender, receiver = ipc.channel(ipc.Fd)
        with sender, receiver, open("/dev/zero", "rb") as file:
            sender.send(ipc.Fd(file))
            received = receiver.recv()
            assert received.owned
            with open(received.detach(), "rb") as own:
                assert received.closed
                assert own.read(1) == b"\0"
            with pytest.raises(ipc.ClosedError):
                received.fileno()

    @pytest.mark.parametrize("wrong", [-1, -100])
    def test_a_negative_number(self, wrong: int) -> None:
        with pytest.raises(ValueError):
            ipc.Fd(wrong)

    def test_a_number_that_is_not_open(self) -> None:
        sender, receiver = ipc.channel(ipc.Fd)
        with sender, receiver:
            with pytest.raises(ipc.IpcError):
                sender.send(ipc.Fd(1_000_000))
            with pytest.raises(ipc.Empty):
                receiver.try_recv()

    def test_no_file_at_all(self) -> None:
        with pytest.raises((TypeError, AttributeError)):
            ipc.Fd("name")  # type: ignore[arg-type]


def test_repr_says_kind_type_and_state() -> None:
    sender, receiver = ipc.channel(dict[str, int])
    with sender, receiver:
        assert repr(sender) == "<Sender[dict[str, int]] open>"
        opaque = receiver.to_opaque()
        assert repr(receiver) == "<Receiver[dict[str, int]] converted to another end>"
        assert repr(opaque) == "<OpaqueReceiver for typed messages open>"
        opaque.close()
    assert repr(sender) == "<Sender[dict[str, int]] closed>"
    sender, receiver = ipc.channel()
    with sender, receiver:
        assert repr(sender) == "<Sender[Any] open>"
    raw_sender, raw_receiver = ipc.bytes_channel()
    with raw_sender, raw_receiver:
        assert repr(raw_receiver) == "<BytesReceiver open>"


def test_statistics() -> None:
    sender, receiver = ipc.channel(list[ipc.Fd])
    with sender, receiver:
        sender.send([])
        sender.send([ipc.Fd(0), ipc.Fd(1)])
        sent = sender.statistics()
        assert (sent.messages, sent.handles) == (2, 2)
        assert sent.bytes > 2
        with sender.clone() as twin:
            assert twin.statistics() == ipc.SenderStatistics(0, 0, 0, backlog=None, memory=0)
        receiver.recv()
        assert receiver.statistics().messages == 1
        for file in receiver.recv():
            file.close()
        received = receiver.statistics()
        assert received == ipc.ReceiverStatistics(sent.messages, sent.bytes, sent.handles, lanes=0, backlog_bytes=0)
        with pytest.raises(AttributeError):
            sent.messages = 3  # type: ignore[misc]
