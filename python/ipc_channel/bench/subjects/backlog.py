"""Messages that nobody reads yet: what they cost, in time and in memory."""

import os
import time
from itertools import repeat
from pathlib import Path
from typing import Final

import ipc_channel as ipc
from ipc_channel.bench.measuring import available_memory, check
from ipc_channel.bench.messages import SMALL, sample
from ipc_channel.bench.peer import Control, peer
from ipc_channel.bench.rivals.rival import Kind
from ipc_channel.bench.subject import OURS, Effort, Figures, Metric, Subject, Unavailable
from ipc_channel.bench.targets import fixed, of_another
from ipc_channel.bench.units import Unit

__all__ = ["SUBJECTS"]

_MESSAGES: Final = 10_000_000
_QUICK_MESSAGES: Final = 20_000
_SHORT: Final = 10_000
"""Messages of a short run; it is repeated, and the first time does not count."""
_SHORT_RUNS: Final = 10
_RECORD_HEADER: Final = 16
"""Bytes that a message needs besides its payload: its length and kind, and the time at which it was sent."""
_NEEDED: Final = 4 << 30
"""Bytes of memory that should be there for the long run."""

_COST, _SHORT_COST = "time each", "time each, 10 k unread"
_MEMORY, _LEFT = "memory each", "memory left"


def _backlog(effort: Effort) -> Figures:
    messages = _QUICK_MESSAGES if effort.quick else _MESSAGES
    if not effort.quick and available_memory() < _NEEDED:
        raise Unavailable("there is less than 4 GiB of memory")
    sender, receiver = ipc.bytes_channel()
    with receiver, peer(_receive, receiver) as control, sender:
        for number in range(_SHORT):
            try:
                sender.try_send(sample(Kind.BYTES, number))
            except ipc.Full:
                raise Unavailable(f"send waits when {number} messages are unread") from None
        control.send(("check", _SHORT))
        check(control.recv(), "messages differ")

        message = sample(Kind.BYTES, 0)
        short = [_cost(sender, control, message, _SHORT) for _ in range(_SHORT_RUNS)][1:]
        before = _memory(os.getpid(), _pid(control))
        start = time.perf_counter()
        for _ in repeat(None, messages):
            sender.send(message)
        sending = time.perf_counter() - start
        held = _memory(os.getpid(), _pid(control)) - before
        start = time.perf_counter()
        control.send(("receive", messages))
        check(control.recv(), "messages are missing")
        receiving = time.perf_counter() - start
        left = _memory(os.getpid(), _pid(control)) - before
    return {
        _COST: (sending + receiving) / messages,
        _SHORT_COST: sum(short) / len(short),
        _MEMORY: held / messages,
        _LEFT: float(max(left, 0)),
    }


def _cost(sender: ipc.BytesSender, control: Control, message: bytes, count: int) -> float:
    """Seconds for each message that is sent and, when all have been sent, received."""
    start = time.perf_counter()
    for _ in repeat(None, count):
        sender.send(message)
    control.send(("receive", count))
    check(control.recv(), "messages are missing")
    return (time.perf_counter() - start) / count


def _receive(control: Control, receiver: ipc.BytesReceiver) -> None:
    with receiver:
        while True:
            task, count = control.recv()
            match task:
                case "check":
                    received = [receiver.recv() for _ in range(count)]
                    control.send(received == [sample(Kind.BYTES, number) for number in range(count)])
                case "receive":
                    for _ in repeat(None, count):
                        receiver.recv()
                    control.send(not receiver.poll())
                case _:
                    control.send(os.getpid())


def _pid(control: Control) -> int:
    control.send(("pid", 0))
    pid: int = control.recv()
    return pid


def _memory(*processes: int) -> int:
    """Bytes that the processes have for themselves, and those of all memory files that any of them holds."""
    private = 0
    files: dict[int, int] = {}
    for process in processes:
        for line in Path(f"/proc/{process}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                private += int(line.split()[1]) * 1024
        for descriptor in Path(f"/proc/{process}/fd").iterdir():
            try:
                if "/memfd:" in os.readlink(descriptor):
                    status = descriptor.stat()
                    files[status.st_ino] = status.st_blocks * 512
            except FileNotFoundError:
                continue  # the descriptor that lists the folder
    return private + sum(files.values())


SUBJECTS: Final = (
    Subject(
        key="backlog",
        name="10 M unread messages of 64 B",
        family="Many senders, many messages",
        what="All are sent, then all are received; time of both. Memory: what both processes have for themselves and"
        " what lies in memory files, compared with just before, at the height and after everything was received.",
        metrics=[
            Metric(_COST, Unit.TIME),
            Metric(_SHORT_COST, Unit.TIME),
            Metric(_MEMORY, Unit.BYTES),
            Metric(_LEFT, Unit.BYTES),
        ],
        measures={OURS: _backlog},
        targets=[
            of_another(_COST, _SHORT_COST, 2, "≤ 2 × with 10 k unread", at_least=False),
            fixed(_MEMORY, 1.5 * (SMALL + _RECORD_HEADER), Unit.BYTES),
            fixed(_LEFT, 16 << 20, Unit.BYTES),
        ],
        most_rounds=2,
        timeout=180.0,
    ),
)
