"""Shared memory: contents, slices, equality, taking, and the way through a channel."""

from __future__ import annotations

import pytest

from tests.conformance.carrying import carry
from tests.conformance.implementations import PARCELS, Implementation
from tests.conformance.patterns import BIG, pattern


@pytest.mark.parametrize("size", [1, BIG, 8 * BIG])
def test_contents_after_a_transfer(implementation: Implementation, size: int) -> None:
    with implementation.make_memory(pattern(size)) as memory:
        [arrived] = carry(implementation, regions=[memory]).regions
        with arrived:
            assert len(arrived) == size
            assert bytes(arrived) == pattern(size)
            assert arrived == memory
        assert bytes(memory) == pattern(size), "the sender keeps its own"


def test_a_region_of_one_repeated_byte(implementation: Implementation) -> None:
    kind = type(implementation.make_memory(b""))
    with kind.filled(0xBA, BIG) as memory:
        [arrived] = carry(implementation, regions=[memory]).regions
        with arrived:
            assert bytes(arrived) == b"\xba" * BIG


def test_slices_empty_by_byte_empty_by_slice_and_three_bytes(implementation: Implementation) -> None:
    kind = type(implementation.make_memory(b""))
    for memory, content in (
        (kind.filled(7, 0), b""),
        (implementation.make_memory(b""), b""),
        (implementation.make_memory(b"\1\2\3"), b"\1\2\3"),
    ):
        with memory:
            [arrived] = carry(implementation, regions=[memory]).regions
            with arrived:
                assert len(arrived) == len(content)
                assert arrived[:] == content
                assert arrived[1:] == content[1:]
                assert bytes(memoryview(arrived)) == content


def test_equality_is_of_contents(implementation: Implementation) -> None:
    with (
        implementation.make_memory(b"same") as one,
        implementation.make_memory(b"same") as another,
        implementation.make_memory(b"else") as different,
        implementation.make_memory(b"same, but longer") as longer,
    ):
        assert one == another
        assert one == b"same"
        assert one != different
        assert one != longer


def test_a_clone_shows_the_same_bytes_and_is_closed_by_itself(implementation: Implementation) -> None:
    with implementation.make_memory(b"cloned") as memory:
        clone = memory.clone()
        [arrived] = carry(implementation, regions=[clone]).regions
        clone.close()
        with arrived, arrived.clone() as again:
            assert memory == arrived == again == b"cloned"


@pytest.mark.parametrize("content", [b"", b"taken"])
def test_take_gives_the_contents_and_closes(implementation: Implementation, content: bytes) -> None:
    with implementation.make_memory(content) as memory:
        [arrived] = carry(implementation, regions=[memory]).regions
    taken = arrived.take()
    assert taken == content
    assert isinstance(taken, bytearray)
    assert arrived.closed


def test_one_region_twice_in_a_message(implementation: Implementation) -> None:
    with implementation.make_memory(b"twice") as memory:
        parcel = carry(implementation, regions=[memory, memory])
    assert [bytes(arrived) for arrived in parcel.regions] == [b"twice", b"twice"]
    for arrived in parcel.regions:
        arrived.close()


def test_a_region_outlives_the_channel_and_its_sender(implementation: Implementation) -> None:
    sender, receiver = implementation.make_channel(PARCELS)
    with receiver:
        with sender, implementation.make_memory(b"orphan") as memory:
            sender.send(implementation.parcel(regions=[memory]))
        [arrived] = receiver.recv().regions
    with arrived:
        assert bytes(arrived) == b"orphan"
