"""Routers: a callback for each message, and none for what comes after its route has gone."""

from __future__ import annotations

import gc
import queue
import threading
import weakref
from typing import Any

import pytest

import ipc_channel as ipc
from tests.conformance.implementations import DATA, Implementation

TAKE = 20.0
"""Seconds that a test waits for what a router owes it."""


def test_two_callbacks_each_get_their_own(implementation: Implementation) -> None:
    came: queue.SimpleQueue[tuple[str, bytes]] = queue.SimpleQueue()
    with implementation.make_router() as router:
        senders = []
        for name in "ab":
            sender, receiver = implementation.make_channel(DATA)
            router.add_route(receiver, lambda message, name=name: came.put((name, message)))
            senders.append(sender)
        for sender, message in zip(senders, (b"for a", b"for b"), strict=True):
            with sender:
                sender.send(message)
        assert sorted(came.get(timeout=TAKE) for _ in range(2)) == [("a", b"for a"), ("b", b"for b")]


def test_after_shutdown_a_route_is_refused_and_a_second_shutdown_does_nothing(implementation: Implementation) -> None:
    came: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    sender, receiver = implementation.make_channel(DATA)
    router = implementation.make_router()
    router.add_route(receiver, came.put)
    with sender:
        sender.send(b"before")
        assert came.get(timeout=TAKE) == b"before"
        router.shutdown()
        router.shutdown()
        with pytest.raises(ipc.ReceiverGone):
            sender.send(b"after")
    other_sender, other_receiver = implementation.make_channel(DATA)
    with other_sender, other_receiver:
        with pytest.raises(ipc.ClosedError):
            router.add_route(other_receiver, came.put)
        other_sender.send(b"the refused receiver is untouched")
        assert other_receiver.recv() == b"the refused receiver is untouched"
    assert came.empty()


def test_a_flood_of_routes(implementation: Implementation) -> None:
    routes = 300
    came: queue.SimpleQueue[int] = queue.SimpleQueue()
    with implementation.make_router() as router:
        for number in range(routes):
            sender, receiver = implementation.make_channel(DATA)
            router.add_route(receiver, lambda message, number=number: came.put(number))
            with sender:
                sender.send(b"x")
        assert sorted(came.get(timeout=TAKE) for _ in range(routes)) == list(range(routes))


def test_a_route_to_a_queue_of_this_process(implementation: Implementation) -> None:
    sender, receiver = implementation.make_channel(DATA)
    with implementation.make_router() as router:
        items = router.route_to_new_queue(receiver)
        with sender:
            sender.send(b"one")
            sender.send(b"two")
        assert [items.get(timeout=TAKE) for _ in range(3)] == [b"one", b"two", ipc.END]


def test_a_one_shot_handler_is_not_called_for_a_second_message_which_is_fine(implementation: Implementation) -> None:
    came: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    later: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    one_shot, one_shot_receiver = implementation.make_channel(DATA)
    other, other_receiver = implementation.make_channel(DATA)
    with implementation.make_router() as router, one_shot, other:
        router.add_one_shot_route(one_shot_receiver, came.put)
        router.add_route(other_receiver, later.put)
        one_shot.send(b"first")
        assert came.get(timeout=TAKE) == b"first"
        one_shot.send(b"second")
        for _ in range(3):
            other.send(b"the router has been around once more")
            later.get(timeout=TAKE)
        assert came.empty()


def test_multiplexing(implementation: Implementation) -> None:
    came: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    with implementation.make_router() as router:
        for number in range(10):
            sender, receiver = implementation.make_channel(DATA)
            router.add_route(receiver, came.put)
            with sender:
                for again in range(10):
                    sender.send(b"%d.%d" % (number, again))
        messages = [came.get(timeout=TAKE) for _ in range(100)]
    for number in range(10):
        mine = [message for message in messages if message.startswith(b"%d." % number)]
        assert mine == [b"%d.%d" % (number, again) for again in range(10)]


def test_multithreaded_multiplexing(implementation: Implementation) -> None:
    came: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def send_all(sender: Any, name: int) -> None:
        with sender:
            for again in range(50):
                sender.send(b"%d.%d" % (name, again))

    with implementation.make_router() as router:
        threads = []
        for name in range(8):
            sender, receiver = implementation.make_channel(DATA)
            router.add_route(receiver, came.put)
            threads.append(threading.Thread(target=send_all, args=(sender, name)))
        for thread in threads:
            thread.start()
        messages = [came.get(timeout=TAKE) for _ in range(8 * 50)]
        for thread in threads:
            thread.join()
    for name in range(8):
        mine = [message for message in messages if message.startswith(b"%d." % name)]
        assert mine == [b"%d.%d" % (name, again) for again in range(50)]


class Callback:
    """A callback that can be referred to weakly."""

    def __call__(self, message: bytes) -> None:
        pass


@pytest.mark.parametrize("clones", [0, 3])
def test_a_callback_is_dropped_when_the_sender_and_the_last_of_its_clones_go(
    implementation: Implementation, clones: int
) -> None:
    sender, receiver = implementation.make_channel(DATA)
    dropped = threading.Event()
    callback = Callback()
    watcher = weakref.ref(callback, lambda _: dropped.set())
    with implementation.make_router() as router:
        router.add_route(receiver, callback)
        del callback
        senders = [sender, *(sender.clone() for _ in range(clones))]
        del sender
        while senders:
            assert watcher() is not None
            senders.pop().close()
        while not dropped.wait(0.02):  # the test's timeout says when it is too late
            gc.collect()


def test_big_data_through_a_router(implementation: Implementation) -> None:
    numbers = b"".join(b"%d,%d;" % (number, number * number) for number in range(64 * 1024))
    came: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    sender, receiver = implementation.make_channel(DATA)
    with implementation.make_router() as router, sender:
        router.add_route(receiver, came.put)
        sender.send(numbers)
        assert came.get(timeout=TAKE) == numbers


@pytest.mark.parametrize("form", [list[tuple[int, int]], None], ids=["typed", "pickled"])
def test_64_ki_tuples(form: Any) -> None:
    tuples = [(number, number * number) for number in range(64 * 1024)]
    came: queue.SimpleQueue[Any] = queue.SimpleQueue()
    sender, receiver = ipc.channel(form) if form else ipc.channel()
    with ipc.Router() as router, sender:
        router.add_route(receiver, came.put)
        sender.send(tuples)
        assert came.get(timeout=TAKE) == tuples
