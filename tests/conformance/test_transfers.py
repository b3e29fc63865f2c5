"""Ends inside messages: they arrive usable, in order, in any number, and the last copy decides the end of a stream."""

from __future__ import annotations

import contextlib

import pytest

import ipc_channel as ipc
from tests.conformance.carrying import carry
from tests.conformance.implementations import DATA, PARCELS, Implementation
from tests.conformance.patterns import BIG, HUGE, MEDIUM, pattern


@pytest.mark.parametrize("size", [0, MEDIUM, BIG, HUGE])
def test_an_embedded_sender_is_usable_after_the_transfer(implementation: Implementation, size: int) -> None:
    sender, receiver = implementation.make_channel(DATA)
    with receiver:
        parcel = carry(implementation, payload=pattern(size), senders=[sender])
        assert sender.closed
        assert parcel.payload == pattern(size)
        [arrived] = parcel.senders
        with arrived:
            arrived.send(b"through the transferred one")
        assert list(receiver) == [b"through the transferred one"]


@pytest.mark.parametrize("size", [0, MEDIUM, BIG, HUGE])
def test_an_embedded_receiver_is_usable_after_the_transfer(implementation: Implementation, size: int) -> None:
    sender, receiver = implementation.make_channel(DATA)
    with sender:
        sender.send(b"before")
        parcel = carry(implementation, payload=pattern(size), receivers=[receiver])
        sender.send(b"after")
        assert receiver.closed
        assert parcel.payload == pattern(size)
        [arrived] = parcel.receivers
    with arrived:
        assert list(arrived) == [b"before", b"after"]


def test_several_senders_and_receivers_at_once_in_order(implementation: Implementation) -> None:
    outward = [implementation.make_channel(DATA) for _ in range(5)]
    inward = [implementation.make_channel(DATA) for _ in range(5)]
    parcel = carry(
        implementation,
        senders=[sender for sender, _ in outward],
        receivers=[receiver for _, receiver in inward],
    )
    with contextlib.ExitStack() as closing:
        for end in (*parcel.senders, *parcel.receivers):
            closing.enter_context(end)
        for number, arrived in enumerate(parcel.senders):
            arrived.send(b"outward %d" % number)
        for number, (sender, _) in enumerate(inward):
            sender.send(b"inward %d" % number)
            sender.close()
        assert [list(arrived) for arrived in parcel.receivers] == [[b"inward %d" % number] for number in range(5)]
    for number, (_, receiver) in enumerate(outward):
        with receiver:
            assert list(receiver) == [b"outward %d" % number]


@pytest.mark.parametrize("transfers", range(7))
def test_big_data_with_transfers(implementation: Implementation, transfers: int) -> None:
    channels = [implementation.make_channel(DATA) for _ in range(transfers)]
    parcel = carry(implementation, payload=pattern(BIG), senders=[sender for sender, _ in channels])
    assert parcel.payload == pattern(BIG)
    assert len(parcel.senders) == transfers
    for arrived, (_, receiver) in zip(parcel.senders, channels, strict=True):
        with arrived:
            arrived.send(b"x")
        with receiver:
            assert list(receiver) == [b"x"]


@pytest.mark.parametrize(
    "what", ["senders", "receivers", "regions", pytest.param("files", marks=pytest.mark.needs("files"))]
)
def test_only_a_descriptor_and_no_bytes(implementation: Implementation, what: str) -> None:
    sender, receiver = implementation.make_channel(DATA)
    with sender, receiver, implementation.make_memory(b"memory") as memory, open("/dev/null") as null:
        handles = {"senders": sender, "receivers": receiver, "regions": memory, "files": ipc.Fd(null)}
        parcel = carry(implementation, **{what: [handles[what]]})
        assert parcel.payload == b""
        [handle] = getattr(parcel, what)
        handle.close()


def test_opaque_ends_are_erased_and_restored(implementation: Implementation) -> None:
    sender, receiver = implementation.make_channel(DATA)
    opaque_sender, opaque_receiver = sender.to_opaque(), receiver.to_opaque()
    assert sender.closed
    assert receiver.closed
    with implementation.restore(opaque_receiver, DATA) as restored_receiver:
        with implementation.restore(opaque_sender, DATA) as restored_sender:
            restored_sender.send(b"erased and restored")
        assert list(restored_receiver) == [b"erased and restored"]


def test_embedded_opaque_ends_are_restored_after_the_transfer() -> None:
    # Not one that pickles: typed channels refuse it.
    for make, form in ((lambda: ipc.channel(bytes), bytes), (ipc.bytes_channel, bytes)):
        sender, receiver = make()
        carrier, carried = ipc.channel(list[ipc.OpaqueSender | None])
        with carrier, carried, receiver:
            carrier.send([sender.to_opaque(), None])
            [opaque, _] = carried.recv()
            assert opaque is not None
            with opaque.to(form) as restored:
                restored.send(b"embedded")
            assert list(receiver) == [b"embedded"]


def test_embedded_opaque_ends(implementation: Implementation) -> None:
    sender, receiver = implementation.make_channel(DATA)
    parcel = carry(implementation, opaque_senders=[sender.to_opaque()], opaque_receivers=[receiver.to_opaque()])
    with implementation.restore(parcel.opaque_receivers[0], DATA) as restored_receiver:
        with implementation.restore(parcel.opaque_senders[0], DATA) as restored_sender:
            restored_sender.send(b"embedded")
        assert list(restored_receiver) == [b"embedded"]


def test_one_sender_reached_three_times_and_each_path_works(implementation: Implementation) -> None:
    sender, receiver = implementation.make_channel(DATA)
    with receiver:
        parcel = carry(implementation, senders=[sender, sender, sender])
        for number, arrived in enumerate(parcel.senders):
            arrived.send(b"path %d" % number)
        for arrived in parcel.senders:  # pickle keeps identity: then it is one object
            arrived.close()
        assert list(receiver) == [b"path 0", b"path 1", b"path 2"]


def test_a_sender_whose_receiver_is_gone_is_transferred_all_the_same(implementation: Implementation) -> None:
    sender, receiver = implementation.make_channel(DATA)
    receiver.close()
    [arrived] = carry(implementation, senders=[sender]).senders
    with arrived, pytest.raises(ipc.ReceiverGone):
        arrived.send(b"to nobody")


def test_a_receiver_whose_senders_are_gone_arrives_with_its_messages(implementation: Implementation) -> None:
    sender, receiver = implementation.make_channel(DATA)
    with sender:
        sender.send(b"last")
    [arrived] = carry(implementation, receivers=[receiver]).receivers
    with arrived:
        assert list(arrived) == [b"last"]


def test_a_receiver_moves_on_and_on(implementation: Implementation) -> None:
    sender, receiver = implementation.make_channel(DATA)
    with sender:
        for number in range(5):
            sender.send(b"%d" % number)
            [receiver] = carry(implementation, receivers=[receiver]).receivers
    with receiver:
        assert list(receiver) == [b"0", b"1", b"2", b"3", b"4"]


def test_a_receiver_inside_a_queued_message_inside_a_transferred_receiver(implementation: Implementation) -> None:
    inner_sender, inner_receiver = implementation.make_channel(DATA)
    outer_sender, outer_receiver = implementation.make_channel(PARCELS)
    inner_sender.send(b"innermost")
    inner_sender.close()
    outer_sender.send(implementation.parcel(receivers=[inner_receiver]))
    outer_sender.close()
    [outer] = carry(implementation, parcel_receivers=[outer_receiver]).parcel_receivers
    with outer:
        [inner] = outer.recv(20).receivers
        with inner:
            assert list(inner) == [b"innermost"]
        assert list(outer) == []


@pytest.mark.parametrize("count", [65, 250, 251, 253, 254, 1000])
@pytest.mark.needs("many handles")
def test_many_handles_in_one_message(implementation: Implementation, count: int) -> None:
    sender, receiver = implementation.make_channel(DATA)
    with receiver:
        clones = [sender.clone() for _ in range(count - 1)]
        parcel = carry(implementation, payload=b"many", senders=[sender, *clones])
        assert parcel.payload == b"many"
        assert len(parcel.senders) == count
        for arrived in parcel.senders[1:-1]:
            arrived.close()
        for arrived in (parcel.senders[0], parcel.senders[-1]):
            arrived.send(b"usable")
            arrived.close()
        assert list(receiver) == [b"usable", b"usable"]


def test_a_failed_send_leaves_the_ends_in_it_untouched(implementation: Implementation) -> None:
    sender, receiver = implementation.make_channel(DATA)
    carrier, carried = implementation.make_channel(PARCELS)
    carried.close()
    with carrier, pytest.raises(ipc.ReceiverGone):
        carrier.send(implementation.parcel(senders=[sender], receivers=[receiver]))
    with receiver:
        with sender:
            sender.send(b"still here")
        assert list(receiver) == [b"still here"]


def test_a_sender_that_travels_through_itself(implementation: Implementation) -> None:
    sender, receiver = implementation.make_channel(PARCELS)
    with receiver:
        sender.send(implementation.parcel(parcel_senders=[sender]))
        [arrived] = receiver.recv().parcel_senders
        with arrived:
            arrived.send(implementation.parcel(payload=b"around"))
        assert [parcel.payload for parcel in receiver] == [b"around"]
