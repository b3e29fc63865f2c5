"""kill -9 of either side, before, in the middle of and after messages: a clean end, nothing half, nothing left."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

import ipc_channel as ipc
from ipc_channel.rust import u32, u64
from tests.rust import commands as c
from tests.rust import wire
from tests.rust.commands import Parcel, numbered
from tests.rust.peers import TIMEOUT, start
from tests.support.start_methods import ROOT

LARGE = 5 << 20
"""More than any socket holds."""


def gone(send: Any) -> None:
    """Sending there fails before long: what is under way may be noticed later."""
    deadline = time.monotonic() + TIMEOUT
    with pytest.raises(ipc.ReceiverGone):
        while time.monotonic() < deadline:
            send()
            time.sleep(0.001)


def test_theirs_killed_before_anything(codec: Any) -> None:
    with start(codec, "Python serves") as peer:
        answer, answers = peer.channel(u32)
        sender, receiver = peer.channel(u64)
        event, events = peer.channel(c.Event)
        peer.tell(c.Select([receiver], event))
        peer.kill(signal.SIGSTOP)
        peer.tell(c.Ping(answer))
        with answers, sender, events:
            peer.kill()
            for end in (answers, events):
                with pytest.raises(ipc.Disconnected):
                    end.recv(TIMEOUT)
            gone(lambda: sender.send(1))


def test_theirs_killed_after_sending(codec: Any) -> None:
    """What it sent before arrives, also what nobody has read yet."""
    with start(codec, "Rust serves") as peer:
        unread, receiver = peer.channel(u64)
        other, others = peer.channel(u64)
        with receiver, others:
            peer.tell(c.Feed([unread, other], 50))
            assert [others.recv(TIMEOUT) for _ in range(50)] == list(range(50))
            peer.kill()
            assert list(receiver) == list(range(50))


@pytest.mark.parametrize("others", [False, True], ids=["alone", "beside another sender"])
def test_theirs_killed_in_the_middle_of_a_message(codec: Any, others: bool) -> None:
    """The half message is dropped; others' messages come."""
    with start(codec, "Python serves") as peer:
        sender, receiver = peer.bytes_channel()
        own = sender.clone() if others else None
        with receiver, own or contextlib.nullcontext():
            peer.tell(c.Flood(sender, 1, LARGE))
            time.sleep(0.1)  # its first packets are there, and it waits until somebody reads
            peer.kill()
            if own is not None:
                own.send(b"later")
                assert receiver.recv(TIMEOUT) == b"later"
                own.close()
            with pytest.raises(ipc.Disconnected):
                receiver.recv(TIMEOUT)


def test_theirs_killed_at_any_time_while_it_sends(codec: Any) -> None:
    for attempt in range(8):
        with start(codec, "Python serves") as peer:
            sender, receiver = peer.bytes_channel()
            with receiver:
                peer.tell(c.Flood(sender, 1_000_000, 150_000 + 100_000 * (attempt % 4)))
                received = [receiver.recv(TIMEOUT) for _ in range(attempt * 3)]
                peer.kill()
                received += list(receiver)
                size = 150_000 + 100_000 * (attempt % 4)
                assert received == [numbered(number, size) for number in range(len(received))]


@pytest.mark.parametrize("size", [100, LARGE])
def test_their_receiver_killed_while_we_send(codec: Any, size: int) -> None:
    """What is held here is dropped, and every later send says so."""
    with start(codec, "Python serves") as peer:
        sender, receiver = peer.bytes_channel()
        permission, waiting = peer.channel(None)
        tally, tallies = peer.channel(c.Tally)
        with sender, permission, tallies:
            peer.tell(c.Hold(receiver, waiting, tally))
            for number in range(2000 if size == 100 else 5):
                sender.send(numbered(number, size))
            peer.kill()
            gone(lambda: sender.send(b""))
            with contextlib.suppress(ipc.ReceiverGone):
                sender.flush(TIMEOUT)  # there is nothing left to wait for
            with pytest.raises(ipc.Disconnected):
                tallies.recv(TIMEOUT)


def test_ends_on_their_way_to_a_killed_peer_are_closed(codec: Any) -> None:
    """Those in its socket, and those that are still held here."""
    with start(codec, "Python serves") as peer:
        there, receiver = peer.channel(Parcel)
        returning, back = peer.channel(Parcel)
        peer.kill(signal.SIGSTOP)
        peer.tell(c.Loop(c.LoopParcel(receiver, returning)))
        replies = []
        with there, back:
            for _ in range(600):
                reply, answers = peer.channel(u64)
                replies.append(answers)
                there.send(Parcel(content=bytes(1000), senders=[reply]))
            peer.kill()
            for answers in replies:
                with answers, pytest.raises(ipc.Disconnected):
                    answers.recv(TIMEOUT)


VICTIM = """
import sys, time
import ipc_channel as ipc
from tests.rust import commands as c

codec, name, size, count = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
sender, receiver = ipc.bytes_channel(codec=codec)
with ipc.connect(name, ipc.BytesReceiver, codec=codec) as introduction:
    introduction.send(receiver)
for number in range(count):
    sender.send(c.numbered(number, size))
print("sent", flush=True)
time.sleep(60)
"""


@contextlib.contextmanager
def victim(codec: Any, size: int, count: int) -> Iterator[tuple[subprocess.Popen[str], ipc.BytesReceiver]]:
    """A Python process that has sent messages; killed at the end of the block, if not before. And their receiver."""
    with ipc.OneShotServer(ipc.BytesReceiver, codec=codec) as server:
        command = [sys.executable, "-c", VICTIM, codec, server.name, str(size), str(count)]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
        )
        with process:
            try:
                messages, receiver = server.accept(TIMEOUT)
                messages.close()
                assert process.stdout is not None
                assert process.stdout.readline() == "sent\n"  # it was not held up, whatever the size
                yield process, receiver
            finally:
                process.kill()


@pytest.mark.parametrize(
    ("size", "count", "whole"),
    [(100, 20, 20), (LARGE, 1, 0), (100_000, 10, None)],
    ids=["after messages", "in the middle of a message", "with more than the socket holds"],
)
def test_ours_killed(codec: Any, size: int, count: int, whole: int | None) -> None:
    """The crate sees whole messages, and then the end."""
    with victim(codec, size, count) as (process, receiver), start(codec, "Python serves") as peer:
        permission, waiting = peer.channel(None)
        tally, tallies = peer.channel(c.Tally)
        with permission, tallies:
            peer.tell(c.Hold(receiver, waiting, tally))
            process.send_signal(signal.SIGKILL)
            process.wait(TIMEOUT)
            permission.send(None)
            result = tallies.recv(TIMEOUT)
        assert result.right
        assert result.end == "disconnected"
        assert result.messages == whole if whole is not None else 0 < result.messages < count


def test_our_receiver_killed_while_they_send(codec: Any) -> None:
    """The crate's sender is told, and its process goes on."""
    with start(codec, "Python serves") as peer:
        child = f"""
import sys, time
import ipc_channel as ipc
with ipc.OneShotServer(ipc.BytesReceiver, codec={codec!r}) as server:
    print(server.name, flush=True)
    messages, receiver = server.accept(30)
receiver.recv(30)
print("received", flush=True)
time.sleep(60)
"""
        with subprocess.Popen([sys.executable, "-c", child], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            sender, receiver = peer.bytes_channel()
            with ipc.connect(process.stdout.readline().rstrip(), ipc.BytesReceiver, codec=peer.codec) as introduction:
                introduction.send(receiver)
            peer.tell(c.Flood(sender, 1_000_000, 100_000))
            assert process.stdout.readline() == "received\n"
            process.kill()
            process.wait(TIMEOUT)
        with peer.loop(c.LoopBytes) as loop:
            assert loop.turn(b"alive") == b"alive"


def test_a_packet_cut_short_ends_nothing_else(codec: Any) -> None:
    """A peer that follows no rules: its channel may end, this process goes on."""
    shape = wire.frames(codec)
    with ipc.OneShotServer(u64, codec=codec) as server:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
            client.connect(server.name)
            wire.send(client, shape, b"\x05" if codec != "rust-0.20" else (5).to_bytes(8, "little"))
            receiver, first = server.accept(TIMEOUT)
            assert first == 5
            with receiver:
                client.send(b"\x01")
                client.close()
                with pytest.raises((ipc.ProtocolError, ipc.DecodeError, ipc.Disconnected)):
                    receiver.recv(TIMEOUT)
                with pytest.raises(ipc.Disconnected):
                    while True:
                        with contextlib.suppress(ipc.ProtocolError, ipc.DecodeError):
                            receiver.recv(TIMEOUT)
