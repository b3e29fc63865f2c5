"""Sending and receiving in asyncio and trio: order, turns, cancellation, closing, several loops."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.abc
import anyio.to_thread
import pytest
from anyio.lowlevel import checkpoint

import ipc_channel as ipc

BACKENDS = ["asyncio", "trio"]

pytestmark = pytest.mark.parametrize("backend", BACKENDS)


def run(backend: str, main: Callable[[], Awaitable[None]]) -> None:
    async def limited() -> None:
        with anyio.fail_after(30):
            await main()

    anyio.run(limited, backend=backend)


@asynccontextmanager
async def waiting(*functions: Callable[[], Awaitable[Any]]) -> AsyncIterator[anyio.abc.TaskGroup]:
    """Tasks that have all come to their wait when the block begins."""
    async with anyio.create_task_group() as tasks:
        for function in functions:
            tasks.start_soon(function)
            await anyio.wait_all_tasks_blocked()
        yield tasks


CAPACITY = 20


def full_channel() -> ipc.Channel[int]:
    """A channel that has room for ``CAPACITY`` messages and holds so many: the numbers from 0 on."""
    channel = ipc.channel(int, capacity=CAPACITY)
    channel.sender.send_many(range(CAPACITY))
    with pytest.raises(ipc.Full):
        channel.sender.try_send(CAPACITY)
    return channel


def test_messages_come_in_order(backend: str) -> None:
    async def main() -> None:
        sender, receiver = ipc.channel(int)
        received: list[int] = []

        async def receive() -> None:
            async for number in receiver:
                received.append(number)

        with receiver:
            async with waiting(receive):
                with sender:
                    for number in range(1000):
                        await sender.asend(number)
                    await sender.asend_many(range(1000, 2000))
        assert received == list(range(2000))

    run(backend, main)


def test_arecv_waits_for_a_message_and_raises_at_the_end(backend: str) -> None:
    async def main() -> None:
        sender, receiver = ipc.bytes_channel()
        received: list[bytes] = []

        async def receive() -> None:
            received.append(await receiver.arecv())

        with receiver:
            async with waiting(receive):
                assert received == []
                sender.send(b"late")
            assert received == [b"late"]
            sender.close()
            with pytest.raises(ipc.Disconnected):
                await receiver.arecv()

    run(backend, main)


def test_arecv_many_returns_what_is_there(backend: str) -> None:
    async def main() -> None:
        sender, receiver = ipc.channel(int)
        batches: list[list[int]] = []

        async def receive() -> None:
            batches.append(await receiver.arecv_many())

        with sender, receiver:
            sender.send_many([1, 2, 3])
            assert await receiver.arecv_many(2) == [1, 2]
            assert await receiver.arecv_many() == [3]
            async with waiting(receive):
                sender.send(4)
            assert batches == [[4]]
            with pytest.raises(ValueError):
                await receiver.arecv_many(0)

    run(backend, main)


def test_asend_waits_for_room(backend: str) -> None:
    async def main() -> None:
        sender, receiver = full_channel()
        with sender, receiver:

            async def send() -> None:
                await sender.asend(CAPACITY)

            async with waiting(send):
                assert receiver.recv_many() == list(range(CAPACITY))
            assert receiver.recv_many() == [CAPACITY]

    run(backend, main)


def test_asend_many_says_how_many_went(backend: str) -> None:
    async def main() -> None:
        sender, receiver = ipc.channel(int)
        with sender, receiver:
            with pytest.raises(ipc.EncodeError) as caught:
                await sender.asend_many([1, 2, "three"])  # type: ignore[list-item]
            assert caught.value.sent == 2
            assert receiver.recv_many() == [1, 2]
        sender, receiver = full_channel()
        with sender, receiver:
            sent: list[int | None] = []

            async def send() -> None:
                try:
                    await sender.asend_many(range(1_000_000))
                except BaseException as error:
                    sent.append(getattr(error, "sent", None))
                    raise

            async with waiting(send) as tasks:
                arrived: list[int] = []
                while len(arrived) <= CAPACITY:
                    arrived += await receiver.arecv_many()
                tasks.cancel_scope.cancel()
            arrived += drain(receiver)
            assert sent == [len(arrived) - CAPACITY]
            assert arrived == [*range(CAPACITY), *range(len(arrived) - CAPACITY)]

    run(backend, main)


class TestCheckpoints:
    """Each call lets others run and can be cancelled, also when it need not wait."""

    @pytest.mark.parametrize("name", ["asend", "asend_many", "arecv", "arecv_many"])
    def test_cancelled_before_means_nothing_happened(self, backend: str, name: str) -> None:
        async def main() -> None:
            sender, receiver = ipc.channel(int)
            calls: dict[str, Callable[[], Awaitable[Any]]] = {
                "asend": lambda: sender.asend(2),
                "asend_many": lambda: sender.asend_many([2]),
                "arecv": receiver.arecv,
                "arecv_many": receiver.arecv_many,
            }
            with sender, receiver:
                sender.send(1)
                with anyio.CancelScope() as scope:
                    scope.cancel()
                    await calls[name]()
                    pytest.fail("no checkpoint")
                assert receiver.recv_many() == [1]

        run(backend, main)

    @pytest.mark.parametrize("name", ["asend", "asend_many", "arecv", "arecv_many"])
    def test_other_tasks_run_meanwhile(self, backend: str, name: str) -> None:
        async def main() -> None:
            sender, receiver = ipc.channel(int)
            turns = 0

            async def count() -> None:
                nonlocal turns
                while True:
                    turns += 1
                    await checkpoint()

            calls: dict[str, Callable[[], Awaitable[Any]]] = {
                "asend": lambda: sender.asend(2),
                "asend_many": lambda: sender.asend_many([2]),
                "arecv": receiver.arecv,
                "arecv_many": lambda: receiver.arecv_many(1),
            }
            with sender, receiver:
                sender.send_many(range(20))
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(count)
                    await checkpoint()
                    before = turns
                    for _ in range(10):
                        await calls[name]()
                    # Not one for each: trio shuffles the tasks that can run.
                    assert turns - before >= 5
                    tasks.cancel_scope.cancel()

        run(backend, main)


class TestCancellation:
    def test_of_arecv_loses_no_message(self, backend: str) -> None:
        """Cancelled and given a message at the same moment, wherever it is: each message comes exactly once."""

        async def main() -> None:
            sender, receiver = ipc.channel(int)
            received: list[int] = []

            async def receive() -> None:
                received.append(await receiver.arecv())

            with sender, receiver:
                for number in range(400):
                    async with anyio.create_task_group() as tasks:
                        tasks.start_soon(receive)
                        for _ in range(number // 4 % 8):
                            await checkpoint()
                        if number % 2:
                            sender.send(number)
                        if number // 2 % 2:
                            await checkpoint()
                        tasks.cancel_scope.cancel()
                        if not number % 2:
                            sender.send(number)
                    received += drain(receiver)
            assert received == list(range(400))

        run(backend, main)

    def test_of_asend_means_not_sent_and_its_ends_stay(self, backend: str) -> None:
        async def main() -> None:
            sender, receiver = ipc.channel(capacity=CAPACITY)
            inner, inner_receiver = ipc.channel(int)
            with sender, receiver, inner, inner_receiver:
                sender.send_many(range(CAPACITY))

                async def send() -> None:
                    await sender.asend(inner)

                async with waiting(send) as tasks:
                    tasks.cancel_scope.cancel()
                assert receiver.recv_many() == list(range(CAPACITY))
                assert not receiver.poll()
                inner.send(1)
                assert inner_receiver.recv() == 1

        run(backend, main)

    def test_of_one_waiter_leaves_the_others_waiting(self, backend: str) -> None:
        async def main() -> None:
            sender, receiver = ipc.channel(int)
            received: list[int] = []
            scope = anyio.CancelScope()

            async def cancelled() -> None:
                with scope:
                    await receiver.arecv()

            async def patient() -> None:
                received.append(await receiver.arecv())

            with sender, receiver:
                async with waiting(cancelled, patient, patient):
                    scope.cancel()
                    await anyio.wait_all_tasks_blocked()
                    sender.send_many([1, 2])
                assert received == [1, 2]

        run(backend, main)


def drain(receiver: ipc.Receiver[int]) -> list[int]:
    try:
        return receiver.recv_many(timeout=0)
    except ipc.Empty:
        return []


class TestManyTasks:
    def test_on_one_receiver_are_served_in_the_order_of_their_coming(self, backend: str) -> None:
        async def main() -> None:
            sender, receiver = ipc.channel(int)
            served: list[tuple[str, int]] = []

            def task(name: str) -> Callable[[], Awaitable[None]]:
                async def receive() -> None:
                    served.append((name, await receiver.arecv()))

                return receive

            with sender, receiver:
                async with waiting(task("a"), task("b"), task("c")):
                    sender.send_many([1, 2, 3])
                assert served == [("a", 1), ("b", 2), ("c", 3)]

        run(backend, main)

    def test_on_one_sender(self, backend: str) -> None:
        async def main() -> None:
            sender, receiver = full_channel()

            async def send(number: int) -> None:
                await sender.asend(number)

            with sender, receiver:
                received: list[int] = []
                async with anyio.create_task_group() as tasks:
                    for number in range(20):
                        tasks.start_soon(send, CAPACITY + number)
                        await anyio.wait_all_tasks_blocked()
                    received += [await receiver.arecv() for _ in range(CAPACITY + 20)]
                assert received == list(range(CAPACITY + 20))

        run(backend, main)

    def test_sending_and_receiving_at_both_ends(self, backend: str) -> None:
        async def main() -> None:
            there, there_end = ipc.channel(int)
            back, back_end = ipc.channel(int)

            async def echo() -> None:
                async for number in there_end:
                    await back.asend(number + 1)

            with there_end, back, back_end:
                async with waiting(echo):
                    with there:
                        for number in range(100):
                            await there.asend(number)
                            assert await back_end.arecv() == number + 1

        run(backend, main)


class TestClosing:
    @pytest.mark.parametrize("from_thread", [False, True])
    def test_wakes_every_waiter(self, backend: str, from_thread: bool) -> None:
        async def main() -> None:
            sender, receiver = ipc.channel(int)
            raised: list[BaseException] = []

            async def receive() -> None:
                with pytest.raises(ipc.ClosedError) as caught:
                    await receiver.arecv()
                raised.append(caught.value)

            async def send() -> None:
                with pytest.raises(ipc.ClosedError) as caught:
                    await sender.asend(0)
                raised.append(caught.value)

            with sender, receiver:
                async with waiting(receive, receive):
                    await (anyio.to_thread.run_sync(receiver.close) if from_thread else closing(receiver))
                assert len(raised) == 2
            sender, receiver = full_channel()
            with sender, receiver:
                async with waiting(send, send):
                    await (anyio.to_thread.run_sync(sender.close) if from_thread else closing(sender))
                assert len(raised) == 4

        run(backend, main)

    def test_moving_wakes_the_waiter_too(self, backend: str) -> None:
        async def main() -> None:
            sender, receiver = ipc.channel(int)
            outer = ipc.channel(ipc.Receiver[int])

            async def receive() -> None:
                with pytest.raises(ipc.ClosedError, match="moved"):
                    await receiver.arecv()

            with sender, outer.sender, outer.receiver:
                async with waiting(receive):
                    await outer.sender.asend(receiver)
                with await outer.receiver.arecv() as moved:
                    sender.send(1)
                    assert await moved.arecv() == 1

        run(backend, main)

    def test_the_other_side_going_away(self, backend: str) -> None:
        async def main() -> None:
            sender, receiver = full_channel()

            async def send() -> None:
                with pytest.raises(ipc.ReceiverGone):
                    await sender.asend(0)

            with sender:
                async with waiting(send):
                    receiver.close()
            sender, receiver = ipc.channel(int)

            async def receive() -> None:
                with pytest.raises(ipc.Disconnected):
                    await receiver.arecv()

            with receiver:
                async with waiting(receive):
                    sender.close()

        run(backend, main)

    def test_a_closed_end(self, backend: str) -> None:
        async def main() -> None:
            sender, receiver = ipc.channel(int)
            sender.close()
            receiver.close()
            with pytest.raises(ipc.ClosedError):
                await sender.asend(1)
            with pytest.raises(ipc.ClosedError):
                await receiver.arecv()
            with pytest.raises(ipc.ClosedError):
                async for _ in receiver:
                    pass

        run(backend, main)


async def closing(end: Any) -> None:
    end.close()


def test_an_end_is_used_by_two_event_loops_in_two_threads(backend: str) -> None:
    sender, receiver = ipc.channel(int)
    received: list[list[int]] = [[], []]

    def loop(number: int) -> None:
        async def main() -> None:
            async for message in receiver:
                received[number].append(message)

        run(BACKENDS[number] if backend == "asyncio" else backend, main)

    with receiver:
        threads = [threading.Thread(target=loop, args=(number,)) for number in range(2)]
        for thread in threads:
            thread.start()

        async def send() -> None:
            for number in range(2000):
                await sender.asend(number)

        with sender:
            run(backend, send)
        for thread in threads:
            thread.join()
    assert sorted(received[0] + received[1]) == list(range(2000))
    for part in received:
        assert part == sorted(part)
