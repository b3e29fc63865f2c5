"""kill -9 of receivers, while they receive and while they move: their senders are told, and never wait for ever."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
from typing import Any

import pytest

import ipc_channel as ipc
from tests.lanes import kills
from tests.lanes.processes import TIMEOUT, Process
from tests.lanes.sleepers import when_asleep
from tests.lanes.tally import Tally
from tests.support.start_methods import run

# A thread of another test may be on its way out.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")


@pytest.mark.parametrize("what", kills.SENDS)
def test_killed_while_receiving(what: str) -> None:
    """Broken by a sender that looks for its receiver's death only when it waits, or never."""
    rounds = 3 if what in kills.SLOW else 10
    found = run("subprocess", kills.kill_receivers, what, rounds, 1, timeout=45)
    assert found["messages"]


@pytest.mark.parametrize("what", kills.SENDS)
def test_killed_while_a_bounded_sender_waits(what: str) -> None:
    """Broken by a wait for room that only a living receiver ends."""
    rounds = 3 if what in kills.SLOW else 10
    run("subprocess", kills.kill_receivers, what, rounds, 2, 5, timeout=45)


def test_killed_while_the_receiver_moves_through_it() -> None:
    """Broken by a receiver that is in two places, or in none while its sender believes in it."""
    found = run("subprocess", kills.kill_movers, 60, 1, timeout=45)
    assert found["gone"]


def test_killed_at_every_system_call_of_receiving_and_moving() -> None:
    """Broken by any two steps of a move that must not be parted."""
    found = run("subprocess", kills.kill_movers_at_system_calls, timeout=45)
    assert found["arrived"]
    assert found["kills"] > 3


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("capacity", [None, 1, 64], ids=["unbounded", "capacity 1", "capacity 64"])
@pytest.mark.parametrize("what", kills.SENDS)
def test_killed_hundreds_of_times(what: str, capacity: int | None) -> None:
    """Broken as the tests above, by moments that are rarer."""
    rounds = 40 if what in kills.SLOW else 300
    run("subprocess", kills.kill_receivers, what, rounds, 5, capacity, timeout=1700)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_two_thousand_times_while_the_receiver_moves_through_it() -> None:
    """Broken as the test above, by moments that are rarer."""
    found = run("subprocess", kills.kill_movers, 2000, 6, timeout=1700)
    assert found["gone"]
    assert found["arrived"]


# Bounded senders that wait


def _hold(receiver: ipc.Receiver[int], ready: Tally) -> None:
    assert receiver.recv(TIMEOUT) == 0
    ready[0] = 1
    threading.Event().wait()


@contextlib.contextmanager
def full_channel() -> Any:
    """A bounded channel, full, whose receiver is in a process that does nothing."""
    sender, receiver = ipc.channel(int, capacity=3)
    ready = Tally()
    with sender, Process(_hold, receiver, ready, checked=False) as child:
        receiver.close()
        sender.send(0)
        ready.wait(0, 1)
        for number in range(3):
            sender.send(number, timeout=TIMEOUT)
        with pytest.raises(ipc.Full):
            sender.try_send(3)
        yield sender, child


def test_a_waiting_send_ends_when_the_receiver_is_killed() -> None:
    """Broken by a sleep that the hang-up of the receiver's side does not end."""
    with full_channel() as (sender, child):
        killer = when_asleep(threading.get_native_id(), child.kill)
        with pytest.raises(ipc.ReceiverGone):
            sender.send(4)
        killer.join()


def test_a_waiting_send_with_a_timeout_ends_when_the_receiver_is_killed() -> None:
    """Broken as the test above, where the wait is another one."""
    with full_channel() as (sender, child):
        killer = when_asleep(threading.get_native_id(), child.kill)
        with pytest.raises(ipc.ReceiverGone):
            sender.send(4, timeout=TIMEOUT)
        killer.join()


def test_a_waiting_asend_ends_when_the_receiver_is_killed() -> None:
    """Broken by an event loop that watches for room alone."""

    async def main(sender: ipc.Sender[int], child: Process[None]) -> None:
        task = asyncio.create_task(sender.asend(4))
        await asyncio.sleep(0.01)
        assert not task.done()
        child.kill()
        with pytest.raises(ipc.ReceiverGone):
            await task

    with full_channel() as (sender, child):
        asyncio.run(main(sender, child))


def test_every_waiting_thread_is_told_when_the_receiver_is_killed() -> None:
    """Broken by one thread that takes the news and keeps it."""
    outcomes: list[type[BaseException] | None] = []

    def wait(sender: ipc.Sender[int], timeout: float | None) -> None:
        try:
            sender.send(5, timeout)
            outcomes.append(None)
        except BaseException as error:
            outcomes.append(type(error))

    with full_channel() as (sender, child):
        timeouts = [None, TIMEOUT, None, TIMEOUT, None, None]
        threads = [threading.Thread(target=wait, args=(sender, timeout)) for timeout in timeouts]
        for thread in threads:
            thread.start()
        killer = when_asleep(threads[-1].native_id or 0, child.kill)
        for thread in (*threads, killer):
            thread.join()
    assert outcomes == [ipc.ReceiverGone] * len(timeouts)


def test_a_receiver_that_is_stopped_is_waited_for() -> None:
    """Broken by a sender that takes silence for death."""
    with full_channel() as (sender, child):
        child.kill(signal.SIGSTOP)
        with pytest.raises(ipc.SendTimeout):
            sender.send(4, timeout=0.05)
        child.kill()
        with pytest.raises(ipc.ReceiverGone):
            sender.send(4)
