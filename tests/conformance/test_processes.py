"""Ends that cross processes, under every way of starting one."""

from __future__ import annotations

import signal

import pytest

import ipc_channel as ipc
from tests.conformance import children
from tests.conformance.implementations import DATA, IMPLEMENTATIONS, PARCELS, Implementation
from tests.conformance.patterns import BIG, pattern
from tests.support.start_methods import START_METHODS, start

across_processes = pytest.mark.parametrize(
    ("implementation", "method"),
    [
        (name, method)
        for name in IMPLEMENTATIONS
        # How ends get into a process is the package's and not the implementation's: one of them does for the rest.
        for method in (START_METHODS if name == "typed" else ("fork", "spawn"))
    ],
    indirect=["implementation"],
)
"""Every implementation by fork and by spawn, and one under the other start methods too."""


@across_processes
def test_a_sender_embedded_across_processes(implementation: Implementation, method: str) -> None:
    requests, requests_receiver = implementation.make_channel(PARCELS)
    kinds = [implementation.end_types(PARCELS)[1]]
    with requests:
        with requests_receiver:
            child = start(method, children.echo_once, implementation.name, requests_receiver, kinds=kinds)
        with child:
            reply, reply_receiver = implementation.make_channel(DATA)
            requests.send(implementation.parcel(payload=b"a word", senders=[reply]))
            with reply_receiver:
                assert list(reply_receiver) == [b"echo of a word"]
            child.result()


@across_processes
def test_a_child_sends_a_sender_gets_a_reply_and_answers_through_a_second_server(
    implementation: Implementation, method: str
) -> None:
    with (
        implementation.make_server(PARCELS) as server,
        implementation.make_server(DATA) as second,
        start(method, children.reply_through_a_second_server, implementation.name, server.name) as child,
    ):
        receiver, first = server.accept(30)
        receiver.close()
        [sender] = first.senders
        with sender:
            sender.send(second.name.encode())
        answers, answer = second.accept(30)
        with answers:
            assert answer == b"through the second server"
            assert list(answers) == []
        child.result()


@across_processes
@pytest.mark.needs("outliving")
def test_two_steps_across_processes_after_the_sending_one_has_ended(
    implementation: Implementation, method: str
) -> None:
    sender, receiver = implementation.make_channel(PARCELS)
    kinds = [implementation.end_types(PARCELS)[0]]
    with receiver, start(method, children.send_parcels, implementation.name, sender, kinds=kinds) as child:
        sender.close()
        child.result()
        parcel = receiver.recv(30)
        assert parcel.payload == pattern(BIG)
        with parcel.regions[0] as memory:
            assert memory == pattern(BIG)
        with parcel.parcel_receivers[0] as outer:
            [inner] = outer.recv(30).receivers
            with inner:
                assert list(inner) == [b"innermost"]
            assert list(outer) == []
        assert list(receiver) == []


@across_processes
def test_three_processes_send_mebibytes_at_once_and_do_not_interleave(
    implementation: Implementation, method: str
) -> None:
    sender, receiver = implementation.make_channel(DATA)
    kinds = [implementation.end_types(DATA)[0]]
    started = [start(method, children.send_three, implementation.name, sender, byte, kinds=kinds) for byte in b"abc"]
    sender.close()
    came: dict[int, list[int]] = {byte: [] for byte in b"abc"}
    with receiver, started[0], started[1], started[2]:
        for message in receiver:
            assert message == message[:2] * (BIG // 2)
            came[message[0]].append(message[1])
        for child in started:
            child.result()
    assert came == {byte: [0, 1, 2] for byte in b"abc"}


@across_processes
@pytest.mark.needs("outliving")
def test_the_last_message_of_a_killed_process_arrives_and_then_the_end(
    implementation: Implementation, method: str
) -> None:
    sender, receiver = implementation.make_channel(DATA)
    kinds = [implementation.end_types(DATA)[0]]
    with receiver, start(method, children.send_and_be_killed, implementation.name, sender, kinds=kinds) as child:
        sender.close()
        assert [message == pattern(BIG) for message in receiver] == [True]
        assert child.wait() == -signal.SIGKILL


@across_processes
def test_a_reply_channel_ends_when_the_replier_is_killed(implementation: Implementation, method: str) -> None:
    requests, requests_receiver = implementation.make_channel(PARCELS)
    ready, made_ready = implementation.make_channel(DATA)
    reply, reply_receiver = implementation.make_channel(DATA)
    kinds = [implementation.end_types(PARCELS)[1], implementation.end_types(DATA)[0]]
    with made_ready, reply_receiver:
        with requests, requests_receiver:
            child = start(
                method, children.take_and_be_killed, implementation.name, requests_receiver, ready, kinds=kinds
            )
            ready.close()
            # In a child made by fork the reply sender is there from the start: a new one shows the transfer.
            fresh, fresh_receiver = implementation.make_channel(DATA)
            requests.send(implementation.parcel(senders=[reply, fresh]))
        with child, fresh_receiver:
            assert made_ready.recv(30) == b"I hold the reply sender"
            assert not fresh_receiver.poll()
            child.kill()
            for each in (fresh_receiver, reply_receiver):
                with pytest.raises(ipc.Disconnected):
                    each.recv(30)


@across_processes
def test_a_one_shot_server_across_processes(implementation: Implementation, method: str) -> None:
    with (
        implementation.make_server(DATA) as server,
        start(method, children.connect_and_send, implementation.name, server.name) as child,
    ):
        receiver, first = server.accept(30)
        with receiver:
            assert first == b"first"
            assert receiver.recv(30) == pattern(BIG)
            assert list(receiver) == []
        child.result()
