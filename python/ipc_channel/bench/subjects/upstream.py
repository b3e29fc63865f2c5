"""The shapes of the five benchmarks that the Rust crate ships: everything between threads of one process."""

import importlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import reduce
from itertools import cycle
from typing import Any, Final

import msgspec

import ipc_channel as ipc
from ipc_channel.bench.measuring import check, seconds_each_alone
from ipc_channel.bench.rivals.rust import by_rust_peer
from ipc_channel.bench.subject import OURS, Effort, Figures, Metric, Subject, Unavailable
from ipc_channel.bench.units import Unit

__all__ = ["SUBJECTS"]

# Bytes

_SIZES: Final = {
    "1 B": 1,
    "64 B": 64,
    "1 KiB": 1 << 10,
    "16 KiB": 16 << 10,
    "64 KiB": 64 << 10,
    "256 KiB": 256 << 10,
    "1 MiB": 1 << 20,
    "8 MiB": 8 << 20,
}


def _bytes(effort: Effort) -> Figures:
    figures: Figures = {}
    sender, receiver = ipc.bytes_channel()
    with sender, receiver:
        for name, size in _SIZES.items():
            data = (bytes(range(251)) * (size // 251 + 1))[:size]

            def exchange(data: bytes = data) -> bytes:
                sender.send(data)
                return receiver.recv()

            check(exchange() == data, "bytes differ")
            figures[name] = seconds_each_alone(effort.seconds / len(_SIZES), exchange)
    return figures


# Ends

_COUNTS: Final = (0, 1, 8, 64)


def _ends(effort: Effort) -> Figures:
    figures: Figures = {}
    seconds = effort.seconds / 2 / len(_COUNTS)
    for count in _COUNTS:
        figures[f"{count} senders"] = _send_senders(count, seconds)
        figures[f"{count} receivers"] = _send_receivers(count, seconds)
    return figures


def _send_senders(count: int, seconds: float) -> float:
    made = [ipc.channel(None) for _ in range(count)]
    ends, kept = [sender for sender, _ in made], [receiver for _, receiver in made]
    sender, receiver = ipc.channel(list[ipc.Sender[None]])

    def exchange() -> None:
        nonlocal ends
        sender.send(ends)
        ends = receiver.recv()

    with sender, receiver:
        each = seconds_each_alone(seconds, exchange)
    for end, other in zip(ends, kept, strict=True):
        with end, other:
            end.send(None)
            check(other.recv() is None, "an end differs")
    return each


def _send_receivers(count: int, seconds: float) -> float:
    made = [ipc.channel(None) for _ in range(count)]
    kept, ends = [sender for sender, _ in made], [receiver for _, receiver in made]
    sender, receiver = ipc.channel(list[ipc.Receiver[None]])

    def exchange() -> None:
        nonlocal ends
        sender.send(ends)
        ends = receiver.recv()

    with sender, receiver:
        each = seconds_each_alone(seconds, exchange)
    for end, other in zip(ends, kept, strict=True):
        with end, other:
            other.send(None)
            check(end.recv() is None, "an end differs")
    return each


# Receiver sets

_SHAPES: Final = (
    (1, 1), (1, 5), (2, 5), (5, 5), (1, 20), (5, 20), (20, 20), (1, 100), (5, 100), (20, 100), (100, 100),
)  # fmt: skip
_CREATED: Final = (0, 1, 10, 100)
_ENDED: Final = (1, 10, 100)


def _set_of(size: int) -> tuple[list[ipc.Sender[int]], ipc.ReceiverSet[int]]:
    receivers = ipc.ReceiverSet[int]()
    senders: list[ipc.Sender[int]] = []
    for key in range(size):
        sender, receiver = ipc.channel(int)
        senders.append(sender)
        receivers.add(receiver, key)
    return senders, receivers


def _close(senders: list[ipc.Sender[int]]) -> None:
    for sender in senders:
        sender.close()


def _some_of_many(effort: Effort) -> Figures:
    figures: Figures = {}
    for some, size in _SHAPES:
        senders, receivers = _set_of(size)

        def turn(senders: list[ipc.Sender[int]] = senders[:some], receivers: ipc.ReceiverSet[int] = receivers) -> None:
            for sender in senders:
                sender.send(7)
            received = 0
            while received < len(senders):
                received += len(receivers.select())
            check(received == len(senders), "more messages than were sent")

        with receivers:
            figures[f"{some} of {size}"] = seconds_each_alone(effort.seconds / len(_SHAPES), turn)
        _close(senders)
    return figures


def _sets(effort: Effort) -> Figures:
    seconds = effort.seconds / (len(_CREATED) + len(_ENDED))

    def create(size: int) -> None:
        senders, receivers = _set_of(size)
        receivers.close()
        _close(senders)

    def end(size: int) -> None:
        senders, receivers = _set_of(size)
        _close(senders)
        with receivers:
            while receivers:
                check(all(isinstance(event, ipc.Closed) for event in receivers.select()), "a message nobody has sent")

    def timed(way: Callable[[int], None], size: int) -> float:
        return seconds_each_alone(seconds, lambda: way(size))

    return {
        **{f"create {size}": timed(create, size) for size in _CREATED},
        **{f"ended {size}": timed(end, size) for size in _ENDED},
    }


# Enums

_WORDS: Final = "This is a test string of medium size"


def _variants(enum: str, shapes: Sequence[Sequence[Any]]) -> list[Any]:
    """A tagged struct for each variant; a shape is the types of its fields."""
    return [
        msgspec.defstruct(
            f"{enum}{number}",
            [(f"field{position}", form) for position, form in enumerate(shape)],
            tag=number,
            array_like=True,
        )
        for number, shape in enumerate(shapes)
    ]


def _union(variants: Iterable[Any]) -> Any:
    return reduce(lambda one, another: one | another, variants)


def _enums() -> dict[str, list[Any]]:
    """An instance of each variant. A Rust enum with data is a union of tagged structs here."""
    small = _variants("Small", [[], [], [int] * 2, [int] * 3, [str], [], []])
    medium = _variants("Medium", [[int]] * 27)
    fractured = _variants("Fractured", [[], [list[int]], [int] * 10, [int], [int] * 3])
    nested = _variants("Nested", [[], [_union(small)], [_union(medium)], [_union(fractured)], [int]])
    return {
        "small": [
            small[0](), small[1](), small[2](23, 42), small[3](23, 42, 243), small[4](_WORDS), small[5](), small[6](),
        ],
        "medium": [variant(42) for variant in medium],
        "fractured": [
            fractured[0](), fractured[1]([1, 2, 3]), fractured[2](*range(1, 11)), fractured[3](1),
            fractured[4](1, 2, 3),
        ],
        "nested": [nested[0](), nested[1](small[6]()), nested[2](medium[20](2)), nested[3](fractured[3](0)),
                   nested[4](2)],
    }  # fmt: skip


def _transfer_enums(effort: Effort) -> Figures:
    figures: Figures = {}
    enums = _enums()
    for name, messages in enums.items():
        form: Any = _union([type(message) for message in messages])
        sender, receiver = ipc.channel(form)
        with sender, receiver:
            for message in messages:
                sender.send(message)
                check(receiver.recv() == message, "a message differs")
            turn = cycle(messages)

            def exchange(
                send: Callable[[Any], object] = sender.send,
                receive: Callable[[], Any] = receiver.recv,
                turn: Iterator[Any] = turn,
            ) -> None:
                send(next(turn))
                receive()

            figures[name] = seconds_each_alone(effort.seconds / len(enums), exchange)
    return figures


# Shared memory

_PING_PONG_SIZE: Final = 4 << 20
_PING_PONGS: Final = 100
_QUICK_PING_PONGS: Final = 4
_JOIN_TIMEOUT: Final = 60.0


def _ping_pong(effort: Effort) -> Figures:
    try:
        numpy: Any = importlib.import_module("numpy")
    except ImportError:
        raise Unavailable("numpy is not installed") from None

    def copied(memory: ipc.SharedMemory) -> ipc.SharedMemory:
        with memory:
            content = numpy.array(memory)
        content += 1
        return ipc.SharedMemory.from_bytes(content)

    def in_place(memory: ipc.SharedMemory) -> ipc.SharedMemory:
        content = numpy.frombuffer(memory, numpy.uint8)
        content += 1
        return memory

    turns = _QUICK_PING_PONGS if effort.quick else _PING_PONGS
    return {
        "copied": _ping_pong_of(copied, ipc.SharedMemory.filled(0, _PING_PONG_SIZE), turns),
        "in place": _ping_pong_of(in_place, ipc.SharedMemory.create(_PING_PONG_SIZE, mutable=True), turns),
    }


def _ping_pong_of(turn: Callable[[ipc.SharedMemory], ipc.SharedMemory], memory: ipc.SharedMemory, turns: int) -> float:
    there, received_there = ipc.channel(ipc.SharedMemory)
    sent_back, back = ipc.channel(ipc.SharedMemory)

    def answer() -> None:
        with received_there, sent_back:
            for received in received_there:
                with turn(received) as memory:
                    sent_back.send(memory)

    echo = threading.Thread(target=answer)
    with back:
        with there:
            echo.start()
            start = time.perf_counter()
            for _ in range(turns // 2):
                with turn(memory) as changed:
                    there.send(changed)
                memory = back.recv()
            took = time.perf_counter() - start
        echo.join(_JOIN_TIMEOUT)
    with memory:
        check(memory == bytes([turns]) * _PING_PONG_SIZE, "the memory differs")
    return took / turns


_FAMILY: Final = "The shapes of the Rust crate's own benchmarks, in one process"


def _subject(key: str, name: str, what: str, metrics: list[str], measure: Callable[[Effort], Figures]) -> Subject:
    return Subject(
        key=key,
        name=name,
        family=_FAMILY,
        what=what,
        metrics=[Metric(metric, Unit.TIME) for metric in metrics],
        measures={OURS: measure, "rust": by_rust_peer(key)},
    )


SUBJECTS: Final = (
    _subject(
        "upstream-bytes",
        "bytes, 1 B to 8 MiB",
        "A thread sends and receives; in Rust a second thread sends from 128 KiB on, since send waits for a receiver.",
        list(_SIZES),
        _bytes,
    ),
    _subject(
        "upstream-ends",
        "messages with many ends",
        "A thread sends so many senders or receivers in a message, and receives them.",
        [f"{count} {what}" for what in ("senders", "receivers") for count in _COUNTS],
        _ends,
    ),
    _subject(
        "upstream-select",
        "select m of n",
        "A thread sends to some receivers of a set and selects until everything has come.",
        [f"{some} of {size}" for some, size in _SHAPES],
        _some_of_many,
    ),
    _subject(
        "upstream-sets",
        "making and ending sets",
        "Make a set of so many channels and drop it all; or close the senders and select until the set is empty.",
        [*[f"create {size}" for size in _CREATED], *[f"ended {size}" for size in _ENDED]],
        _sets,
    ),
    _subject(
        "upstream-enums",
        "four enums",
        "A thread sends and receives the variants of an enum in turn: serde in Rust, unions of msgspec structs here.",
        ["small", "medium", "fractured", "nested"],
        _transfer_enums,
    ),
    _subject(
        "upstream-shared-memory",
        "shared memory ping-pong, 4 MiB",
        "Two threads add one to each byte and send it on, in a copy or in place; one such turn, 100 of them.",
        ["copied", "in place"],
        _ping_pong,
    ),
)
