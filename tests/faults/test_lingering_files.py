"""A file whose last close blocks for as long as its sender chose: whoever throws it away does not wait for it."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

import ipc_channel as ipc
from tests.faults.forging import FILE, chain, link, with_handles
from tests.faults.lingering import lingering_socket
from tests.faults.victim import Victim
from tests.support.packets import raw_client, receive_packet, send_packet, socket_of, socket_pair


def give(sender: Any, message: Any, connection: Any) -> None:
    """Send it and keep no copy of the connection."""
    sender.send(message)
    connection.close()


def test_beside_garbage(victim: Victim) -> None:
    with lingering_socket() as connection:
        send_packet(victim.raw, b"garbage", [connection.fileno()])
        connection.close()
        with pytest.raises(ipc.ProtocolError):
            victim.receiver.recv(20)


def test_in_a_message_that_has_no_place_for_it(victim: Victim) -> None:
    with lingering_socket() as connection:
        send_packet(victim.raw, with_handles([FILE]), [connection.fileno()])
        connection.close()
        with pytest.raises(ipc.DecodeError):
            victim.receiver.recv(20)


class Wanted(msgspec.Struct):
    """What the receiver takes the message for."""

    file: ipc.Fd
    number: int


class Forged(msgspec.Struct):
    """What the sender sends."""

    file: ipc.Fd
    number: str


def test_in_a_typed_message_that_fails_after_the_file_was_decoded() -> None:
    sender, receiver = ipc.channel(Forged)
    with lingering_socket() as connection, sender, receiver.to_opaque() as opaque, opaque.to(Wanted) as wanted:
        give(sender, Forged(ipc.Fd(connection), "no number"), connection)
        with pytest.raises(ipc.DecodeError):
            wanted.recv(20)


class Unlucky:
    """Raises when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return int, ("no number",)


def test_in_a_pickled_message_that_fails_after_the_file_was_decoded() -> None:
    sender, receiver = ipc.channel()
    with lingering_socket() as connection, sender, receiver:
        give(sender, [ipc.Fd(connection), Unlucky()], connection)
        with pytest.raises(ipc.DecodeError):
            receiver.recv(20)


def test_in_a_message_that_nobody_reads() -> None:
    sender, receiver = ipc.channel(ipc.Fd)
    with lingering_socket() as connection, sender:
        give(sender, ipc.Fd(connection), connection)
        receiver.close()
        with pytest.raises(ipc.ReceiverGone):
            while True:  # its socket is closed by another thread, which may not have begun
                sender.send(ipc.Fd(0))
                time.sleep(0.001)


def test_in_a_message_that_nobody_reads_in_a_receiver_that_arrived() -> None:
    inner_sender, inner_receiver = ipc.channel(ipc.Fd)
    sender, receiver = ipc.channel(ipc.Receiver[ipc.Fd])
    with lingering_socket() as connection, sender, receiver, inner_sender:
        give(inner_sender, ipc.Fd(connection), connection)
        sender.send(inner_receiver)
        receiver.recv(20).close()


def test_in_a_message_that_nobody_reads_in_a_receiver_that_is_thrown_away_unread(victim: Victim) -> None:
    inlet, outlet = socket_pair()
    with lingering_socket() as connection:
        with inlet, outlet:
            send_packet(inlet, b"deep inside", [connection.fileno()])
            send_packet(victim.raw, b"garbage", [outlet.fileno()])
            connection.close()
        with pytest.raises(ipc.ProtocolError):
            victim.receiver.recv(20)


def test_behind_an_empty_packet_that_looks_like_the_end() -> None:
    sender, receiver = ipc.bytes_channel()
    with lingering_socket() as connection, sender, socket_of(sender) as raw:
        send_packet(raw, b"")
        send_packet(raw, b"", [connection.fileno()])
        connection.close()
        receiver.close()


def test_in_a_set_that_is_closed() -> None:
    sender, receiver = ipc.channel(ipc.Fd)
    with lingering_socket() as connection, sender:
        with ipc.ReceiverSet[int]() as receivers:
            receivers.add(receiver)
            give(sender, ipc.Fd(connection), connection)


def test_in_an_opaque_message_that_is_closed() -> None:
    sender, receiver = ipc.channel(ipc.Fd)
    with lingering_socket() as connection, sender, ipc.ReceiverSet[int]() as receivers:
        receivers.add(receiver.to_opaque())
        give(sender, ipc.Fd(connection), connection)
        [event] = receivers.select(20)
        assert isinstance(event, ipc.Received)
        event.message.close()


@pytest.mark.parametrize("whole", [False, True], ids=["damaged", "whole"])
def test_in_a_chain(victim: Victim, whole: bool) -> None:
    with lingering_socket() as connection:
        links = [(link(0), 253), (link(1), 147 if whole else 146)]
        with chain(links, connection.fileno()) as socket:
            send_packet(victim.raw, with_handles([FILE] * 400, chains=1), [socket])
        connection.close()
        with pytest.raises(ipc.DecodeError if whole else ipc.ProtocolError):
            victim.receiver.recv(20)


def test_at_a_one_shot_server_that_turns_the_client_away() -> None:
    with lingering_socket() as connection, ipc.OneShotServer(int) as server:
        with raw_client(server.name) as raw:
            send_packet(raw, b"garbage", [connection.fileno()])
        connection.close()
        with pytest.raises(ipc.AcceptTimeout):
            server.accept(0)


def test_at_a_one_shot_server_that_is_closed_before_accept() -> None:
    with lingering_socket() as connection, contextlib.ExitStack() as clients:
        with ipc.OneShotServer(int) as server:
            raw = clients.enter_context(raw_client(server.name))
            send_packet(raw, b"garbage", [connection.fileno()])
            connection.close()


MANY = 12
"""Connections that linger, in one message."""


@contextlib.contextmanager
def one_thread_closes() -> Iterator[list[Any]]:
    """Connections to be thrown away in the block: however many they are, they wait in one thread."""

    def closing() -> set[str]:
        found = set()
        for thread in Path("/proc/self/task").iterdir():
            with contextlib.suppress(OSError):  # it has ended meanwhile
                if (thread / "comm").read_text().strip() == "ipc-channel-clo":
                    found.add(thread.name)
        return found

    before = closing()
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(lingering_socket()) for _ in range(MANY)]
        assert len(closing() - before) == 1


def test_many_in_a_message_from_a_rust_program() -> None:
    sender, receiver = ipc.channel(int, codec="rust")
    with one_thread_closes() as connections, sender, receiver, socket_of(sender) as raw:
        header = struct.pack("=QQ", 17, 1)
        send_packet(raw, header + b"\x02", [connection.fileno() for connection in connections])
        for connection in connections:
            connection.close()
        assert receiver.recv(20) == 1


def test_many_in_a_pickled_message_that_fails() -> None:
    sender, receiver = ipc.channel()
    with one_thread_closes() as connections, sender, receiver:
        sender.send([*map(ipc.Fd, connections), Unlucky()])
        for connection in connections:
            connection.close()
        with pytest.raises(ipc.DecodeError):
            receiver.recv(20)


def test_many_in_a_typed_message_that_has_no_place_for_them(victim: Victim) -> None:
    with one_thread_closes() as connections:
        send_packet(victim.raw, with_handles([FILE] * MANY), [connection.fileno() for connection in connections])
        for connection in connections:
            connection.close()
        with pytest.raises(ipc.DecodeError):
            victim.receiver.recv(20)


@contextlib.contextmanager
def peer_of(receiver: ipc.BytesReceiver) -> Iterator[socket.socket]:
    """The receiver's socket, for a program with the crate, which could send on it as well."""
    with socket.socket(fileno=receiver.duplicate_fd()) as peer:
        receiver.close()
        peer.settimeout(20)
        yield peer


def forks() -> bool:
    """A fork waits until nobody is in the middle of something."""
    child = os.fork()
    if child == 0:
        os._exit(7)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def read_all(peer: socket.socket) -> int:
    """How many messages come until the sender is closed."""
    count = 0
    while True:
        try:
            packet, _ = receive_packet(peer)
        except ConnectionResetError:  # what was sent back was not read
            continue
        if not packet:
            return count
        count += 1


@pytest.mark.parametrize("held", [0, 1000])
def test_sent_back_by_a_program_with_the_crate(held: int) -> None:
    """The last close is the sender's own, or that of the thread that sends what was held."""
    sender, receiver = ipc.bytes_channel(codec="rust")
    with lingering_socket() as connection, peer_of(receiver) as peer:
        for _ in range(held):
            sender.send(bytes(100))
        send_packet(peer, b"back", [connection.fileno()])
        connection.close()
        sender.close()
        assert read_all(peer) == held
        assert forks()


def test_sent_back_before_the_sender_moves() -> None:
    sender, receiver = ipc.bytes_channel(codec="rust")
    carrier, arrivals = ipc.channel(ipc.BytesSender)
    with lingering_socket() as connection, peer_of(receiver) as peer, carrier, arrivals:
        for _ in range(1000):
            sender.send(bytes(100))
        send_packet(peer, b"back", [connection.fileno()])
        connection.close()
        carrier.send(sender)
        arrivals.recv(20).close()
        assert read_all(peer) == 1000
        assert forks()
