"""``recv_view``: a message of a bytes channel where it lies; intact while it is held, its memory reused after that."""

from __future__ import annotations

import contextlib
import gc
import os
import threading
from typing import Final

import pytest

import ipc_channel as ipc
from tests.lanes.memory import memory_held
from tests.lanes.processes import TIMEOUT, Process
from tests.lanes.tally import Tally
from tests.lanes.traffic import LARGE, MIDDLE, SMALL, payload

# A thread of another test may be on its way out.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")

MIB: Final = 1 << 20
SIZES: Final = (*SMALL, *MIDDLE, *LARGE, 5 * MIB)


def content(number: int, size: int) -> bytes:
    """What the message of that number is, however large."""
    return (payload(3, number, min(size, MIB)) * (size // MIB + 1))[:size]


@pytest.mark.parametrize("size", SIZES)
def test_a_view_is_the_message(size: int) -> None:
    """Broken by an offset, a length or a block that belongs to another message."""
    sender, receiver = ipc.bytes_channel()
    with sender, receiver:
        for number in range(20):
            sender.send(content(number, size))
            with receiver.recv_view(TIMEOUT) as view:
                assert isinstance(view, memoryview)
                assert view.nbytes == len(view) == size
                assert view.format == "B"
                assert view.c_contiguous
                assert view == content(number, size)
                assert bytes(view[1:9]) == content(number, size)[1:9]


def test_views_and_owned_bytes_in_any_order() -> None:
    """Broken by a way of receiving that the other does not know of."""
    sender, receiver = ipc.bytes_channel()
    with sender, receiver:
        for number in range(200):
            sender.send(content(number, SIZES[number % len(SIZES)]))
            if number % 5 == 4:
                for own in range(number - 4, number + 1):
                    expected = content(own, SIZES[own % len(SIZES)])
                    if own % 2:
                        with receiver.recv_view(TIMEOUT) as view:
                            assert view == expected
                    else:
                        assert receiver.recv(TIMEOUT) == expected


def test_its_errors_are_those_of_recv() -> None:
    """Broken by a second way to wait."""
    sender, receiver = ipc.bytes_channel()
    with receiver:
        with sender:
            with pytest.raises(ipc.RecvTimeout):
                receiver.recv_view(0)
            with pytest.raises(ipc.RecvTimeout):
                receiver.recv_view(timeout=0.002)
            with pytest.raises(ValueError, match="timeout"):
                receiver.recv_view(-1)
            sender.send(b"last")
        with receiver.recv_view() as view:
            assert view == b"last"
        with pytest.raises(ipc.Disconnected):
            receiver.recv_view(TIMEOUT)
    with pytest.raises(ipc.ClosedError):
        receiver.recv_view(0)


@pytest.mark.parametrize("size", [64, 5000, 70_000, MIB, 3 * MIB])
def test_a_view_that_is_held_stays_as_it_is_while_a_hundred_more_are_sent(size: int) -> None:
    """Broken by a block, or a place in a ring, that is used again too early."""
    sender, receiver = ipc.bytes_channel()
    with receiver, Process(_send_contents, sender, 112, size) as child:
        sender.close()
        held = [(number, receiver.recv_view(TIMEOUT)) for number in range(6)]
        for number in range(6, 112):
            if number % 20 == 0:
                held.append((number, receiver.recv_view(TIMEOUT)))
            else:
                with receiver.recv_view(TIMEOUT) as view:
                    assert view == content(number, size)
        for number, view in held:
            assert view == content(number, size), number
        child.result()
        for number, view in held:
            assert view == content(number, size), number
            view.release()
        with pytest.raises(ipc.Disconnected):
            receiver.recv_view(TIMEOUT)


def _send_contents(sender: ipc.BytesSender, count: int, size: int) -> None:
    with sender:
        for number in range(count):
            sender.send(content(number, size))


def test_a_view_outlives_its_receiver_and_its_sender() -> None:
    """Broken by memory that is unmapped with an end."""
    for size in (64, 70_000, MIB):
        sender, receiver = ipc.bytes_channel()
        with Process(_send_and_wait, sender, size, checked=False) as child:
            sender.close()
            view = receiver.recv_view(TIMEOUT)
            child.kill()
            child.wait()
        assert view == content(0, size)
        with pytest.raises(ipc.Disconnected):
            receiver.recv_view(TIMEOUT)
        receiver.close()
        gc.collect()
        assert view == content(0, size)
        view.release()


def _send_and_wait(sender: ipc.BytesSender, size: int) -> None:
    sender.send(content(0, size))
    threading.Event().wait()


def test_a_view_outlives_the_move_of_its_receiver() -> None:
    """Broken by a block that the new owner frees, or that is unmapped with the residue."""
    sender, receiver = ipc.bytes_channel()
    carrier, carried = ipc.channel(ipc.BytesReceiver)
    with sender, carrier, carried:
        for number in range(8):
            sender.send(content(number, MIB))
        views = [receiver.recv_view(TIMEOUT), receiver.recv_view(TIMEOUT)]
        carrier.send(receiver)
        with carried.recv(TIMEOUT) as receiver:
            views += [receiver.recv_view(TIMEOUT) for _ in range(6)]
            for number in range(8, 30):
                sender.send(content(number, MIB))
                assert receiver.recv(TIMEOUT) == content(number, MIB)
        for number, view in enumerate(views):
            assert view == content(number, MIB)
            view.release()


def _check_a_view(view: memoryview, size: int) -> bool:
    same = view == content(0, size)
    view.release()
    return same


@pytest.mark.parametrize("size", [64, 70_000, MIB])
def test_a_child_made_by_fork_reads_what_its_parent_holds(size: int) -> None:
    """Broken by mappings that a fork leaves out, and by a child that frees its parent's block."""
    sender, receiver = ipc.bytes_channel()
    with sender, receiver:
        sender.send(content(0, size))
        with receiver.recv_view(TIMEOUT) as view:
            with Process(_check_a_view, view, size, checked=False) as child:
                assert child.result()
            for number in range(1, 20):
                sender.send(content(number, size))
                assert receiver.recv(TIMEOUT) == content(number, size)
            assert view == content(0, size)


def test_part_of_a_view_keeps_it() -> None:
    """Broken by memory that is given back when the first of several views goes."""
    sender, receiver = ipc.bytes_channel()
    with sender, receiver:
        sender.send(content(0, MIB))
        view = receiver.recv_view(TIMEOUT)
        part = view[100:200]
        view.release()
        for number in range(1, 50):
            sender.send(content(number, MIB))
            receiver.recv_view(TIMEOUT).release()
        assert part == content(0, MIB)[100:200]
        part.release()


def test_nobody_writes_through_a_view_to_others() -> None:
    """Broken by a view through which the peer's copy, or the next message, changes."""
    sender, receiver = ipc.bytes_channel()
    data = bytearray(content(0, MIB))
    with sender, receiver:
        sender.send(data)
        with receiver.recv_view(TIMEOUT) as view:
            data[0] ^= 255
            assert view == content(0, MIB)
            if not view.readonly:
                view[0] ^= 255
                assert data[1:] == content(0, MIB)[1:]
        sender.send(content(1, MIB))
        assert receiver.recv(TIMEOUT) == content(1, MIB)


def test_released_memory_is_used_again() -> None:
    """Broken by a block for each message, which costs page faults, and memory without end."""
    sender, receiver = ipc.bytes_channel()
    with receiver, Process(_send_on_request, sender, credit := Tally(), 600) as child:
        sender.close()
        start = memory_held([child.pid])
        for number in range(600):
            credit[0] = number + 4
            with receiver.recv_view(TIMEOUT) as view:
                assert view[:64] == content(number, 64)
            if number % 100 == 50:
                assert memory_held([child.pid]) - start <= 60 * MIB
        child.result()


def _send_on_request(sender: ipc.BytesSender, credit: Tally, count: int) -> None:
    with sender:
        for number in range(count):
            credit.wait(0, number + 1)
            sender.send(content(number, MIB))


def test_memory_is_given_back_when_the_last_view_goes() -> None:
    """Broken by blocks that nobody gives back: not of a sender that has gone, nor of a receiver that has."""
    for first in ("sender", "receiver"):
        start = memory_held()
        sender, receiver = ipc.bytes_channel()
        with contextlib.ExitStack() as stack:
            stack.enter_context(sender)
            stack.enter_context(receiver)
            views = []
            for number in range(60):
                sender.send(content(number, MIB))
                views.append(receiver.recv_view(TIMEOUT))
            (sender if first == "sender" else receiver).close()
            for number, view in enumerate(views):
                assert view == content(number, MIB)
                view.release()
            del view
            # Whoever is left has noticed.
            with pytest.raises(ipc.Disconnected if first == "sender" else ipc.ReceiverGone):
                _ = receiver.recv_view(TIMEOUT) if first == "sender" else sender.send(b"")
            assert memory_held() - start <= 20 * MIB, f"with the {first} gone"
        views.clear()
        gc.collect()
        assert memory_held() - start <= MIB


def test_a_view_in_a_process_that_exits() -> None:
    """Broken by an exit that takes what its parent, or its sender, still uses."""
    sender, receiver = ipc.bytes_channel()
    with sender, Process(_hold_a_view_and_exit, receiver, checked=False) as child:
        receiver.close()
        for number in range(5):
            sender.send(content(number, MIB))
        assert child.wait() == 0
        with pytest.raises(ipc.ReceiverGone):
            for number in range(10_000):
                sender.send(content(number, MIB))


def _hold_a_view_and_exit(receiver: ipc.BytesReceiver) -> None:
    views = [receiver.recv_view(TIMEOUT) for _ in range(3)]
    assert views[2] == content(2, MIB)
    os._exit(0)
