"""Channels to a Rust program that uses the crate, beside channels between two such programs."""

import subprocess
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from itertools import repeat
from typing import Any, Final, Generic, TypeVar

import msgspec

import ipc_channel as ipc
from ipc_channel.bench.measuring import check, seconds_each, seconds_each_in_turn
from ipc_channel.bench.messages import Item, sample
from ipc_channel.bench.rivals.rival import Kind
from ipc_channel.bench.rivals.rust import by_rust_peer
from ipc_channel.bench.subject import OURS, Effort, Figures, Measure, Metric, Subject, Unavailable
from ipc_channel.bench.targets import beside, of_another
from ipc_channel.bench.units import Unit
from ipc_channel.rust import u64

__all__ = ["SUBJECTS"]

_CHECKED: Final = 500
"""Messages that differ from each other, sent and compared before anything is timed."""
_ANSWER_TIMEOUT: Final = 60.0
_TO_RUST, _FROM_RUST = "Python to Rust", "Rust to Python"
_BACK: Final = "Rust to Python, receiver from there"
_POSTCARD, _MESSAGEPACK = "postcard", "MessagePack of msgspec"

There = TypeVar("There")
Back = TypeVar("Back")


class _Ends(msgspec.Struct, Generic[There, Back]):
    """What the Rust program introduces itself with: ``Ends`` in ``benchmarks/rust-peer/src/peer.rs``."""

    there: There
    back: Back
    commands: ipc.Sender[u64]
    """How many messages come next."""
    answers: ipc.Receiver[bool]
    """One to each command: everything has come, and it was right."""


@contextmanager
def _rust(effort: Effort, subject: str, ends: Any) -> Generator[Any, None, None]:
    """The Rust program's ends; it is gone at the end of the block."""
    if effort.rust_peer is None:
        raise Unavailable("the Rust program is not built: `make bench` does")
    with ipc.OneShotServer(ends, codec="rust") as server:
        # It shares our process group, so whoever ends this measurement ends that process too.
        process = subprocess.Popen(
            [effort.rust_peer, "--peer", subject, server.name], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
        try:
            introductions, introduced = server.accept(_ANSWER_TIMEOUT)
            introductions.close()
            with introduced.commands, introduced.answers:
                yield introduced
        finally:
            process.kill()
            process.wait()


def _to_rust(effort: Effort, subject: str, kind: Kind, end: Any) -> float:
    """Seconds for each message."""
    with _rust(effort, subject, _Ends[end, None]) as ends, ends.there as sender:
        ends.commands.send(_CHECKED)
        for number in range(_CHECKED):
            sender.send(sample(kind, number))
        check(ends.answers.recv(_ANSWER_TIMEOUT), "messages differ")
        message = sample(kind, 0)

        def run(count: int) -> float:
            start = time.perf_counter()
            ends.commands.send(count)
            send = sender.send
            for _ in repeat(None, count):
                send(message)
            check(ends.answers.recv(_ANSWER_TIMEOUT), "the last message differs")
            return time.perf_counter() - start

        return seconds_each(effort.seconds, run)


def _from_rust(effort: Effort, subject: str, kind: Kind, end: Any, channel: Any) -> float:
    """Seconds for each message, by a channel whose receiver is made here: so it is between two Rust programs, too."""
    sender, receiver = channel()
    with receiver, _rust(effort, f"send-{subject}", _Ends[ipc.Sender[end], None]) as ends, ends.there as there:
        there.send(sender)
        return _received(effort, kind, receiver, ends.commands)


def _back_from_rust(effort: Effort, subject: str, kind: Kind, end: Any) -> float:
    """The same by a channel whose receiver comes from there."""
    with _rust(effort, f"send-{subject}-back", _Ends[None, end]) as ends, ends.back as receiver:
        return _received(effort, kind, receiver, ends.commands)


def _received(effort: Effort, kind: Kind, receiver: Any, commands: ipc.Sender[u64]) -> float:
    commands.send(_CHECKED)
    for number in range(_CHECKED):
        check(receiver.recv(_ANSWER_TIMEOUT) == sample(kind, number), "messages differ")
    expected = sample(kind, 0)

    def run(count: int) -> float:
        start = time.perf_counter()
        commands.send(count)
        receive, message = receiver.recv, None
        for _ in repeat(None, count):
            message = receive()
        took = time.perf_counter() - start
        check(message == expected, "the last message differs")
        return took

    return seconds_each(effort.seconds, run)


def _ways(subject: str, kind: Kind, sender: Any, receiver: Any, channel: Any) -> Measure:
    """All ways, one after the other."""

    def measure(effort: Effort) -> Figures:
        return {
            _TO_RUST: 1 / _to_rust(effort, subject, kind, sender),
            _FROM_RUST: 1 / _from_rust(effort, subject, kind, sender, channel),
            _BACK: 1 / _back_from_rust(effort, subject, kind, receiver),
        }

    return measure


def _between_rust_programs(subject: str) -> Measure:
    """The same from Rust to Rust, which has one figure to hold against both."""
    measure = by_rust_peer(subject)

    def both(effort: Effort) -> Figures:
        figure = measure(effort)[""]
        return {_TO_RUST: figure, _FROM_RUST: figure}

    return both


def _codecs(effort: Effort) -> Figures:
    from ipc_channel.codecs.rust import VERSIONS, rust_codec

    postcard = rust_codec(Item, VERSIONS["rust"])
    pairs: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
        _POSTCARD: (postcard.encode, postcard.decode),
        _MESSAGEPACK: (msgspec.msgpack.Encoder().encode, msgspec.msgpack.Decoder(Item).decode),
    }
    for encode, decode in pairs.values():
        for number in range(_CHECKED):
            item = sample(Kind.STRUCT, number)
            check(decode(encode(item)) == item, "an item differs")
    runs = {name: partial(_encoding, *pair) for name, pair in pairs.items()}
    return seconds_each_in_turn(effort.seconds, runs, turns=25)


def _encoding(encode: Callable[[Any], Any], decode: Callable[[Any], Any], count: int) -> float:
    """Seconds for that many structs."""
    item = sample(Kind.STRUCT, 0)
    start = time.perf_counter()
    for _ in repeat(None, count):
        decode(encode(item))
    return time.perf_counter() - start


_FAMILY: Final = "Rust programs"
_METRICS: Final = [Metric(name, Unit.RATE) for name in (_TO_RUST, _FROM_RUST, _BACK)]
_TARGETS: Final = [beside(metric, Unit.RATE, "rust", "Rust to Rust", 0.8) for metric in (_TO_RUST, _FROM_RUST)]
_WHAT: Final = (
    'A loop of send on one side, a loop of receives on the other, over a channel with codec="rust"; from the first send'
    " until the receiver has everything. Rust crate: the same from Rust to Rust, in the first two rows. As between Rust"
    " programs, the process that receives has made the channel, except in the third row."
)

SUBJECTS: Final = (
    Subject(
        key="rust-bytes-64",
        name="64 B bytes, with a Rust program",
        family=_FAMILY,
        what=_WHAT,
        metrics=_METRICS,
        measures={
            OURS: _ways(
                "bytes-64",
                Kind.BYTES,
                ipc.BytesSender,
                ipc.BytesReceiver,
                partial(ipc.bytes_channel, codec="rust"),
            ),
            "rust": _between_rust_programs("bytes-64"),
        },
        targets=_TARGETS,
    ),
    Subject(
        key="rust-struct",
        name="struct of 4 fields, with a Rust program",
        family=_FAMILY,
        what=_WHAT,
        metrics=_METRICS,
        measures={
            OURS: _ways(
                "struct",
                Kind.STRUCT,
                ipc.Sender[Item],
                ipc.Receiver[Item],
                partial(ipc.channel, Item, codec="rust"),
            ),
            "rust": _between_rust_programs("struct"),
        },
        targets=_TARGETS,
    ),
    Subject(
        key="rust-codec",
        name="struct of 4 fields, encoded and decoded",
        family=_FAMILY,
        what="The bytes of one struct for a Rust program (postcard), and the struct of these bytes, without a channel;"
        " beside msgspec's MessagePack, by turns.",
        metrics=[Metric(_POSTCARD, Unit.TIME), Metric(_MESSAGEPACK, Unit.TIME)],
        measures={OURS: _codecs},
        targets=[of_another(_POSTCARD, _MESSAGEPACK, 1.2, "≤ 1.2 × MessagePack", at_least=False)],
    ),
)
