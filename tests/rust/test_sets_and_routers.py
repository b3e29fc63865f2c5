"""Receiver sets and routers of both sides, and sets with channels of both wires."""

from __future__ import annotations

import queue
import threading
from collections import defaultdict
from typing import Any

import pytest

import ipc_channel as ipc
from ipc_channel.rust import u64
from tests.rust import commands as c
from tests.rust.commands import numbered
from tests.rust.peers import TIMEOUT, Peer

MANY = 20
COUNT = 30


def fed(peer: Peer, many: int = MANY, count: int = COUNT) -> list[ipc.Receiver[Any]]:
    """Receivers to which the peer sends that many numbers each."""
    channels = [peer.channel(u64) for _ in range(many)]
    peer.tell(c.Feed([each.sender for each in channels], count))
    return [each.receiver for each in channels]


def test_our_set_of_their_channels(peer: Peer) -> None:
    with ipc.ReceiverSet[int]() as receivers:
        for key, receiver in enumerate(fed(peer)):
            receivers.add(receiver, key)
        found = defaultdict(list)
        while len(receivers):
            events = receivers.select(TIMEOUT)
            assert events
            for event in events:
                found[event.key].append(event.message if isinstance(event, ipc.Received) else None)
        assert found == {key: [*range(COUNT), None] for key in range(MANY)}


def test_one_set_with_both_kinds_of_channels_and_large_messages(peer: Peer) -> None:
    raw_sender, raw = peer.bytes_channel()
    native_sender, native = ipc.bytes_channel()
    with ipc.ReceiverSet[str]() as receivers:
        receivers.add(raw, "theirs")
        receivers.add(native, "native")
        with native_sender:
            peer.tell(c.Flood(raw_sender, 5, 3 << 20))
            for number in range(5):
                native_sender.send(numbered(number, 3 << 20))
        found = defaultdict(list)
        while len(receivers):
            for event in receivers.select(TIMEOUT):
                if isinstance(event, ipc.Received):
                    found[event.key].append(event.message)
        expected = [numbered(number, 3 << 20) for number in range(5)]
        assert found == {"theirs": expected, "native": expected}


def test_our_set_waits_and_times_out(peer: Peer) -> None:
    with peer.loop(c.LoopBytes) as loop, ipc.ReceiverSet[str]() as receivers:
        clone, other = peer.bytes_channel()
        with clone:
            receivers.add(other, "other")
            assert receivers.select(0.01) == []
            assert receivers.try_select() == []
            loop.there.send(b"x")
            assert loop.back.recv(TIMEOUT) == b"x"
            clone.send(b"")
            assert receivers.select(TIMEOUT) == [ipc.Received("other", b"")]
            returned = receivers.remove("other")
            clone.send(b"again")
            with returned:
                assert returned.recv(TIMEOUT) == b"again"


@pytest.mark.parametrize("command", [c.Select, c.Route], ids=["set", "router"])
def test_their_set_or_router_of_our_channels(peer: Peer, command: type[c.Select | c.Route]) -> None:
    channels = [peer.channel(u64) for _ in range(MANY)]
    event, events = peer.channel(c.Event)
    with events:
        peer.tell(command([each.receiver for each in channels], event))
        for number in range(COUNT):
            for each in channels:
                each.sender.send(number)
        for each in channels:
            each.sender.close()
        found = defaultdict(list)
        for each in events:
            found[each.index].append(each.value)
        assert found == {index: [*range(COUNT), None] for index in range(MANY)}


def test_our_router_of_their_channels(peer: Peer) -> None:
    found: dict[int, list[int]] = {key: [] for key in range(MANY)}
    closed: set[int] = set()
    done = threading.Event()

    def close(key: int) -> None:
        closed.add(key)
        if len(closed) == MANY:
            done.set()

    with ipc.Router() as router:
        for key, receiver in enumerate(fed(peer)):
            router.add_route(receiver, found[key].append, lambda key=key: close(key))  # type: ignore[misc]
        assert done.wait(TIMEOUT)
    assert found == {key: list(range(COUNT)) for key in range(MANY)}


def test_our_router_to_a_queue(peer: Peer) -> None:
    into: queue.SimpleQueue[Any] = queue.SimpleQueue()
    with ipc.Router() as router:
        (receiver,) = fed(peer, 1, 1000)
        router.route_to_queue(receiver, into)
        assert [into.get(timeout=TIMEOUT) for _ in range(1000)] == list(range(1000))
        assert into.get(timeout=TIMEOUT) is ipc.END


def test_our_one_shot_route(peer: Peer) -> None:
    got: queue.SimpleQueue[int] = queue.SimpleQueue()
    sender, receiver = peer.channel(u64)
    with ipc.Router() as router, sender:
        router.add_one_shot_route(receiver, got.put)
        with peer.loop(c.LoopBytes) as loop:
            assert loop.turn(b"") == b""
        sender.send(5)
        assert got.get(timeout=TIMEOUT) == 5
        with pytest.raises(queue.Empty):
            got.get(timeout=0.01)


def test_a_set_in_another_order_of_events(peer: Peer) -> None:
    """Receivers that are there before, while and after messages come, and after their senders have gone."""
    early, late = fed(peer, 2, 5)
    with ipc.ReceiverSet[str]() as receivers:
        receivers.add(early, "early")
        found: list[Any] = []
        while len(receivers):
            found += receivers.select(TIMEOUT)
        receivers.add(late, "late")
        while len(receivers):
            found += receivers.select(TIMEOUT)
        expected: list[Any] = []
        for key in ("early", "late"):
            expected += [*(ipc.Received(key, number) for number in range(5)), ipc.Closed(key)]
        assert found == expected


def test_file_descriptors_say_when_to_look(peer: Peer) -> None:
    import select

    sender, receiver = peer.bytes_channel()
    with receiver:
        assert select.select([receiver], [], [], 0)[0] == []
        peer.tell(c.Flood(sender, 3, 300_000))
        for number in range(3):
            assert select.select([receiver], [], [], TIMEOUT)[0] == [receiver]
            assert receiver.recv(TIMEOUT) == numbered(number, 300_000)
        assert select.select([receiver], [], [], TIMEOUT)[0] == [receiver]
        with pytest.raises(ipc.Disconnected):
            receiver.try_recv()
