"""Channels in asyncio, beside asyncio's own streams over a Unix socket."""

import asyncio
import socket
import struct
import time
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Final

import ipc_channel as ipc
from ipc_channel.bench.measuring import check, now, quantile, seconds_each
from ipc_channel.bench.messages import SMALL, sample
from ipc_channel.bench.peer import Control, peer
from ipc_channel.bench.rivals.rival import Kind
from ipc_channel.bench.subject import OURS, Effort, Figures, Measure, Metric, Subject
from ipc_channel.bench.targets import beside
from ipc_channel.bench.units import Unit

__all__ = ["SUBJECTS"]

_CHECKED: Final = 300
_CHUNK: Final = 50
"""Round trips between two looks at the clock that ends the measurement."""
_LENGTH: Final = struct.Struct("<I")
"""What stands before each message in a stream."""
_SEND, _ASEND = "send", "asend"

_Send = Callable[[bytes], Coroutine[Any, Any, None]]
_Receive = Callable[[], Coroutine[Any, Any, bytes]]


def _one_way_ours(effort: Effort) -> Figures:
    return {way: 1 / _one_way_by(way, effort.seconds / 2) for way in (_SEND, _ASEND)}


def _one_way_by(way: str, seconds: float) -> float:
    sender, receiver = ipc.bytes_channel()
    with receiver, peer(_iterate, receiver) as control, sender, asyncio.Runner() as runner:

        async def send(messages: list[bytes]) -> None:
            if way == _ASEND:
                for message in messages:
                    await sender.asend(message)
            else:
                for message in messages:
                    sender.send(message)

        return _timed(send, control, seconds, runner)


def _one_way_streams(effort: Effort) -> Figures:
    ours, theirs = socket.socketpair()
    with ours, theirs, peer(_read, theirs) as control, asyncio.Runner() as runner:
        theirs.close()
        _, writer = runner.run(_opened(ours))

        async def send(messages: list[bytes]) -> None:
            for message in messages:
                writer.write(_LENGTH.pack(len(message)) + message)
                await writer.drain()

        try:
            each = _timed(send, control, effort.seconds, runner)
        finally:
            runner.run(_close(writer))
    # Streams have one way of sending, which stands beside both of ours.
    return {_SEND: 1 / each, _ASEND: 1 / each}


def _timed(
    send: Callable[[list[bytes]], Coroutine[Any, Any, None]], control: Control, seconds: float, runner: asyncio.Runner
) -> float:
    async def send_all(messages: list[bytes]) -> None:
        control.send(len(messages))
        await send(messages)
        # In a thread, since the loop may still have bytes of a stream to write.
        right = await asyncio.get_running_loop().run_in_executor(None, control.recv)
        check(right, "messages differ")

    def run(count: int) -> float:
        messages = [message] * count
        start = time.perf_counter()
        runner.run(send_all(messages))
        return time.perf_counter() - start

    runner.run(send_all([sample(Kind.BYTES, number) for number in range(_CHECKED)]))
    message = sample(Kind.BYTES, 0)
    return seconds_each(seconds, run)


async def _opened(connected: socket.socket) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_unix_connection(sock=connected)


def _iterate(control: Control, receiver: ipc.BytesReceiver) -> None:
    async def serve() -> None:
        with receiver:
            right, number, checked = True, 0, control.recv()
            async for message in receiver:
                right = right and message == sample(Kind.BYTES, number)
                number += 1
                if number == checked:
                    break
            control.send(right)
            while True:
                left = control.recv()
                async for message in receiver:
                    left -= 1
                    if not left:
                        control.send(message == sample(Kind.BYTES, 0))
                        break

    asyncio.run(serve())


def _read(control: Control, connected: socket.socket) -> None:
    async def serve() -> None:
        reader, writer = await _opened(connected)
        try:
            receive = partial(_framed, reader)
            right = True
            for number in range(control.recv()):
                right = right and await receive() == sample(Kind.BYTES, number)
            control.send(right)
            while True:
                message = b""
                for _ in range(control.recv()):
                    message = await receive()
                control.send(message == sample(Kind.BYTES, 0))
        finally:
            await _close(writer)

    asyncio.run(serve())


async def _framed(reader: asyncio.StreamReader) -> bytes:
    (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
    return await reader.readexactly(length)


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    await writer.wait_closed()


def _round_trip_ours(effort: Effort) -> Figures:
    there, received_there = ipc.bytes_channel()
    sent_back, back = ipc.bytes_channel()
    with back, received_there, sent_back, peer(_echo_ours, received_there, sent_back), there:
        received_there.close()
        sent_back.close()
        return asyncio.run(_round_trips(there.asend, back.arecv, effort.seconds))


def _echo_ours(_: Control, receiver: ipc.BytesReceiver, sender: ipc.BytesSender) -> None:
    async def serve() -> None:
        with receiver, sender:
            async for message in receiver:
                await sender.asend(message)

    asyncio.run(serve())


def _round_trip_streams(effort: Effort) -> Figures:
    ours, theirs = socket.socketpair()
    with ours, theirs, peer(_echo_streams, theirs):
        theirs.close()

        async def measure() -> Figures:
            reader, writer = await _opened(ours)
            try:
                return await _round_trips(partial(_write, writer), partial(_framed, reader), effort.seconds)
            finally:
                await _close(writer)

        return asyncio.run(measure())


async def _write(writer: asyncio.StreamWriter, message: bytes) -> None:
    writer.write(_LENGTH.pack(len(message)) + message)
    await writer.drain()


def _echo_streams(_: Control, connected: socket.socket) -> None:
    async def serve() -> None:
        reader, writer = await _opened(connected)
        try:
            while True:
                await _write(writer, await _framed(reader))
        except asyncio.IncompleteReadError:
            pass  # the other side has closed it
        finally:
            await _close(writer)

    asyncio.run(serve())


async def _round_trips(send: _Send, receive: _Receive, seconds: float) -> Figures:
    for number in range(_CHECKED):
        await send(sample(Kind.BYTES, number))
        check(await receive() == sample(Kind.BYTES, number), "an echo differs")
    message = sample(Kind.BYTES, 0)
    samples: list[int] = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for _ in range(_CHUNK):
            sent = now()
            await send(message)
            await receive()
            samples.append(now() - sent)
    return {"": quantile(samples, 0.5) * 1e-9}


def _subject(key: str, name: str, what: str, metrics: list[Metric], ours: Measure, streams: Measure) -> Subject:
    return Subject(
        key=key,
        name=name,
        family="Event loops",
        what=what,
        metrics=metrics,
        measures={OURS: ours, "streams": streams},
        targets=[beside(metric.name, metric.unit, "streams", "asyncio streams", 3) for metric in metrics],
        chart=[metrics[0].name],
    )


SUBJECTS: Final = (
    _subject(
        "asyncio-one-way",
        "asyncio, one way",
        f"{SMALL} B from a coroutine to an `async for` in another process; sent by send, which does not wait, or by"
        " await asend. Streams: a Unix socket, 4 bytes of length before each message, drain after it, readexactly.",
        [Metric(_SEND, Unit.RATE), Metric(_ASEND, Unit.RATE)],
        _one_way_ours,
        _one_way_streams,
    ),
    _subject(
        "asyncio-round-trip",
        "asyncio, round trip",
        f"{SMALL} B there and back by asend, `async for` and arecv; the median. Streams as above.",
        [Metric("", Unit.TIME)],
        _round_trip_ours,
        _round_trip_streams,
    ),
)
