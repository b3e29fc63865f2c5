"""Shared memory inside messages."""

import time
from contextlib import ExitStack
from functools import partial
from typing import Final

import ipc_channel as ipc
from ipc_channel.bench.measuring import available_memory, check, seconds_each, seconds_each_in_turn
from ipc_channel.bench.peer import Control, peer
from ipc_channel.bench.rivals.rust import by_rust_peer
from ipc_channel.bench.subject import OURS, Effort, Figures, Metric, Subject
from ipc_channel.bench.targets import beside, spread
from ipc_channel.bench.units import Unit

__all__ = ["SUBJECTS"]

_SIZES: Final = {"1 B": 1, "4 KiB": 4 << 10, "1 MiB": 1 << 20, "64 MiB": 64 << 20, "1 GiB": 1 << 30}
_QUICK_LARGEST: Final = 1 << 20
_BYTE: Final = 0xA5


def _exchange(
    sender: ipc.Sender[ipc.SharedMemory], answers: ipc.Receiver[tuple[int, int, int]], memory: ipc.SharedMemory
) -> None:
    size = len(memory)
    sender.send(memory)
    check(answers.recv() == (size, _BYTE, _BYTE), "the memory differs")


def _sizes(effort: Effort) -> Figures:
    sender, receiver = ipc.channel(ipc.SharedMemory)
    answer, answers = ipc.channel(tuple[int, int, int])
    with ExitStack() as stack:
        for needed in (answers, answer, receiver, peer(_receive, receiver, answer), sender):
            stack.enter_context(needed)
        memories: dict[str, ipc.SharedMemory] = {}
        for name, size in _SIZES.items():
            # As in Rust, three times: there may be a copy of it at each side for a moment.
            if size > _QUICK_LARGEST and (effort.quick or available_memory() < 3 * size):
                continue
            memories[name] = stack.enter_context(ipc.SharedMemory.filled(_BYTE, size))

        def run(memory: ipc.SharedMemory, count: int) -> float:
            start = time.perf_counter()
            for _ in range(count):
                _exchange(sender, answers, memory)
            return time.perf_counter() - start

        return seconds_each_in_turn(effort.seconds, {name: partial(run, memory) for name, memory in memories.items()})


def _create_and_send(effort: Effort) -> Figures:
    content = bytes([_BYTE]) * (1 << 20)
    sender, receiver = ipc.channel(ipc.SharedMemory)
    answer, answers = ipc.channel(tuple[int, int, int])
    with answers, answer, receiver, peer(_receive, receiver, answer), sender:

        def run(count: int) -> float:
            start = time.perf_counter()
            for _ in range(count):
                with ipc.SharedMemory.from_bytes(content) as memory:
                    _exchange(sender, answers, memory)
            return time.perf_counter() - start

        return {"": seconds_each(effort.seconds, run)}


def _receive(_: Control, receiver: ipc.Receiver[ipc.SharedMemory], answers: ipc.Sender[tuple[int, int, int]]) -> None:
    with receiver, answers:
        for memory in receiver:
            with memory:
                with memoryview(memory) as view:
                    answer = (len(view), view[0], view[-1])
            answers.send(answer)


_FAMILY: Final = "Shared memory"

SUBJECTS: Final = (
    Subject(
        key="shared-memory-sizes",
        name="SharedMemory, send + receive",
        family=_FAMILY,
        what="An existing region is sent to another process, which reads its first and last byte, closes it and"
        " answers; the whole round.",
        metrics=[Metric(name, Unit.TIME) for name in _SIZES],
        measures={OURS: _sizes, "rust": by_rust_peer("shared-memory-sizes")},
        targets=[spread("1 GiB", list(_SIZES), 1.5, "all within 1.5 ×")],
        timeout=120.0,
    ),
    Subject(
        key="shared-memory-1mib",
        name="SharedMemory of 1 MiB, create + fill + send",
        family=_FAMILY,
        what="As above, with a new region made from bytes for every message.",
        metrics=[Metric("", Unit.TIME)],
        measures={OURS: _create_and_send, "rust": by_rust_peer("shared-memory-1mib")},
        targets=[beside("", Unit.TIME, "rust", "the Rust crate", 1.3)],
        chart=[""],
    ),
)
