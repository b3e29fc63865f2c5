"""A peer that follows no rules: whatever it sends, this process goes on, waits for nothing and keeps nothing."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

import ipc_channel as ipc
from ipc_channel.rust import u64
from tests.rust import wire
from tests.rust.commands import Parcel
from tests.rust.peers import PROGRAMS, TIMEOUT
from tests.support.packets import send_packet, socket_of, wrong_descriptor

BAD = (ipc.ProtocolError, ipc.DecodeError)


class Foe:
    """The raw socket of a client, and the receiver of its messages."""

    def __init__(self, codec: Any, socket: socket.socket, receiver: ipc.BytesReceiver) -> None:
        self.codec = codec
        self.shape = wire.frames(codec)
        self.socket = socket
        self.receiver = receiver

    def head(self, total: int, part: int | None = None) -> bytes:
        """A header that says so."""
        if self.shape.header == 8:
            return struct.pack("=Q", total)
        return struct.pack("=QQ", 16 + (total if part is None else part), total)

    def survived(self) -> None:
        """At most errors come, and then the end."""
        self.socket.close()
        for _ in range(10):
            with contextlib.suppress(*BAD):
                try:
                    self.receiver.recv(TIMEOUT)
                except ipc.Disconnected:
                    return
        pytest.fail("it goes on and on")


@pytest.fixture(params=PROGRAMS)
def foe(request: pytest.FixtureRequest) -> Iterator[Foe]:
    """A client after its first message."""
    codec = request.param
    with (
        ipc.BytesOneShotServer(codec=codec) as server,
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client,
    ):
        client.connect(server.name)
        wire.send(client, wire.frames(codec), b"first")
        receiver, first = server.accept(TIMEOUT)
        assert first == b"first"
        with receiver:
            yield Foe(codec, client, receiver)


@contextlib.contextmanager
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with one, other:
        yield one, other


def resident() -> int:
    """Bytes of memory in use."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("missing", [1, 7])
def test_a_packet_without_a_whole_header(foe: Foe, missing: int) -> None:
    foe.socket.send(bytes(foe.shape.header - missing))
    with pytest.raises((*BAD, ipc.Disconnected)):
        foe.receiver.recv(TIMEOUT)
    foe.survived()


@pytest.mark.parametrize("total", [100, 1 << 30, 2**62, 2**64 - 1])
def test_more_is_promised_than_comes(foe: Foe, total: int) -> None:
    """No memory is taken for a promise."""
    before = resident()
    with pair() as (dedicated, given):
        send_packet(foe.socket, foe.head(total, 10) + bytes(10), [given.fileno()])
        given.close()
        with pytest.raises((ipc.RecvTimeout, *BAD)):
            foe.receiver.recv(0.05)
        with contextlib.suppress(BrokenPipeError):  # it may have been refused at once
            dedicated.send(bytes(50))
    assert resident() - before < 64 << 20
    foe.survived()


def test_a_message_that_never_goes_on_holds_nobody_up(foe: Foe) -> None:
    """Neither a try nor a timeout waits longer than it should, nor does a set with others in it."""
    sender, receiver = ipc.bytes_channel()
    with pair() as (dedicated, given), sender, receiver:
        send_packet(foe.socket, foe.head(1000, 10) + bytes(10), [given.fileno()])
        given.close()
        with pytest.raises(ipc.Empty):
            foe.receiver.try_recv()
        with pytest.raises(ipc.RecvTimeout):
            foe.receiver.recv(0.02)
        assert not foe.receiver.poll(0.02)
        with ipc.ReceiverSet[str]() as receivers:
            receivers.add(foe.receiver, "foe")
            receivers.add(receiver, "friend")
            assert receivers.select(0.02) == []
            sender.send(b"hello")
            assert receivers.select(TIMEOUT) == [ipc.Received("friend", b"hello")]
            dedicated.send(b"x" * 990)
            assert receivers.select(TIMEOUT) == [ipc.Received("foe", bytes(10) + b"x" * 990)]
            receivers.remove("friend").close()
            foe.receiver = receivers.remove("foe")
    with foe.receiver:
        foe.survived()


@pytest.mark.parametrize("seen", [False, True])
def test_a_sender_that_goes_in_the_middle_of_a_message(foe: Foe, seen: bool) -> None:
    """The half message is dropped, whether we have begun with it or not; what comes later is not disturbed."""
    with pair() as (dedicated, given):
        send_packet(foe.socket, foe.head(1000, 10) + bytes(10), [given.fileno()])
        given.close()
        dedicated.send(bytes(500))
        if seen:
            assert not foe.receiver.poll(0.01)
        dedicated.close()
    wire.send(foe.socket, foe.shape, b"later")
    assert foe.receiver.recv(TIMEOUT) == b"later"
    foe.survived()


def test_a_receiver_that_has_begun_with_a_message_stays(foe: Foe) -> None:
    """Until it has the message, which would be lost otherwise."""
    carrier, carried = ipc.channel(ipc.BytesReceiver, codec=foe.codec)
    with carrier, carried, pair() as (dedicated, given):
        send_packet(foe.socket, foe.head(1000, 10) + bytes(10), [given.fileno()])
        given.close()
        assert not foe.receiver.poll(0.01)
        with pytest.raises(ipc.EncodeError, match="cannot move now"):
            carrier.send(foe.receiver)
        dedicated.send(b"x" * 990)
        assert foe.receiver.recv(TIMEOUT) == bytes(10) + b"x" * 990
        wire.send(foe.socket, foe.shape, b"later")
        assert foe.receiver.poll(TIMEOUT)
        carrier.send(foe.receiver)
        foe.receiver = carried.recv(TIMEOUT)
        with foe.receiver:
            assert foe.receiver.recv(TIMEOUT) == b"later"
            foe.survived()


@pytest.mark.parametrize("what", ["nothing", "pipe", "tcp", "unsealed memfd", "stream socket"])
def test_the_rest_comes_over_something_else(foe: Foe, what: str) -> None:
    with contextlib.nullcontext() if what == "nothing" else wrong_descriptor(what) as number:
        send_packet(foe.socket, foe.head(1000, 10) + bytes(10), [] if number is None else [number])
        with contextlib.suppress(ipc.RecvTimeout, ipc.Disconnected, *BAD):
            foe.receiver.recv(0.05)
    foe.survived()


def test_more_comes_than_was_promised(foe: Foe) -> None:
    with pair() as (dedicated, given):
        send_packet(foe.socket, foe.head(20, 10) + bytes(10), [given.fileno()])
        given.close()
        dedicated.send(bytes(500))
        with contextlib.suppress(*BAD):
            assert len(foe.receiver.recv(TIMEOUT)) == 20
    send_packet(foe.socket, foe.head(3, 10) + bytes(10))
    with contextlib.suppress(*BAD):
        foe.receiver.recv(TIMEOUT)
    foe.survived()


def test_headers_that_say_something_else(foe: Foe) -> None:
    """Only the newer versions have a length in them that could be wrong."""
    for part in (0, 5, 11, 2**63, 2**64 - 17):
        send_packet(foe.socket, foe.head(10, part) + bytes(10))
    for _ in range(5):
        with contextlib.suppress(ipc.RecvTimeout, ipc.Disconnected, *BAD):
            foe.receiver.recv(0.02)
    foe.survived()


def test_another_holder_takes_what_was_seen(foe: Foe) -> None:
    """Who has given the receiver away can have kept a duplicate. The end is the end all the same."""
    count, read = 64, 20
    for number in range(count):
        wire.send(foe.socket, foe.shape, bytes([number]))
    assert [foe.receiver.recv(TIMEOUT) for _ in range(read)] == [bytes([number]) for number in range(read)]
    with socket.socket(fileno=foe.receiver.duplicate_fd()) as thief:
        for _ in range(count - read):
            assert thief.recv(100, socket.MSG_DONTWAIT)
    foe.survived()


def test_many_descriptors_that_nothing_refers_to(foe: Foe) -> None:
    with pair() as (one, _other):
        before = len(os.listdir("/proc/self/fd"))
        send_packet(foe.socket, foe.head(2) + b"hi", [one.fileno()] * 253)
        with contextlib.suppress(*BAD):
            assert foe.receiver.recv(TIMEOUT) == b"hi"
        assert len(os.listdir("/proc/self/fd")) <= before + 2
    foe.survived()


def test_one_region_many_times() -> None:
    """It is copied once, as its sender has paid for it once; and each time it is a region of its own."""
    many, size = 60, 1 << 20
    sender, receiver = ipc.channel(list[ipc.SharedMemory], codec="rust")
    with sender, receiver, socket_of(sender) as raw:
        number, another = os.memfd_create("one"), os.memfd_create("another")
        os.write(number, b"1" * size)
        os.write(another, b"2" * size)
        payload = bytes([many, *range(many)])
        wire.send(raw, wire.frames("rust"), payload, [*[number] * (many - 1), another])
        os.close(number)
        os.close(another)
        regions = receiver.recv(TIMEOUT)
        files = [region.duplicate_fd() for region in regions]
        assert len({os.fstat(file).st_ino for file in files}) == 2
        for file in files:
            os.close(file)
        regions.pop(0).close()
        assert regions.pop() == b"2" * size
        for region in regions:
            assert region == b"1" * size
            region.close()


def _with_ends(codec: Any, numbers: Sequence[int]) -> bytes:
    """A parcel that says that the first of them is a sender and the second a receiver."""
    index: Callable[[int], bytes] = (
        (lambda number: number.to_bytes(8, "little")) if codec == "rust-0.20" else (lambda number: bytes([number]))
    )
    fields = [0, 0, 1, numbers[0], 1, numbers[1], 0, 0, 0, 0, 0, 0]
    return b"".join(map(index, fields))


@pytest.mark.parametrize("kind", ["tcp", "stream socket", "listening socket", "itself"])
def test_ends_that_are_none(codec: Any, kind: str) -> None:
    """They are refused, or they are dead: nothing waits for ever."""
    with ipc.OneShotServer(Parcel, codec=codec) as server, contextlib.ExitStack() as closing:
        client = closing.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        client.connect(server.name)
        if kind == "itself":
            number = client.fileno()
        elif kind == "listening socket":
            listener = closing.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
            listener.bind("")
            listener.listen()
            number = listener.fileno()
        else:
            number = closing.enter_context(wrong_descriptor(kind))
        send_packet(
            client, wire.frames(codec).head(len(_with_ends(codec, (0, 1)))) + _with_ends(codec, (0, 1)), [number] * 2
        )
        try:
            receiver, parcel = server.accept(TIMEOUT)
        except BAD:
            return
        receiver.close()
        with contextlib.suppress(ipc.IpcError):
            parcel.senders[0].send(5)
            parcel.senders[0].flush(0.05)
        with contextlib.suppress(ipc.IpcError):
            parcel.receivers[0].recv(0.05)
        parcel.close()


@pytest.mark.parametrize("indices", [(0, 0), (0, 2), (127, 1)])
def test_indices_that_are_wrong(codec: Any, indices: tuple[int, int]) -> None:
    with ipc.OneShotServer(Parcel, codec=codec) as server, pair() as (one, other):
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
            client.connect(server.name)
            wire.send(client, wire.frames(codec), _with_ends(codec, indices), [one.fileno(), other.fileno()])
            with pytest.raises(ipc.DecodeError):
                server.accept(TIMEOUT)


def test_a_reader_that_shuts_its_side(codec: Any) -> None:
    """A receiver that reads no more, with messages held for it."""
    with wire.listening() as (name, server):
        with ipc.connect(name, u64, codec=codec) as sender:
            connected, _ = server.accept()
            with connected:
                for number in range(2000):
                    sender.send(number)
                waiting = threading.Timer(0.05, lambda: connected.shutdown(socket.SHUT_RDWR))
                waiting.start()
                with pytest.raises(ipc.ReceiverGone):
                    sender.flush(TIMEOUT)
                    sender.send(1)
                    sender.flush(TIMEOUT)
                waiting.join()
