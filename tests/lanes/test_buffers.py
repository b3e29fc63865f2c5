"""Large parts of pickled messages: received where they lie, intact while held, writable or not as they were sent."""

from __future__ import annotations

import gc
import pickle
import threading
from typing import Any, Final

import numpy as np
import pytest

import ipc_channel as ipc
from tests.lanes.memory import memory_held
from tests.lanes.processes import TIMEOUT, Process
from tests.lanes.tally import Tally

# A thread of another test may be on its way out.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")

MIB: Final = 1 << 20


def array(number: int, size: int = MIB) -> Any:
    """An array of so many bytes that belongs to this number."""
    return np.arange(number, number + size // 8, dtype=np.int64)


ARRAYS: Final[dict[str, Any]] = {
    "C": np.arange(60_000, dtype=np.float64).reshape(200, 300),
    "Fortran": np.asfortranarray(np.arange(60_000, dtype=np.float64).reshape(200, 300)),
    "three dimensions": np.arange(60_000, dtype=np.int16).reshape(20, 30, 100),
    "with gaps": np.arange(60_000, dtype=np.int32)[::3],
    "backwards": np.arange(60_000, dtype=np.int32)[::-1],
    "transposed": np.arange(60_000, dtype=np.int32).reshape(200, 300).T,
    "records": np.zeros(5000, dtype=[("a", "i4"), ("b", "f8")]),
    "booleans": np.arange(100_000) % 3 == 0,
    "complex": np.arange(30_000) * (1 + 2j),
    "empty": np.empty((0, 5)),
    "one number": np.array(7.5),
    "small": np.arange(10),
    "just above 64 KiB": np.arange(65_537, dtype=np.uint8),
    "objects": np.array([1, "two", None, b"four"], dtype=object),
    "times": np.arange(np.datetime64("2001-01-01"), np.datetime64("2031-01-01")),
}


@pytest.mark.parametrize("kind", ARRAYS)
@pytest.mark.parametrize("writable", [True, False], ids=["writable", "read-only"])
def test_arrays(kind: str, writable: bool) -> None:
    """Broken by a layout, an alignment or a flag that is lost on the way."""
    sent = ARRAYS[kind].copy(order="K")
    if kind in ("with gaps", "backwards", "transposed"):
        sent = ARRAYS[kind]
    sent = sent.view()
    sent.flags.writeable = writable
    sender, receiver = ipc.channel()
    with sender, receiver:
        sender.send({"array": sent, "again": sent})
        received = receiver.recv(TIMEOUT)
        came = received["array"]
        assert came is received["again"]
        assert came.dtype == sent.dtype
        assert came.shape == sent.shape
        np.testing.assert_array_equal(came, sent)
        if kind not in ("objects", "times", "with gaps", "backwards", "transposed"):  # these are copied
            assert came.flags.writeable == writable
            assert came.flags.c_contiguous == sent.flags.c_contiguous
            assert came.flags.f_contiguous == sent.flags.f_contiguous
        assert came.flags.aligned
        sender.send(came)
        np.testing.assert_array_equal(receiver.recv(TIMEOUT), sent)


def test_buffers_of_other_kinds() -> None:
    """Broken by what is writable on one side and not on the other."""
    large = bytes(range(256)) * 1000
    sender, receiver = ipc.channel()
    with sender, receiver:
        message = [
            large,
            bytearray(large),
            pickle.PickleBuffer(large),
            pickle.PickleBuffer(bytearray(large)),
            pickle.PickleBuffer(memoryview(large)[1:100_000]),
            pickle.PickleBuffer(b""),
            pickle.PickleBuffer(bytearray()),
            pickle.PickleBuffer(b"small"),
        ]
        sender.send(message)
        came = receiver.recv(TIMEOUT)
    assert type(came[0]) is bytes
    assert came[0] == large
    assert type(came[1]) is bytearray
    assert came[1] == large
    came[1][0] = 255
    views = [memoryview(part) for part in came[2:]]
    assert [view.readonly for view in views] == [True, False, True, True, False, True]
    assert [bytes(view) for view in views] == [large, large, large[1:100_000], b"", b"", b"small"]
    views[1][0] = 77
    assert views[1][0] == 77
    assert views[0][0] == 0


def test_what_the_receiver_writes_is_its_own() -> None:
    """Broken by pages that both sides can write to, or that come again in another message."""
    sender, receiver = ipc.channel()
    with sender, receiver:
        for number in range(20):
            sent = array(number)
            sender.send(sent)
            came = receiver.recv(TIMEOUT)
            came[:] = -1
            assert sent[0] == number
            sent[:] = -2
            assert (came == -1).all()


def test_arrays_that_are_held_stay_as_they_are_while_a_hundred_more_come() -> None:
    """Broken by a block that is used again while an array lies in it."""
    for size in (64, 5000, 70_000, MIB):
        sender, receiver = ipc.channel()
        with receiver, Process(_send_arrays, sender, 110, size) as child:
            sender.close()
            held = {}
            for number in range(110):
                came = receiver.recv(TIMEOUT)
                np.testing.assert_array_equal(came, array(number, size))
                if number < 8 or number % 25 == 0:
                    held[number] = came
            child.result()
            for number, came in held.items():
                np.testing.assert_array_equal(came, array(number, size))
            with pytest.raises(ipc.Disconnected):
                receiver.recv(TIMEOUT)
            for number, came in held.items():
                np.testing.assert_array_equal(came, array(number, size))


def _send_arrays(sender: ipc.Sender[Any], count: int, size: int) -> None:
    with sender:
        for number in range(count):
            sender.send(array(number, size))


def _send_arrays_and_wait(sender: ipc.Sender[Any], count: int, sent: Tally) -> None:
    for number in range(count):
        sender.send([array(number), {"more": array(number + 1000)}])
    sent[0] = 1
    threading.Event().wait()


def test_arrays_outlive_their_sender_and_their_receiver() -> None:
    """Broken by memory that is given back, or punched, when a process dies or an end is closed."""
    sender, receiver = ipc.channel()
    sent = Tally()
    with Process(_send_arrays_and_wait, sender, 20, sent, checked=False) as child:
        sender.close()
        first = [receiver.recv(TIMEOUT) for _ in range(10)]
        sent.wait(0, 1)
        child.kill()
        child.wait()
    second = [receiver.recv(TIMEOUT) for _ in range(10)]
    with pytest.raises(ipc.Disconnected):
        receiver.recv(TIMEOUT)
    receiver.close()
    gc.collect()
    for number, (one, rest) in enumerate([*first, *second]):
        np.testing.assert_array_equal(one, array(number))
        np.testing.assert_array_equal(rest["more"], array(number + 1000))
        one[:] = 0


def test_one_part_of_a_message_may_be_kept() -> None:
    """Broken by memory that goes with the first of several arrays that lie in it."""
    sender, receiver = ipc.channel()
    with sender, receiver:
        sender.send([array(number) for number in range(10)])
        came = receiver.recv(TIMEOUT)
        kept = came[4][1000:2000]
        del came
        gc.collect()
        for number in range(50):
            sender.send(array(number))
            receiver.recv(TIMEOUT)
        np.testing.assert_array_equal(kept, array(4)[1000:2000])


def test_many_buffers_in_a_message() -> None:
    """Broken by a table of buffers that has an end."""
    sender, receiver = ipc.channel()
    sizes = [(number * 37) % 3000 for number in range(2000)]
    with sender, receiver:
        sender.send([np.full(size, number % 256, dtype=np.uint8) for number, size in enumerate(sizes)])
        for number, came in enumerate(receiver.recv(TIMEOUT)):
            assert came.shape == (sizes[number],)
            assert (came == number % 256).all()


def test_a_child_made_by_fork_reads_and_writes_what_its_parent_holds() -> None:
    """Broken by mappings that a fork leaves out, or through which a child writes into its parent's arrays."""
    sender, receiver = ipc.channel()
    with sender, receiver:
        sender.send(array(1))
        came = receiver.recv(TIMEOUT)
        with Process(_sum_and_clear, came, checked=False) as child:
            assert child.result() == int(array(1).sum())
        np.testing.assert_array_equal(came, array(1))


def _sum_and_clear(came: Any) -> int:
    total = int(came.sum())
    came[:] = 0
    return total


@pytest.mark.parametrize("held", [0, 3])
def test_memory_of_arrays_is_used_again(held: int) -> None:
    """Broken by a block for each message, or by one held array that keeps all others."""
    sender, receiver = ipc.channel()
    credit = Tally()
    with receiver, Process(_send_arrays_on_request, sender, credit, 300) as child:
        sender.close()
        start = memory_held([child.pid])
        kept = []
        for number in range(300):
            credit[0] = number + 3
            came = receiver.recv(TIMEOUT)
            assert came[0] == number
            if number < held:
                kept.append(came)
            if number % 60 == 59:
                del came
                assert memory_held([child.pid]) - start <= 120 * MIB
        child.result()
        for number, came in enumerate(kept):
            np.testing.assert_array_equal(came, array(number))


def _send_arrays_on_request(sender: ipc.Sender[Any], credit: Tally, count: int) -> None:
    with sender:
        for number in range(count):
            credit.wait(0, number + 1)
            sender.send(array(number))


def test_memory_is_given_back_when_the_last_array_goes() -> None:
    """Broken by memory that waits for the end of the other side."""
    for first in ("sender", "receiver"):
        start = memory_held()
        sender, receiver = ipc.channel()
        with sender, receiver:
            held = []
            for number in range(40):
                sender.send(array(number))
                held.append(receiver.recv(TIMEOUT))
            (sender if first == "sender" else receiver).close()
            np.testing.assert_array_equal(held[39], array(39))
            held.clear()
            gc.collect()
            assert memory_held() - start <= 20 * MIB, f"with the {first} gone"
        assert memory_held() - start <= MIB


def test_an_array_of_64_mebibytes() -> None:
    """Broken by sizes that are larger than whatever blocks there are."""
    sender, receiver = ipc.channel()
    start = memory_held()
    with receiver, Process(_send_arrays, sender, 3, 64 * MIB) as child:
        sender.close()
        for number in range(3):
            came = receiver.recv(TIMEOUT)
            np.testing.assert_array_equal(came, array(number, 64 * MIB))
        child.result()
        del came
        with pytest.raises(ipc.Disconnected):
            receiver.recv(TIMEOUT)
        assert memory_held() - start <= 70 * MIB
    assert memory_held() - start <= MIB
