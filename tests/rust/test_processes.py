"""Ends of channels to Rust in other Python processes: arguments of multiprocessing, and inheritance."""

from __future__ import annotations

from typing import Any

import pytest

import ipc_channel as ipc
from ipc_channel.rust import u64
from tests.rust import commands as c
from tests.rust.peers import TIMEOUT, start
from tests.support.start_methods import START_METHODS
from tests.support.start_methods import start as start_child

COUNT = 2000
"""More than a socket holds."""


def _exchange(sender: ipc.Sender[int], receiver: ipc.Receiver[int]) -> list[int]:
    """In the child: send, and receive until the end."""
    with receiver:
        with sender:
            sender.send_many(range(COUNT))
        return list(receiver)


@pytest.mark.parametrize("method", START_METHODS)
def test_ends_in_a_child(codec: Any, method: str) -> None:
    with start(codec, "Python serves") as peer:
        there, their_receiver = peer.channel(u64)
        their_sender, back = peer.channel(u64)
        event, events = peer.channel(c.Event)
        kinds = (ipc.Sender[u64], ipc.Receiver[u64]) if method == "subprocess" else ()
        # Before the start: what a child has inherited by fork it would keep open.
        peer.tell(c.Select([their_receiver], event))
        peer.tell(c.Feed([their_sender], 100))
        with there, back:
            child = start_child(method, _exchange, there, back, kinds=kinds)
        with child, events:
            for number in range(COUNT):
                assert events.recv(TIMEOUT) == c.Event(0, number)
            assert events.recv(TIMEOUT) == c.Event(0, None)
            assert child.result(TIMEOUT) == list(range(100))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_both_processes_use_one_channel(codec: Any, method: str) -> None:
    with start(codec, "Python serves") as peer:
        sender, receiver = peer.channel(u64)
        event, events = peer.channel(c.Event)
        with sender, events:
            sender.send_many(range(COUNT))
            peer.tell(c.Select([receiver], event))
            with start_child(method, _send, sender) as child:
                numbers = [events.recv(TIMEOUT).value for _ in range(2 * COUNT)]
                assert [number for number in numbers if number < COUNT] == list(range(COUNT))
                assert [number for number in numbers if number >= COUNT] == list(range(COUNT, 2 * COUNT))
                child.result(TIMEOUT)
                sender.close()
                assert events.recv(TIMEOUT) == c.Event(0, None)


def _send(sender: ipc.Sender[int]) -> None:
    with sender:
        sender.send_many(range(COUNT, 2 * COUNT))
