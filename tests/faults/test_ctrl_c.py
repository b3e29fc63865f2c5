"""Ctrl-C in every wait: KeyboardInterrupt, and nothing is lost.

Each test runs in a child, so that an interrupt at the wrong moment fails the test and not the run.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import signal
import threading
from collections.abc import Callable
from typing import Any

import pytest

import ipc_channel as ipc
from tests.faults import waits
from tests.faults.waits import Wait, once_main_thread_waits
from tests.support.start_methods import run


def press_ctrl_c() -> None:
    """To the process, as a terminal does."""
    os.kill(os.getpid(), signal.SIGINT)


def interrupt_twice_and_go_on(kind: type[Wait]) -> None:
    """Two interrupted waits, and a third that gets what is waited for."""
    with kind() as wait:
        for _ in range(2):
            with once_main_thread_waits(press_ctrl_c), pytest.raises(KeyboardInterrupt):
                wait.wait()
        wait.release()
        assert wait.wait() == wait.expected
        wait.check()


@pytest.mark.parametrize("kind", waits.ALL, ids=waits.name_of)
def test_ctrl_c_ends_the_wait_and_loses_nothing(kind: type[Wait]) -> None:
    run("fork", interrupt_twice_and_go_on, kind)


class AlarmedError(Exception):
    """What the handler below raises."""


def raise_in_a_handler_and_go_on(kind: type[Wait]) -> None:
    """A wait that a handler ends by raising, and a second one that gets what is waited for."""

    def raise_alarmed(number: int, frame: object) -> None:
        raise AlarmedError

    signal.signal(signal.SIGUSR1, raise_alarmed)
    with kind() as wait:
        with (
            once_main_thread_waits(lambda: os.kill(os.getpid(), signal.SIGUSR1)),
            pytest.raises(BaseException) as caught,
        ):
            wait.wait()
        assert _contains(caught.value, AlarmedError), repr(caught.value)
        wait.release()
        assert wait.wait() == wait.expected
        wait.check()


def _contains(error: BaseException, kind: type[BaseException]) -> bool:
    """Event loops put what handlers raise into groups and causes."""
    inner = [*getattr(error, "exceptions", ()), error.__cause__, error.__context__]
    return isinstance(error, kind) or any(each is not None and _contains(each, kind) for each in inner)


@pytest.mark.parametrize("kind", waits.BLOCKING, ids=waits.name_of)
def test_a_handler_that_raises_ends_the_wait_and_loses_nothing(kind: type[Wait]) -> None:
    run("fork", raise_in_a_handler_and_go_on, kind)


def through_a_storm(step: Callable[[], object], finished: Callable[[], bool]) -> None:
    """``step`` again and again, with Ctrl-C at random moments all the time."""
    chance = random.Random(1)
    over = threading.Event()
    main = threading.main_thread().ident
    assert main is not None
    presses = 0

    def rage() -> None:
        nonlocal presses
        while not over.wait(chance.uniform(0, 0.002)):
            signal.pthread_kill(main, signal.SIGINT)
            presses += 1

    thread = threading.Thread(target=rage)
    thread.start()
    while not over.is_set():
        with contextlib.suppress(KeyboardInterrupt):
            while not finished():
                step()
            over.set()
    while thread.is_alive():
        with contextlib.suppress(KeyboardInterrupt):
            thread.join()
    with contextlib.suppress(KeyboardInterrupt):
        threading.Event().wait(0.01)
    assert presses


MANY = 2000


def receive_through_a_storm() -> None:
    """Each message is received once."""
    sender, receiver = ipc.channel(int)
    thread = threading.Thread(target=sender.send_many, args=(range(MANY),))
    came: list[int] = []
    with sender, receiver:
        thread.start()
        # In C from the call to the list: an interrupt between the two would be this test's loss.
        through_a_storm(
            lambda: came.extend(map(receiver.recv, itertools.repeat(20, MANY - len(came)))),
            lambda: len(came) >= MANY,
        )
        thread.join()
    assert came == list(range(MANY))


def receive_many_through_a_storm() -> None:
    """Each message is in one batch."""
    sender, receiver = ipc.channel(int)
    batches: list[list[int]] = []

    def send_all() -> None:
        for number in range(MANY):
            sender.send(number)

    thread = threading.Thread(target=send_all)
    with sender, receiver:
        thread.start()
        through_a_storm(
            lambda: batches.extend(map(receiver.recv_many, itertools.repeat(5, 1))),
            lambda: sum(map(len, batches)) >= MANY,
        )
        thread.join()
    assert [number for batch in batches for number in batch] == list(range(MANY))


def select_through_a_storm() -> None:
    """Each event is returned once."""
    sender, receiver = ipc.channel(int)
    batches: list[list[Any]] = []
    thread = threading.Thread(target=lambda: (sender.send_many(range(MANY)), sender.close()))
    with ipc.ReceiverSet[str]() as receivers:
        receivers.add(receiver, "key")
        thread.start()
        through_a_storm(
            lambda: batches.append(receivers.select(20)),
            # An interrupt between the two calls above loses a batch of the test's own, so the end decides.
            lambda: len(receivers) == 0,
        )
        thread.join()
    numbers = [event.message for batch in batches for event in batch if isinstance(event, ipc.Received)]
    assert numbers == sorted(set(numbers)), "in order, and none twice"
    assert len(numbers) > MANY // 2


def send_through_a_storm() -> None:
    """A send that was interrupted has sent nothing."""
    sender, receiver = ipc.channel(int)
    came: list[int] = []
    sent: list[None] = []
    thread = threading.Thread(target=lambda: came.extend(receiver))
    with receiver:
        thread.start()
        with sender:
            through_a_storm(
                # The length of the list is the next number, and both are counted in C.
                lambda: sent.extend(map(sender.send, itertools.islice(itertools.count(len(sent)), 1))),
                lambda: len(sent) >= MANY,
            )
        thread.join()
    assert came == list(range(MANY))


@pytest.mark.parametrize(
    "storm",
    [receive_through_a_storm, receive_many_through_a_storm, select_through_a_storm, send_through_a_storm],
    ids=lambda storm: storm.__name__,
)
def test_a_storm_of_ctrl_c_loses_and_repeats_nothing(storm: Callable[[], None]) -> None:
    run("fork", storm)


def interrupt_send_many() -> None:
    """Its exception says how many went."""
    sender, receiver = ipc.channel(int)
    with sender, receiver:
        with once_main_thread_waits(press_ctrl_c), pytest.raises(KeyboardInterrupt) as caught:
            sender.send_many(itertools.count())
        went = caught.value.sent  # type: ignore[attr-defined]
        assert went > 0
        assert receiver.recv_many() == list(range(went))
        with pytest.raises(ipc.Empty):
            receiver.try_recv()


def test_an_interrupted_send_many_says_how_many_went() -> None:
    run("fork", interrupt_send_many)
