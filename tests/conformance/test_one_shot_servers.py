"""One-shot servers: who comes first does not matter, and a helper program finds its server by name."""

from __future__ import annotations

import threading

import pytest

import ipc_channel as ipc
from tests.conformance.implementations import DATA, PARCELS, Implementation
from tests.support.snippets import run_snippet


def test_accept_first(implementation: Implementation) -> None:
    def connect_and_send() -> None:
        with implementation.connect(server.name, DATA) as sender:
            sender.send(b"hello")

    with implementation.make_server(DATA) as server:
        later = threading.Timer(0.05, connect_and_send)
        later.start()
        receiver, first = server.accept(30)
        later.join()
        with receiver:
            assert first == b"hello"
            assert list(receiver) == []


def test_connect_first(implementation: Implementation) -> None:
    with implementation.make_server(DATA) as server, implementation.connect(server.name, DATA) as sender:
        sender.send(b"one")
        sender.send(b"two")
        receiver, first = server.accept(30)
        with receiver:
            assert [first, receiver.recv()] == [b"one", b"two"]


def test_a_client_that_has_left_before_accept_is_served_all_the_same(implementation: Implementation) -> None:
    with implementation.make_server(DATA) as server:
        with implementation.connect(server.name, DATA) as sender:
            sender.send(b"one")
            sender.send(b"two")
        receiver, first = server.accept(30)
        with receiver:
            assert [first, *receiver] == [b"one", b"two"]


def test_a_first_message_with_handles(implementation: Implementation) -> None:
    inner_sender, inner_receiver = implementation.make_channel(DATA)
    with implementation.make_server(PARCELS) as server, implementation.connect(server.name, PARCELS) as sender:
        sender.send(implementation.parcel(payload=b"first", senders=[inner_sender]))
        receiver, first = server.accept(30)
        with receiver, inner_receiver:
            assert first.payload == b"first"
            with first.senders[0] as arrived:
                arrived.send(b"x")
            assert list(inner_receiver) == [b"x"]


def test_the_end_of_a_connected_sender_can_be_cloned_and_sent_away(implementation: Implementation) -> None:
    sender, receiver = implementation.make_channel(PARCELS)
    with implementation.make_server(DATA) as server, sender, receiver:
        with implementation.connect(server.name, DATA) as connected:
            connected.send(b"first")
            sender.send(implementation.parcel(senders=[connected.clone()]))
        [clone] = receiver.recv().senders
        accepted, first = server.accept(30)
        with clone:
            clone.send(b"from the clone")
        with accepted:
            assert [first, *accepted] == [b"first", b"from the clone"]


PROGRAM = """
import sys, ipc_channel as ipc
with ipc.connect(sys.argv[1], str) as sender:
    sender.send("test message")
"""


def test_a_helper_program_connects_by_the_name_on_its_command_line() -> None:
    with ipc.OneShotServer(str) as server:
        finished = run_snippet(PROGRAM, server.name)
        receiver, first = server.accept(30)
        with receiver:
            assert first == "test message"
            assert list(receiver) == []
        assert finished.returncode == 0


def test_a_server_that_nobody_calls(implementation: Implementation) -> None:
    with implementation.make_server(DATA) as server, pytest.raises(ipc.AcceptTimeout):
        server.accept(0.01)
