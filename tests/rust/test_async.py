"""asyncio and trio over channels to Rust."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest

import ipc_channel as ipc
from ipc_channel.rust import u64
from tests.rust import commands as c
from tests.rust.commands import numbered
from tests.rust.peers import TIMEOUT, Peer, executable

BACKENDS = ("asyncio", "trio")


def run(backend: str, function: Callable[..., Awaitable[None]], *arguments: Any) -> None:
    """Run it on that event loop."""

    async def main() -> None:
        with anyio.fail_after(TIMEOUT):
            await function(*arguments)

    anyio.run(main, backend=backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_there_and_back(peer: Peer, backend: str) -> None:
    async def exchange() -> None:
        with peer.loop(c.LoopBytes) as loop:
            for size in (0, 1, 100, 212_448, 300_000, 2 << 20):
                await loop.there.asend(numbered(1, size + 8))
                assert await loop.back.arecv() == numbered(1, size + 8)
            await loop.there.asend_many(numbered(number, 64) for number in range(500))
            assert await loop.back.arecv_many(1)
            received = 1
            while received < 500:
                received += len(await loop.back.arecv_many())

    run(backend, exchange)


@pytest.mark.parametrize("backend", BACKENDS)
def test_async_for(peer: Peer, backend: str) -> None:
    async def count() -> None:
        sender, receiver = peer.channel(u64)
        peer.tell(c.Feed([sender], 1000))
        with receiver:
            assert [number async for number in receiver] == list(range(1000))

    run(backend, count)


@pytest.mark.parametrize("backend", BACKENDS)
def test_many_receivers_at_once(peer: Peer, backend: str) -> None:
    async def gather() -> None:
        channels = [peer.bytes_channel() for _ in range(5)]
        found: dict[int, list[bytes]] = {index: [] for index in range(5)}

        async def collect(index: int, receiver: ipc.BytesReceiver) -> None:
            with receiver:
                async for message in receiver:
                    found[index].append(message)

        async with anyio.create_task_group() as tasks:
            for index, each in enumerate(channels):
                tasks.start_soon(collect, index, each.receiver)
            for index, each in enumerate(channels):
                peer.tell(c.Flood(each.sender, 20, 1 << (8 + 3 * index)))
        for index, messages in found.items():
            assert messages == [numbered(number, 1 << (8 + 3 * index)) for number in range(20)]

    run(backend, gather)


@pytest.mark.parametrize("backend", BACKENDS)
def test_sets(peer: Peer, backend: str) -> None:
    async def select() -> None:
        channels = [peer.channel(u64) for _ in range(5)]
        peer.tell(c.Feed([each.sender for each in channels], 20))
        found: dict[int, int] = dict.fromkeys(range(5), 0)
        with ipc.ReceiverSet[int]() as receivers:
            for key, each in enumerate(channels):
                receivers.add(each.receiver, key)
            while len(receivers):
                for event in await receivers.aselect():
                    if isinstance(event, ipc.Received):
                        assert event.message == found[event.key]
                        found[event.key] += 1
        assert found == dict.fromkeys(range(5), 20)

    run(backend, select)


def test_a_cancelled_receive_loses_nothing(peer: Peer) -> None:
    async def cancel() -> None:
        with peer.loop(c.LoopBytes) as loop:
            for number in range(20):
                waiting = asyncio.ensure_future(loop.back.arecv())
                await asyncio.sleep(0)
                loop.there.send(numbered(number, 300_000))
                await asyncio.sleep(0.001 * (number % 3))
                waiting.cancel()
                try:
                    message = await waiting
                except asyncio.CancelledError:
                    message = await loop.back.arecv()
                assert message == numbered(number, 300_000)

    run("asyncio", cancel)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_server(codec: Any, backend: str) -> None:
    async def serve() -> None:
        with ipc.OneShotServer(c.Hello, codec=codec) as server:
            process = subprocess.Popen([executable(codec), "connect", server.name])  # noqa: ASYNC220  it takes no time
            try:
                messages, hello = await server.aaccept()
                messages.close()
                hello.commands.close()
            finally:
                with process:
                    assert process.wait(TIMEOUT) == 0

    run(backend, serve)
