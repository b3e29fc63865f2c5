"""Receiving in an event loop: pending, one wake, ready; and the end of the stream ends the loop."""

from __future__ import annotations

from typing import Any

import anyio
import anyio.lowlevel
import pytest

import ipc_channel as ipc
from tests.conformance.implementations import DATA, Implementation

BACKENDS = ("asyncio", "trio")


@pytest.mark.parametrize("backend", BACKENDS)
def test_pending_then_one_wake_then_ready(implementation: Implementation, backend: str) -> None:
    steps: list[str] = []

    async def receive(receiver: Any) -> None:
        steps.append("pending")
        message = await receiver.arecv()
        steps.append(f"ready {message!r}")

    async def main() -> None:
        sender, receiver = implementation.make_channel(DATA)
        with sender, receiver:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(receive, receiver)
                for _ in range(5):
                    await anyio.lowlevel.checkpoint()
                steps.append("send")
                sender.send(b"one")
            with pytest.raises(ipc.Empty):
                receiver.try_recv()

    anyio.run(main, backend=backend)
    assert steps == ["pending", "send", "ready b'one'"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_loop_ends_with_the_stream(implementation: Implementation, backend: str) -> None:
    async def send_all(sender: Any) -> None:
        with sender:
            for number in range(300):
                await sender.asend(b"%d" % number)

    async def main() -> list[bytes]:
        sender, receiver = implementation.make_channel(DATA)
        with receiver:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(send_all, sender)
                return [message async for message in receiver]

    assert anyio.run(main, backend=backend) == [b"%d" % number for number in range(300)]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_message_that_is_there_already_is_ready_at_once(implementation: Implementation, backend: str) -> None:
    async def main() -> bytes:
        sender, receiver = implementation.make_channel(DATA)
        with sender, receiver:
            sender.send(b"there")
            return await receiver.arecv()

    assert anyio.run(main, backend=backend) == b"there"


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_cancelled_receive_takes_nothing(implementation: Implementation, backend: str) -> None:
    async def main() -> bytes:
        sender, receiver = implementation.make_channel(DATA)
        with sender, receiver:
            with anyio.move_on_after(0.02) as scope:
                await receiver.arecv()
            assert scope.cancelled_caught
            sender.send(b"for the next one")
            return await receiver.arecv()

    assert anyio.run(main, backend=backend) == b"for the next one"
