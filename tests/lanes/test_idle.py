"""Who waits uses no processor, whatever happened on the channel before.

All scenarios wait at the same time, each in a process of its own. What a scenario may use is far more than a sleep
needs and far less than any looking around in between.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import anyio
import anyio.lowlevel
import pytest

import ipc_channel as ipc
from tests.lanes.processes import TIMEOUT, Process, readable
from tests.lanes.tally import Tally
from tests.lanes.traffic import Note, check, note

# A thread of another test may be on its way out.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")

IDLE: Final = 2.0
"""Seconds of waiting."""

PROCESSOR: Final = 0.03
"""Seconds of processor time that a waiting process may use."""

SWITCHES: Final = 150
"""How often a waiting process may wake up and sleep again."""


@dataclass(frozen=True)
class Used:
    """What a process used while it waited."""

    processor: float
    switches: int


class Meter:
    """What this process, all threads together, uses from here to ``read``."""

    def __init__(self) -> None:
        self._start = resource.getrusage(resource.RUSAGE_SELF)

    def read(self) -> Used:
        """So far."""
        start, now = self._start, resource.getrusage(resource.RUSAGE_SELF)
        processor = now.ru_utime + now.ru_stime - start.ru_utime - start.ru_stime
        return Used(processor, now.ru_nvcsw - start.ru_nvcsw)


def measure(wait: Callable[[], object]) -> Used:
    """What this process uses during the wait."""
    meter = Meter()
    wait()
    return meter.read()


def no_message(receiver: Any) -> None:
    """Wait for a message that does not come."""
    with contextlib.suppress(ipc.RecvTimeout):
        raise AssertionError(receiver.recv(IDLE))


SCENARIOS: Final[dict[str, Callable[[contextlib.ExitStack], Used]]] = {}


def scenario(function: Callable[[contextlib.ExitStack], Used]) -> Callable[[contextlib.ExitStack], Used]:
    """What is done in a process before and while it waits."""
    SCENARIOS[function.__name__.replace("_", " ")] = function
    return function


def _be_busy_then_idle(source: int, count: int, sender: ipc.Sender[Note], ready: Tally) -> None:
    for number in range(count):
        sender.send(note(source, number, 70_000 if number == 5 else 64))
    ready[source] = 1
    threading.Event().wait()


def busy_senders(
    stack: contextlib.ExitStack, count: int = 3, messages: int = 2000
) -> tuple[ipc.Receiver[Note], list[Process[None]]]:
    """A receiver, and processes that have sent it much and are silent now."""
    sender, receiver = ipc.channel(Note)
    stack.enter_context(receiver)
    ready = Tally(count)
    children = [
        stack.enter_context(Process(_be_busy_then_idle, own, messages, sender, ready, checked=False))
        for own in range(count)
    ]
    sender.close()
    for _ in range(count * messages):
        check(receiver.recv(TIMEOUT))
    for own in range(count):
        ready.wait(own, 1)
    return receiver, children


@scenario
def recv_on_a_new_channel(stack: contextlib.ExitStack) -> Used:
    sender, receiver = ipc.channel(Note)
    stack.enter_context(sender)
    stack.enter_context(receiver)
    return measure(lambda: no_message(receiver))


@scenario
def recv_after_busy_senders_fell_silent(stack: contextlib.ExitStack) -> Used:
    receiver, _ = busy_senders(stack)
    return measure(lambda: no_message(receiver))


@scenario
def recv_after_some_senders_were_killed(stack: contextlib.ExitStack) -> Used:
    receiver, children = busy_senders(stack)
    for child in children[1:]:
        child.kill()
        child.wait()
    return measure(lambda: no_message(receiver))


@scenario
def recv_beside_a_stopped_sender(stack: contextlib.ExitStack) -> Used:
    receiver, children = busy_senders(stack)
    children[0].kill(signal.SIGSTOP)
    return measure(lambda: no_message(receiver))


@scenario
def recv_after_a_busy_sender_of_this_process_was_closed(stack: contextlib.ExitStack) -> Used:
    sender, receiver = ipc.channel(Note)
    stack.enter_context(receiver)
    other = stack.enter_context(sender.clone())
    with sender:
        for number in range(1000):
            sender.send(note(0, number))
            check(receiver.recv(TIMEOUT))
    used = measure(lambda: no_message(receiver))
    other.close()
    return used


@scenario
def recv_after_the_receiver_moved(stack: contextlib.ExitStack) -> Used:
    receiver, _ = busy_senders(stack)
    carrier, carried = ipc.channel(ipc.Receiver[Note])
    with carrier, carried:
        receiver.fileno()
        carrier.send(receiver)
        moved = stack.enter_context(carried.recv(TIMEOUT))
    return measure(lambda: no_message(moved))


@scenario
def recv_after_the_end_of_another_stream(stack: contextlib.ExitStack) -> Used:
    receiver, _ = busy_senders(stack)
    other_sender, other = ipc.channel(Note)
    stack.enter_context(other)
    with other_sender:
        other_sender.send(note(0, 0))
    assert other.recv(TIMEOUT).number == 0
    return measure(lambda: no_message(receiver))


@scenario
def recv_while_a_child_made_by_fork_holds_the_same(stack: contextlib.ExitStack) -> Used:
    receiver, _ = busy_senders(stack)
    stack.enter_context(Process(threading.Event().wait, checked=False))
    stack.enter_context(Process(_hold, receiver, checked=False))
    return measure(lambda: no_message(receiver))


def _hold(receiver: Any) -> None:
    threading.Event().wait()


@scenario
def recv_by_twelve_threads(stack: contextlib.ExitStack) -> Used:
    receiver, _ = busy_senders(stack)
    threads = [threading.Thread(target=no_message, args=[receiver]) for _ in range(12)]

    def wait() -> None:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    return measure(wait)


@scenario
def poll_after_traffic(stack: contextlib.ExitStack) -> Used:
    receiver, _ = busy_senders(stack)
    return measure(lambda: receiver.poll(IDLE))


@scenario
def a_selector_after_traffic(stack: contextlib.ExitStack) -> Used:
    receiver, _ = busy_senders(stack)
    receiver.fileno()
    with contextlib.suppress(ipc.Empty):
        receiver.try_recv()
    return measure(lambda: readable(receiver.fileno(), IDLE))


@scenario
def select_on_a_hundred_receivers(stack: contextlib.ExitStack) -> Used:
    receivers = stack.enter_context(ipc.ReceiverSet[int]())
    for number in range(100):
        sender, receiver = ipc.channel(int)
        stack.enter_context(sender)
        receivers.add(receiver)
        sender.send(number)
    events = 0
    while events < 100:
        events += len(receivers.select(TIMEOUT))
    return measure(lambda: receivers.select(IDLE))


@scenario
def select_after_busy_senders_fell_silent(stack: contextlib.ExitStack) -> Used:
    receivers = stack.enter_context(ipc.ReceiverSet[int]())
    for _ in range(3):
        receiver, children = busy_senders(stack, 2, 500)
        receivers.add(receiver)
        children[0].kill()
        children[0].wait()
    ended_sender, ended = ipc.channel(Note)
    ended_sender.close()
    key = receivers.add(ended)
    assert receivers.select(TIMEOUT) == [ipc.Closed(key)]
    return measure(lambda: receivers.select(IDLE))


def _in_a_loop(backend: str, receiver: Any) -> Used:
    async def wait() -> None:
        with anyio.move_on_after(IDLE):
            raise AssertionError(await receiver.arecv())

    async def main() -> Used:
        # What the loop itself needs at its start is not measured.
        await anyio.lowlevel.checkpoint()
        meter = Meter()
        await wait()
        return meter.read()

    return anyio.run(main, backend=backend)


@scenario
def arecv_in_asyncio(stack: contextlib.ExitStack) -> Used:
    receiver, _ = busy_senders(stack)
    return _in_a_loop("asyncio", receiver)


@scenario
def arecv_in_trio(stack: contextlib.ExitStack) -> Used:
    receiver, _ = busy_senders(stack)
    return _in_a_loop("trio", receiver)


@scenario
def add_reader_in_asyncio_with_nothing_to_read(stack: contextlib.ExitStack) -> Used:
    receiver, _ = busy_senders(stack)
    used: list[Used] = []

    def try_it() -> None:
        with contextlib.suppress(ipc.Empty):
            raise AssertionError(receiver.try_recv())

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.add_reader(receiver, try_it)
        await asyncio.sleep(0.01)
        meter = Meter()
        await asyncio.sleep(IDLE)
        loop.remove_reader(receiver)
        used.append(meter.read())

    asyncio.run(main())
    return used[0]


@scenario
def a_router_with_silent_routes(stack: contextlib.ExitStack) -> Used:
    router = stack.enter_context(ipc.Router())
    receiver, _ = busy_senders(stack)
    router.add_route(receiver, print)
    return measure(lambda: time.sleep(IDLE))


@scenario
def accept_on_a_one_shot_server(stack: contextlib.ExitStack) -> Used:
    server = stack.enter_context(ipc.OneShotServer(int))

    def wait() -> None:
        with contextlib.suppress(ipc.AcceptTimeout):
            raise AssertionError(server.accept(IDLE))

    return measure(wait)


@scenario
def a_sender_after_much_traffic(stack: contextlib.ExitStack) -> Used:
    sender, receiver = ipc.channel(Note)
    stack.enter_context(sender)
    child = stack.enter_context(Process(_drain_and_hold, receiver, checked=False))
    receiver.close()
    for number in range(3000):
        sender.send(note(0, number))
    used = measure(lambda: time.sleep(IDLE))
    assert child.running
    return used


def _drain_and_hold(receiver: ipc.Receiver[Note]) -> None:
    while True:
        check(receiver.recv())


@scenario
def a_receiver_whose_sender_was_shut_down_by_a_duplicate(stack: contextlib.ExitStack) -> Used:
    # The stream may end by that or not; the wait after it is idle.
    sender, receiver = ipc.channel(Note)
    stack.enter_context(receiver)
    ready = Tally()
    child = stack.enter_context(Process(_be_busy_then_idle, 0, 100, sender, ready, checked=False))
    ready.wait(0, 1)
    for _ in range(100):
        check(receiver.recv(TIMEOUT))
    with sender, socket.socket(fileno=sender.duplicate_fd()) as duplicate:
        duplicate.shutdown(socket.SHUT_RDWR)
    assert child.running

    def wait() -> None:
        until = time.monotonic() + IDLE
        try:
            no_message(receiver)
        except ipc.Disconnected:
            time.sleep(max(until - time.monotonic(), 0))

    return measure(wait)


# Bounded channels


def _full(stack: contextlib.ExitStack) -> Any:
    sender, receiver = ipc.channel(int, capacity=3)
    stack.enter_context(sender)
    stack.enter_context(receiver)
    for number in range(100):
        sender.send(number, timeout=TIMEOUT)
        receiver.recv(TIMEOUT)
    sender.send_many(range(3))
    return sender


@scenario
def send_on_a_full_bounded_channel(stack: contextlib.ExitStack) -> Used:
    sender = _full(stack)

    def wait() -> None:
        with contextlib.suppress(ipc.SendTimeout):
            sender.send(4, timeout=IDLE)
            raise AssertionError("it was full")

    return measure(wait)


@scenario
def send_on_a_full_bounded_channel_by_twelve_threads(stack: contextlib.ExitStack) -> Used:
    sender = _full(stack)

    def send() -> None:
        with contextlib.suppress(ipc.SendTimeout):
            sender.send(4, timeout=IDLE)

    threads = [threading.Thread(target=send) for _ in range(12)]

    def wait() -> None:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    return measure(wait)


@scenario
def asend_on_a_full_bounded_channel(stack: contextlib.ExitStack) -> Used:
    sender = _full(stack)

    async def main() -> Used:
        await asyncio.sleep(0)
        meter = Meter()
        with anyio.move_on_after(IDLE):
            await sender.asend(4)
        return meter.read()

    return asyncio.run(main())


# All at once


def _run_scenario(name: str) -> Used:
    with contextlib.ExitStack() as stack:
        return SCENARIOS[name](stack)


@pytest.fixture(scope="module")
def used() -> dict[str, Used | BaseException]:
    """What each scenario used, or its failure."""
    outcomes: dict[str, Used | BaseException] = {}
    with contextlib.ExitStack() as stack:
        children = {name: stack.enter_context(Process(_run_scenario, name, checked=False)) for name in SCENARIOS}
        for name, child in children.items():
            try:
                outcomes[name] = child.result()
            except BaseException as error:
                outcomes[name] = error
    return outcomes


@pytest.mark.parametrize("name", SCENARIOS)
def test_waiting_uses_no_processor(name: str, used: dict[str, Used | BaseException]) -> None:
    """Broken by spinning that does not stop, and by a descriptor that stays ready for what nobody takes off it."""
    outcome = used[name]
    if isinstance(outcome, BaseException):
        raise outcome
    assert outcome.processor < PROCESSOR, outcome
    assert outcome.switches < SWITCHES, outcome


def _spin(_: contextlib.ExitStack) -> Used:
    sender, receiver = ipc.channel(int)

    def wait() -> None:
        until = time.monotonic() + 0.3
        while time.monotonic() < until:
            os.sched_yield()
            receiver.poll(0.0005)

    with sender, receiver:
        return measure(wait)


def test_looking_around_is_noticed() -> None:
    """Broken by a bound that allows what it should not."""
    with contextlib.ExitStack() as stack:
        found = _spin(stack)
    assert found.switches >= SWITCHES
