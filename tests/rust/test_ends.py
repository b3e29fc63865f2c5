"""Ends inside messages: as many as fit, of every kind, nested, there and back, and used on the other side."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

import ipc_channel as ipc
from ipc_channel.rust import u64
from tests.rust import commands as c
from tests.rust.commands import Parcel
from tests.rust.peers import TIMEOUT, Peer

MOST = 64
"""Handles in a message."""
FRAGMENTED = b"\xa5" * 300_000
"""More than one packet."""


@contextlib.contextmanager
def closing(ends: Sequence[Any]) -> Iterator[None]:
    """Close all of them at the end of the block."""
    try:
        yield
    finally:
        for end in ends:
            end.close()


def senders(peer: Peer, count: int) -> tuple[list[Any], list[Any]]:
    """So many senders of channels of their own, and the receivers."""
    made = [peer.channel(u64) for _ in range(count)]
    return [each.sender for each in made], [each.receiver for each in made]


@pytest.mark.parametrize("count", [1, 2, 8, 63, 64])
def test_senders_come_back_and_work(peer: Peer, count: int) -> None:
    with peer.loop(c.LoopParcel, Parcel) as loop:
        there, receivers = senders(peer, count)
        returned = loop.turn(Parcel(senders=list(there)))
        assert all(sender.closed for sender in there)
        with closing(receivers), closing(returned.senders):
            assert len(returned.senders) == count
            for number, sender in enumerate(returned.senders):
                sender.send(number)
            assert [receiver.recv(TIMEOUT) for receiver in receivers] == list(range(count))


@pytest.mark.slow
@pytest.mark.parametrize("content", [b"", FRAGMENTED], ids=["one packet", "fragmented"])
def test_every_number_of_handles(peer: Peer, content: bytes) -> None:
    with peer.loop(c.LoopParcel, Parcel) as loop:
        for count in range(MOST + 1 if not content else MOST):
            there, receivers = senders(peer, count)
            returned = loop.turn(Parcel(content=content, senders=there))
            with closing(receivers), closing(returned.senders):
                for number, sender in enumerate(returned.senders):
                    sender.send(number)
                assert [receiver.recv(TIMEOUT) for receiver in receivers] == list(range(count))


@pytest.mark.parametrize("count", [1, 63])
def test_handles_of_a_fragmented_message(peer: Peer, count: int) -> None:
    with peer.loop(c.LoopParcel, Parcel) as loop:
        there, receivers = senders(peer, count)
        returned = loop.turn(Parcel(content=FRAGMENTED, senders=there))
        with closing(receivers), closing(returned.senders):
            assert returned.content == FRAGMENTED
            for number, sender in enumerate(returned.senders):
                sender.send(number)
            assert [receiver.recv(TIMEOUT) for receiver in receivers] == list(range(count))


@pytest.mark.parametrize(("content", "count"), [(b"", 65), (FRAGMENTED, 64), (b"", 200)])
def test_one_too_many_is_refused_before_anything_is_sent(peer: Peer, content: bytes, count: int) -> None:
    with peer.loop(c.LoopParcel, Parcel) as loop:
        there, receivers = senders(peer, count)
        with closing(receivers), closing(there):
            with pytest.raises(ipc.TooManyHandles, match=r"6[34]"):
                loop.there.send(Parcel(content=content, senders=list(there)))
            assert not any(sender.closed for sender in there)
            # Nothing of it arrives, and nothing in it was used up.
            returned = loop.turn(Parcel(number=1, senders=[there[-1].clone()]))
            assert returned.number == 1
            with closing(returned.senders):
                returned.senders[0].send(7)
                assert receivers[-1].recv(TIMEOUT) == 7


def test_memory_counts_too(peer: Peer) -> None:
    with peer.loop(c.LoopParcel, Parcel) as loop:
        there, receivers = senders(peer, 60)
        memory = [ipc.SharedMemory.filled(index, 10) for index in range(5)]
        empty = ipc.SharedMemory.create(0)
        with closing(receivers), closing(there), closing(memory), closing([empty]):
            with pytest.raises(ipc.TooManyHandles):
                loop.there.send(Parcel(senders=list(there), memory=memory))
            # An empty region is no handle.
            returned = loop.turn(Parcel(senders=list(there), memory=[*memory[:4], empty]))
            with closing(returned.ends()):
                assert [bytes(each) for each in returned.memory] == [bytes([n]) * 10 for n in range(4)] + [b""]


@pytest.mark.parametrize("content", [b"", FRAGMENTED], ids=["one packet", "fragmented"])
def test_a_receiver_moves_there_and_back_while_messages_are_queued(peer: Peer, content: bytes) -> None:
    with peer.loop(c.LoopParcel, Parcel) as loop:
        sender, receiver = peer.channel(u64)
        with sender:
            sender.send_many(range(5))
            for turn in range(5):
                returned = loop.turn(Parcel(content=content, receivers=[receiver]))
                assert receiver.closed
                (receiver,) = returned.receivers
                sender.send(5 + turn)
            with receiver:
                assert receiver.recv(TIMEOUT) == 0  # part of it read here, the rest moves again
                (moved,) = loop.turn(Parcel(receivers=[receiver])).receivers
                sender.close()
                with moved:
                    assert list(moved) == list(range(1, 10))


def test_what_was_received_here_but_not_taken_moves_along(peer: Peer) -> None:
    """A poll or a set may have looked at messages already; none of them may stay behind."""
    with peer.loop(c.LoopParcel, Parcel) as loop:
        sender, receiver = peer.bytes_channel()
        messages = [b"small", b"\x01" * 300_000, b"", b"last"]
        with sender:
            sender.send_many(messages)
            assert receiver.poll(TIMEOUT)
            (receiver,) = loop.turn(Parcel(raw_receivers=[receiver])).raw_receivers
            with ipc.ReceiverSet[str]() as receivers:
                receivers.add(receiver, "raw")
                assert [event.message for event in receivers.select(TIMEOUT)][:1] == messages[:1]  # type: ignore[union-attr]
                receiver = receivers.remove("raw")
            (receiver,) = loop.turn(Parcel(raw_receivers=[receiver])).raw_receivers
        with receiver:
            assert list(receiver) == messages[1:]


def test_a_receiver_in_a_queued_message_in_a_receiver_that_moves(peer: Peer) -> None:
    with peer.loop(c.LoopParcel, Parcel) as loop:
        inner_sender, inner = peer.channel(u64)
        outer_sender, outer = peer.channel(ipc.Receiver[u64])
        with inner_sender, outer_sender:
            inner_sender.send(1)
            outer_sender.send(inner)
            opaque = outer.to_opaque()
            returned = loop.turn(Parcel(opaque_receivers=[opaque]))
            with returned.opaque_receivers[0].to(ipc.Receiver[u64]) as outer:
                inner_sender.send(2)
                with outer.recv(TIMEOUT) as inner:
                    assert [inner.recv(TIMEOUT) for _ in range(2)] == [1, 2]


def _everything(peer: Peer, depth: int, kept: list[tuple[str, Any]]) -> Parcel:
    """Several of each kind. What stays here is put into ``kept``, in the order in which a peer uses what it gets."""
    parcel = Parcel(number=depth)
    for _ in range(2):
        sender, receiver = peer.channel(u64)
        parcel.senders.append(sender)
        kept.append(("number", receiver))
    for _ in range(2):
        sender, receiver = peer.channel(u64)
        parcel.opaque_senders.append(sender.to_opaque())
        kept.append(("number", receiver))
    for _ in range(2):
        raw_sender, raw_receiver = peer.bytes_channel()
        parcel.raw_senders.append(raw_sender)
        kept.append(("bytes", raw_receiver))
    for number in range(2):
        sender, receiver = peer.channel(u64)
        sender.send(number)
        parcel.receivers.append(receiver)
        kept.append(("to numbers", sender))
    for number in range(2):
        sender, receiver = peer.channel(u64)
        sender.send(10 + number)
        parcel.opaque_receivers.append(receiver.to_opaque())
        kept.append(("to numbers", sender))
    for number in range(2):
        raw_sender, raw_receiver = peer.bytes_channel()
        raw_sender.send(bytes(number))
        parcel.raw_receivers.append(raw_receiver)
        kept.append(("to bytes", raw_sender))
    parcel.memory.append(ipc.SharedMemory.from_bytes(bytes([depth, 0, depth + 1])))
    if depth:
        parcel.inner.append(_everything(peer, depth - 1, kept))
    return parcel


@pytest.mark.parametrize("content", [b"", FRAGMENTED], ids=["one packet", "fragmented"])
def test_the_crate_uses_what_we_send(peer: Peer, content: bytes) -> None:
    kept: list[tuple[str, Any]] = []
    parcel = _everything(peer, 2, kept)
    parcel.content = content
    answer, answers = peer.channel(c.Uses)
    with answers, closing([end for _, end in kept]), closing(_memory(parcel)):
        peer.tell(c.Use(parcel, answer))
        number = 0
        for kind, end in kept:
            if kind == "number":
                assert end.recv(TIMEOUT) == number
                number += 1
            elif kind == "bytes":
                assert end.recv(TIMEOUT) == bytes([number]) * 3
                number += 1
            elif kind == "to numbers":
                end.send(99)
                end.close()
            else:
                end.send(b"last")
                end.close()
        for kind, end in kept:
            if not kind.startswith("to "):
                with pytest.raises(ipc.Disconnected):
                    end.recv(TIMEOUT)
        uses = answers.recv(TIMEOUT)
    assert uses.content == len(content)
    assert uses.received == [[0, 99], [1, 99], [10, 99], [11, 99]] * 3
    assert uses.raw == [[b"", b"last"], [b"\0", b"last"]] * 3
    assert uses.memory == [(3, 2, 3), (3, 1, 2), (3, 0, 1)]


def _memory(parcel: Parcel) -> list[ipc.SharedMemory]:
    return parcel.memory + [memory for inner in parcel.inner for memory in _memory(inner)]


@pytest.mark.parametrize("content", [0, 300_000], ids=["one packet", "fragmented"])
def test_we_use_what_the_crate_sends(peer: Peer, content: int) -> None:
    recipe = c.Recipe(content, 3, 3, 2, 2, 2, 2, [1, 0, 5000])
    to, parcels = peer.channel(Parcel)
    seen, numbers = peer.channel(u64)
    with parcels, numbers:
        peer.tell(c.Make(recipe, to, seen))
        parcel = parcels.recv(TIMEOUT)
        with closing(parcel.ends()):
            assert parcel.number == 2**64 - 1
            assert parcel.content == bytes(index % 251 for index in range(content))
            assert [bytes(memory) for memory in parcel.memory] == [b"\x01", b"", b"\x03" * 5000]
            typed = [end.to(u64) for end in parcel.opaque_senders]
            for number, sender in enumerate(parcel.senders + typed):
                with sender:
                    sender.send_many([number, 100 + number])
            for raw_sender in parcel.raw_senders:
                with raw_sender:
                    raw_sender.send(b"12345")
            for receiver in [*parcel.receivers, *(end.to(u64) for end in parcel.opaque_receivers)]:
                with receiver:
                    assert list(receiver) == [7, 8, 9]
            for raw_receiver in parcel.raw_receivers:
                with raw_receiver:
                    assert list(raw_receiver) == [b"\7" * 3, b"\x08" * 3, b"\x09" * 3]
        assert list(numbers) == [0, 100, 1, 101, 2, 102, 3, 103, 4, 104, 5, 5]
        with pytest.raises(ipc.Disconnected):
            parcels.recv(TIMEOUT)


def test_one_sender_many_times_in_a_message(peer: Peer) -> None:
    with peer.loop(c.LoopParcel, Parcel) as loop:
        sender, receiver = peer.channel(u64)
        with receiver:
            returned = loop.turn(Parcel(senders=[sender, sender, sender]))
            for number, each in enumerate(returned.senders):
                with each:
                    each.send(number)
            assert list(receiver) == [0, 1, 2]


def test_a_reply_channel_ends_when_the_other_side_lets_go(peer: Peer) -> None:
    with peer.loop(c.LoopParcel, Parcel) as loop:
        sender, receiver = peer.channel(u64)
        (returned,) = loop.turn(Parcel(senders=[sender])).senders
        with receiver:
            with pytest.raises(ipc.RecvTimeout):
                receiver.recv(0.01)
            returned.close()
            with pytest.raises(ipc.Disconnected):
                receiver.recv(TIMEOUT)


def test_a_failed_send_leaves_every_end_as_it_was(peer: Peer) -> None:
    with peer.loop(c.LoopParcel, Parcel) as loop:
        (sender, other), (receiver,) = (*peer.channel(u64),), (peer.channel(u64),)
        native_sender, native_receiver = ipc.channel(int)
        with sender, other, receiver.sender, receiver.receiver, native_sender, native_receiver:
            with pytest.raises(ipc.EncodeError, match="rust"):
                loop.there.send(Parcel(senders=[sender, native_sender], receivers=[receiver.receiver]))
            with pytest.raises(ipc.EncodeError):
                loop.there.send(Parcel(number=-1, senders=[sender]))
            sender.send(5)
            assert other.recv(TIMEOUT) == 5
            receiver.sender.send(6)
            assert receiver.receiver.recv(TIMEOUT) == 6


def test_a_closed_receivers_sender_can_still_be_sent(peer: Peer) -> None:
    with peer.loop(c.LoopParcel, Parcel) as loop:
        sender, receiver = peer.channel(u64)
        receiver.close()
        (returned,) = loop.turn(Parcel(senders=[sender])).senders
        with returned, pytest.raises(ipc.ReceiverGone):
            while True:  # the crate's ends say so at the first send; ours may need more
                returned.send(1)
                returned.flush(TIMEOUT)


def test_a_sender_whose_messages_are_held_moves(peer: Peer) -> None:
    """Nothing is lost, and what was sent here stays in its order; what its new owner sends can come before it."""
    sender, receiver = peer.channel(u64)
    with peer.loop(c.LoopParcel, Parcel) as loop, receiver:
        sender.send_many(range(2000))
        (moved,) = loop.turn(Parcel(senders=[sender])).senders
        with moved:
            moved.send(9999)
        found = list(receiver)
        assert [number for number in found if number != 9999] == list(range(2000))
        assert found.count(9999) == 1


def test_a_sender_that_moves_after_a_flush(peer: Peer) -> None:
    """What was sent before comes first."""
    sender, receiver = peer.channel(u64)
    with peer.loop(c.LoopParcel, Parcel) as loop, receiver:
        sender.send_many(range(100))
        sender.flush(TIMEOUT)
        (moved,) = loop.turn(Parcel(senders=[sender])).senders
        with moved:
            moved.send(100)
        assert list(receiver) == list(range(101))
