"""There and back, with both sides busy and with both asleep, and requests with a channel of their own."""

import socket
import struct
import time
from collections.abc import Callable
from functools import partial
from itertools import repeat
from typing import Final

import msgspec

import ipc_channel as ipc
from ipc_channel.bench.measuring import check, now, quantile, seconds_each
from ipc_channel.bench.messages import SMALL, sample
from ipc_channel.bench.peer import Control, peer
from ipc_channel.bench.rivals.libraries import LIBRARIES, SOCKETS
from ipc_channel.bench.rivals.rival import Kind, ReceivePort, Rival, SendPort
from ipc_channel.bench.rivals.rust import by_rust_peer
from ipc_channel.bench.rivals.sockets import socket_pair
from ipc_channel.bench.subject import OURS, Effort, Figures, Metric, Subject
from ipc_channel.bench.targets import at_most_times, beside, fixed
from ipc_channel.bench.units import Unit

__all__ = ["SUBJECTS"]

_CHECKED: Final = 100
"""Round trips before the timed ones; each is compared."""
_CHUNK: Final = 100
"""Round trips between two looks at the clock that ends the measurement."""
_PAUSE: Final = 0.001
"""Seconds each side waits before it sends, so that the other side has gone to sleep. The Rust program has the same."""
_ENOUGH: Final = 20
"""Round trips at least, however short the time."""
_TIMES: Final = struct.Struct("<qq")


def _busy(rival: Rival, effort: Effort) -> Figures:
    there, received_there = rival.link(Kind.BYTES, SMALL)
    sent_back, back = rival.link(Kind.BYTES, SMALL)
    ports = there, received_there, sent_back, back
    try:
        with peer(_echo, received_there, sent_back) as control:
            received_there.close()
            sent_back.close()
            receive = back.open()
            control.recv()  # both of its ends are there
            send = there.open()
            for number in range(_CHECKED):
                send(sample(Kind.BYTES, number))
                check(receive() == sample(Kind.BYTES, number), "an echo differs")
            message = sample(Kind.BYTES, 0)
            samples: list[int] = []
            took, end = samples.append, time.monotonic() + effort.seconds
            while time.monotonic() < end:
                for _ in repeat(None, _CHUNK):
                    sent = now()
                    send(message)
                    receive()
                    took(now() - sent)
            send(b"")
    finally:
        for port in ports:
            port.close()
    return {"p50": quantile(samples, 0.5) * 1e-9, "p99": quantile(samples, 0.99) * 1e-9}


def _echo(control: Control, receiving: ReceivePort, sending: SendPort) -> None:
    receive, send = receiving.open(), sending.open()
    try:
        control.send(True)
        while message := receive():
            send(message)
    finally:
        receiving.close()
        sending.close()


def _asleep(rival: Rival, effort: Effort) -> Figures:
    there, received_there = rival.link(Kind.BYTES, SMALL)
    sent_back, back = rival.link(Kind.BYTES, SMALL)
    ports = there, received_there, sent_back, back
    try:
        with peer(_echo_after_a_pause, received_there, sent_back) as control:
            received_there.close()
            sent_back.close()
            receive = back.open()
            control.recv()  # both of its ends are there
            send = there.open()
            message, padding = sample(Kind.BYTES, 0), bytes(SMALL - _TIMES.size)
            samples: list[int] = []
            end = time.monotonic() + effort.seconds
            while time.monotonic() < end or len(samples) < _ENOUGH:
                time.sleep(_PAUSE)
                sent = now()
                send(message)
                echo = receive()
                received = now()
                arrived, left = _TIMES.unpack_from(echo)
                check(echo[_TIMES.size :] == padding, "an echo differs")
                check(sent < arrived < left < received, "the clocks disagree")
                samples.append((arrived - sent) + (received - left))
            send(b"")
    finally:
        for port in ports:
            port.close()
    return {"p50": quantile(samples, 0.5) * 1e-9}


def _echo_after_a_pause(control: Control, receiving: ReceivePort, sending: SendPort) -> None:
    receive, send = receiving.open(), sending.open()
    try:
        control.send(True)
        padding = bytes(SMALL - _TIMES.size)
        expected = sample(Kind.BYTES, 0)
        while message := receive():
            arrived = now()
            check(message == expected, "a message differs")
            time.sleep(_PAUSE)
            send(_TIMES.pack(arrived, now()) + padding)
    finally:
        receiving.close()
        sending.close()


class Request(msgspec.Struct):
    """A question with the channel for its answer."""

    number: int
    reply: ipc.Sender[int]


def _requests(effort: Effort) -> Figures:
    sender, receiver = ipc.channel(Request)
    with sender, receiver:
        with peer(_serve, receiver), sender:

            def ask(number: int) -> int:
                reply, answer = ipc.channel(int)
                sender.send(Request(number, reply))
                with answer:
                    return answer.recv()

            return _answered(ask, effort)


def _answered(ask: Callable[[int], int], effort: Effort) -> Figures:
    for number in range(_CHECKED):
        check(ask(number) == number + 1, "an answer differs")

    def run(count: int) -> float:
        start = time.perf_counter()
        for number in range(count):
            ask(number)
        return time.perf_counter() - start

    return {"": 1 / seconds_each(effort.seconds, run)}


def _serve(_: Control, requests: ipc.Receiver[Request]) -> None:
    with requests:
        for request in requests:
            with request.reply as reply:
                reply.send(request.number + 1)


def _requests_by_sockets(effort: Effort) -> Figures:
    """The same kernel objects, and numbers as bare bytes."""
    ours, theirs = socket_pair()
    # Ours is closed before its peer is waited for.
    with ours, theirs, peer(_serve_by_sockets, theirs), ours:
        theirs.close()

        def ask(number: int) -> int:
            reply, answer = socket_pair()
            with answer:
                with reply:
                    socket.send_fds(ours, [number.to_bytes(8, "little")], [reply.fileno()])
                return int.from_bytes(answer.recv(8), "little")

        return _answered(ask, effort)


def _serve_by_sockets(_control: Control, connected: socket.socket) -> None:
    with connected:
        while True:
            request, fds, _, _ = socket.recv_fds(connected, 8, 1)
            if not request:
                return
            with socket.socket(fileno=fds[0]) as reply:
                reply.send((int.from_bytes(request, "little") + 1).to_bytes(8, "little"))


_FAMILY: Final = "Round trips"

SUBJECTS: Final = (
    Subject(
        key="round-trip-busy",
        name="round trip, both sides busy",
        family=_FAMILY,
        what="64 B there and back, each side waiting in recv for nothing but the other; the time of each round trip"
        " by itself, with the two looks at the clock in it.",
        metrics=[Metric("p50", Unit.TIME), Metric("p99", Unit.TIME)],
        measures={
            **{rival.key: partial(_busy, rival) for rival in LIBRARIES},
            "rust": by_rust_peer("round-trip-busy"),
            "seqpacket": by_rust_peer("seqpacket-busy"),
        },
        targets=[fixed("p50", 1e-6, Unit.TIME), fixed("p99", 5e-6, Unit.TIME)],
        chart=["p50"],
    ),
    Subject(
        key="round-trip-asleep",
        name="round trip, receivers asleep",
        family=_FAMILY,
        what="The same, but each side pauses for 1 ms before it sends, so that the other one sleeps in the kernel."
        " The time from just before send there until recv has returned here, both ways added; the pauses lie between"
        " and are not counted. Bare sockets: send and recv of a seqpacket pair from Rust, with the same pauses; socket"
        " module: the same from Python.",
        metrics=[Metric("p50", Unit.TIME)],
        measures={
            **{rival.key: partial(_asleep, rival) for rival in LIBRARIES},
            "rust": by_rust_peer("round-trip-asleep"),
            "seqpacket": by_rust_peer("seqpacket-asleep"),
            SOCKETS.key: partial(_asleep, SOCKETS),
        },
        targets=[at_most_times("p50", "seqpacket", "bare sockets", 1.15)],
        chart=["p50"],
    ),
    Subject(
        key="request",
        name="request with a fresh reply channel",
        family=_FAMILY,
        what="channel(), a message with the new sender in it, the answer through it, both ends closed;"
        " each side waiting for nothing but the other. Socket module: a socket pair, one of them sent, the answer"
        " through it, and all closed; both numbers without a type.",
        metrics=[Metric("", Unit.RATE)],
        measures={OURS: _requests, "rust": by_rust_peer("request"), SOCKETS.key: _requests_by_sockets},
        targets=[beside("", Unit.RATE, "rust", "the Rust crate", 3)],
        chart=[""],
    ),
)
