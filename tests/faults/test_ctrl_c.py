"""Ctrl-C in every wait: KeyboardInterrupt, and nothing is lost."""

from __future__ import annotations

import itertools
import os
import random
import signal
import threading
from typing import Any

import pytest

import ipc_channel as ipc
from tests.faults import waits
from tests.faults.waits import Wait, once_main_thread_waits


def press_ctrl_c() -> None:
    """To the process, as a terminal does."""
    os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("kind", waits.ALL, ids=waits.name_of)
def test_ctrl_c_ends_the_wait_and_loses_nothing(kind: type[Wait]) -> None:
    with kind() as wait:
        for _ in range(2):
            with once_main_thread_waits(press_ctrl_c), pytest.raises(KeyboardInterrupt):
                wait.wait()
        wait.release()
        assert wait.wait() == wait.expected
        wait.check()


@pytest.mark.parametrize("kind", waits.ALL, ids=waits.name_of)
def test_a_handler_that_raises_ends_the_wait_too(kind: type[Wait]) -> None:
    class Alarmed(Exception):
        pass

    def raise_alarmed(number: int, frame: object) -> None:
        raise Alarmed

    before = signal.signal(signal.SIGUSR1, raise_alarmed)
    try:
        with kind() as wait:
            with once_main_thread_waits(lambda: os.kill(os.getpid(), signal.SIGUSR1)):
                try:
                    wait.wait()
                except Alarmed:
                    pass
                except BaseException as error:
                    assert _contains(error, Alarmed), repr(error)
                else:
                    raise AssertionError("the wait ended by itself")
            wait.release()
            assert wait.wait() == wait.expected
            wait.check()
    finally:
        signal.signal(signal.SIGUSR1, before)


def _contains(error: BaseException, kind: type[BaseException]) -> bool:
    """Event loops put exceptions of handlers into groups or causes."""
    inner = [*getattr(error, "exceptions", ()), error.__cause__, error.__context__]
    return isinstance(error, kind) or any(each is not None and _contains(each, kind) for each in inner)


class Storm:
    """Presses Ctrl-C again and again while the main thread is inside a block that counts the interrupts."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._rage)
        self.presses = 0

    def _rage(self) -> None:
        main = threading.main_thread().ident
        assert main is not None
        while not self._over.wait(self._chance.uniform(0, 0.002)):
            signal.pthread_kill(main, signal.SIGINT)
            self.presses += 1

    def start(self) -> None:
        self._thread.start()

    def end(self) -> None:
        """Let the last interrupt come."""
        while True:
            try:
                self._over.set()
                self._thread.join()
                threading.Event().wait(0.01)
                return
            except KeyboardInterrupt:
                continue


def collect_through_a_storm(take: Any, count: int) -> list[Any]:
    """``take`` until there are so many, with Ctrl-C all the time."""
    came: list[Any] = []
    storm = Storm(count)
    try:
        storm.start()
        while len(came) < count:
            try:
                # In C from the call to the list: an interrupt between the two would be the test's loss.
                came.extend(map(take, itertools.repeat(20, count - len(came))))
            except KeyboardInterrupt:
                pass
    finally:
        storm.end()
    assert storm.presses
    return came


MANY = 3000


def test_a_storm_of_ctrl_c_loses_and_repeats_no_message_of_recv() -> None:
    sender, receiver = ipc.channel(int)
    thread = threading.Thread(target=sender.send_many, args=(range(MANY),))
    with sender, receiver:
        thread.start()
        assert collect_through_a_storm(receiver.recv, MANY) == list(range(MANY))
        thread.join()


def test_a_storm_of_ctrl_c_loses_and_repeats_no_message_of_recv_many() -> None:
    sender, receiver = ipc.channel(int)

    def send_slowly() -> None:
        for number in range(MANY // 3):
            sender.send(number)

    thread = threading.Thread(target=send_slowly)
    batches: list[list[int]] = []
    storm = Storm(2)
    with sender, receiver:
        thread.start()
        try:
            storm.start()
            while sum(map(len, batches)) < MANY // 3:
                try:
                    batches.extend(map(receiver.recv_many, itertools.repeat(5, 1)))
                except KeyboardInterrupt:
                    pass
        finally:
            storm.end()
        thread.join()
    assert [number for batch in batches for number in batch] == list(range(MANY // 3))


def test_a_storm_of_ctrl_c_loses_and_repeats_no_message_of_send() -> None:
    sender, receiver = ipc.channel(int)
    came: list[int] = []
    sent: list[int] = []
    thread = threading.Thread(target=lambda: came.extend(receiver))
    storm = Storm(3)
    with receiver:
        thread.start()
        with sender:
            try:
                storm.start()
                numbers = iter(range(MANY))
                while len(sent) < MANY:
                    number = len(sent)
                    try:
                        # What the length of `sent` says is sent; an interrupted send has sent nothing.
                        sent.extend(itertools.starmap(_returning(sender.send, number), [(number,)]))
                    except KeyboardInterrupt:
                        pass
                del numbers
            finally:
                storm.end()
        thread.join()
    assert came == list(range(MANY))


def _returning(function: Any, value: int) -> Any:
    return function


def test_send_many_interrupted_says_how_many_went() -> None:
    sender, receiver = ipc.channel(int)
    with sender, receiver:
        with once_main_thread_waits(press_ctrl_c), pytest.raises(KeyboardInterrupt) as caught:
            sender.send_many(itertools.count())
        went = caught.value.sent  # type: ignore[attr-defined]
        assert went > 0
        assert receiver.recv_many() == list(range(went))
        with pytest.raises(ipc.Empty):
            receiver.try_recv()
