"""``channel(T, capacity=n)``: at most n messages of a sending process are undelivered; ``send`` waits for room."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import threading
import time
from collections.abc import Callable
from typing import Any, Final

import anyio
import anyio.lowlevel
import pytest

import ipc_channel as ipc
from tests.lanes.processes import TIMEOUT, Process
from tests.lanes.sleepers import when_asleep
from tests.lanes.tally import Tally
from tests.lanes.traffic import WAYS, Ledger, Note, note, random_size, send_with_handles

# A thread of another test may be on its way out.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")

MAKE: Final[dict[str, Callable[[int], Any]]] = {
    "typed": lambda capacity: ipc.channel(bytes, capacity=capacity),
    "pickled": lambda capacity: ipc.channel(capacity=capacity),
    "bytes": lambda capacity: ipc.bytes_channel(capacity=capacity),
}


def fill(sender: Any, first: int = 0) -> int:
    """Send numbers until it is full; how many went."""
    number = first
    with contextlib.suppress(ipc.Full):
        while True:
            sender.try_send(number)
            number += 1
            assert number - first < 10_000
    return number - first


# How much


@pytest.mark.parametrize("codec", MAKE)
@pytest.mark.parametrize("capacity", [1, 2, 3, 64, 1000])
def test_room_for_as_many_messages_as_the_capacity_says(codec: str, capacity: int) -> None:
    """Broken by a bound in bytes or ring places, and by messages that count as delivered when they were only seen."""
    sender, receiver = MAKE[codec](capacity)
    sent = came = 0

    def send() -> None:
        nonlocal sent
        sender.try_send(b"%d" % sent)
        sent += 1

    def receive() -> None:
        nonlocal came
        assert receiver.recv(TIMEOUT) == b"%d" % came
        came += 1

    with sender, receiver:
        for round_number in range(30 if capacity < 100 else 3):
            while sent - came < capacity:
                send()
            for _ in range(3):
                with pytest.raises(ipc.Full):
                    sender.try_send(b"too much")
            for _ in range(round_number % capacity + 1):
                receive()
        while came < sent:
            receive()
        with pytest.raises(ipc.Empty):
            receiver.try_recv()


@pytest.mark.parametrize("capacity", [0, -1])
def test_a_capacity_that_makes_no_sense(capacity: int) -> None:
    """Broken by a channel on which nothing can ever be sent."""
    with pytest.raises(ValueError, match="capacity"):
        ipc.channel(int, capacity=capacity)


def test_no_capacity_is_no_bound() -> None:
    """Broken by None that means something else when it is said."""
    sender, receiver = ipc.channel(int, capacity=None)
    with sender, receiver:
        sender.send_many(range(1000))
        assert [receiver.recv(TIMEOUT) for _ in range(1000)] == list(range(1000))


@pytest.mark.parametrize("way", ["recv_many", "set", "fileno", "asyncio"])
def test_each_way_of_receiving_makes_room(way: str) -> None:
    """Broken by a way of receiving that tells its sender nothing."""
    sender, receiver = ipc.channel(int, capacity=5)
    with sender, receiver:
        for number in range(50):
            assert fill(sender, number * 5) == 5
            match way:
                case "recv_many":
                    assert len(receiver.recv_many(2)) == 2
                    assert len(receiver.recv_many()) == 3
                case "fileno":
                    receiver.fileno()
                    for _ in range(5):
                        receiver.try_recv()
                case "asyncio":
                    assert len(asyncio.run(receiver.arecv_many())) == 5
                case _:
                    with ipc.ReceiverSet[int]() as receivers:
                        key = receivers.add(receiver)
                        came = 0
                        while came < 5:
                            came += len(receivers.select(TIMEOUT))
                        receiver = receivers.remove(key)
        receiver.close()


def test_a_message_that_cannot_be_decoded_makes_room() -> None:
    """Broken by counting only what was returned."""
    sender, receiver = ipc.channel(list[int], capacity=2)
    with sender, receiver:
        for _ in range(20):
            sender.try_send(["no number"])  # type: ignore[list-item]
            sender.try_send([1])
            with pytest.raises(ipc.Full):
                sender.try_send([2])
            with pytest.raises(ipc.DecodeError):
                receiver.recv(TIMEOUT)
            assert receiver.recv(TIMEOUT) == [1]


def _fill_and_wait(sender: ipc.Sender[int], filled: Tally, go: Tally) -> int:
    with sender:
        filled[0] = fill(sender)
        go.wait(0, 1)
        return fill(sender)


def test_each_process_has_its_own_room() -> None:
    """Broken by one count for all, which one sender could use up for the others."""
    sender, receiver = ipc.channel(int, capacity=10)
    filled, go = Tally(), Tally()
    with sender, receiver, sender.clone() as clone, Process(_fill_and_wait, sender, filled, go) as child:
        filled.wait(0, 10)
        assert fill(sender) == 10
        assert fill(clone) == 0, "clones of one process share its room"
        assert sorted(receiver.recv(TIMEOUT) for _ in range(20)) == sorted([*range(10), *range(10)])
        go[0] = 1
        assert child.result() == 10
        assert fill(clone) == 10
        assert fill(sender) == 0


def _fill_what_arrives(mailbox: ipc.Receiver[ipc.Sender[int]]) -> int:
    with mailbox, mailbox.recv(TIMEOUT) as sender:
        return fill(sender)


def test_a_sender_keeps_its_capacity_when_it_moves() -> None:
    """Broken by a bound that belongs to an object in the process that made the channel."""
    sender, receiver = ipc.channel(int, capacity=7)
    mail, mailbox = ipc.channel(ipc.Sender[int])
    with receiver, mail:
        assert fill(sender) == 7
        with Process(_fill_what_arrives, mailbox) as child:
            mailbox.close()
            mail.send(sender)
            assert child.result() == 7
        assert list(receiver) == [*range(7), *range(7)]


@pytest.mark.xfail(reason="known limit: an end that comes back counts for itself", strict=True)
def test_a_sender_that_comes_back_to_its_process_brings_no_room() -> None:
    """Broken by a count for each sender that ever arrived, in place of one for the process."""
    sender, receiver = ipc.channel(int, capacity=3)
    mail, mailbox = ipc.channel(ipc.Sender[int])
    with sender, receiver, mail, mailbox:
        sender.send_many([0, 1])
        mail.send(sender.clone())
        with mailbox.recv(TIMEOUT) as arrived:
            arrived.try_send(2)
            for each in (arrived, sender):
                with pytest.raises(ipc.Full):
                    each.try_send(3)
            assert receiver.recv(TIMEOUT) == 0
            sender.try_send(3)
            with pytest.raises(ipc.Full):
                arrived.try_send(4)
            assert [receiver.recv(TIMEOUT) for _ in range(3)] == [1, 2, 3]


def test_a_child_made_by_fork_has_its_own_room() -> None:
    """Broken by a child that goes on counting in its parent's place."""
    sender, receiver = ipc.channel(int, capacity=4)
    with sender, receiver:
        assert fill(sender) == 4
        with Process(fill, sender, checked=False) as child:
            assert child.result() == 4
        with pytest.raises(ipc.Full):
            sender.try_send(0)
        came = [receiver.recv(TIMEOUT) for _ in range(8)]
        assert came == [*range(4), *range(4)]
        assert fill(sender) == 4


def test_the_receiver_may_move() -> None:
    """Broken by a new owner that makes no room, or makes it twice."""
    sender, receiver = ipc.channel(int, capacity=6)
    carrier, carried = ipc.channel(ipc.Receiver[int])
    with sender, carrier, carried:
        expected = sent = 0
        for round_number in range(20):
            sent += fill(sender, sent)
            assert sent - expected == 6, round_number
            carrier.send(receiver)
            receiver = carried.recv(TIMEOUT)
            with pytest.raises(ipc.Full):
                sender.try_send(0)
            for _ in range(round_number % 6 + 1):
                assert receiver.recv(TIMEOUT) == expected
                expected += 1
        receiver.close()


# Waiting


def test_a_wait_ends_at_its_timeout_and_nothing_was_sent() -> None:
    """Broken by a wait that ends early, and by a message that goes after its error."""
    sender, receiver = ipc.channel(int, capacity=2)
    inner_sender, inner_receiver = ipc.channel(int)
    carrier, carried = ipc.channel(ipc.Receiver[int], capacity=1)
    with sender, receiver, inner_sender, inner_receiver, carrier, carried:
        sender.send_many([1, 2])
        for timeout in (0, 0.0005, 0.02):
            began = time.monotonic()
            with pytest.raises(ipc.SendTimeout) as caught:
                sender.send(3, timeout)
            assert time.monotonic() - began >= timeout
            assert isinstance(caught.value, TimeoutError)
            assert isinstance(caught.value, ipc.Full)
        assert receiver.recv_many() == [1, 2]
        carried_sender, other = ipc.channel(int)
        with carried_sender:
            carrier.send(other)
            with pytest.raises(ipc.SendTimeout):
                carrier.send(inner_receiver, timeout=0.001)
            inner_sender.send(5)
            assert inner_receiver.recv(TIMEOUT) == 5, "what was in a message that was not sent is as it was"


def _receive_slowly(receiver: ipc.Receiver[Note], seed: int) -> dict[int, int]:
    chance = random.Random(seed)
    ledger = Ledger()
    with receiver, contextlib.suppress(ipc.Disconnected):
        while True:
            if chance.random() < 0.05:
                until = time.perf_counter() + chance.uniform(0, 0.001)
                while time.perf_counter() < until:
                    pass
            match chance.randrange(3):
                case 0:
                    ledger.enter_all(receiver.recv_many(chance.choice([1, 3, 100]), TIMEOUT))
                case _:
                    ledger.enter(receiver.recv(TIMEOUT))
    return dict(ledger.next)


@pytest.mark.parametrize("capacity", [1, 2, 10])
@pytest.mark.parametrize("threads", [1, 2, 10])
def test_threads_that_wait_for_room(capacity: int, threads: int) -> None:
    """Broken by a wake-up that goes to a thread which has just given up, or to none."""
    sender, receiver = ipc.channel(Note, capacity=capacity)
    count = 600 if threads == 1 else 1000 // threads
    errors: list[BaseException] = []

    def send(own: int) -> None:
        chance = random.Random(own)
        try:
            for number in range(count):
                message = note(own, number, random_size(chance))
                while True:
                    try:
                        sender.send(message, chance.choice([None, None, 0.0003, TIMEOUT]))
                        break
                    except ipc.SendTimeout:
                        continue
        except BaseException as error:
            errors.append(error)

    with Process(_receive_slowly, receiver, capacity) as child:
        receiver.close()
        running = [threading.Thread(target=send, args=[own]) for own in range(threads)]
        for thread in running:
            thread.start()
        for thread in running:
            thread.join()
        sender.close()
        assert child.result() == dict.fromkeys(range(threads), count)
    assert not errors


def _send_many(source: int, sender: ipc.Sender[Note], count: int) -> None:
    with sender:
        sender.send_many(note(source, number) for number in range(count))


@pytest.mark.parametrize("way", WAYS)
def test_processes_that_wait_for_room(way: str) -> None:
    """Broken by a receiver that sleeps although it owes a sender a wake-up."""
    sender, receiver = ipc.channel(Note, capacity=3)
    ledger = Ledger()
    with receiver, contextlib.ExitStack() as stack:
        children = [stack.enter_context(Process(_send_many, own, sender, 800)) for own in range(3)]
        sender.close()
        WAYS[way](receiver, ledger.enter)
        for child in children:
            child.result()
    assert ledger.next == dict.fromkeys(range(3), 800)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_asend_waits_and_other_tasks_go_on(backend: str) -> None:
    """Broken by a send that holds the loop, or that is not told of room."""

    async def main() -> None:
        sender, receiver = ipc.channel(int, capacity=2)
        with sender, receiver:
            came: list[int] = []
            async with anyio.create_task_group() as group:

                async def send() -> None:
                    for number in range(400):
                        await sender.asend(number)

                async def receive() -> None:
                    while len(came) < 400:
                        came.append(await receiver.arecv())
                        await anyio.lowlevel.checkpoint()

                group.start_soon(send)
                group.start_soon(receive)
            assert came == list(range(400))

    anyio.run(main, backend=backend)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_cancelled_asend_has_sent_nothing(backend: str) -> None:
    """Broken by a cancellation that strikes after the message went, or leaves its place taken."""

    async def main() -> None:
        sender, receiver = ipc.channel(int, capacity=2)
        with sender, receiver:
            for round_number in range(50):
                sender.send_many([0, 1])
                with anyio.move_on_after(0.001):
                    await sender.asend(2)
                    raise AssertionError("it was full")
                assert await receiver.arecv() == 0
                if round_number % 2:
                    sender.try_send(3)
                    with pytest.raises(ipc.Full):
                        sender.try_send(4)
                    assert await receiver.arecv() == 1
                    assert await receiver.arecv() == 3
                else:
                    assert await receiver.arecv() == 1
                with pytest.raises(ipc.Empty):
                    receiver.try_recv()

    anyio.run(main, backend=backend)


def test_a_cancelled_task_passes_the_wake_up_on() -> None:
    """Broken by a wake-up that is lost with the task which it was for."""

    async def main() -> None:
        sender, receiver = ipc.channel(int, capacity=1)
        with sender, receiver:
            for _ in range(30):
                await sender.asend(0)
                first, second = (asyncio.create_task(sender.asend(number)) for number in (1, 2))
                await asyncio.sleep(0.001)
                first.cancel()
                assert receiver.recv(TIMEOUT) == 0
                async with asyncio.timeout(TIMEOUT):
                    await second
                with contextlib.suppress(asyncio.CancelledError):
                    await first
                assert receiver.recv(TIMEOUT) == 2

    asyncio.run(main())


def test_a_thread_and_an_event_loop_wait_for_room_of_the_same_sender() -> None:
    """Broken by one of them reading the other's doorbell."""
    sender, receiver = ipc.channel(Note, capacity=2)
    count = 500
    errors: list[BaseException] = []

    def in_a_thread() -> None:
        try:
            for number in range(count):
                sender.send(note(0, number))
        except BaseException as error:
            errors.append(error)

    async def in_a_loop() -> None:
        for number in range(count):
            await sender.asend(note(1, number))

    with Process(_receive_slowly, receiver, 1) as child:
        receiver.close()
        thread = threading.Thread(target=in_a_thread)
        thread.start()
        asyncio.run(in_a_loop())
        thread.join()
        sender.close()
        assert child.result() == {0: count, 1: count}
    assert not errors


def test_close_wakes_whoever_waits_for_room() -> None:
    """Broken by a wait that only the receiver ends."""
    sender, receiver = ipc.channel(int, capacity=1)
    outcomes: list[type[BaseException] | None] = []

    def wait(timeout: float | None) -> None:
        try:
            sender.send(1, timeout)
            outcomes.append(None)
        except BaseException as error:
            outcomes.append(type(error))

    with receiver:
        sender.send(0)
        threads = [threading.Thread(target=wait, args=[timeout]) for timeout in (None, None, TIMEOUT)]
        for thread in threads:
            thread.start()
        closer = when_asleep(threads[-1].native_id or 0, sender.close)
        for thread in (*threads, closer):
            thread.join()
        assert outcomes == [ipc.ClosedError] * 3
        assert list(receiver) == [0]


def test_a_receiver_that_is_closed_wakes_whoever_waits_for_room() -> None:
    """Broken by a close that is not told to bounded senders."""
    sender, receiver = ipc.channel(int, capacity=1)
    with sender:
        sender.send(0)
        closer = when_asleep(threading.get_native_id(), receiver.close)
        with pytest.raises(ipc.ReceiverGone):
            sender.send(1)
        closer.join()


def test_send_many_says_how_many_went() -> None:
    """Broken by a count that includes what waits."""
    sender, receiver = ipc.channel(int, capacity=5)
    with sender:
        closer = when_asleep(threading.get_native_id(), receiver.close)
        with pytest.raises(ipc.ReceiverGone) as caught:
            sender.send_many(range(100))
        closer.join()
    assert caught.value.sent == 5  # type: ignore[attr-defined]


def test_ctrl_c_ends_a_wait_for_room_and_nothing_was_sent() -> None:
    """Broken by a wait that runs no signal handlers, or forgets that it was interrupted."""

    class InterruptedByTest(Exception):
        pass

    def interrupt(number: int, frame: object) -> None:
        raise InterruptedByTest

    sender, receiver = ipc.channel(int, capacity=1)
    previous = signal.signal(signal.SIGUSR1, interrupt)
    try:
        with sender, receiver:
            for number in range(10):
                sender.send(number)
                with pytest.raises(InterruptedByTest):
                    when_asleep(threading.get_native_id(), lambda: os.kill(os.getpid(), signal.SIGUSR1))
                    sender.send(-1)
                assert receiver.recv(TIMEOUT) == number
            with pytest.raises(ipc.Empty):
                receiver.try_recv()
    finally:
        signal.signal(signal.SIGUSR1, previous)


# What travels


def test_a_bounded_request_with_a_reply() -> None:
    """Broken by messages with handles or of another size that count otherwise."""
    sender, receiver = ipc.channel(Note, capacity=2)
    chance = random.Random(1)
    ledger = Ledger()
    with sender, receiver:
        for number in range(0, 200, 2):
            for own in (number, number + 1):
                message = note(0, own, random_size(chance))
                send_with_handles(sender, message, chance.choice([0, 0, 1, 3]) if own else 260, chance.choice([0, 2]))
            with pytest.raises(ipc.Full):
                sender.try_send(note(0, number))
            for _ in range(2):
                ledger.enter(receiver.recv(TIMEOUT))


def test_order_across_bounded_senders() -> None:
    """Broken by waits that give a message its stamp before it has its place."""
    sender, receiver = ipc.channel(Note, capacity=2)
    turn = Tally()
    ledger = Ledger()
    with receiver, contextlib.ExitStack() as stack:
        children = [stack.enter_context(Process(_in_turn, own, sender, turn, 1500)) for own in range(2)]
        sender.close()
        ledger.enter_all(receiver)
        for child in children:
            child.result()
    assert ledger.next[0] == 1500


def _in_turn(own: int, sender: ipc.Sender[Note], turn: Tally, turns: int) -> None:
    noise = 0
    with sender:
        for number in range(own, turns, 2):
            for _ in range(number % 3):
                sender.send(note(1000 + own, noise))
                noise += 1
            turn.wait(0, number)
            sender.send(note(0, number))
            turn[0] = number + 1
