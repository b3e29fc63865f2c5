"""A peer that still holds a duplicate of a socket that it gave us, or gives us a strange one."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
import struct
import threading
import time
from collections.abc import Iterator
from typing import Any

import anyio
import pytest

import ipc_channel as ipc
from ipc_channel import _core
from ipc_channel.codecs.raw import RAW
from tests.faults.forging import honest, with_handles
from tests.support.packets import send_packet, socket_pair

SO_PASSPIDFD = 76
SO_PEEK_OFF = 42
BEYOND_EVERYTHING = 1 << 20


def bytes_receiver(peers: socket.socket) -> ipc.BytesReceiver:
    """A receiver made of a duplicate of a socket that the peer keeps."""
    return ipc.BytesReceiver(_core.adopt_receiver(os.dup(peers.fileno()), RAW.label), RAW)


def bytes_sender(peers: socket.socket) -> ipc.BytesSender:
    """A sender made of a duplicate of a socket that the peer keeps."""
    return ipc.BytesSender(_core.adopt_sender(os.dup(peers.fileno()), RAW.label), RAW)


@contextlib.contextmanager
def given_receiver() -> Iterator[tuple[socket.socket, socket.socket, ipc.BytesReceiver]]:
    """The peer's end, the peer's duplicate of our end, and our receiver."""
    sending, duplicate = socket_pair()
    with sending, duplicate, bytes_receiver(duplicate) as receiver:
        yield sending, duplicate, receiver


OPTIONS = {
    "SO_PASSCRED": (socket.SO_PASSCRED, 1),
    "SO_PASSSEC": (34, 1),
    "SO_PASSPIDFD": (SO_PASSPIDFD, 1),
    "SO_PEEK_OFF at the start": (SO_PEEK_OFF, 0),
    "SO_RCVLOWAT": (socket.SO_RCVLOWAT, 1 << 20),
    "SO_TIMESTAMP": (29, 1),
    "SO_BUSY_POLL": (46, 50),
}


@pytest.mark.parametrize("descriptors", [0, 1, 253])
@pytest.mark.parametrize("option", OPTIONS)
def test_options_that_a_peer_switches_on_change_nothing_and_leak_nothing(option: str, descriptors: int) -> None:
    number, value = OPTIONS[option]
    with given_receiver() as (sending, duplicate, receiver), open("/dev/null") as null:
        with contextlib.suppress(OSError):  # an older kernel does not know them all
            duplicate.setsockopt(socket.SOL_SOCKET, number, value)
        for _ in range(3):
            send_packet(sending, honest(b"plain"))
            send_packet(sending, b"", [null.fileno()] * descriptors)
            send_packet(sending, with_handles([3] * descriptors, payload=b"x"), [null.fileno()] * descriptors)
            assert receiver.recv(20) == b"plain"
            with pytest.raises(ipc.ProtocolError):
                receiver.recv(20)
            if descriptors:
                with pytest.raises(ipc.DecodeError):
                    receiver.recv(20)
            else:
                assert receiver.recv(20) == b"x"
        sending.close()
        with pytest.raises(ipc.Disconnected):
            receiver.recv(20)


def test_blocking_mode_of_a_shared_description_does_not_matter() -> None:
    for blocking in (True, False):
        with given_receiver() as (sending, duplicate, receiver):
            duplicate.setblocking(blocking)
            with pytest.raises(ipc.Empty):
                receiver.try_recv()
            with pytest.raises(ipc.RecvTimeout):
                receiver.recv(0.001)
            send_packet(sending, honest(b"x"))
            assert receiver.recv(20) == b"x"


def hide(duplicate: socket.socket) -> None:
    """Make the queue look empty to whoever looks, and full to whoever waits."""
    duplicate.setsockopt(socket.SOL_SOCKET, SO_PEEK_OFF, BEYOND_EVERYTHING)


@contextlib.contextmanager
def hiding_again_and_again(duplicate: socket.socket) -> Iterator[None]:
    """Hide, whatever the other side does about it."""
    done = threading.Event()

    def hide_again() -> None:
        while not done.is_set():
            hide(duplicate)

    hider = threading.Thread(target=hide_again)
    hider.start()
    try:
        yield
    finally:
        done.set()
        hider.join()


def _receive_hidden(receiver: Any) -> None:
    with pytest.raises((ipc.RecvTimeout, ipc.ProtocolError)):
        for _ in range(1000):
            receiver.recv(0.05)


def test_a_hidden_packet_does_not_keep_a_timeout_from_passing() -> None:
    with given_receiver() as (sending, duplicate, receiver), hiding_again_and_again(duplicate):
        send_packet(sending, b"garbage that is hidden")
        _receive_hidden(receiver)


def test_a_hidden_packet_does_not_keep_ctrl_c_out() -> None:
    with given_receiver() as (sending, duplicate, receiver), hiding_again_and_again(duplicate):
        main = threading.main_thread().ident
        assert main is not None
        later = threading.Timer(0.1, signal.pthread_kill, [main, signal.SIGINT])
        later.start()
        with pytest.raises(KeyboardInterrupt):
            while True:  # a packet that is seen after all is refused
                send_packet(sending, b"garbage that is hidden")
                with contextlib.suppress(ipc.ProtocolError):
                    receiver.recv()
        later.join()


def test_a_hidden_packet_does_not_stop_a_set() -> None:
    sender, honest_receiver = ipc.bytes_channel()
    with given_receiver() as (sending, duplicate, receiver), ipc.ReceiverSet[str]() as receivers, sender:
        receivers.add(receiver, "hostile")
        receivers.add(honest_receiver, "honest")
        with hiding_again_and_again(duplicate):
            send_packet(sending, b"garbage that is hidden")
            came: list[Any] = []
            while len(came) < 3:
                came += [event for event in receivers.select(0.02) if event.key == "honest"]
                sender.send(b"x")
            assert came[:3] == [ipc.Received("honest", b"x")] * 3


def test_what_was_hidden_once_is_found() -> None:
    with given_receiver() as (sending, duplicate, receiver):
        hide(duplicate)
        send_packet(sending, honest(b"found"))
        assert receiver.recv(20) == b"found"
    with given_receiver() as (sending, duplicate, receiver), ipc.ReceiverSet[int]() as receivers:
        key = receivers.add(receiver)
        hide(duplicate)
        send_packet(sending, honest(b"found"))
        came: list[Any] = []
        while not came:
            came = receivers.select(20)
        assert came == [ipc.Received(key, b"found")]


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_hidden_packet_does_not_stop_an_event_loop(backend: str) -> None:
    async def main() -> None:
        with given_receiver() as (sending, duplicate, receiver), hiding_again_and_again(duplicate):
            send_packet(sending, b"garbage that is hidden")
            with anyio.move_on_after(0.1), contextlib.suppress(ipc.ProtocolError):
                await receiver.arecv()

    anyio.run(main, backend=backend)


def test_a_socket_that_was_never_connected_is_at_the_end_of_its_stream() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as lonely:
        with bytes_receiver(lonely) as receiver:
            for _ in range(2):
                with pytest.raises(ipc.Disconnected):
                    receiver.recv(20)
        with ipc.ReceiverSet[int]() as receivers:
            key = receivers.add(bytes_receiver(lonely))
            assert receivers.select(20) == [ipc.Closed(key)]
        with bytes_sender(lonely) as sender, pytest.raises(ipc.ReceiverGone):
            sender.send(b"x")


def test_a_peer_that_sends_back_into_a_sender_does_no_harm() -> None:
    one, other = socket_pair()
    with one, other, bytes_sender(one) as sender:
        with contextlib.suppress(OSError):
            other.send(b"unasked")
        sender.send(b"still works")
        assert other.recv(100).endswith(b"still works")


def test_a_receiver_that_could_send_back_does_not_disturb_its_senders() -> None:
    sender, receiver = ipc.bytes_channel()
    with sender, receiver:
        with socket.socket(fileno=receiver.duplicate_fd()) as raw, pytest.raises(BrokenPipeError):
            raw.send(b"back")
        sender.send(b"x")
        assert receiver.recv(20) == b"x"


def test_a_shutdown_by_one_duplicate_ends_the_stream_after_what_was_sent() -> None:
    with given_receiver() as (sending, _, receiver):
        send_packet(sending, honest(b"before"))
        sending.shutdown(socket.SHUT_RDWR)
        assert receiver.recv(20) == b"before"
        with pytest.raises(ipc.Disconnected):
            receiver.recv(20)


def test_a_tiny_send_buffer_is_an_error_and_not_a_hang() -> None:
    one, other = socket_pair()
    with one, other, bytes_sender(one) as sender:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
        with pytest.raises(ipc.IpcError):
            sender.send(bytes(60_000), timeout=0.05)
        sender.send(bytes(1_000_000), timeout=20)  # its body is in a file
        with contextlib.closing(bytes_receiver(other)) as receiver:
            assert receiver.recv(20) == bytes(1_000_000)


def test_an_owner_for_signals_set_by_a_peer_does_no_harm() -> None:
    """F_SETOWN and O_ASYNC on a shared description would send SIGIO, which ends a process that ignores it not."""
    with given_receiver() as (sending, duplicate, receiver):
        before = signal.signal(signal.SIGIO, signal.SIG_IGN)
        try:
            fcntl.fcntl(duplicate, fcntl.F_SETOWN, os.getpid())
            fcntl.fcntl(duplicate, fcntl.F_SETFL, fcntl.fcntl(duplicate, fcntl.F_GETFL) | os.O_ASYNC)
            for _ in range(20):
                send_packet(sending, honest(b"x"))
                assert receiver.recv(20) == b"x"
        finally:
            signal.signal(signal.SIGIO, before)


def test_the_peers_time_is_not_ours() -> None:
    """SO_RCVTIMEO and SO_SNDTIMEO set by a peer do not shorten our waits."""
    with given_receiver() as (sending, duplicate, receiver):
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            duplicate.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", 0, 1000))
        later = threading.Timer(0.05, send_packet, [sending, honest(b"late")])
        began = time.monotonic()
        later.start()
        assert receiver.recv(20) == b"late"
        assert time.monotonic() - began >= 0.04
        later.join()
