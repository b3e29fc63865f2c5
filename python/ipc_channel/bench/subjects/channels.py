"""Making channels, and selecting among many."""

import time
from typing import Final

import ipc_channel as ipc
from ipc_channel.bench.measuring import check, raise_descriptor_limit, seconds_each, seconds_each_alone
from ipc_channel.bench.rivals.libraries import SOCKETS
from ipc_channel.bench.rivals.rust import by_rust_peer
from ipc_channel.bench.rivals.sockets import socket_pair
from ipc_channel.bench.subject import OURS, Effort, Figures, Metric, Subject, Unavailable
from ipc_channel.bench.targets import beside, spread
from ipc_channel.bench.units import Unit

__all__ = ["SUBJECTS"]

_SIZES: Final = (1, 10, 100, 1000, 9000)
_QUICK_LARGEST: Final = 100
_STRIDE: Final = 7919
"""Coprime to every size, so that the senders take turns and no two neighbours follow each other."""
_OTHER_FILES: Final = 100
"""Open files besides those of the channels."""


def _create(effort: Effort) -> Figures:
    sender, receiver = ipc.channel(int)
    with sender, receiver:
        sender.send(42)
        check(receiver.recv() == 42, "the message differs")

    def create() -> None:
        sender, receiver = ipc.channel(int)
        sender.close()
        receiver.close()

    return {"": seconds_each_alone(effort.seconds, create)}


def _create_sockets(effort: Effort) -> Figures:
    def create() -> None:
        one, other = socket_pair()
        one.close()
        other.close()

    return {"": seconds_each_alone(effort.seconds, create)}


def _one_of_many(effort: Effort) -> Figures:
    figures: Figures = {}
    for size in _SIZES:
        if effort.quick and size > _QUICK_LARGEST:
            break
        # The larger ones are left out where the limit on open files is lower: the table then has no figure there.
        if raise_descriptor_limit(2 * size + _OTHER_FILES):
            figures[str(size)] = _select(size, effort.seconds / len(_SIZES))
    if not figures:
        raise Unavailable("the limit on open files is too low")
    return figures


def _select(size: int, seconds: float) -> float:
    senders: list[ipc.Sender[int]] = []
    with ipc.ReceiverSet[int]() as receivers:
        try:
            for key in range(size):
                sender, receiver = ipc.channel(int)
                senders.append(sender)
                receivers.add(receiver, key)
            for key, sender in enumerate(senders):
                sender.send(-key)
                check(receivers.select() == [ipc.Received(key, -key)], "another message was selected")
            turn = 0

            def run(count: int) -> float:
                nonlocal turn
                select = receivers.select
                start = time.perf_counter()
                for _ in range(count):
                    turn = (turn + _STRIDE) % size
                    senders[turn].send(7)
                    select()
                return time.perf_counter() - start

            return seconds_each(seconds, run)
        finally:
            for sender in senders:
                sender.close()


_FAMILY: Final = "Making and selecting"

SUBJECTS: Final = (
    Subject(
        key="channel",
        name="channel()",
        family=_FAMILY,
        what="Make a channel of integers and close both ends. Socket module: a socket pair.",
        metrics=[Metric("", Unit.TIME)],
        measures={OURS: _create, "rust": by_rust_peer("channel"), SOCKETS.key: _create_sockets},
        targets=[beside("", Unit.TIME, "rust", "the Rust crate", 1)],
    ),
    Subject(
        key="select",
        name="send + select over many receivers",
        family=_FAMILY,
        what="In one thread: an integer to one of so many receivers of a set, each in turn, then select.",
        metrics=[Metric(str(size), Unit.TIME) for size in _SIZES],
        measures={OURS: _one_of_many, "rust": by_rust_peer("select")},
        targets=[
            *[beside(str(size), Unit.TIME, "rust", "the Rust crate", 1) for size in _SIZES],
            spread(str(_SIZES[-1]), [str(size) for size in _SIZES], 1.5, "all within 1.5 ×"),
        ],
        timeout=120.0,
        chart=[str(_SIZES[2]), str(_SIZES[-1])],
    ),
)
