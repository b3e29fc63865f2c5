"""What the suite's child processes run. Apart from the tests, so that a child need not import pytest."""

from __future__ import annotations

import os
import signal
import threading
from typing import Any

from tests.conformance.implementations import DATA, IMPLEMENTATIONS, PARCELS
from tests.conformance.patterns import BIG, pattern
from tests.conformance.selecting import select_until


def echo_once(name: str, requests: Any) -> None:
    with requests:
        parcel = requests.recv(30)
        [reply] = parcel.senders
        with reply:
            reply.send(b"echo of " + parcel.payload)


def reply_through_a_second_server(name: str, server_name: str) -> None:
    implementation = IMPLEMENTATIONS[name]
    sender, receiver = implementation.make_channel(DATA)
    with receiver:
        with implementation.connect(server_name, PARCELS) as first:
            first.send(implementation.parcel(senders=[sender]))
        second_name = receiver.recv(30).decode()
    with implementation.connect(second_name, DATA) as second:
        second.send(b"through the second server")


def send_parcels(name: str, own: Any) -> None:
    implementation = IMPLEMENTATIONS[name]
    inner_sender, inner_receiver = implementation.make_channel(DATA)
    outer_sender, outer_receiver = implementation.make_channel(PARCELS)
    inner_sender.send(b"innermost")
    inner_sender.close()
    outer_sender.send(implementation.parcel(receivers=[inner_receiver]))
    outer_sender.close()
    with own, implementation.make_memory(pattern(BIG)) as memory:
        own.send(implementation.parcel(payload=pattern(BIG), parcel_receivers=[outer_receiver], regions=[memory]))


def send_three(name: str, own: Any, byte: int) -> None:
    with own:
        for number in range(3):
            own.send(bytes([byte, number]) * (BIG // 2))


def send_and_be_killed(name: str, own: Any) -> None:
    own.send(pattern(BIG))
    os.kill(os.getpid(), signal.SIGKILL)


def take_and_be_killed(name: str, requests: Any, ready: Any) -> None:
    with ready:
        parcel = requests.recv(30)
        ready.send(b"I hold the reply sender")
        threading.Event().wait()
        del parcel


def connect_and_send(name: str, server_name: str) -> None:
    implementation = IMPLEMENTATIONS[name]
    with implementation.connect(server_name, DATA) as sender:
        sender.send(b"first")
        sender.send(pattern(BIG))


def select_while_being_stopped(name: str, ready: Any) -> list[Any]:
    implementation = IMPLEMENTATIONS[name]
    with implementation.make_receiver_set() as receivers:
        sender, receiver = implementation.make_channel(DATA)
        receivers.add(receiver)
        later = threading.Timer(0.3, lambda: (sender.send(b"after the stop"), sender.close()))
        with ready:
            later.start()
            ready.send(b"selecting")
            events = select_until(receivers, 2)
        later.join()
        return [type(event).__name__ for event in events]
