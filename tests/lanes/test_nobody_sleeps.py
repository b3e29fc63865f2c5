"""Nobody sleeps while there is work: a wait ends as soon as what it waits for is there, whoever waits and however.

A wake-up that is lost leaves these tests hanging. The pauses in them are no waiting for anything: they vary the moment
at which a message meets a receiver that is about to sleep.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import selectors
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import anyio
import pytest

import ipc_channel as ipc
from tests.lanes.processes import LIFETIME, TIMEOUT, Process, readable
from tests.lanes.tally import Tally

MANY_LAST = 900
"""Seconds that very many round trips may take."""

# A thread of another test may be on its way out.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")


def pause(chance: random.Random) -> None:
    """Nothing mostly; at times about as long as somebody may look around before he sleeps."""
    if chance.random() < 0.3:
        until = time.perf_counter() + chance.uniform(0, 0.0002)
        while time.perf_counter() < until:
            pass


# Round trips: at each one both sides wait


class Waiting:
    """A way to receive one message."""

    def __init__(self, receiver: ipc.Receiver[int]) -> None:
        self.receiver = receiver

    def one(self) -> int:
        """Wait for it."""
        return self.receiver.recv(TIMEOUT)

    def close(self) -> None:
        """Of whatever it made."""
        self.receiver.close()


class WaitingWithoutTimeout(Waiting):
    """The wait without an end of its own."""

    def one(self) -> int:
        return self.receiver.recv()


class Trying(Waiting):
    """Asks again and again, and sleeps in ``poll`` between."""

    def one(self) -> int:
        while True:
            try:
                return self.receiver.try_recv()
            except ipc.Empty:
                assert self.receiver.poll(TIMEOUT), "nothing came"


class Selecting(Waiting):
    """In a set, with others that never send."""

    def __init__(self, receiver: ipc.Receiver[int]) -> None:
        self.receivers = ipc.ReceiverSet[int]()
        self.others = [ipc.channel(int) for _ in range(3)]
        for number, (_, other) in enumerate(self.others):
            self.receivers.add(other, number + 1)
        self.receivers.add(receiver, 0)
        self.selected: list[int] = []

    def one(self) -> int:
        if not self.selected:
            self.keep(self.receivers.select(TIMEOUT))
            assert self.selected, "nothing came"
        return self.selected.pop(0)

    def keep(self, events: list[Any]) -> None:
        """One call may return several messages, and the end of the stream after them."""
        self.selected += [event.message for event in events if isinstance(event, ipc.Received)]

    def close(self) -> None:
        self.receivers.close()
        for sender, _ in self.others:
            sender.close()


class Watching(Waiting):
    """In a selector that was told about it once."""

    def __init__(self, receiver: ipc.Receiver[int]) -> None:
        self.receiver = receiver
        self.selector = selectors.DefaultSelector()
        self.selector.register(receiver, selectors.EVENT_READ)

    def one(self) -> int:
        while True:
            assert self.selector.select(TIMEOUT), "nothing became readable"
            with contextlib.suppress(ipc.Empty):
                return self.receiver.try_recv()

    def close(self) -> None:
        self.selector.close()
        self.receiver.close()


class WatchingASet(Selecting):
    """A set in a selector."""

    def __init__(self, receiver: ipc.Receiver[int]) -> None:
        super().__init__(receiver)
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.receivers, selectors.EVENT_READ)

    def one(self) -> int:
        while not self.selected:
            assert self.selector.select(TIMEOUT), "nothing became readable"
            self.keep(self.receivers.try_select())
        return self.selected.pop(0)

    def close(self) -> None:
        self.selector.close()
        super().close()


WAITINGS: dict[str, Callable[[ipc.Receiver[int]], Waiting]] = {
    "recv with a timeout": Waiting,
    "recv": WaitingWithoutTimeout,
    "try_recv and poll": Trying,
    "select": Selecting,
    "selector": Watching,
    "set in a selector": WatchingASet,
}


def _echo(requests: ipc.Receiver[int], answers: ipc.Sender[int], way: str, seed: int) -> None:
    chance = random.Random(seed)
    with answers, contextlib.closing(WAITINGS[way](requests)) as waiting:
        while (number := waiting.one()) >= 0:
            pause(chance)
            answers.send(number)


@contextlib.contextmanager
def echoing(way: str, lifetime: int = LIFETIME) -> Iterator[tuple[ipc.Sender[int], ipc.Receiver[int]]]:
    """A process that answers each number with the same, until a negative one."""
    requests, inbox = ipc.channel(int)
    outbox, answers = ipc.channel(int)
    with requests, answers:
        with Process(_echo, inbox, outbox, way, 7, lifetime=lifetime) as child:
            inbox.close()
            outbox.close()
            yield requests, answers
            requests.send(-1)
            child.result()


@pytest.mark.parametrize("way", WAITINGS)
def test_round_trips(way: str) -> None:
    """Broken by a message that comes between the last look and the sleep, and rings nobody."""
    chance = random.Random(8)
    with echoing(way) as (requests, answers):
        waiting = WAITINGS[way](answers)
        with contextlib.closing(waiting):
            for number in range(6000):
                requests.send(number)
                pause(chance)
                assert waiting.one() == number


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_round_trips_in_an_event_loop(backend: str) -> None:
    """Broken by a descriptor that is readable too late, or never again."""
    chance = random.Random(9)

    async def main(requests: ipc.Sender[int], answers: ipc.Receiver[int]) -> None:
        for number in range(1500):
            await requests.asend(number)
            pause(chance)
            assert await answers.arecv() == number

    with echoing("recv") as (requests, answers):
        anyio.run(main, requests, answers, backend=backend)


@pytest.mark.slow
@pytest.mark.timeout(MANY_LAST + 60)
@pytest.mark.parametrize("way", WAITINGS)
def test_many_round_trips(way: str) -> None:
    """Broken as the test of round trips, by moments that are rarer."""
    chance = random.Random(10)
    with echoing(way, MANY_LAST) as (requests, answers), contextlib.closing(WAITINGS[way](answers)) as waiting:
        for number in range(500_000):
            requests.send(number)
            pause(chance)
            assert waiting.one() == number


# Bursts: some messages, everything is received, silence


def _send_bursts(sender: ipc.Sender[int], received: Tally, bursts: list[int], seed: int) -> None:
    chance = random.Random(seed)
    number = 0
    with sender:
        for burst in bursts:
            for _ in range(burst):
                sender.send(number)
                number += 1
            pause(chance)
            deadline = time.monotonic() + TIMEOUT
            while sum(received) < number:
                os.sched_yield()
                assert time.monotonic() < deadline, f"{sum(received)} of {number} were received"


@pytest.mark.parametrize("threads", [1, 2, 12])
def test_bursts_for_many_threads_that_wait_on_one_receiver(threads: int) -> None:
    """Broken by one thread that is woken for ten messages, takes one, and lets the others sleep."""
    chance = random.Random(threads)
    bursts = [chance.choice([1, 1, 2, 3, threads, 40]) for _ in range(400)]
    received = Tally(threads)
    came: list[list[int]] = [[] for _ in range(threads)]
    sender, receiver = ipc.channel(int)

    def receive(own: int) -> None:
        with contextlib.suppress(ipc.Disconnected):
            while True:
                came[own].append(receiver.recv())
                received[own] = len(came[own])

    with receiver:
        child = Process(_send_bursts, sender, received, bursts, threads)
        with child:
            sender.close()
            running = [threading.Thread(target=receive, args=[own]) for own in range(threads)]
            for thread in running:
                thread.start()
            try:
                child.result()
            finally:
                child.kill()  # so that the threads see the end of the stream
                for thread in running:
                    thread.join()
    assert sorted(number for each in came for number in each) == list(range(sum(bursts)))


def test_bursts_for_threads_that_wait_in_different_ways() -> None:
    """Broken by one way of waiting that takes the wake-up of another."""
    ways = ("recv", "timeout", "poll", "many", "loop")
    chance = random.Random(2)
    bursts = [chance.choice([1, 2, 5, 30]) for _ in range(300)]
    received = Tally(len(ways))
    sender, receiver = ipc.channel(int)

    def one(way: str) -> int:
        match way:
            case "recv":
                receiver.recv()
            case "timeout":
                receiver.recv(0.001)
            case "poll":
                receiver.poll(0.002)
                receiver.try_recv()
            case "many":
                return len(receiver.recv_many(3))
            case _:
                assert readable(receiver.fileno(), TIMEOUT)
                receiver.try_recv()
        return 1

    def receive(own: int) -> None:
        with contextlib.suppress(ipc.Disconnected):
            while True:
                with contextlib.suppress(ipc.Empty):
                    received[own] += one(ways[own])

    with receiver:
        child = Process(_send_bursts, sender, received, bursts, 3)
        with child:
            sender.close()
            running = [threading.Thread(target=receive, args=[own]) for own in range(len(ways))]
            for thread in running:
                thread.start()
            try:
                child.result()
            finally:
                child.kill()
                for thread in running:
                    thread.join()
    assert sum(received) == sum(bursts)


def test_bursts_of_several_processes_to_a_set() -> None:
    """Broken by a set that looks at a receiver only once for each time that it became ready."""
    chance = random.Random(4)
    received = [Tally(1) for _ in range(4)]
    with contextlib.ExitStack() as stack, ipc.ReceiverSet[int]() as receivers:
        children = []
        total = 0
        for own in range(4):
            sender, receiver = ipc.channel(int)
            bursts = [chance.choice([1, 2, 20]) for _ in range(150)]
            total += sum(bursts)
            children.append(stack.enter_context(Process(_send_bursts, sender, received[own], bursts, own)))
            sender.close()
            receivers.add(receiver, own)
        came = dict.fromkeys(range(4), 0)
        while len(receivers):
            events = receivers.select(TIMEOUT)
            assert events, f"nothing came; so far {came} of {total}"
            for event in events:
                if isinstance(event, ipc.Received):
                    assert event.message == came[event.key]
                    came[event.key] += 1
                    received[event.key][0] += 1
        for child in children:
            child.result()
    assert sum(came.values()) == total


# Left in memory: what has been taken in but not yet delivered


def _send_numbers(sender: ipc.Sender[int], count: int) -> None:
    with sender:
        sender.send_many(range(count))


@contextlib.contextmanager
def numbers(count: int) -> Iterator[ipc.Receiver[int]]:
    """A receiver with so many messages of another process, which has ended, unread."""
    sender, receiver = ipc.channel(int)
    with Process(_send_numbers, sender, count) as child, receiver:
        sender.close()
        child.result()
        yield receiver


def test_a_descriptor_stays_readable_while_something_is_left() -> None:
    """Broken by messages that were taken off the kernel's objects, so that nothing there is ready any more."""
    for early in (True, False):
        with numbers(200) as receiver:
            if early:
                receiver.fileno()
            for number in range(200):
                assert readable(receiver.fileno(), 0), number
                assert receiver.try_recv() == number
            assert readable(receiver.fileno(), TIMEOUT), "the end of the stream"
            with pytest.raises(ipc.Disconnected):
                receiver.try_recv()


def test_a_descriptor_is_not_readable_when_nothing_is_left() -> None:
    """Broken by a readiness that is never taken back: event loops would spin."""
    sender, receiver = ipc.channel(int)
    with sender, receiver:
        number = receiver.fileno()
        assert not readable(number, 0)
        for _ in range(50):
            for _ in range(4):
                sender.send(1)
            assert readable(number, 0)
            for _ in range(4):
                receiver.try_recv()
            late = 0
            while readable(number, 0):
                # A doorbell may come late, once: trying settles it.
                with pytest.raises(ipc.Empty):
                    receiver.try_recv()
                late += 1
                assert late < 3
        assert not readable(number, 0.01)


def test_a_send_makes_the_descriptor_readable_at_once_whatever_was_done_before() -> None:
    """Broken by a receiver that believes to be awake while its owner has gone to wait for the descriptor."""
    sender, receiver = ipc.channel(int)
    before: list[Callable[[], object]] = [
        lambda: None,
        lambda: receiver.poll(),
        lambda: receiver.poll(0.0002),
        lambda: receiver.try_recv(),
        lambda: receiver.recv(0.0002),
        lambda: receiver.recv_many(3, 0),
    ]
    with sender, receiver:
        receiver.fileno()
        for number in range(600):
            with contextlib.suppress(ipc.Empty):
                before[number % len(before)]()
            sender.send(number)
            assert readable(receiver.fileno(), 0), number
            assert receiver.try_recv() == number


def test_the_descriptor_wakes_a_selector_when_a_process_sends() -> None:
    """Broken as the test above, when the message comes later than the wait."""
    sender, receiver = ipc.channel(int)
    go = Tally()
    with receiver, Process(_send_on_demand, sender, go, 800) as child:
        sender.close()
        number = receiver.fileno()
        for count in range(800):
            with pytest.raises(ipc.Empty):
                receiver.try_recv()
            go[0] = count + 1
            while True:
                assert readable(number, TIMEOUT)
                try:
                    assert receiver.try_recv() == count
                    break
                except ipc.Empty:
                    continue
        child.result()


def _send_on_demand(sender: ipc.Sender[int], go: Tally, count: int) -> None:
    chance = random.Random(6)
    with sender:
        for number in range(count):
            go.wait(0, number + 1)
            pause(chance)
            sender.send(number)


TAKES: dict[str, Callable[[ipc.Receiver[int], list[int]], None]] = {
    "recv": lambda receiver, came: came.append(receiver.recv(TIMEOUT)),
    "recv_many": lambda receiver, came: came.extend(receiver.recv_many(7)),
    "next": lambda receiver, came: came.append(next(receiver)),
    "poll": lambda receiver, came: receiver.poll() and None,
}
"""What may take more off the kernel's objects than it delivers."""


@pytest.mark.parametrize("take", TAKES)
def test_what_is_left_when_a_receiver_goes_into_a_set(take: str) -> None:
    """Broken by a set that waits for the kernel while the message is in memory."""
    with numbers(100) as receiver, ipc.ReceiverSet[int]() as receivers:
        came: list[int] = []
        TAKES[take](receiver, came)
        key = receivers.add(receiver)
        while len(came) < 40:
            came += [event.message for event in receivers.select(TIMEOUT) if isinstance(event, ipc.Received)]
        if len(came) < 100:
            assert readable(receivers.fileno(), 0)
            with receivers.remove(key) as again:
                came += again
        assert came == list(range(100))


@pytest.mark.parametrize("take", TAKES)
def test_what_is_left_when_an_event_loop_starts(take: str) -> None:
    """Broken by a loop that waits for the kernel while the message is in memory."""

    async def main(receiver: ipc.Receiver[int]) -> list[int]:
        ready = asyncio.Event()
        asyncio.get_running_loop().add_reader(receiver, ready.set)
        try:
            async with asyncio.timeout(TIMEOUT):
                await ready.wait()
        finally:
            asyncio.get_running_loop().remove_reader(receiver)
        return [message async for message in receiver]

    with numbers(100) as receiver:
        came: list[int] = []
        TAKES[take](receiver, came)
        assert came + asyncio.run(main(receiver)) == list(range(100))


def test_one_message_for_each_callback_of_an_event_loop() -> None:
    """Broken by readiness that is reported once for several messages."""
    received = Tally()
    bursts = [random.Random(11).choice([1, 2, 9]) for _ in range(200)]

    async def main(receiver: ipc.Receiver[int]) -> int:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[int] = loop.create_future()

        def callback() -> None:
            try:
                assert receiver.try_recv() == received[0]
                received[0] += 1
            except ipc.Empty:
                return
            except ipc.Disconnected:
                loop.remove_reader(receiver)
                done.set_result(received[0])
            except BaseException as error:
                loop.remove_reader(receiver)
                done.set_exception(error)

        loop.add_reader(receiver, callback)
        async with asyncio.timeout(TIMEOUT):
            return await done

    sender, receiver = ipc.channel(int)
    with receiver, Process(_send_bursts, sender, received, bursts, 1) as child:
        sender.close()
        assert asyncio.run(main(receiver)) == sum(bursts)
        child.result()


def test_a_receiver_that_moved_is_ready_for_what_was_left() -> None:
    """Broken by residue that wakes nobody."""
    carrier, carried = ipc.channel(ipc.Receiver[int])
    with carrier, carried:
        for way in WAITINGS:
            with numbers(50) as receiver:
                assert receiver.recv(TIMEOUT) == 0
                carrier.send(receiver)
                with contextlib.closing(WAITINGS[way](carried.recv(TIMEOUT))) as waiting:
                    assert [waiting.one() for _ in range(49)] == list(range(1, 50))


# Two threads in one sender, and floods


def test_threads_that_send_at_the_same_time_wake_the_receiver_each_time() -> None:
    """Broken by a thread that rings before the other's message can be seen."""
    sender, receiver = ipc.channel(int)
    count = 4000
    errors: list[BaseException] = []
    turn = Tally(2)

    def send(own: int) -> None:
        try:
            for number in range(count):
                # Both at once, and then the receiver has to have taken both.
                turn.wait(0, 2 * number)
                sender.send(own)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=send, args=[own]) for own in range(2)]
    with sender, receiver:
        for thread in threads:
            thread.start()
        for number in range(2 * count):
            receiver.recv(TIMEOUT)
            turn[0] = number + 1
        for thread in threads:
            thread.join()
    assert not errors


def _flood(sender: ipc.Sender[int], stop: Tally, received: Tally) -> None:
    number = 0
    with sender, contextlib.suppress(ipc.ReceiverGone):
        while not stop[0]:
            sender.send(0)
            number += 1
            if number - received[0] > 200_000:  # of memory there is an end
                os.sched_yield()


@contextlib.contextmanager
def flood(processes: int) -> Iterator[tuple[ipc.Sender[int], ipc.Receiver[int]]]:
    """A channel to which so many processes send zeros as fast as they can."""
    sender, receiver = ipc.channel(int)
    stop, received = Tally(), Tally()
    with contextlib.ExitStack() as stack:
        stack.enter_context(receiver)
        stack.enter_context(sender)
        children = [stack.enter_context(Process(_flood, sender, stop, received)) for _ in range(processes)]
        for _ in range(1000):
            receiver.recv(TIMEOUT)
        try:
            yield sender, receiver
        finally:
            stop[0] = 1
            sender.close()
            if not receiver.closed:
                for _ in receiver:
                    received[0] += 1
        for child in children:
            child.result()


def test_a_flood_does_not_hold_another_message_up() -> None:
    """Broken by a batch that has no end while the flood lasts."""
    with flood(2) as (sender, receiver):
        for number in range(1, 6):
            sender.send(number)
            while receiver.recv(TIMEOUT) != number:
                pass


def test_calls_that_do_not_wait_return_under_a_flood() -> None:
    """Broken by a look around that goes on as long as there is news."""
    with flood(2) as (_, receiver):
        for _ in range(300):
            receiver.poll()
            with contextlib.suppress(ipc.Empty):
                receiver.try_recv()
            with contextlib.suppress(ipc.Empty):
                assert len(receiver.recv_many(10, 0)) <= 10


def test_recv_many_returns_under_a_flood() -> None:
    """Broken by "all that are there" that means: and all that come meanwhile."""
    with flood(2) as (_, receiver):
        for _ in range(10):
            assert receiver.recv_many(timeout=TIMEOUT)


def test_a_flood_on_one_receiver_of_a_set_does_not_starve_the_others() -> None:
    """Broken by a set that stays with whoever has most."""
    quiet, quiet_receiver = ipc.channel(int)
    with flood(2) as (_, receiver), quiet, ipc.ReceiverSet[str]() as receivers:
        receivers.add(receiver, "flood")
        receivers.add(quiet_receiver, "quiet")
        for number in range(20):
            quiet.send(number)
            came: Any = None
            while came is None:
                for event in receivers.select(TIMEOUT):
                    if event.key == "quiet":
                        came = event
            assert came == ipc.Received("quiet", number)
