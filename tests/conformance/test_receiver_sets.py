"""Receiver sets: every message and every end exactly once, under the right key."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import defaultdict
from typing import Any

import pytest

import ipc_channel as ipc
from tests.conformance import children
from tests.conformance.implementations import DATA, Implementation
from tests.conformance.patterns import BIG, MEDIUM, pattern
from tests.conformance.selecting import select_until
from tests.support.start_methods import start


def test_select_gives_both_messages_once_under_the_right_keys(implementation: Implementation) -> None:
    with implementation.make_receiver_set() as receivers:
        channels = [implementation.make_channel(DATA) for _ in range(2)]
        keys = [receivers.add(receiver) for _, receiver in channels]
        assert keys[0] != keys[1]
        for number, (sender, _) in enumerate(channels):
            with sender:
                sender.send(b"%d" % number)
                assert receivers.select() == [ipc.Received(keys[number], b"%d" % number)]
                assert receivers.try_select() == []
            assert receivers.select() == [ipc.Closed(keys[number])]


def test_select_of_two_that_are_ready_at_once(implementation: Implementation) -> None:
    with implementation.make_receiver_set() as receivers:
        senders = []
        for key in "ab":
            sender, receiver = implementation.make_channel(DATA)
            receivers.add(receiver, key)
            senders.append(sender)
            sender.send(key.encode())
        events = select_until(receivers, 2)
        assert sorted((event.key, event.message) for event in events) == [("a", b"a"), ("b", b"b")]
        assert receivers.try_select() == []
        for sender in senders:
            sender.close()


def test_try_select_nothing_message_nothing_closed_nothing(implementation: Implementation) -> None:
    sender, receiver = implementation.make_channel(DATA)
    with implementation.make_receiver_set() as receivers, sender:
        key = receivers.add(receiver)
        assert receivers.try_select() == []
        sender.send(b"message")
        assert receivers.try_select() == [ipc.Received(key, b"message")]
        assert receivers.try_select() == []
        sender.close()
        assert receivers.try_select() == [ipc.Closed(key)]
        assert receivers.try_select() == []


def test_select_with_a_timeout_gives_nothing_no_earlier_than_that(implementation: Implementation) -> None:
    sender, receiver = implementation.make_channel(DATA)
    with implementation.make_receiver_set() as receivers, sender:
        receivers.add(receiver)
        began = time.monotonic()
        assert receivers.select(0.01) == []
        assert time.monotonic() - began >= 0.01


def test_an_empty_message_is_not_a_closure(implementation: Implementation) -> None:
    sender, receiver = implementation.make_channel(DATA)
    with implementation.make_receiver_set() as receivers, sender:
        key = receivers.add(receiver)
        sender.send(b"")
        assert receivers.select() == [ipc.Received(key, b"")]
        sender.close()
        assert receivers.select() == [ipc.Closed(key)]


@pytest.mark.parametrize("when", ["before", "after"])
def test_closed_before_or_after_it_is_added(implementation: Implementation, when: str) -> None:
    sender, receiver = implementation.make_channel(DATA)
    with implementation.make_receiver_set() as receivers:
        if when == "before":
            sender.close()
        key = receivers.add(receiver)
        sender.close()
        assert receivers.select() == [ipc.Closed(key)]
        assert len(receivers) == 0


@pytest.mark.parametrize("size", [MEDIUM, BIG, 8 * BIG])
def test_medium_and_big_data(implementation: Implementation, size: int) -> None:
    data = pattern(size)
    sender, receiver = implementation.make_channel(DATA)
    with implementation.make_receiver_set() as receivers, sender:
        key = receivers.add(receiver)
        sender.send(data)
        assert receivers.select() == [ipc.Received(key, data)]


def test_five_concurrent_senders_of_a_hundred_each_ordered_and_then_closed(implementation: Implementation) -> None:
    def send_all(sender: Any) -> None:
        with sender:
            for number in range(100):
                sender.send(b"%d" % number)

    with implementation.make_receiver_set() as receivers:
        threads = []
        for key in range(5):
            sender, receiver = implementation.make_channel(DATA)
            receivers.add(receiver, key)
            threads.append(threading.Thread(target=send_all, args=(sender,)))
        for thread in threads:
            thread.start()
        came: dict[int, list[Any]] = defaultdict(list)
        for event in select_until(receivers, 5 * 101):
            came[event.key].append(event)
        for thread in threads:
            thread.join()
        assert len(receivers) == 0
    for key in range(5):
        assert came[key] == [*(ipc.Received(key, b"%d" % number) for number in range(100)), ipc.Closed(key)]


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_stop_and_a_continue_do_not_end_a_select(implementation: Implementation, method: str) -> None:
    ready, made_ready = implementation.make_channel(DATA)
    kinds = [implementation.end_types(DATA)[0]]
    with (
        made_ready,
        start(method, children.select_while_being_stopped, implementation.name, ready, kinds=kinds) as child,
    ):
        ready.close()
        assert made_ready.recv(30) == b"selecting"
        for _ in range(3):
            os.kill(child.pid, signal.SIGSTOP)
            time.sleep(0.02)
            os.kill(child.pid, signal.SIGCONT)
            time.sleep(0.02)
        assert child.result() == ["Received", "Closed"]
