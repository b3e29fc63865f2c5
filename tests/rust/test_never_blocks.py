"""``send`` returns at once, whoever reads: what the socket does not take is held in this process."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

import ipc_channel as ipc
from ipc_channel.rust import u64
from tests.rust import commands as c
from tests.rust.commands import Parcel, numbered
from tests.rust.peers import TIMEOUT, Peer
from tests.support.snippets import PACKAGE, run_snippet


@dataclass(frozen=True)
class Held:
    """A channel whose receiver reads nothing until it may."""

    sender: ipc.BytesSender
    permission: ipc.Sender[None]
    tallies: ipc.Receiver[c.Tally]

    def result(self) -> c.Tally:
        """Let it read, until the end."""
        self.sender.close()
        self.permission.send(None)
        return self.tallies.recv(TIMEOUT)


@contextlib.contextmanager
def held(peer: Peer) -> Iterator[Held]:
    """Such a channel."""
    sender, receiver = peer.bytes_channel()
    permission, waiting = peer.channel(None)
    tally, tallies = peer.channel(c.Tally)
    with sender, permission, tallies:
        peer.tell(c.Hold(receiver, waiting, tally))
        yield Held(sender, permission, tallies)


@pytest.mark.parametrize(("size", "count"), [(8, 20_000), (64 << 10, 100), (5 << 20, 6)])
def test_nobody_reads(peer: Peer, size: int, count: int) -> None:
    with held(peer) as channel:
        for number in range(count):
            channel.sender.send(numbered(number, size))
        with pytest.raises(ipc.SendTimeout):
            channel.sender.flush(0.02)
        with pytest.raises(ipc.SendTimeout):
            channel.sender.flush(0)
        # In the meantime everything else works.
        with peer.loop(c.LoopBytes) as loop:
            assert loop.turn(b"aside") == b"aside"
        channel.permission.send(None)
        channel.sender.flush(TIMEOUT)
        channel.sender.close()
        assert channel.tallies.recv(TIMEOUT) == c.Tally(count, size * count, True, "disconnected")


def test_what_is_held_is_sent_after_the_sender_was_closed(peer: Peer) -> None:
    with held(peer) as channel:
        channel.sender.send_many(numbered(number, 1000) for number in range(3000))
        assert channel.result() == c.Tally(3000, 3_000_000, True, "disconnected")


def test_flush_when_nothing_is_held(peer: Peer) -> None:
    with held(peer) as channel:
        channel.sender.flush(0)
        channel.sender.send(numbered(0, 8))
        channel.sender.flush(0)  # the socket has taken it
        assert channel.result().messages == 1


def test_many_threads_and_many_clones(peer: Peer) -> None:
    """Each thread's messages stay in their order."""
    sender, receiver = peer.bytes_channel()
    returning, back = peer.bytes_channel()
    peer.tell(c.Loop(c.LoopBytes(receiver, returning)))

    def send(number: int, clone: ipc.BytesSender) -> None:
        with clone:
            for index in range(500):
                clone.send(bytes([number]) + index.to_bytes(4, "little") + bytes(1000 if index % 100 else 300_000))

    threads = [threading.Thread(target=send, args=(number, sender.clone())) for number in range(4)]
    with back:
        sender.close()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(TIMEOUT)
        order: dict[int, list[int]] = {number: [] for number in range(4)}
        for message in back:
            order[message[0]].append(int.from_bytes(message[1:5], "little"))
        assert order == {number: list(range(500)) for number in range(4)}


def test_ends_and_memory_in_messages_that_are_held(peer: Peer) -> None:
    sender, receiver = peer.channel(Parcel)
    returning, back = peer.channel(Parcel)
    count = 400
    with sender, back:
        replies = []
        for number in range(count):
            reply, answers = peer.channel(u64)
            replies.append(answers)
            with ipc.SharedMemory.filled(number % 256, 10) as memory:
                sender.send(Parcel(number, bytes(2000), senders=[reply], memory=[memory]))
        peer.tell(c.Loop(c.LoopParcel(receiver, returning)))
        for number, answers in enumerate(replies):
            parcel = back.recv(TIMEOUT)
            assert parcel.number == number
            assert parcel.memory[0] == bytes([number % 256]) * 10
            parcel.senders[0].send(number)
            parcel.close()
            with answers:
                assert answers.recv(TIMEOUT) == number


def test_their_sends_to_us_wait_for_nobody_else(peer: Peer) -> None:
    """A crate that is stuck in a send to us, since we do not read, can still receive from us."""
    sender, receiver = peer.bytes_channel()
    with receiver:
        peer.tell(c.Flood(sender, 3000, 1000))
        with peer.loop(c.LoopBytes) as loop:
            message = bytes(1 << 20)
            assert loop.turn(message) == message
        assert [int.from_bytes(message[:8], "little") for message in receiver] == list(range(3000))


def test_both_sides_send_more_than_sockets_hold(peer: Peer) -> None:
    """With blocking sends on both sides this would never end."""
    with peer.loop(c.LoopBytes) as loop:
        messages = [numbered(number, 50_000) for number in range(200)]
        loop.there.send_many(messages)
        assert [loop.back.recv(TIMEOUT) for _ in messages] == messages


@pytest.mark.parametrize("make", [ipc.bytes_channel, lambda **more: ipc.channel(u64, **more)])
def test_there_are_no_bounded_channels(codec: Any, make: Any) -> None:
    """The crate does not tell what it has received."""
    with pytest.raises(ValueError, match="cannot be bounded"):
        make(capacity=2, codec=codec)


NO_THREAD = """
import resource, threading, time
import ipc_channel as ipc
_, most = resource.getrlimit(resource.RLIMIT_NPROC)
sender, receiver = ipc.bytes_channel(codec="rust")
flushing = threading.Event()
def read():
    flushing.wait()
    time.sleep(0.1)
    resource.setrlimit(resource.RLIMIT_NPROC, (most, most))
    for _ in range(1000):
        receiver.recv(20)
reader = threading.Thread(target=read)
reader.start()
resource.setrlimit(resource.RLIMIT_NPROC, (0, most))
for _ in range(1000):
    sender.send(bytes(100))
try:
    threading.Thread(target=print).start()
except RuntimeError:
    pass
else:
    raise SystemExit("the limit on threads has no effect")
flushing.set()
sender.flush(20)
reader.join()
sender.close()
receiver.close()
"""


def test_flush_gets_its_thread_when_there_is_one() -> None:
    """The thread that sends could not be started when the messages were sent, and nobody sends any more."""
    preload = [*PACKAGE, "ipc_channel.codecs.rust", "ipc_channel.unwritten", "threading"]
    run_snippet(NO_THREAD, as_other_user=True, preload=preload)
