"""The shapes of the crate's own five benchmarks, for what comes through instead of how fast."""

from __future__ import annotations

from typing import Any

import pytest

import ipc_channel as ipc
from ipc_channel.rust import u64
from tests.rust import commands as c
from tests.rust.commands import Parcel
from tests.rust.peers import TIMEOUT, Peer
from tests.rust.test_ends import closing, senders

# ipc


def test_transfer_empty(peer: Peer) -> None:
    with peer.loop(c.LoopUnit, None.__class__) as loop:
        for _ in range(100):
            assert loop.turn(None) is None


@pytest.mark.parametrize("count", [0, 1, 8, 64])
def test_transfer_senders(peer: Peer, count: int) -> None:
    with peer.loop(c.LoopParcel, Parcel) as loop:
        ends, receivers = senders(peer, count)
        for _ in range(5):
            ends = loop.turn(Parcel(senders=ends)).senders
        with closing(receivers), closing(ends):
            for number, sender in enumerate(ends):
                sender.send(number)
            assert [receiver.recv(TIMEOUT) for receiver in receivers] == list(range(count))


@pytest.mark.parametrize("count", [0, 1, 8, 64])
def test_transfer_receivers(peer: Peer, count: int) -> None:
    with peer.loop(c.LoopParcel, Parcel) as loop:
        kept, ends = senders(peer, count)
        for _ in range(5):
            ends = loop.turn(Parcel(receivers=ends)).receivers
        with closing(kept), closing(ends):
            for number, sender in enumerate(kept):
                sender.send(number)
            assert [receiver.recv(TIMEOUT) for receiver in ends] == list(range(count))


# platform


def test_create_channel(codec: Any) -> None:
    for _ in range(500):
        sender, receiver = ipc.channel(u64, codec=codec)
        sender.close()
        receiver.close()


def test_transfer_data(peer: Peer) -> None:
    with peer.loop(c.LoopBytes) as loop:
        for power in range(24):
            data = bytes(index % 251 for index in range(251)) * ((1 << power) // 251 + 1)
            data = data[: 1 << power]
            assert loop.turn(data) == data


# ipc_receiver_set


@pytest.mark.parametrize(
    ("some", "many"), [(1, 1), (1, 5), (2, 5), (5, 5), (1, 20), (5, 20), (20, 20), (20, 100), (100, 100)]
)
def test_send_on_some_of_many(peer: Peer, some: int, many: int) -> None:
    """Their set, our senders, and the other way round."""
    channels = [peer.channel(u64) for _ in range(many)]
    sending = [each.sender for each in channels]
    # A message has room for 64 handles, so our set has the rest when there are more.
    theirs = min(many, 50)
    event, events = peer.channel(c.Event)
    peer.tell(c.Select([each.receiver for each in channels[:theirs]], event))
    with events, ipc.ReceiverSet[int]() as receivers:
        for index, each in enumerate(channels[theirs:]):
            receivers.add(each.receiver, theirs + index)
        with closing(sending):
            for turn in range(3):
                for index in range(some):
                    sending[index].send(turn)
                found = {(each.index, each.value) for each in (events.recv(TIMEOUT) for _ in range(min(some, theirs)))}
                while len(found) < some:
                    selected = receivers.select(TIMEOUT)
                    found |= {(each.key, each.message) for each in selected if isinstance(each, ipc.Received)}
                assert found == {(index, turn) for index in range(some)}
        assert {(each.index, each.value) for each in events} == {(index, None) for index in range(theirs)}


@pytest.mark.parametrize("many", [0, 1, 10, 100])
def test_create_and_destroy_sets(codec: Any, many: int) -> None:
    for _ in range(3):
        with ipc.ReceiverSet[int]() as receivers:
            for _ in range(many):
                sender, receiver = ipc.channel(u64, codec=codec)
                sender.close()
                receivers.add(receiver)


@pytest.mark.parametrize("many", [1, 10, 100])
def test_add_and_remove_closed_receivers(codec: Any, many: int) -> None:
    with ipc.ReceiverSet[int]() as receivers:
        for _ in range(many):
            sender, receiver = ipc.channel(u64, codec=codec)
            sender.close()
            receivers.add(receiver)
        found: list[Any] = []
        while len(receivers):
            found += receivers.select(TIMEOUT)
        assert found == [ipc.Closed(key) for key in sorted(each.key for each in found)]
        assert len(found) == many


# struct_ipc

ENUMS: dict[str, tuple[Any, Any, list[Any]]] = {
    "small": (
        c.LoopSmall,
        c.Small,
        [
            c.Small0(), c.Small1(), c.Small2(23, 42), c.Small3(23, 42, 243),
            c.Small4("This is a test string of medium size"), c.Small5(), c.Small6(),
        ],
    ),
    "medium": (c.LoopMedium, c.Medium, [variant(42) for variant in c.MEDIUM]),
    "fractured": (
        c.LoopFractured,
        c.Fractured,
        [c.Fractured0(), c.Fractured1([1, 2, 3]), c.Fractured2(*range(10)), c.Fractured3(1), c.Fractured4(1, 2, 3)],
    ),
    "nested": (
        c.LoopNested,
        c.Nested,
        [
            c.Nested0(), c.Nested1(c.Small6()), c.Nested2(c.MEDIUM[20](2)), c.Nested3(c.Fractured3(0)),
            c.Nested4(2**64 - 1),
        ],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ENUMS)
def test_enums(peer: Peer, name: str) -> None:
    kind, form, values = ENUMS[name]
    with peer.loop(kind, form) as loop:
        for value in values:
            assert loop.turn(value) == value
        loop.there.send_many(values)
        assert [loop.back.recv(TIMEOUT) for _ in values] == values


# ipc_shared_mem

_NEXT = bytes((byte + 1) % 256 for byte in range(256))


@pytest.mark.parametrize("in_place", [False, True], ids=["copied", "mutable"])
def test_shared_memory_ping_pong(peer: Peer, in_place: bool) -> None:
    size, turns = 4 << 20, 4
    with peer.loop(c.LoopMemory, ipc.SharedMemory, in_place=in_place) as loop:
        memory = ipc.SharedMemory.create(size, mutable=in_place)
        for _ in range(turns):
            with memory, loop.turn(memory) as returned:
                content = bytes(memory) if in_place else bytes(returned)
                assert returned == content
                if in_place:  # what they have changed is ours, and goes there again
                    memory[:] = content.translate(_NEXT)
                    memory = memory.clone()
                else:
                    memory = ipc.SharedMemory.from_bytes(content.translate(_NEXT))
        with memory:
            assert bytes(memory) == bytes([2 * turns]) * size
