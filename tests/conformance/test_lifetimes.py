"""What the end of one side means for the other."""

from __future__ import annotations

import gc
import threading
import time
import warnings

import pytest

import ipc_channel as ipc
from tests.conformance.implementations import DATA, PARCELS, Implementation
from tests.conformance.patterns import BIG, pattern


def test_without_a_receiver_send_fails_immediately(implementation: Implementation) -> None:
    sender, receiver = implementation.make_channel(DATA)
    receiver.close()
    with sender, pytest.raises(ipc.ReceiverGone):
        sender.send(b"to nobody")


def test_without_a_receiver_a_large_send_fails_and_does_not_hang(implementation: Implementation) -> None:
    sender, receiver = implementation.make_channel(DATA)
    receiver.close()
    with sender, pytest.raises(ipc.ReceiverGone):
        sender.send(pattern(8 * BIG))


def test_send_fails_once_the_receiver_leaves_with_messages_pending(implementation: Implementation) -> None:
    sender, receiver = implementation.make_channel(DATA)
    with sender:
        for _ in range(10):
            sender.send(b"never read")
        receiver.close()
        with pytest.raises(ipc.ReceiverGone):
            sender.send(b"one too many")


def test_send_fails_eventually_when_the_receiver_leaves_later(implementation: Implementation) -> None:
    sender, receiver = implementation.make_channel(DATA)
    later = threading.Timer(0.05, receiver.close)
    later.start()
    with sender, pytest.raises(ipc.ReceiverGone):
        while True:
            sender.send(b"again and again")
            time.sleep(0.0001)
    later.join()


@pytest.mark.needs("capacity")
def test_a_send_that_waits_for_room_learns_that_the_receiver_has_left(implementation: Implementation) -> None:
    sender, receiver = implementation.make_channel(DATA, capacity=1)
    with sender:
        sender.send(b"fills the channel")
        later = threading.Timer(0.05, receiver.close)
        later.start()
        with pytest.raises(ipc.ReceiverGone):
            sender.send(b"waits")
        later.join()


def test_a_receiver_in_a_message_that_nobody_reads_is_gone_with_it(implementation: Implementation) -> None:
    inner_sender, inner_receiver = implementation.make_channel(DATA)
    sender, receiver = implementation.make_channel(PARCELS)
    with inner_sender:
        sender.send(implementation.parcel(receivers=[inner_receiver]))
        inner_sender.send(b"its receiver is under way")
        sender.close()
        receiver.close()
        with pytest.raises(ipc.ReceiverGone):
            inner_sender.send(b"too late")


def test_a_sender_in_a_message_that_nobody_reads_is_gone_with_it(implementation: Implementation) -> None:
    inner_sender, inner_receiver = implementation.make_channel(DATA)
    sender, receiver = implementation.make_channel(PARCELS)
    with inner_receiver:
        sender.send(implementation.parcel(senders=[inner_sender]))
        assert not inner_receiver.poll()
        sender.close()
        receiver.close()
        with pytest.raises(ipc.Disconnected):
            inner_receiver.recv(20)


def test_the_stream_ends_with_the_last_clone(implementation: Implementation) -> None:
    sender, receiver = implementation.make_channel(DATA)
    with receiver:
        clones = [sender.clone() for _ in range(3)]
        sender.close()
        for clone in clones:
            assert not receiver.poll()
            clone.send(b"from a clone")
            assert receiver.recv() == b"from a clone"
            clone.close()
        with pytest.raises(ipc.Disconnected):
            receiver.recv()


def test_a_sender_can_be_cloned_after_its_receiver_was_dropped(implementation: Implementation) -> None:
    sender, receiver = implementation.make_channel(DATA)
    receiver.close()
    with sender, sender.clone() as clone:
        for each in (clone, sender):
            with pytest.raises(ipc.ReceiverGone):
                each.send(b"to nobody")


def test_an_end_that_is_collected_unclosed_complains_and_is_closed(implementation: Implementation) -> None:
    sender, receiver = implementation.make_channel(DATA)
    with receiver:
        with pytest.warns(ResourceWarning, match="unclosed"):
            del sender
            gc.collect()
        with pytest.raises(ipc.Disconnected):
            receiver.recv()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        del receiver
        gc.collect()
