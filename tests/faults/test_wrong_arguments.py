"""Wrong types, closed and moved ends, and every timeout: the documented error, and everything else untouched."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import anyio
import pytest

import ipc_channel as ipc

Ends = tuple[Any, Any]

USES_OF_A_SENDER: dict[str, Callable[[Any], object]] = {
    "send": lambda sender: sender.send(1),
    "try_send": lambda sender: sender.try_send(1),
    "send_many": lambda sender: sender.send_many([1]),
    "flush": lambda sender: sender.flush(),
    "clone": lambda sender: sender.clone(),
    "fileno": lambda sender: sender.fileno(),
    "to_opaque": lambda sender: sender.to_opaque(),
    "asend": lambda sender: anyio.run(sender.asend, 1),
    "asend_many": lambda sender: anyio.run(sender.asend_many, [1]),
}

USES_OF_A_RECEIVER: dict[str, Callable[[Any], object]] = {
    "recv": lambda receiver: receiver.recv(),
    "recv with a timeout": lambda receiver: receiver.recv(1),
    "try_recv": lambda receiver: receiver.try_recv(),
    "recv_many": lambda receiver: receiver.recv_many(),
    "recv_view": lambda receiver: receiver.recv_view() if isinstance(receiver, ipc.BytesReceiver) else receiver.recv(),
    "poll": lambda receiver: receiver.poll(),
    "next": next,
    "list": list,
    "fileno": lambda receiver: receiver.fileno(),
    "to_opaque": lambda receiver: receiver.to_opaque(),
    "arecv": lambda receiver: anyio.run(receiver.arecv),
    "arecv_many": lambda receiver: anyio.run(receiver.arecv_many),
    "adding it to a set": lambda receiver: _add(receiver),
    "routing it": lambda receiver: _route(receiver),
}


def _add(receiver: Any) -> None:
    with ipc.ReceiverSet[int]() as receivers:
        receivers.add(receiver)


def _route(receiver: Any) -> None:
    with ipc.Router() as router:
        router.add_route(receiver, print)


def close(end: Any) -> None:
    """Gone by being closed."""
    end.close()


def send_away(end: Any) -> None:
    """Gone by being sent."""
    sender, receiver = ipc.channel()
    with sender, receiver:
        sender.send(end)
        receiver.recv().close()


def convert(end: Any) -> None:
    """Gone by becoming opaque."""
    end.to_opaque().close()


GONE: dict[str, tuple[Callable[[Any], None], str]] = {
    "closed": (close, "is closed"),
    "sent": (send_away, "moved by an earlier send"),
    "converted": (convert, "to_opaque"),
}


def channels() -> list[Ends]:
    """One of each kind."""
    return [ipc.channel(int), ipc.channel(), ipc.bytes_channel()]


@pytest.mark.parametrize("gone", GONE)
@pytest.mark.parametrize("use", USES_OF_A_SENDER)
def test_a_sender_that_is_gone(use: str, gone: str) -> None:
    leave, says = GONE[gone]
    for sender, receiver in channels():
        with receiver:
            leave(sender)
            assert sender.closed
            with pytest.raises(ipc.ClosedError, match=says):
                if isinstance(sender, ipc.BytesSender) and "send" in use:
                    _send_bytes(sender, use)
                else:
                    USES_OF_A_SENDER[use](sender)
            sender.close()
            assert "open" not in repr(sender)


def _send_bytes(sender: ipc.BytesSender, use: str) -> None:
    match use:
        case "send":
            sender.send(b"x")
        case "try_send":
            sender.try_send(b"x")
        case "send_many":
            sender.send_many([b"x"])
        case "asend":
            anyio.run(sender.asend, b"x")
        case "asend_many":
            anyio.run(sender.asend_many, [b"x"])


@pytest.mark.parametrize("gone", GONE)
@pytest.mark.parametrize("use", USES_OF_A_RECEIVER)
def test_a_receiver_that_is_gone(use: str, gone: str) -> None:
    leave, says = GONE[gone]
    for sender, receiver in channels():
        with sender:
            leave(receiver)
            assert receiver.closed
            with pytest.raises(ipc.ClosedError, match=says):
                USES_OF_A_RECEIVER[use](receiver)
            receiver.close()


@pytest.mark.parametrize("gone", GONE)
def test_an_end_that_is_gone_inside_a_message_stops_the_send_and_touches_no_other(gone: str) -> None:
    leave, says = GONE[gone]
    sender, receiver = ipc.channel()
    with sender, receiver:
        for which in (0, 1):
            dead = ipc.channel(int)
            alive = ipc.channel(int)
            leave(dead[which])
            with pytest.raises(ipc.ClosedError, match=says):
                sender.send([alive.sender, alive.receiver, dead[which]])
            alive.sender.send(1)
            assert alive.receiver.recv() == 1
            for end in (*dead, *alive):
                end.close()
        with pytest.raises(ipc.Empty):
            receiver.try_recv()


WAITS: dict[str, tuple[Callable[[dict[str, Any], Any], object], Any]] = {
    "recv": (lambda made, timeout: made["receiver"].recv(timeout), ipc.RecvTimeout),
    "recv_many": (lambda made, timeout: made["receiver"].recv_many(None, timeout), ipc.RecvTimeout),
    "recv_view": (lambda made, timeout: made["receiver"].recv_view(timeout), ipc.RecvTimeout),
    "poll": (lambda made, timeout: made["receiver"].poll(timeout), False),
    "send": (lambda made, timeout: made["full"].send(b"x", timeout=timeout), ipc.SendTimeout),
    "select": (lambda made, timeout: made["set"].select(timeout), []),
    "accept": (lambda made, timeout: made["server"].accept(timeout), ipc.AcceptTimeout),
    "connect": (lambda made, timeout: ipc.connect_bytes(made["busy"].name, timeout), ipc.ConnectError),
}


@pytest.fixture
def made() -> Any:
    """Things to wait for, none of which will come."""
    sender, receiver = ipc.bytes_channel()
    full, never_read = ipc.bytes_channel(capacity=1)
    other, in_set = ipc.bytes_channel()
    with (
        sender,
        receiver,
        full,
        never_read,
        other,
        ipc.ReceiverSet[int]() as receivers,
        ipc.BytesOneShotServer() as server,
        ipc.BytesOneShotServer() as busy,
        ipc.connect_bytes(busy.name),
    ):
        receivers.add(in_set)
        full.send(b"fills it")
        yield {"receiver": receiver, "full": full, "set": receivers, "server": server, "busy": busy}


@pytest.mark.parametrize("timeout", [0, 0.0, -0.0, 1e-9, 0.0003, 0.02], ids=repr)
@pytest.mark.parametrize("wait", WAITS)
def test_a_timeout_passes_and_not_too_early(made: dict[str, Any], wait: str, timeout: float) -> None:
    call, outcome = WAITS[wait]
    began = time.monotonic()
    if isinstance(outcome, type):
        with pytest.raises(outcome):
            call(made, timeout)
    else:
        assert call(made, timeout) == outcome
    assert time.monotonic() - began >= timeout


@pytest.mark.parametrize("timeout", [-1, -1e-9, -math.inf, math.nan], ids=repr)
@pytest.mark.parametrize("wait", WAITS)
def test_a_negative_timeout_or_nan_is_a_value_error(made: dict[str, Any], wait: str, timeout: float) -> None:
    with pytest.raises(ValueError, match="timeout") as caught:
        WAITS[wait][0](made, timeout)
    assert not isinstance(caught.value, ipc.IpcError)


@pytest.mark.parametrize("timeout", ["1", b"1", [], object(), 1j], ids=repr)
@pytest.mark.parametrize("wait", WAITS)
def test_a_timeout_that_is_no_number_is_a_type_error(made: dict[str, Any], wait: str, timeout: Any) -> None:
    with pytest.raises(TypeError):
        WAITS[wait][0](made, timeout)


@pytest.mark.parametrize("timeout", [None, math.inf, 1e30, 10**18], ids=repr)
def test_very_long_timeouts_are_taken(timeout: Any) -> None:
    sender, receiver = ipc.bytes_channel()
    other, in_set = ipc.bytes_channel()
    with sender, receiver, other, ipc.ReceiverSet[int]() as receivers, ipc.BytesOneShotServer() as server:
        key = receivers.add(in_set)
        sender.send(b"there", timeout=timeout)
        other.send(b"there", timeout=timeout)
        assert receiver.poll(timeout)
        assert receiver.recv(timeout) == b"there"
        assert receivers.select(timeout) == [ipc.Received(key, b"there")]
        with ipc.connect_bytes(server.name, timeout) as client:
            client.send(b"there", timeout=timeout)
            accepted, first = server.accept(timeout)
            accepted.close()
            assert first == b"there"


@pytest.mark.parametrize("message", ["text", 1, None, [b"x"], object()], ids=repr)
def test_a_bytes_channel_takes_buffers_and_nothing_else(message: Any) -> None:
    sender, receiver = ipc.bytes_channel()
    with sender, receiver:
        with pytest.raises(ipc.EncodeError):
            sender.send(message)
        sender.send(b"next")
        assert receiver.recv() == b"next"


@pytest.mark.parametrize(("form", "message"), [(int, "1"), (str, b"x"), (bytes, "x"), (list[int], (1,)), (None, 0)])
def test_a_typed_channel_refuses_another_type_and_sends_nothing(form: Any, message: Any) -> None:
    sender, receiver = ipc.channel(form)
    with sender, receiver:
        with pytest.raises(ipc.EncodeError):
            sender.send(message)
        with pytest.raises(ipc.Empty):
            receiver.try_recv()


@pytest.mark.parametrize("message", [lambda: None, (number for number in ()), object.__new__], ids=str)
def test_an_untyped_channel_refuses_what_cannot_be_pickled_and_sends_nothing(message: Any) -> None:
    sender, receiver = ipc.channel()
    if message is object.__new__:
        message = open.__self__  # a module
    with sender, receiver:
        with pytest.raises(ipc.EncodeError) as caught:
            sender.send(message)
        assert caught.value.__cause__ is not None
        with pytest.raises(ipc.Empty):
            receiver.try_recv()


@pytest.mark.parametrize("most", [0, -1])
def test_recv_many_wants_at_least_one(most: int) -> None:
    sender, receiver = ipc.channel(int)
    with sender, receiver, pytest.raises(ValueError, match="max_messages"):
        receiver.recv_many(most)


def test_send_many_of_something_that_is_no_iterable() -> None:
    sender, receiver = ipc.channel(int)
    with sender, receiver, pytest.raises(TypeError):
        sender.send_many(5)  # type: ignore[arg-type]


def test_send_many_stops_at_the_first_failure_and_says_how_many_went() -> None:
    sender, receiver = ipc.channel(int)
    with sender, receiver:
        with pytest.raises(ipc.EncodeError) as caught:
            sender.send_many([1, 2, "three", 4])  # type: ignore[list-item]
        assert caught.value.sent == 2
        assert receiver.recv_many() == [1, 2]


@pytest.mark.parametrize("make", [ipc.Sender, ipc.Receiver, ipc.BytesSender, ipc.OpaqueReceiver])
def test_ends_are_not_made_of_nothing(make: Any) -> None:
    for arguments in ((), (None,), (3,), ("name",)):
        with pytest.raises(TypeError):
            make(*arguments)


@pytest.mark.parametrize("what", [-1, "file", None, 1.5], ids=repr)
def test_fd_of_what_is_no_file(what: Any) -> None:
    with pytest.raises((TypeError, ValueError, AttributeError)):
        ipc.Fd(what)


def test_a_file_that_is_not_open_stops_the_send_and_touches_no_other() -> None:
    import os

    sender, receiver = ipc.channel()
    end, end_receiver = ipc.channel(int)
    number = os.dup(0)
    os.close(number)
    with sender, receiver, end, end_receiver:
        with pytest.raises(OSError, match="Bad file descriptor") as caught:
            sender.send([end, ipc.Fd(number)])
        assert isinstance(caught.value, ipc.IpcError)
        assert not end.closed
        with pytest.raises(ipc.Empty):
            receiver.try_recv()
