"""Ctrl-C in every wait: KeyboardInterrupt, and nothing is lost.

Each test runs in a child, so that an interrupt at the wrong moment fails the test and not the run.
"""

from __future__ import annotations

import itertools
import operator
import os
import random
import signal
import threading
import time
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


def goes_on(wait: Wait) -> None:
    """One more wait gets what is waited for."""
    wait.release()
    assert wait.wait() == wait.expected
    wait.check()


def interrupt_twice_and_go_on(kind: type[Wait]) -> None:
    """Two interrupted waits, and a third that gets what is waited for."""
    # A shell starts what is to run in the background with Ctrl-C ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with kind() as wait:
        for _ in range(2):
            with once_main_thread_waits(press_ctrl_c), pytest.raises(KeyboardInterrupt):
                wait.wait()
        goes_on(wait)


@pytest.mark.parametrize("kind", waits.ALL, ids=waits.name_of)
def test_ctrl_c_ends_the_wait_and_loses_nothing(kind: type[Wait]) -> None:
    run("fork", interrupt_twice_and_go_on, kind)


class AlarmedError(Exception):
    """What the handler below raises."""


def raise_alarmed(number: int, frame: object) -> None:
    signal.setitimer(signal.ITIMER_REAL, 0)
    raise AlarmedError


def raise_in_a_handler_and_go_on(kind: type[Wait]) -> None:
    """A wait that a handler ends by raising, and a second one that gets what is waited for."""
    signal.signal(signal.SIGUSR1, raise_alarmed)
    with kind() as wait:
        with (
            once_main_thread_waits(lambda: os.kill(os.getpid(), signal.SIGUSR1)),
            pytest.raises(BaseException) as caught,
        ):
            wait.wait()
        assert _contains(caught.value, AlarmedError), repr(caught.value)
        goes_on(wait)


def _contains(error: BaseException, kind: type[BaseException]) -> bool:
    """Event loops put what handlers raise into groups and causes."""
    inner = [*getattr(error, "exceptions", ()), error.__cause__, error.__context__]
    return isinstance(error, kind) or any(each is not None and _contains(each, kind) for each in inner)


@pytest.mark.parametrize("kind", waits.BLOCKING, ids=waits.name_of)
def test_a_handler_that_raises_ends_the_wait_and_loses_nothing(kind: type[Wait]) -> None:
    run("fork", raise_in_a_handler_and_go_on, kind)


PRESSES = 60


def through_a_storm(step: Callable[[], object], finished: Callable[[], bool], enough: threading.Event) -> None:
    """``step`` again and again, with Ctrl-C at random moments; after many of them ``enough`` is set."""
    chance = random.Random(1)
    over = threading.Event()
    main = threading.main_thread().ident
    assert main is not None

    def rage() -> None:
        for press in itertools.count():
            if over.wait(chance.uniform(0, 0.001)):
                return
            signal.pthread_kill(main, signal.SIGINT)
            if press == PRESSES:
                enough.set()

    armed = False

    def interrupt(number: int, frame: object) -> None:
        nonlocal armed
        if armed:  # otherwise it comes between two tries, and would end the test
            armed = False
            raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupt)
    thread = threading.Thread(target=rage)
    thread.start()

    def steps() -> None:
        nonlocal armed
        armed = True
        while not finished():
            step()
        armed = False

    while True:
        # A call, because not every instruction of a loop in a try block is guarded by that in all versions of Python.
        try:
            steps()
            break
        except KeyboardInterrupt:
            pass
    over.set()
    thread.join()


END = -1


def send_until(enough: threading.Event, sender: ipc.Sender[int], sent: list[int]) -> None:
    """Numbers from 0 on; the end of them is -1."""
    for number in itertools.count():
        if enough.is_set():
            break
        sender.send(number)
        sent.append(number)
        if number % 50 == 0:
            time.sleep(0.0001)  # now and then the receiver has to wait
    sender.send(END)
    sent.append(END)


def receive_through_a_storm() -> None:
    """Each message is received once."""
    sender, receiver = ipc.channel(int)
    sent: list[int] = []
    came: list[int] = []
    enough = threading.Event()
    thread = threading.Thread(target=send_until, args=(enough, sender, sent))
    with sender, receiver:
        thread.start()
        # In C from the call to the list: an interrupt between the two would be this test's loss.
        through_a_storm(
            lambda: came.extend(map(receiver.recv, itertools.repeat(20, 1))),
            lambda: came[-1:] == [END],
            enough,
        )
        thread.join()
    assert came == sent


def receive_many_through_a_storm() -> None:
    """Each message is in one batch."""
    sender, receiver = ipc.channel(int)
    sent: list[int] = []
    batches: list[list[int]] = []
    enough = threading.Event()
    thread = threading.Thread(target=send_until, args=(enough, sender, sent))
    with sender, receiver:
        thread.start()
        through_a_storm(
            lambda: batches.extend(map(receiver.recv_many, itertools.repeat(100, 1))),
            lambda: bool(batches) and batches[-1][-1:] == [END],
            enough,
        )
        thread.join()
    assert [number for batch in batches for number in batch] == sent


def select_through_a_storm() -> None:
    """Each event is returned once."""
    sender, receiver = ipc.channel(int)
    sent: list[int] = []
    batches: list[list[Any]] = []
    enough = threading.Event()
    thread = threading.Thread(target=send_until, args=(enough, sender, sent))
    with sender, ipc.ReceiverSet[str]() as receivers:
        receivers.add(receiver, "key")
        thread.start()

        def nothing_is_left() -> bool:
            if not enough.is_set() or thread.is_alive():
                return False
            batches.append(receivers.try_select())
            return batches[-1] == []

        through_a_storm(lambda: batches.append(receivers.select(20)), nothing_is_left, enough)
        thread.join()
    numbers = [event.message for batch in batches for event in batch]
    # An interrupt between the return of `select` and the list is this test's own loss, so a few may be missing.
    assert numbers == sorted(set(numbers), key=sent.index), "in order, and none twice"
    assert len(numbers) > len(sent) - 2 * PRESSES - 2


def send_through_a_storm() -> None:
    """A send that was interrupted has sent nothing."""
    sender, receiver = ipc.channel(int)
    came: list[int] = []
    sent: list[None] = []
    enough = threading.Event()
    thread = threading.Thread(target=lambda: came.extend(receiver))
    with receiver:
        thread.start()
        with sender:
            through_a_storm(
                # The length of the list is the next number, and both are counted in C.
                lambda: sent.extend(map(sender.send, itertools.islice(itertools.count(len(sent)), 1))),
                enough.is_set,
                enough,
            )
        thread.join()
    assert came == list(range(len(sent)))


@pytest.mark.parametrize(
    "storm",
    [receive_through_a_storm, receive_many_through_a_storm, select_through_a_storm, send_through_a_storm],
    ids=lambda storm: storm.__name__,
)
def test_a_storm_of_ctrl_c_loses_and_repeats_nothing(storm: Callable[[], None]) -> None:
    run("fork", storm)


def interrupt_send_many(capacity: int | None) -> None:
    """Its exception says how many went."""
    sender, receiver = ipc.channel(int, capacity=capacity)
    # By the clock: nothing of this test runs while numbers without end are made and sent in C.
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    with sender, receiver:
        with pytest.raises(KeyboardInterrupt) as caught:
            signal.setitimer(signal.ITIMER_REAL, 0.2)
            sender.send_many(itertools.count())
        went = caught.value.sent  # type: ignore[attr-defined]
        assert went == capacity if capacity else went > 0
        sender.close()
        assert all(map(operator.eq, receiver, itertools.count()))
        assert receiver.statistics().messages == went


@pytest.mark.parametrize("capacity", [None, 20])
def test_an_interrupted_send_many_says_how_many_went(capacity: int | None) -> None:
    """Also one that never has to wait."""
    run("fork", interrupt_send_many, capacity)


def alarm_soon(attempt: int, again: float = 0) -> None:
    """At another moment each time; ``again`` and again, after so many seconds, until it is heeded."""
    signal.setitimer(signal.ITIMER_REAL, (10 + attempt % 15 * 10) * 1e-6, again)


def alarm_as_waits_begin(kind: type[Wait]) -> None:
    signal.signal(signal.SIGALRM, raise_alarmed)
    # One that waits in a lock of Python's own, which may miss a signal in the very moment before it sleeps.
    again = 0.01 if kind is waits.Shutdown else 0
    with kind() as wait:
        for attempt in range(150):
            with pytest.raises(AlarmedError):
                alarm_soon(attempt, again)
                wait.wait()
        goes_on(wait)


@pytest.mark.parametrize("kind", waits.BLOCKING, ids=waits.name_of)
def test_a_signal_at_the_beginning_of_a_wait_ends_it(kind: type[Wait]) -> None:
    """Noted while nobody sleeps whom it could wake."""
    run("fork", alarm_as_waits_begin, kind)


def alarm_as_looks_begin(in_a_set: bool) -> None:
    """An alarm soon after the beginning of each wait: while it looks for news, is about to sleep, or sleeps."""
    ask, questions = ipc.bytes_channel()
    answers, receiver = ipc.bytes_channel()

    def answer() -> None:
        with questions, answers:
            for message in questions:
                answers.send(message)

    answering = threading.Thread(target=answer)
    answering.start()
    signal.signal(signal.SIGALRM, raise_alarmed)
    with ask, receiver, ipc.ReceiverSet() as receivers:
        wait: Callable[[float], object] = receiver.recv
        if in_a_set:
            receivers.add(receiver)
            wait = receivers.select
        for attempt in range(200):
            # Short waits, so that the next one looks for long.
            for _ in range(3):
                ask.send(b"")
                wait(20)
            with pytest.raises(AlarmedError):
                alarm_soon(attempt)
                wait(20)
    answering.join()


@pytest.mark.parametrize("in_a_set", [False, True], ids=["recv", "select"])
def test_a_signal_while_a_wait_looks_for_news_ends_it(in_a_set: bool) -> None:
    run("fork", alarm_as_looks_begin, in_a_set)
