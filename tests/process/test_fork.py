"""What parent and child hold after a fork, and what each may use."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

import ipc_channel as ipc
from tests.support.start_methods import run, start


class Fork:
    """A child that runs ``function`` and exits; killed and reaped at the end of the block."""

    def __init__(self, function: Callable[[], Any]) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads, in newer Pythons
            self.pid = os.fork()
        if self.pid:
            return
        code = 1
        try:
            function()
            gc.collect()
            code = 0
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
        finally:
            os._exit(code)

    def __enter__(self) -> Fork:
        return self

    def __exit__(self, *exc: object) -> None:
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)

    def check(self) -> None:
        """Wait for the end, which must be that of a function that returned."""
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.pid = 0
                assert status == 0
                return
            time.sleep(0.005)
        pytest.fail("the child still runs")


@contextmanager
def channels(count: int) -> Iterator[list[ipc.Channel[int]]]:
    made = [ipc.channel(int) for _ in range(count)]
    try:
        yield made
    finally:
        for sender, receiver in made:
            sender.close()
            receiver.close()


# close_inherited


def test_close_inherited_lets_ends_of_streams_be_seen() -> None:
    with channels(2) as [to_child, from_child]:

        def child() -> None:
            assert ipc.close_inherited(keep=[to_child.receiver, from_child.sender]) >= 2
            assert to_child.sender.closed
            assert from_child.receiver.closed
            assert list(to_child.receiver) == [1, 2]
            from_child.sender.send(3)

        with Fork(child) as fork:
            to_child.sender.send_many([1, 2])
            to_child.sender.close()
            from_child.sender.close()
            assert list(from_child.receiver) == [3]
            fork.check()


def test_close_inherited_counts_what_it_closed() -> None:
    with channels(3) as made:

        def child() -> None:
            first = ipc.close_inherited(keep=[made[0].sender])
            assert first >= 5
            own, own_receiver = ipc.channel(int)
            assert ipc.close_inherited(keep=[made[0].sender]) == 0
            with own, own_receiver:
                own.send(1)
                assert own_receiver.recv() == 1, "what was made here is not inherited"
            assert ipc.close_inherited() == 1
            assert made[0].sender.closed

        with Fork(child) as fork:
            fork.check()
        for sender, receiver in made:
            sender.send(1)
            assert receiver.recv(10) == 1, "the parent's are untouched"


def test_close_inherited_in_a_process_that_was_not_forked() -> None:
    # In a fresh process: this one may be anybody's child.
    assert run("subprocess", _close_own) == (0, False)


def _close_own() -> tuple[int, bool]:
    sender, receiver = ipc.channel(int)
    with sender, receiver:
        return ipc.close_inherited(), sender.closed


def test_close_inherited_closes_and_keeps_sets_and_servers() -> None:
    with channels(4) as made, ipc.ReceiverSet() as kept, ipc.ReceiverSet() as dropped, ipc.Router() as router:
        kept.add(made[0].receiver)
        dropped.add(made[1].receiver)
        router.add_route(made[2].receiver, print)
        with ipc.OneShotServer(int) as server:

            def child() -> None:
                ipc.close_inherited(keep=[kept, server, router, made[3].receiver])
                assert not made[3].receiver.closed
                made[3].receiver.close()
                time.sleep(30)

            with Fork(child) as fork:
                # The child has let the receiver in `dropped` go, as soon as the parent has.
                dropped.close()
                wait_until_gone(made[1].sender)
                router.shutdown()
                wait_until_gone(made[2].sender)
                kept.close()
                for _ in range(10):
                    made[0].sender.send(1)
                os.kill(fork.pid, signal.SIGKILL)
                wait_until_gone(made[0].sender)


def wait_until_gone(sender: ipc.Sender[int]) -> None:
    """Until nobody holds the receiver any more; fewer messages than a socket holds unread."""
    with pytest.raises(ipc.ReceiverGone):
        for _ in range(200):
            sender.send(1)
            time.sleep(0.02)


def test_close_inherited_refuses_what_it_could_not_close() -> None:
    with pytest.raises(TypeError, match="int"):
        ipc.close_inherited(keep=[5])  # type: ignore[list-item]


# Who may use what


def test_a_receiver_belongs_to_the_process_that_receives_first() -> None:
    with channels(2) as [shared, done]:

        def child() -> None:
            done.receiver.recv(30)
            with pytest.raises(ipc.ForkError, match=f"{parent}"):
                shared.receiver.recv(0)
            with pytest.raises(ipc.ForkError):
                shared.receiver.try_recv()
            with pytest.raises(ipc.ForkError):
                next(shared.receiver)

        parent = os.getpid()
        with Fork(child) as fork:
            shared.sender.send_many([1, 2])
            assert shared.receiver.recv() == 1
            done.sender.send(0)
            fork.check()
            assert shared.receiver.recv() == 2, "nothing was split or lost"


def test_the_child_may_be_the_one_that_receives_first() -> None:
    with channels(2) as [shared, done]:

        def child() -> None:
            assert shared.receiver.recv(30) == 1
            done.sender.send(0)
            assert shared.receiver.recv(30) == 2

        with Fork(child) as fork:
            shared.sender.send(1)
            done.receiver.recv(30)
            with pytest.raises(ipc.ForkError, match=f"{fork.pid}"):
                shared.receiver.recv(0)
            shared.sender.send(2)
            fork.check()


def test_senders_may_be_shared() -> None:
    with channels(1) as [shared]:

        def child() -> None:
            shared.sender.send(1)

        with Fork(child) as fork:
            fork.check()
        shared.sender.send(2)
        assert [shared.receiver.recv(), shared.receiver.recv()] == [1, 2]


def test_a_receiver_set_belongs_to_the_process_that_made_it() -> None:
    with channels(2) as [inside, other], ipc.ReceiverSet() as receivers:
        receivers.add(inside.receiver)

        def child() -> None:
            for action in (
                receivers.select,
                receivers.try_select,
                receivers.fileno,
                lambda: receivers.add(other.receiver),
                lambda: receivers.remove(0),
            ):
                with pytest.raises(ipc.ForkError, match="make a new ReceiverSet"):
                    action()
            assert "forked" in repr(receivers)
            receivers.close()
            with ipc.ReceiverSet() as own:
                own.add(other.receiver)
                other.sender.send(1)
                assert own.select(30) == [ipc.Received(0, 1)]

        with Fork(child) as fork:
            fork.check()
        inside.sender.send(2)
        assert receivers.select(30) == [ipc.Received(0, 2)], "closing the child's copy did no harm"


def test_a_set_may_be_dropped_in_the_child_without_a_complaint() -> None:
    with channels(1) as [inside]:
        receivers = ipc.ReceiverSet()
        receivers.add(inside.receiver)

        def child() -> None:
            nonlocal receivers
            warnings.simplefilter("error")
            failures: list[Any] = []
            sys.unraisablehook = failures.append
            del receivers
            gc.collect()
            assert not failures

        with Fork(child) as fork:
            fork.check()
        inside.sender.send(1)
        assert receivers.select(30) == [ipc.Received(0, 1)]
        receivers.close()


# Forks while threads are busy


@pytest.mark.parametrize("rounds", [20])
def test_fork_while_threads_send_and_receive(rounds: int) -> None:
    stop = threading.Event()
    received: list[int] = []
    busy, busy_receiver = ipc.channel(int)

    def send() -> None:
        with busy:
            number = 0
            while not stop.is_set():
                busy.send(number)
                number += 1

    def receive() -> None:
        with busy_receiver:
            received.extend(busy_receiver)

    def child() -> None:
        sender, receiver = ipc.channel(bytes)
        with sender, receiver:
            sender.send(b"x" * 100_000)
            assert len(receiver.recv(30)) == 100_000
        with ipc.ReceiverSet() as receivers, ipc.OneShotServer(int) as server:
            one, one_receiver = ipc.channel(int)
            receivers.add(one_receiver)
            with one, ipc.connect(server.name, int) as client:
                one.send(1)
                assert len(receivers.select(30)) == 1
                client.send(2)
                answers, first = server.accept(30)
                answers.close()
                assert first == 2

    threads = [threading.Thread(target=send), threading.Thread(target=receive)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(rounds):
            with Fork(child) as fork:
                fork.check()
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert received == list(range(len(received)))
    assert received


def test_fork_while_a_thread_selects_and_a_router_runs() -> None:
    with channels(2) as [selected, routed], ipc.Router() as router, ipc.ReceiverSet() as receivers:
        receivers.add(selected.receiver)
        events: list[Any] = []
        thread = threading.Thread(target=lambda: events.extend(receivers.select(30)))
        thread.start()
        numbers = router.route_to_new_queue(routed.receiver)

        def child() -> None:
            receivers.close()
            own, own_receiver = ipc.channel(int)
            with own:
                queue = router.route_to_new_queue(own_receiver)
                own.send(1)
                assert queue.get(timeout=30) == 1
            router.shutdown()

        with Fork(child) as fork:
            fork.check()
        selected.sender.send(2)
        routed.sender.send(3)
        thread.join(30)
        assert events == [ipc.Received(0, 2)]
        assert numbers.get(timeout=30) == 3


def test_a_fork_in_a_routers_callback() -> None:
    with channels(1) as [routed], ipc.Router() as router:
        codes: list[int] = []
        done = threading.Event()

        def callback(number: int) -> None:
            def child() -> None:
                own, own_receiver = ipc.channel(int)
                with own:
                    queue = router.route_to_new_queue(own_receiver)
                    own.send(1)
                    assert queue.get(timeout=30) == 1
                router.shutdown()

            with Fork(child) as fork:
                fork.check()
            codes.append(number)
            done.set()

        router.add_route(routed.receiver, callback)
        routed.sender.send(5)
        assert done.wait(30)
        assert codes == [5]


# Other ways of starting, for the same promises


def _reply_and_wait(requests: ipc.Receiver[ipc.Sender[int]], ready: ipc.Sender[None]) -> None:
    ipc.close_inherited(keep=[requests, ready])
    reply = requests.recv()
    ready.send(None)
    time.sleep(3600)
    reply.close()


def test_a_reply_channel_of_a_forked_worker_ends_when_it_is_killed() -> None:
    requests, requests_receiver = ipc.channel(ipc.Sender[int])
    ready, ready_receiver = ipc.channel(None)
    reply, reply_receiver = ipc.channel(int)
    with requests, ready_receiver, reply_receiver:
        with requests_receiver, ready:
            child = start("fork", _reply_and_wait, requests_receiver, ready)
        with child:
            requests.send(reply)
            ready_receiver.recv(30)
            child.kill()
            with pytest.raises(ipc.Disconnected):
                reply_receiver.recv(30)
            with pytest.raises(ipc.Disconnected):
                ready_receiver.recv(30)
