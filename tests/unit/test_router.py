"""A thread that waits on many receivers and calls back."""

from __future__ import annotations

import gc
import logging
import os
import queue
import resource
import threading
import weakref
from typing import Any

import pytest

import ipc_channel as ipc
from tests.support.snippets import run_snippet
from tests.support.start_methods import run

LONG = 20
"""Seconds that nothing here takes."""


class Mailbox(queue.SimpleQueue[Any]):
    """Callable, so that it can be a callback."""

    def __call__(self, *message: Any) -> None:
        self.put(message[0] if message else "closed")

    def take(self) -> Any:
        return self.get(timeout=LONG)


def test_two_callbacks_each_get_their_own() -> None:
    one, one_receiver = ipc.channel(str)
    two, two_receiver = ipc.bytes_channel()
    ones, twos = Mailbox(), Mailbox()
    with ipc.Router() as router, one, two:
        router.add_route(one_receiver, ones)
        router.add_route(two_receiver, twos)
        assert one_receiver.closed
        one.send("a")
        two.send(b"b")
        one.send("c")
        assert (ones.take(), ones.take(), twos.take()) == ("a", "c", b"b")


def test_on_close_comes_once_after_the_last_message() -> None:
    sender, receiver = ipc.channel(int)
    mailbox = Mailbox()
    with ipc.Router() as router:
        router.add_route(receiver, mailbox, on_close=mailbox)
        with sender:
            for number in range(3):
                sender.send(number)
        assert [mailbox.take() for _ in range(4)] == [0, 1, 2, "closed"]
    assert mailbox.empty()


def test_opaque_receivers_give_opaque_messages() -> None:
    sender, receiver = ipc.channel(int)
    mailbox = Mailbox()
    with ipc.Router() as router, sender:
        router.add_route(receiver.to_opaque(), mailbox)
        sender.send(5)
        assert mailbox.take().to(int) == 5


def test_after_shutdown_a_route_is_refused_and_a_second_shutdown_does_nothing() -> None:
    router = ipc.Router()
    sender, receiver = ipc.channel(int)
    router.add_route(receiver, print)
    router.shutdown()
    router.shutdown()
    assert router.closed
    with sender, pytest.raises(ipc.ReceiverGone):
        sender.send(1)
    other, other_receiver = ipc.channel(int)
    with other, other_receiver:
        for add in (
            lambda: router.add_route(other_receiver, print),
            lambda: router.add_one_shot_route(other_receiver, print),
            lambda: router.route_to_queue(other_receiver, queue.Queue()),
            lambda: router.route_to_new_queue(other_receiver),
        ):
            with pytest.raises(ipc.ClosedError, match="shut down"):
                add()
        other.send(1)
        assert other_receiver.recv() == 1, "a refused receiver is untouched"


def test_shutdown_without_any_route() -> None:
    router = ipc.Router()
    router.shutdown()
    assert router.closed


def test_shutdown_from_a_callback() -> None:
    router = ipc.Router()
    sender, receiver = ipc.channel(int)
    done = threading.Event()

    def callback(number: int) -> None:
        router.shutdown()
        done.set()

    with sender:
        router.add_route(receiver, callback)
        sender.send(1)
        assert done.wait(LONG)
    router.shutdown()


def test_shutdown_waits_for_a_running_callback() -> None:
    router = ipc.Router()
    sender, receiver = ipc.channel(int)
    running, go_on, over = threading.Event(), threading.Event(), threading.Event()

    def callback(number: int) -> None:
        running.set()
        go_on.wait(LONG)
        over.set()

    with sender:
        router.add_route(receiver, callback)
        sender.send(1)
        assert running.wait(LONG)
        threading.Timer(0.05, go_on.set).start()
        router.shutdown()
        assert over.is_set()


def test_adding_a_route_never_waits_for_a_running_callback() -> None:
    slow, slow_receiver = ipc.channel(int)
    quick, quick_receiver = ipc.channel(int)
    running, go_on = threading.Event(), threading.Event()
    mailbox = Mailbox()

    def callback(number: int) -> None:
        running.set()
        mailbox(go_on.wait(LONG))

    with ipc.Router() as router, slow, quick:
        router.add_route(slow_receiver, callback)
        slow.send(1)
        assert running.wait(LONG)
        router.add_route(quick_receiver, mailbox)
        quick.send(2)
        assert mailbox.empty(), "the callback still runs, and the route was added all the same"
        go_on.set()
        assert (mailbox.take(), mailbox.take()) == (True, 2)


def test_a_callback_may_add_routes() -> None:
    sender, receiver = ipc.channel(ipc.Receiver[int])
    inner, inner_receiver = ipc.channel(int)
    mailbox = Mailbox()
    with ipc.Router() as router, sender, inner:
        router.add_route(receiver, lambda received: router.add_route(received, mailbox))
        sender.send(inner_receiver)
        inner.send(3)
        assert mailbox.take() == 3


def test_a_one_shot_route_is_called_once_and_a_second_message_is_fine() -> None:
    sender, receiver = ipc.channel(int)
    after, after_receiver = ipc.channel(int)
    calls, mailbox = Mailbox(), Mailbox()
    with ipc.Router() as router, after:
        router.add_one_shot_route(receiver, calls, on_close=calls)
        router.add_route(after_receiver, mailbox)
        with sender:
            sender.send(1)
            assert calls.take() == 1
            for number in range(2, 50):
                sender.send(number)
        after.send(0)
        assert mailbox.take() == 0
    assert calls.empty()


def test_a_one_shot_route_closes_the_handles_of_later_messages() -> None:
    sender, receiver = ipc.channel(ipc.Sender[int])
    calls = Mailbox()
    with ipc.Router() as router, sender:
        router.add_one_shot_route(receiver, calls)
        for position in range(2):
            inner, inner_receiver = ipc.channel(int)
            sender.send(inner)
            if position == 0:
                calls.take().close()
            with inner_receiver, pytest.raises(ipc.Disconnected):
                inner_receiver.recv(LONG)


def test_a_one_shot_route_whose_sender_leaves_without_a_message() -> None:
    sender, receiver = ipc.channel(int)
    mailbox = Mailbox()
    with ipc.Router() as router:
        router.add_one_shot_route(receiver, mailbox, on_close=mailbox)
        sender.close()
        assert mailbox.take() == "closed"


@pytest.mark.parametrize("kind", [queue.Queue, queue.SimpleQueue])
def test_route_to_a_queue_ends_with_end(kind: Any) -> None:
    sender, receiver = ipc.channel(str)
    target: Any = kind()
    with ipc.Router() as router:
        router.route_to_queue(receiver, target)
        with sender:
            sender.send("a")
            sender.send("b")
        assert [target.get(timeout=LONG) for _ in range(3)] == ["a", "b", ipc.END]
    assert target.empty()
    assert repr(ipc.END) == "ipc_channel.END"


def test_route_to_a_new_queue() -> None:
    sender, receiver = ipc.channel(int)
    with ipc.Router() as router, sender:
        target = router.route_to_new_queue(receiver)
        sender.send(1)
        assert target.get(timeout=LONG) == 1


def test_shutdown_ends_queues_too() -> None:
    sender, receiver = ipc.channel(int)
    with ipc.Router() as router, sender:
        target = router.route_to_new_queue(receiver)
        router.shutdown()
        assert target.get(timeout=LONG) is ipc.END


def test_a_bounded_queue_is_refused() -> None:
    sender, receiver = ipc.channel(int)
    with ipc.Router() as router, sender, receiver:
        with pytest.raises(ValueError, match="maxsize"):
            router.route_to_queue(receiver, queue.Queue(maxsize=1))
        assert not receiver.closed


def test_what_a_callback_raises_is_logged_and_the_thread_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    sender, receiver = ipc.channel(int)
    mailbox = Mailbox()

    def callback(number: int) -> None:
        if number == 1:
            raise ZeroDivisionError("in the callback")
        if number == 2:
            raise SystemExit("in the callback")
        mailbox(number)

    with caplog.at_level(logging.ERROR, "ipc_channel.router"), ipc.Router() as router, sender:
        router.add_route(receiver, callback)
        for number in (1, 2, 3):
            sender.send(number)
        assert mailbox.take() == 3
    kinds = [record.exc_info[0] for record in caplog.records if record.exc_info]
    assert kinds == [ZeroDivisionError, SystemExit]


def test_on_error_gets_what_callbacks_and_on_close_raise(caplog: pytest.LogCaptureFixture) -> None:
    sender, receiver = ipc.channel(int)
    errors = Mailbox()

    def fail(*arguments: Any) -> None:
        raise ValueError(arguments)

    with ipc.Router(on_error=errors) as router:
        router.add_route(receiver, fail, fail)
        with sender:
            sender.send(1)
        assert [errors.take().args for _ in range(2)] == [((1,),), ((),)]
    assert not caplog.records


def test_an_on_error_that_raises_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    sender, receiver = ipc.channel(int)
    mailbox = Mailbox()

    def on_error(error: BaseException) -> None:
        raise RuntimeError("in on_error")

    def callback(number: int) -> None:
        mailbox(number)
        raise ValueError

    with ipc.Router(on_error=on_error) as router, sender:
        router.add_route(receiver, callback)
        sender.send(1)
        sender.send(2)
        assert (mailbox.take(), mailbox.take()) == (1, 2)
    assert any("on_error" in record.message for record in caplog.records)


def test_an_undecodable_message_does_not_kill_the_thread() -> None:
    sender, receiver = ipc.channel(list[int])
    errors, mailbox = Mailbox(), Mailbox()
    with ipc.Router(on_error=errors) as router, sender:
        router.add_route(receiver, mailbox)
        sender.send(["not an int"])  # type: ignore[list-item]
        sender.send([1])
        assert isinstance(errors.take(), ipc.DecodeError)
        assert mailbox.take() == [1]


SCARCE_DESCRIPTORS = """
import os, queue, time, ipc_channel as ipc
errors, messages = queue.SimpleQueue(), queue.SimpleQueue()
sender, receiver = ipc.channel(ipc.Fd)
with ipc.Router(on_error=errors.put) as router, sender:
    router.add_route(receiver, messages.put)
    reading, writing = os.pipe()
    hoard = []
    for _ in range(4):
        time.sleep(0.05)  # what the router's thread had opened for a moment, at its first wait, is closed
        try:
            while True:
                hoard.append(os.dup(0))
        except OSError:
            pass
    sender.send(ipc.Fd(writing))
    error = errors.get(timeout=20)
    assert isinstance(error, ipc.TooManyHandles), error
    time.sleep(0.2)  # it is tried again some times
    for number in hoard:
        os.close(number)
    with messages.get(timeout=20) as received:
        os.write(received.fileno(), b"x")
    assert os.read(reading, 1) == b"x"
    assert errors.empty(), "reported once, although it was tried again and again"
"""


AT_EXIT = """
import subprocess, sys, threading, ipc_channel as ipc
flood = '''
import sys, ipc_channel as ipc
[sender] = ipc.inherit(sys.argv[1], ipc.Sender[int])
try:
    while True:
        sender.send(1)
except ipc.ReceiverGone:
    sender.close()
'''
sender, receiver = ipc.channel(int)
some = threading.Event()
ipc.default_router().add_route(receiver, lambda number: some.set())
with ipc.passing(sender) as passing:
    child = subprocess.Popen([sys.executable, "-c", flood, passing.text], pass_fds=passing.fds)
sender.close()
some.wait()
child.returncode = 0  # it ends by itself
"""


def test_exiting_in_the_middle_of_a_flood() -> None:
    for _ in range(5):
        assert run_snippet(AT_EXIT).stderr == ""


def test_a_message_that_met_the_limit_on_files_is_delivered_once_there_is_room() -> None:
    run_snippet(SCARCE_DESCRIPTORS, limits={resource.RLIMIT_NOFILE: 64})


def test_a_callback_is_dropped_when_the_last_clone_of_the_sender_goes() -> None:
    class Callback:
        def __call__(self, message: int) -> None:
            mailbox(message)

    mailbox = Mailbox()
    sender, receiver = ipc.channel(int)
    clone = sender.clone()
    callback = Callback()
    dropped = threading.Event()
    weakref.finalize(callback, dropped.set)
    with ipc.Router() as router:
        router.add_route(receiver, callback)
        del callback
        sender.send(1)
        assert mailbox.take() == 1
        sender.close()
        clone.send(2)
        assert mailbox.take() == 2
        assert not dropped.is_set()
        clone.close()
        assert dropped.wait(LONG)


def test_callbacks_are_dropped_by_a_shutdown() -> None:
    class Callback:
        def __call__(self, message: int) -> None:
            raise AssertionError

    sender, receiver = ipc.channel(int)
    callback = Callback()
    alive = weakref.ref(callback)
    with ipc.Router() as router, sender:
        router.add_route(receiver, callback)
        del callback
        router.shutdown()
        gc.collect()
        assert alive() is None


def test_multiplexing_from_many_threads() -> None:
    def work(sender: ipc.Sender[tuple[int, int]], index: int) -> None:
        with sender:
            for number in range(50):
                sender.send((index, number))

    mailbox = Mailbox()
    with ipc.Router() as router:
        threads = []
        for index in range(10):
            sender, receiver = ipc.channel(tuple[int, int])
            router.add_route(receiver, mailbox)
            threads.append(threading.Thread(target=work, args=[sender, index]))
        for thread in threads:
            thread.start()
        got: dict[int, list[int]] = {index: [] for index in range(10)}
        for _ in range(500):
            index, number = mailbox.take()
            got[index].append(number)
        for thread in threads:
            thread.join()
    assert got == {index: list(range(50)) for index in range(10)}


def test_routes_added_by_many_threads() -> None:
    mailbox = Mailbox()

    def work(index: int) -> None:
        sender, receiver = ipc.channel(int)
        with sender:
            router.add_route(receiver, mailbox)
            sender.send(index)

    with ipc.Router() as router:
        threads = [threading.Thread(target=work, args=[index]) for index in range(20)]
        for thread in threads:
            thread.start()
        assert sorted(mailbox.take() for _ in threads) == list(range(20))
        for thread in threads:
            thread.join()


def test_big_data() -> None:
    sender, receiver = ipc.channel(list[tuple[int, str]])
    data = [(number, str(number)) for number in range(64 * 1024)]
    mailbox = Mailbox()
    with ipc.Router() as router, sender:
        router.add_route(receiver, mailbox)
        sender.send(data)
        assert mailbox.take() == data


def flood(count: int) -> None:
    room = threading.Semaphore(100)
    lock = threading.Lock()
    received = 0

    def callback(number: int) -> None:
        nonlocal received
        with lock:
            received += number

    with ipc.Router() as router:
        for _ in range(count):
            assert room.acquire(timeout=LONG)
            sender, receiver = ipc.channel(int)
            router.add_route(receiver, callback, on_close=room.release)
            with sender:
                sender.send(1)
        for _ in range(100):
            assert room.acquire(timeout=LONG)
        assert received == count


def test_a_flood_of_routes() -> None:
    flood(5_000)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_flood_of_a_million_routes() -> None:
    flood(1_000_000)


def test_the_default_router_is_one_and_the_same() -> None:
    code = """
import queue, ipc_channel as ipc
assert ipc.default_router() is ipc.default_router()
sender, receiver = ipc.channel(int)
numbers = ipc.default_router().route_to_new_queue(receiver)
with sender:
    sender.send(1)
assert [numbers.get(timeout=20), numbers.get(timeout=20)] == [1, ipc.END]
"""
    run_snippet(code)


@pytest.mark.parametrize("blocks", [False, True])
def test_a_router_never_keeps_the_interpreter_from_exiting(blocks: bool) -> None:
    code = """
import sys, threading, ipc_channel as ipc
sender, receiver = ipc.channel(int)
running = threading.Event()
def callback(number):
    running.set()
    if sys.argv[1] == "True":
        threading.Event().wait()
ipc.Router().add_route(receiver, callback)
sender.send(1)
running.wait()
sender.close()
"""
    result = run_snippet(code, str(blocks))
    assert result.stderr == ""


def _use_routers_of_the_parent(answers: ipc.Sender[str]) -> None:
    assert inherited is not None
    sender, receiver = ipc.channel(str)
    mailbox = Mailbox()
    with answers, sender:
        inherited.add_route(receiver, mailbox)
        assert repr(inherited) == "<Router of 1 routes>"
        sender.send("hello from the child")
        answers.send(mailbox.take())
        own, own_receiver = ipc.channel(str)
        own_queue = ipc.default_router().route_to_new_queue(own_receiver)
        with own:
            own.send("default")
        answers.send(str(own_queue.get(timeout=LONG)))
        ipc.default_router().shutdown()
    inherited.shutdown()


inherited: ipc.Router | None = None


def test_in_a_forked_child_routers_start_anew() -> None:
    global inherited
    sender, receiver = ipc.channel(int)
    answers, answers_receiver = ipc.channel(str)
    mailbox = Mailbox()
    with ipc.Router() as inherited, sender, answers_receiver:
        inherited.add_route(receiver, mailbox)
        with answers:
            run("fork", _use_routers_of_the_parent, answers)
        assert sorted(answers_receiver) == ["default", "hello from the child"]
        sender.send(1)
        assert mailbox.take() == 1, "the parent's router went on"
    inherited = None


def test_the_receivers_of_an_inherited_router_do_not_stay_open_in_the_child() -> None:
    sender, receiver = ipc.channel(int)
    reading, writing = os.pipe()
    child_runs, child_says_so = os.pipe()
    with sender:
        router = ipc.Router()
        router.add_route(receiver, print)
        child = os.fork()
        if child == 0:
            os.close(writing)
            os.write(child_says_so, b"!")
            os.read(reading, 1)  # until the parent has tried
            os._exit(0)
        try:
            # What a child does with what it has inherited, it does before its own code runs.
            assert os.read(child_runs, 1) == b"!"
            router.shutdown()
            with pytest.raises(ipc.ReceiverGone):
                for _ in range(1000):
                    sender.send(1)
        finally:
            for fd in (writing, reading, child_runs, child_says_so):
                os.close(fd)
            os.waitpid(child, 0)
