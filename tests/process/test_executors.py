"""Ends through process pools."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import os
import signal
import time
import warnings
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import pytest

import ipc_channel as ipc


@pytest.fixture(params=["fork", "spawn", "forkserver"])
def context(request: pytest.FixtureRequest) -> Any:
    return multiprocessing.get_context(request.param)


@pytest.fixture(autouse=True)
def forks_beside_threads() -> Iterator[None]:
    """Pools have threads of their own, and under fork newer Pythons warn of that."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*multi-threaded.*", category=DeprecationWarning)
        yield


def double(numbers: ipc.Receiver[int], results: ipc.Sender[int]) -> int:
    count = 0
    with numbers, results:
        for number in numbers:
            results.send(number * 2)
            count += 1
    return count


def executor(context: Any, **options: Any) -> concurrent.futures.ProcessPoolExecutor:
    return concurrent.futures.ProcessPoolExecutor(1, mp_context=context, **options)


def test_ends_as_arguments_of_a_task(context: Any) -> None:
    with executor(context) as pool:
        pool.submit(os.getpid).result(30)  # the worker runs, so that under fork it has no copies of these ends
        numbers, numbers_receiver = ipc.channel(int)
        results, results_receiver = ipc.channel(int)
        with results_receiver:
            future = pool.submit(double, numbers_receiver, results)
            with numbers:
                numbers.send_many(range(5))
            assert [results_receiver.recv(30) for _ in range(5)] == [0, 2, 4, 6, 8]
            assert future.result(30) == 5
            assert numbers_receiver.closed, "it moved when the task was pickled"
            assert not results.closed, "it was duplicated"
            results.close()
            with pytest.raises(ipc.Disconnected):
                results_receiver.recv(30)


def make_channel(count: int) -> ipc.Receiver[int]:
    sender, receiver = ipc.channel(int)
    with sender:
        sender.send_many(range(count))
    return receiver


def test_an_end_as_the_result_of_a_task(context: Any) -> None:
    with executor(context) as pool:
        # What a task returns is fetched from its worker, which the pool keeps alive meanwhile.
        with pool.submit(make_channel, 3).result(30) as receiver:
            assert list(receiver) == [0, 1, 2]


sender_of_the_worker: Any = None


def initialize(sender: ipc.Sender[str]) -> None:
    global sender_of_the_worker
    sender_of_the_worker = sender


def report(text: str) -> None:
    sender_of_the_worker.send(text)


def test_an_end_as_an_argument_of_the_initializer(context: Any) -> None:
    sender, receiver = ipc.channel(str)
    with receiver, sender:
        with executor(context, initializer=initialize, initargs=(sender,)) as pool:
            for future in [pool.submit(report, text) for text in "abc"]:
                future.result(30)
        sender.close()
        assert list(receiver) == ["a", "b", "c"]


def test_a_task_that_cannot_be_pickled_says_so(context: Any) -> None:
    sender, receiver = ipc.channel(int)
    receiver.close()
    with sender, executor(context) as pool:
        with pytest.raises(ipc.ClosedError):
            pool.submit(double, receiver, sender).result(30)
        assert pool.submit(os.getpid).result(30), "the pool goes on"


def wait_with(reply: ipc.Sender[int], ready: ipc.Sender[int]) -> None:
    with ready:
        ready.send(os.getpid())
        time.sleep(3600)
        reply.close()


def test_a_reply_channel_ends_when_the_worker_is_killed(context: Any) -> None:
    with executor(context) as pool:
        pool.submit(os.getpid).result(30)
        reply, reply_receiver = ipc.channel(int)
        ready, ready_receiver = ipc.channel(int)
        with reply_receiver, ready_receiver:
            future = pool.submit(wait_with, reply, ready)
            worker = ready_receiver.recv(30)
            reply.close()
            ready.close()
            os.kill(worker, signal.SIGKILL)
            for receiver in (reply_receiver, ready_receiver):
                with pytest.raises(ipc.Disconnected):
                    receiver.recv(30)
            with pytest.raises(BrokenProcessPool):
                future.result(30)


def square(argument: tuple[int, ipc.Sender[int]]) -> int:
    number, sender = argument
    with sender:
        sender.send(number * number)
    return number


def test_pool_map(context: Any) -> None:
    sender, receiver = ipc.channel(int)
    with receiver, sender:
        with context.Pool(2) as pool:
            assert pool.map(square, [(number, sender) for number in range(6)]) == list(range(6))
            pool.close()
            pool.join()
        sender.close()
        assert sorted(receiver) == [0, 1, 4, 9, 16, 25]


def test_pool_results(context: Any) -> None:
    with context.Pool(1) as pool:
        receivers = pool.map(make_channel, [1, 2])
        pool.close()
        pool.join()
    for count, receiver in enumerate(receivers, start=1):
        with receiver:
            assert list(receiver) == list(range(count))
