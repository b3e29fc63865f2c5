"""Several sending processes, one receiver."""

import time
from contextlib import ExitStack
from itertools import repeat
from typing import Final

import ipc_channel as ipc
from ipc_channel.bench.measuring import check, seconds_each
from ipc_channel.bench.messages import SMALL, sample
from ipc_channel.bench.peer import Control, peer
from ipc_channel.bench.rivals.rival import Kind
from ipc_channel.bench.subject import OURS, Effort, Figures, Metric, Subject
from ipc_channel.bench.targets import of_another
from ipc_channel.bench.units import Unit

__all__ = ["SUBJECTS"]

_SENDERS: Final = (1, 2, 4, 8)
_CHECKED: Final = 200


def _senders(effort: Effort) -> Figures:
    return {_name(count): 1 / _shared(count, effort.seconds / 2) for count in _SENDERS}


def _name(count: int) -> str:
    return "1 sender" if count == 1 else f"{count} senders"


def _shared(processes: int, seconds: float) -> float:
    """Seconds for each message, whoever sends it."""
    sender, receiver = ipc.bytes_channel()
    with receiver, ExitStack() as stack:
        with sender:
            controls = [stack.enter_context(peer(_send, sender, number)) for number in range(processes)]
        for control in controls:
            control.send(_CHECKED)
        received: dict[int, list[bytes]] = {number: [] for number in range(processes)}
        for _ in range(processes * _CHECKED):
            message = receiver.recv()
            received[message[-1]].append(message)
        for number, messages in received.items():
            check(messages == [_message(number, turn) for turn in range(_CHECKED)], "messages differ, or their order")

        def run(count: int) -> float:
            each = -(-count // processes)
            start = time.perf_counter()
            for control in controls:
                control.send(each)
            for _ in repeat(None, each * processes):
                receiver.recv()
            took = time.perf_counter() - start
            return took * count / (each * processes)

        return seconds_each(seconds, run)


def _message(sender: int, turn: int) -> bytes:
    return bytes(sample(Kind.BYTES, turn)[: SMALL - 1]) + bytes([sender])


def _send(control: Control, sender: ipc.BytesSender, number: int) -> None:
    with sender:
        for turn in range(control.recv()):
            sender.send(_message(number, turn))
        message = _message(number, 0)
        send = sender.send
        while True:
            for _ in repeat(None, control.recv()):
                send(message)


SUBJECTS: Final = (
    Subject(
        key="senders",
        name="64 B bytes from several processes",
        family="Many senders, many messages",
        what="All sending processes in a loop of send at the same time; the clock is the receiver's, from the moment at"
        " which it tells them to begin until it has everything. Messages of all together.",
        metrics=[Metric(_name(count), Unit.RATE) for count in _SENDERS],
        measures={OURS: _senders},
        targets=[
            of_another(_name(count), _name(1), 0.6, "≥ 0.6 × one sender's", at_least=True) for count in _SENDERS[1:]
        ],
        timeout=120.0,
    ),
)
