"""What asyncio has of its own: readers on descriptors, timeouts, cancelled tasks. No anyio in sight."""

from __future__ import annotations

import asyncio

import pytest

import ipc_channel as ipc


def test_a_users_own_reader_on_the_descriptor_stays() -> None:
    async def main() -> None:
        sender, receiver = ipc.channel(int)
        news = asyncio.Event()
        with sender, receiver:
            loop = asyncio.get_running_loop()
            loop.add_reader(receiver.fileno(), news.set)
            try:
                task = asyncio.ensure_future(receiver.arecv())
                await asyncio.sleep(0.01)
                assert not news.is_set()
                sender.send(1)
                assert await task == 1
                news.clear()
                sender.send(2)
                await news.wait()
            finally:
                loop.remove_reader(receiver.fileno())

    asyncio.run(main())


def test_asyncio_own_timeouts() -> None:
    async def main() -> None:
        sender, receiver = ipc.channel(int)
        with sender, receiver:
            for number in range(20):
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(receiver.arecv(), 0.001)
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.001):
                        await receiver.arecv()
                sender.send(number)
                assert await receiver.arecv() == number
            task = asyncio.ensure_future(receiver.arecv())
            await asyncio.sleep(0)
            task.cancel()
            sender.send(1)
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await receiver.arecv() == 1

    asyncio.run(main())
