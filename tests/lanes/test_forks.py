"""A fork at any moment harms neither side: what was busy stays whole, what was inherited can be used, or dropped."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import platform
import random
import resource
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable
from typing import Any, Final

import pytest

import ipc_channel as ipc
from tests.lanes import crowds
from tests.lanes.processes import TIMEOUT, Process, readable, start_as_child
from tests.lanes.tally import Tally
from tests.lanes.traffic import Ledger, Note, check, note, random_size, send_with_handles
from tests.support.snippets import run_snippet
from tests.support.start_methods import run

# A thread of another test may be on its way out.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")


# While threads are inside send and recv


def _use_everything(source: int, sender: ipc.Sender[Note]) -> None:
    """What a child does with what it inherited and with what is new."""
    for number in range(30):
        send_with_handles(sender, note(source, number, 70_000 if number == 20 else 64), number % 10 == 0)
    own, own_receiver = ipc.channel(Note)
    ledger = Ledger()
    with own, own_receiver:
        for number in range(150):
            own.send(note(0, number, random_size(random.Random(number))))
            ledger.enter(own_receiver.recv(TIMEOUT))
    sender.close()


@pytest.mark.parametrize("in_main", [True, False], ids=["fork in the main thread", "fork in a thread"])
@pytest.mark.parametrize("kind", ["small", "every kind"])
def test_a_fork_while_threads_send_and_receive(kind: str, in_main: bool) -> None:
    """Broken by a lock that is held in the child for ever, and by two processes that write into one ring."""
    forks = 12
    sender, receiver = ipc.channel(Note)
    stop = threading.Event()
    counts = [0, 0, 0]
    ledger = Ledger()
    errors: list[BaseException] = []

    def send(own: int) -> None:
        chance = random.Random(own)
        try:
            while not stop.is_set():
                files = chance.random() < 0.02 if kind != "small" else 0
                size = random_size(chance) if kind != "small" else 64
                send_with_handles(sender, note(own, counts[own], size), files)
                counts[own] += 1
                while counts[own] - ledger.next[own] > 2000 and not stop.is_set():
                    time.sleep(0)  # others need the interpreter
        except BaseException as error:
            errors.append(error)

    def receive() -> None:
        try:
            ledger.enter_all(receiver)
        except BaseException as error:
            errors.append(error)

    def fork() -> None:
        try:
            for number in range(forks):
                with Process(_use_everything, 100 + number, sender, checked=False) as child:
                    child.result()
        except BaseException as error:
            errors.append(error)
        stop.set()

    threads = [threading.Thread(target=send, args=[own]) for own in range(3)]
    reader = threading.Thread(target=receive)
    with receiver:
        for thread in (*threads, reader):
            thread.start()
        if in_main:
            fork()
        else:
            forker = threading.Thread(target=fork)
            forker.start()
            forker.join()
        for thread in threads:
            thread.join()
        sender.close()
        reader.join()
    assert not errors
    assert [ledger.next[own] for own in range(3)] == counts
    assert [ledger.next[100 + number] for number in range(forks)] == [30] * forks


def test_a_fork_while_a_thread_sleeps_in_recv() -> None:
    """Broken by a child that wakes, or takes from, what its parent sleeps on."""
    sender, receiver = ipc.channel(Note)
    other_sender, other = ipc.channel(Note)
    came: list[Note] = []
    with receiver, sender, other, other_sender:
        thread = threading.Thread(target=lambda: came.extend(receiver.recv(TIMEOUT) for _ in range(10)))
        thread.start()
        for number in range(10):
            with Process(_use_everything, 1, other_sender, checked=False) as child:
                child.result()
            for _ in range(30):
                check(other.recv(TIMEOUT))
            sender.send(note(0, number))
        thread.join()
    Ledger().enter_all(came)


# What is inherited, and dropped


def _drop_by_collection(ends: list[Any]) -> None:
    warnings.simplefilter("ignore", ResourceWarning)
    # A cycle, so that it is the collector that finds them.
    ends.append(ends)
    del ends
    gc.unfreeze()
    gc.collect()


def _drop_by_close(ends: list[Any]) -> None:
    for end in ends:
        end.close()


def _drop_by_close_inherited(ends: list[Any]) -> None:
    ipc.close_inherited()


def _drop_by_exit(ends: list[Any]) -> None:
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    os._exit(0)


def _drop_by_kill(ends: list[Any]) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


DROPS: Final = {
    "collected": _drop_by_collection,
    "closed": _drop_by_close,
    "close_inherited": _drop_by_close_inherited,
    "_exit": _drop_by_exit,
    "killed": _drop_by_kill,
}


@pytest.mark.parametrize("how", DROPS)
def test_what_a_child_does_with_inherited_ends_is_nothing_to_its_parent(how: str) -> None:
    """Broken by a child that marks, frees or unregisters what it has in common with its parent."""
    sender, receiver = ipc.channel(Note)
    set_sender, set_receiver = ipc.channel(Note)
    ledger, of_the_set = Ledger(), Ledger()
    with contextlib.ExitStack() as stack:
        for end in (sender, receiver, set_sender):
            stack.enter_context(end)
        receivers = stack.enter_context(ipc.ReceiverSet[int]())
        receivers.add(set_receiver)
        remote = Tally()
        peer = stack.enter_context(Process(_send_when_told, 5, sender, remote, 7 * 40, checked=False))
        number = receiver.fileno()
        for round_number in range(7):
            # Busy, with messages under way, some taken in and not delivered.
            for own in range(40):
                sender.send(note(0, round_number * 40 + own, 70_000 if own == 7 else 64))
                set_sender.send(note(0, round_number * 40 + own))
                remote[0] = round_number * 40 + own + 1
            ledger.enter(receiver.recv(TIMEOUT))
            with contextlib.suppress(ipc.Empty):
                ledger.enter(receiver.try_recv())
            child = os.fork()
            if child == 0:
                try:
                    start_as_child()
                    DROPS[how]([sender, receiver, set_sender, receivers])
                finally:
                    os._exit(0)
            os.waitpid(child, 0)
            assert readable(number, TIMEOUT)
            while ledger.next[0] < (round_number + 1) * 40 or ledger.next[5] < (round_number + 1) * 40:
                ledger.enter(receiver.recv(TIMEOUT))
            while of_the_set.next[0] < (round_number + 1) * 40:
                for event in receivers.select(TIMEOUT):
                    assert isinstance(event, ipc.Received)
                    of_the_set.enter(event.message)
            assert not receiver.poll()
        peer.wait()
        sender.close()
        with pytest.raises(ipc.Disconnected):
            receiver.recv(TIMEOUT)


def _send_when_told(source: int, sender: ipc.Sender[Note], go: Tally, count: int) -> None:
    with sender:
        for number in range(count):
            go.wait(0, number + 1)
            sender.send(note(source, number))


def test_the_end_of_a_stream_waits_for_a_child_that_kept_a_sender() -> None:
    """Broken by a fork after which only the parent's sender counts, or the child's cannot be closed."""
    for busy in (0, 200):
        sender, receiver = ipc.channel(Note)
        go = Tally()
        with receiver, Process(_wait_and_send, sender, go) as child:
            for number in range(busy):
                sender.send(note(0, number))
                receiver.recv(TIMEOUT)
            sender.close()
            with pytest.raises(ipc.RecvTimeout):
                receiver.recv(0.01)
            go[0] = 1
            assert receiver.recv(TIMEOUT) == note(1, 0)
            with pytest.raises(ipc.Disconnected):
                receiver.recv(TIMEOUT)
            child.result()


def _wait_and_send(sender: ipc.Sender[Note], go: Tally) -> None:
    with sender:
        go.wait(0, 1)
        sender.send(note(1, 0))


# Who receives


def _receive_all(receiver: ipc.Receiver[Note], ready: Tally) -> dict[int, int]:
    ledger = Ledger()
    with receiver:
        ledger.enter(receiver.recv(TIMEOUT))
        ready[0] = 1
        ledger.enter_all(receiver)
    return dict(ledger.next)


def test_a_child_that_receives_first_gets_what_busy_senders_had_sent() -> None:
    """Broken by what the parent had prepared for receiving before the fork."""
    sender, receiver = ipc.channel(Note)
    ready = Tally()
    with receiver, sender:
        receiver.fileno()
        for number in range(120):
            sender.send(note(0, number, 70_000 if number % 30 == 0 else 64))
        with Process(_receive_all, receiver, ready) as child:
            ready.wait(0, 1)
            with pytest.raises(ipc.ForkError, match=str(child.pid)):
                receiver.try_recv()
            for number in range(120, 500):
                sender.send(note(0, number))
            sender.close()
            assert child.result() == {0: 500}


def _find_it_taken(receiver: ipc.Receiver[Note]) -> None:
    for attempt in (receiver.try_recv, receiver.recv, receiver.recv_many, receiver.__next__):
        with pytest.raises(ipc.ForkError, match=str(os.getppid())):
            attempt()
    receiver.close()


def test_a_child_does_not_receive_what_its_parent_has_taken_in() -> None:
    """Broken by messages in memory that a fork duplicates."""
    sender, receiver = ipc.channel(Note)
    ledger = Ledger()
    with receiver:
        with sender:
            for number in range(150):
                sender.send(note(0, number))
            ledger.enter(receiver.recv(TIMEOUT))
            with Process(_find_it_taken, receiver) as child:
                child.result()
        ledger.enter_all(receiver)
    assert ledger.next[0] == 150


# Forks that nobody announced


CLONE: Final = {"x86_64": 56, "aarch64": 220}.get(platform.machine())
"""The number of the system call."""


@pytest.mark.skipif(CLONE is None, reason="the number of the clone system call on this machine is not known here")
def test_a_process_that_was_cloned_without_a_word_to_libc() -> None:
    """Broken by trust in pthread_atfork: the clone goes on with its parent's lane."""
    libc = ctypes.CDLL(None, use_errno=True)
    sender, receiver = ipc.channel(Note)
    ledger = Ledger()
    with receiver, sender:
        for number in range(100):
            sender.send(note(0, number))
            ledger.enter(receiver.recv(TIMEOUT))
        for source in range(1, 6):
            child = libc.syscall(CLONE, signal.SIGCHLD, 0, 0, 0, 0)
            if child == 0:
                code = 1
                try:
                    for number in range(100):
                        sender.send(note(source, number))
                    code = 0
                finally:
                    os._exit(code)
            for number in range(100):
                sender.send(note(0, source * 100 + number))
            while ledger.next[source] < 100 or ledger.next[0] < source * 100 + 100:
                ledger.enter(receiver.recv(TIMEOUT))
            assert os.waitpid(child, 0)[1] == 0


# Many


def test_hundreds_of_idle_processes() -> None:
    """Broken by a look at every lane for each message, by their end of the stream, or by a wake-up that many miss."""
    assert run("subprocess", crowds.many_senders, 150, 3, timeout=50) == 150 * 6


def test_hundreds_of_idle_processes_that_were_busy() -> None:
    """Broken as the test above, where each has a lane that went to sleep."""
    assert run("subprocess", crowds.many_senders, 60, 200, timeout=50) == 60 * 400


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("each", [1, 200])
def test_a_thousand_idle_processes(each: int) -> None:
    """Broken as the tests above, by more of them."""
    assert run("subprocess", crowds.many_senders, 1000, each, timeout=500) == 1000 * 2 * each


def test_idle_processes_with_1024_descriptors_and_without_privileges() -> None:
    """Broken by several descriptors for each sender."""
    ran = run_snippet(
        "from tests.lanes import crowds; print(crowds.many_senders(150, 40))",
        as_other_user=True,
        limits={resource.RLIMIT_NOFILE: 1024},
        preload=("tests.lanes.crowds",),
        timeout=50,
    )
    assert int(ran.stdout) == 150 * 80


def test_a_thousand_busy_channels_in_one_process() -> None:
    """Broken by what is searched, or locked, for every channel that there is."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    count = min(1000, hard // 16)
    ran = run_snippet(
        f"from tests.lanes import crowds; print(crowds.many_channels({count}, 30))",
        limits={resource.RLIMIT_NOFILE: hard},
        preload=("tests.lanes.crowds",),
        timeout=50,
    )
    assert int(ran.stdout) == count * 30


EXITS: Final[dict[str, Callable[[], object]]] = {
    "return": lambda: None,
    "exit": lambda: sys.exit(0),
}


@pytest.mark.parametrize("how", EXITS)
def test_a_child_of_multiprocessing_that_ends_its_interpreter(how: str) -> None:
    """Broken by what is closed when an interpreter ends, in a process that only inherited it."""
    import multiprocessing

    sender, receiver = ipc.channel(Note)
    context = multiprocessing.get_context("fork")
    ledger = Ledger()
    with receiver, sender:
        for round_number in range(5):
            for number in range(50):
                sender.send(note(0, round_number * 50 + number))
            ledger.enter(receiver.recv(TIMEOUT))
            process = context.Process(target=EXITS[how])
            process.start()
            process.join(TIMEOUT)
            assert process.exitcode == 0
            process.close()
            while ledger.next[0] < (round_number + 1) * 50:
                ledger.enter(receiver.recv(TIMEOUT))
