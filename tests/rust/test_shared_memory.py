"""Regions of both sides: frozen and not, of no byte and of many."""

from __future__ import annotations

import pytest

import ipc_channel as ipc
from ipc_channel.rust import u64
from tests.rust import commands as c
from tests.rust.commands import Parcel
from tests.rust.peers import TIMEOUT, Peer

LARGE = 64 << 20


@pytest.mark.parametrize("size", [1, 4096, 4097, 1 << 20])
@pytest.mark.parametrize("mutable", [False, True], ids=["frozen", "mutable"])
@pytest.mark.parametrize("in_place", [False, True], ids=["answered with another", "changed in place"])
def test_regions_there_and_back(peer: Peer, size: int, mutable: bool, in_place: bool) -> None:
    with peer.loop(c.LoopMemory, ipc.SharedMemory, in_place=in_place) as loop:
        with ipc.SharedMemory.create(size, mutable=mutable) as memory:
            with memoryview(memory) as view:
                view[:] = b"\xfe" * size
            with loop.turn(memory) as returned:
                assert len(returned) == size
                assert returned == b"\xff" * size
                # Only memory that may change is the same on both sides.
                assert memory == (b"\xff" if mutable and in_place else b"\xfe") * size
                with loop.turn(returned) as again:
                    assert again == bytes(size)


@pytest.mark.parametrize("mutable", [False, True], ids=["frozen", "mutable"])
def test_an_empty_region(peer: Peer, mutable: bool) -> None:
    with peer.loop(c.LoopParcel, Parcel) as loop, ipc.SharedMemory.create(0, mutable=mutable) as memory:
        returned = loop.turn(Parcel(memory=[memory, memory]))
        for each in returned.memory:
            with each:
                assert bytes(each) == b""


@pytest.mark.parametrize("mutable", [False, True], ids=["frozen", "mutable"])
def test_large_regions_are_seen_and_not_copied_into_messages(peer: Peer, mutable: bool) -> None:
    answer, answers = peer.channel(c.Uses)
    before = peer.commands.statistics().bytes
    with answers, ipc.SharedMemory.create(LARGE, mutable=mutable) as memory:
        with memoryview(memory) as view:
            view[0], view[-1] = 3, 4
        peer.tell(c.Use(Parcel(memory=[memory]), answer))
        assert answers.recv(TIMEOUT).memory == [(LARGE, 3, 4)]
    assert peer.commands.statistics().bytes - before < 1000


def test_a_large_region_of_theirs(peer: Peer) -> None:
    to, parcels = peer.channel(Parcel)
    seen, numbers = peer.channel(u64)
    with parcels:
        peer.tell(c.Make(c.Recipe(memory=[LARGE]), to, seen))
        (memory,) = parcels.recv(TIMEOUT).memory
        with memory, numbers:
            assert len(memory) == LARGE
            assert memory[0] == 1
            assert memory[-1] == 1
            assert memory.take() == b"\x01" * LARGE


def test_a_frozen_region_stays_as_it_is(peer: Peer) -> None:
    """The crate maps everything writable; so it gets a copy, and no other reader sees what it writes."""
    with peer.loop(c.LoopMemory, ipc.SharedMemory, in_place=True) as loop:
        with ipc.SharedMemory.from_bytes(b"frozen") as memory, memory.clone() as clone:
            with loop.turn(memory) as returned:
                assert returned == bytes(byte + 1 for byte in b"frozen")
            assert memory == b"frozen"
            assert clone == b"frozen"


def test_the_same_region_many_times(peer: Peer) -> None:
    with peer.loop(c.LoopParcel, Parcel) as loop, ipc.SharedMemory.from_bytes(b"same") as memory:
        returned = loop.turn(Parcel(memory=[memory] * 10))
        for each in returned.memory:
            with each:
                assert each == b"same"


def test_a_view_on_unfrozen_memory_forbids_a_send(peer: Peer) -> None:
    with peer.loop(c.LoopMemory, ipc.SharedMemory, in_place=False) as loop, ipc.SharedMemory.create(10) as memory:
        with memoryview(memory), pytest.raises(BufferError):
            loop.there.send(memory)
        with loop.turn(memory) as returned:
            assert returned == b"\x01" * 10
