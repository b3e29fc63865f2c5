"""Messages of every size that could matter, both ways and one way."""

from __future__ import annotations

import array

import pytest

import ipc_channel as ipc
from ipc_channel.codecs.rust import VERSIONS, rust_codec
from tests.rust import commands as c
from tests.rust import wire
from tests.rust.commands import Parcel, numbered
from tests.rust.peers import TIMEOUT, Peer

HUGE = 50 << 20
AROUND = (-1, 0, 1, 8)
BLOCK = array.array("I", range(1 << 18)).tobytes() + b"odd"


def interesting(codec: str, boundaries: int) -> list[int]:
    """Sizes around those at which one more packet is needed."""
    around = [limit + more for limit in wire.frames(codec).boundaries(boundaries) for more in AROUND]
    return [0, 1, 7, 8, 9, *around]


def pattern(size: int) -> bytes:
    """Bytes that differ wherever two pieces could be swapped."""
    return (BLOCK * (size // len(BLOCK) + 1))[:size]


def test_bytes_come_back(peer: Peer) -> None:
    with peer.loop(c.LoopBytes) as loop:
        for size in interesting(peer.codec, 4):
            message = pattern(size)
            assert loop.turn(message) == message


def test_bytes_come_back_when_many_are_under_way(peer: Peer) -> None:
    sizes = interesting(peer.codec, 3)
    with peer.loop(c.LoopBytes) as loop:
        for size in sizes:
            loop.there.send(pattern(size))
        for size in sizes:
            assert loop.back.recv(TIMEOUT) == pattern(size)


def test_typed_messages_come_back(peer: Peer) -> None:
    codec = rust_codec(Parcel, VERSIONS[peer.codec])
    with peer.loop(c.LoopParcel, Parcel) as loop:
        for limit in wire.frames(peer.codec).boundaries(3):
            for more in AROUND:
                # A length has as many bytes as it needs, so the one that makes the message this long is tried out.
                size = limit + more
                message = Parcel(1, pattern(size - 40))
                encoded = codec.encode(message)
                assert isinstance(encoded, bytes)
                message.content = pattern(size - 40 + size - len(encoded))
                assert len(codec.encode(message)) == size  # type: ignore[arg-type]
                assert loop.turn(message) == message


def test_a_huge_message_comes_back(peer: Peer) -> None:
    message = pattern(HUGE)
    with peer.loop(c.LoopBytes) as loop:
        assert loop.turn(message) == message


def test_a_huge_typed_message_comes_back(peer: Peer) -> None:
    message = Parcel(2**64 - 1, pattern(HUGE))
    with peer.loop(c.LoopParcel, Parcel) as loop:
        assert loop.turn(message) == message


@pytest.mark.slow
def test_every_size_around_every_boundary(peer: Peer) -> None:
    shape = wire.frames(peer.codec)
    with peer.loop(c.LoopBytes) as loop:
        for limit in (0, *shape.boundaries(12)):
            for size in range(max(limit - 40, 0), limit + 40):
                message = pattern(size)
                assert loop.turn(message) == message


@pytest.mark.parametrize("size", [8, 64, 5000, 212_949, 1 << 20])
def test_a_flood_of_theirs(peer: Peer, size: int) -> None:
    count = min(2000, (20 << 20) // size)
    sender, receiver = peer.bytes_channel()
    with receiver:
        peer.tell(c.Flood(sender, count, size))
        for number in range(count):
            assert receiver.recv(TIMEOUT) == numbered(number, size)
        with pytest.raises(ipc.Disconnected):
            receiver.recv(TIMEOUT)


@pytest.mark.parametrize("size", [8, 64, 5000, 212_949, 1 << 20])
def test_a_flood_of_ours(peer: Peer, size: int) -> None:
    count = min(2000, (20 << 20) // size)
    sender, receiver = peer.bytes_channel()
    permission, waiting = peer.channel(None)
    tally, tallies = peer.channel(c.Tally)
    with tallies:
        peer.tell(c.Hold(receiver, waiting, tally))
        with permission:
            permission.send(None)
        with sender:
            sender.send_many(numbered(number, size) for number in range(count))
        assert tallies.recv(TIMEOUT) == c.Tally(count, count * size, True, "disconnected")


def test_several_senders_do_not_mix_their_packets(peer: Peer) -> None:
    """Each sends large messages at the same time."""
    sender, receiver = peer.bytes_channel()
    with receiver, sender:
        for _ in range(3):
            peer.tell(c.Flood(sender.clone(), 8, 1 << 20))
        own = [b"\xff" * 8 + pattern(700_000) for _ in range(8)]
        sender.send_many(own)
        sender.close()
        last: dict[int, int] = {}
        mine = 0
        for message in receiver:
            number = int.from_bytes(message[:8], "little")
            if number == 2**64 - 1:
                assert message == own[0]
                mine += 1
            else:
                assert message == numbered(number, 1 << 20)
                last[number] = last.get(number, 0) + 1
        assert mine == 8
        assert last == dict.fromkeys(range(8), 3)


def test_views_on_messages(peer: Peer) -> None:
    with peer.loop(c.LoopBytes) as loop:
        for size in interesting(peer.codec, 2):
            loop.there.send(memoryview(pattern(size)))
            with loop.back.recv_view(TIMEOUT) as view:
                assert view == pattern(size)
