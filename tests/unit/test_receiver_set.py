"""One wait for many receivers."""

from __future__ import annotations

import gc
import os
import select
import signal
import threading
import time
import warnings
from collections.abc import Iterator
from typing import Any

import anyio
import msgspec
import pytest

import ipc_channel as ipc
from tests.support.packets import send_packet, socket_of
from tests.support.start_methods import start


@pytest.fixture
def receivers() -> Iterator[ipc.ReceiverSet[Any]]:
    with ipc.ReceiverSet[Any]() as receivers:
        yield receivers


def everything(receivers: ipc.ReceiverSet[Any], count: int) -> list[Any]:
    """That many events, whatever number of calls they take."""
    events: list[Any] = []
    while len(events) < count:
        events += receivers.select(10)
    assert len(events) == count
    return events


def test_events_have_the_right_keys_and_come_exactly_once(receivers: ipc.ReceiverSet[Any]) -> None:
    one, one_receiver = ipc.channel(str)
    two, two_receiver = ipc.channel(int)
    with one, two:
        receivers.add(one_receiver, "one")
        receivers.add(two_receiver, "two")
        one.send("a")
        two.send(2)
        assert sorted(everything(receivers, 2), key=repr) == [ipc.Received("one", "a"), ipc.Received("two", 2)]
        assert receivers.try_select() == []


def test_events_are_frozen_match_and_show_themselves() -> None:
    event = ipc.Received("key", 5)
    with pytest.raises(AttributeError):
        event.message = 6  # type: ignore[misc]
    match event:
        case ipc.Received(key, message):
            assert (key, message) == ("key", 5)
    assert repr(event) == "Received(key='key', message=5)"
    assert ipc.Closed(1) == ipc.Closed(1) != ipc.Closed(2)
    assert not hasattr(event, "__dict__")


def test_try_select_nothing_message_nothing_closed_nothing(receivers: ipc.ReceiverSet[Any]) -> None:
    sender, receiver = ipc.channel(int)
    key = receivers.add(receiver)
    assert receivers.try_select() == []
    sender.send(1)
    assert receivers.try_select() == [ipc.Received(key, 1)]
    assert receivers.try_select() == []
    sender.close()
    assert receivers.try_select() == [ipc.Closed(key)]
    assert receivers.try_select() == []
    assert len(receivers) == 0


def test_a_timeout_gives_nothing_and_not_too_early(receivers: ipc.ReceiverSet[Any]) -> None:
    sender, receiver = ipc.channel(int)
    with sender:
        receivers.add(receiver)
        started = time.monotonic()
        assert receivers.select(0.01) == []
        assert time.monotonic() - started >= 0.01
        started = time.monotonic()
        assert receivers.select(0.0004) == []
        assert time.monotonic() - started >= 0.0004


def test_select_on_an_empty_set_is_an_error(receivers: ipc.ReceiverSet[Any]) -> None:
    with pytest.raises(ValueError, match="add a receiver"):
        receivers.select()
    assert receivers.try_select() == []


@pytest.mark.parametrize("timeout", [-1, -0.001, float("nan")])
def test_timeouts_out_of_range(receivers: ipc.ReceiverSet[Any], timeout: float) -> None:
    sender, receiver = ipc.channel(int)
    with sender:
        receivers.add(receiver)
        sender.send(1)
        with pytest.raises(ValueError, match="timeout"):
            receivers.select(timeout)
        assert receivers.select(float("inf")) == [ipc.Received(0, 1)]


def test_adding_moves_the_receiver(receivers: ipc.ReceiverSet[Any]) -> None:
    sender, receiver = ipc.channel(int)
    with sender:
        receivers.add(receiver)
        assert receiver.closed
        with pytest.raises(ipc.ClosedError):
            receiver.recv()
        with pytest.raises(ipc.ClosedError):
            receivers.add(receiver)
        assert len(receivers) == 1


def test_only_receivers_can_be_added(receivers: ipc.ReceiverSet[Any]) -> None:
    sender, receiver = ipc.channel(int)
    with sender, receiver, pytest.raises(TypeError, match="receivers"):
        receivers.add(sender)  # type: ignore[arg-type]


def test_default_keys_are_ints_and_never_given_out_again(receivers: ipc.ReceiverSet[Any]) -> None:
    seen: list[int] = []
    for _ in range(5):
        sender, receiver = ipc.channel(int)
        seen.append(receivers.add(receiver))
        sender.close()
        assert receivers.select(10) == [ipc.Closed(seen[-1])]
    assert len(set(seen)) == 5
    assert all(type(key) is int for key in seen)


def test_default_keys_avoid_those_of_the_user(receivers: ipc.ReceiverSet[Any]) -> None:
    channels = [ipc.channel(int) for _ in range(3)]
    receivers.add(channels[0].receiver, 0)
    keys = [0, receivers.add(channels[1].receiver), receivers.add(channels[2].receiver)]
    assert len(set(keys)) == 3
    assert list(receivers) == keys
    for sender, _ in channels:
        sender.close()


def test_a_key_in_use_is_refused_and_the_receiver_untouched(receivers: ipc.ReceiverSet[Any]) -> None:
    one, one_receiver = ipc.channel(int)
    two, two_receiver = ipc.channel(int)
    with one, two, two_receiver:
        receivers.add(one_receiver, "key")
        with pytest.raises(KeyError, match="key"):
            receivers.add(two_receiver, "key")
        two.send(2)
        assert two_receiver.recv() == 2
        with pytest.raises(TypeError):
            receivers.add(two_receiver, [])
        assert not two_receiver.closed
        assert list(receivers) == ["key"]


def test_a_key_is_free_again_once_its_stream_has_ended_or_was_removed(receivers: ipc.ReceiverSet[Any]) -> None:
    for ending in ("ended", "removed"):
        sender, receiver = ipc.channel(int)
        receivers.add(receiver, "key")
        sender.send(1)
        assert receivers.select(10) == [ipc.Received("key", 1)]
        if ending == "ended":
            sender.close()
            assert receivers.select(10) == [ipc.Closed("key")]
        else:
            with sender, receivers.remove("key"):
                pass
        assert "key" not in receivers


def test_remove_gives_the_same_kind_of_receiver_back(receivers: ipc.ReceiverSet[Any]) -> None:
    typed, typed_receiver = ipc.channel(list[int])
    pickled, pickled_receiver = ipc.channel()
    raw, raw_receiver = ipc.bytes_channel()
    hidden, hidden_receiver = ipc.channel(str)
    with typed, pickled, raw, hidden:
        for receiver in (typed_receiver, pickled_receiver, raw_receiver, hidden_receiver.to_opaque()):
            receivers.add(receiver, type(receiver).__name__ + str(len(receivers)))
        typed.send([1])
        pickled.send({1, 2})
        raw.send(b"3")
        hidden.send("4")
        with receivers.remove("Receiver0") as back:
            assert (type(back), back.recv()) == (ipc.Receiver, [1])
        with receivers.remove("Receiver1") as back:
            assert (type(back), back.recv()) == (ipc.Receiver, {1, 2})
        with receivers.remove("BytesReceiver2") as back:
            assert (type(back), back.recv()) == (ipc.BytesReceiver, b"3")
        opaque = receivers.remove("OpaqueReceiver3")
        assert type(opaque) is ipc.OpaqueReceiver
        with opaque.to(str) as back:
            assert back.recv() == "4"
        assert len(receivers) == 0
        with pytest.raises(KeyError):
            receivers.remove("Receiver0")


def test_bytes_and_opaque_receivers(receivers: ipc.ReceiverSet[Any]) -> None:
    raw, raw_receiver = ipc.bytes_channel()
    hidden, hidden_receiver = ipc.channel(str)
    with raw, hidden:
        receivers.add(raw_receiver, "raw")
        receivers.add(hidden_receiver.to_opaque(), "opaque")
        raw.send(b"")
        assert receivers.select(10) == [ipc.Received("raw", b"")], "an empty message is no end of the stream"
        hidden.send("hello")
        [event] = receivers.select(10)
        assert event.key == "opaque"
        assert isinstance(event.message, ipc.OpaqueMessage)
        assert event.message.to(str) == "hello"


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_stream_that_ends_before_or_after_it_is_added(receivers: ipc.ReceiverSet[Any], when: str) -> None:
    sender, receiver = ipc.channel(int)
    sender.send(1)
    if when == "before":
        sender.close()
    receivers.add(receiver, "key")
    sender.close()
    assert everything(receivers, 2) == [ipc.Received("key", 1), ipc.Closed("key")]


@pytest.mark.parametrize("size", [64 * 1024, 8 * 1024 * 1024])
def test_medium_and_big_messages(receivers: ipc.ReceiverSet[Any], size: int) -> None:
    channels = [ipc.bytes_channel() for _ in range(2)]
    for index, (sender, receiver) in enumerate(channels):
        receivers.add(receiver, index)
        sender.send(bytes([index]) * size)
    for event in everything(receivers, 2):
        assert event.message == bytes([event.key]) * size
    for sender, _ in channels:
        sender.close()


def test_five_concurrent_senders_in_order_and_then_closed(receivers: ipc.ReceiverSet[Any]) -> None:
    def work(sender: ipc.Sender[int]) -> None:
        with sender:
            for number in range(100):
                sender.send(number)

    channels = [ipc.channel(int) for _ in range(5)]
    threads = [threading.Thread(target=work, args=[sender]) for sender, _ in channels]
    for index, (_, receiver) in enumerate(channels):
        receivers.add(receiver, index)
        threads[index].start()
    got: dict[int, list[int]] = {index: [] for index in range(5)}
    closed: list[int] = []
    while len(receivers):
        for event in receivers.select(10):
            match event:
                case ipc.Received(key, message):
                    assert key not in closed
                    got[key].append(message)
                case ipc.Closed(key):
                    closed.append(key)
                case _:
                    pytest.fail(repr(event))
    for thread in threads:
        thread.join()
    assert got == {index: list(range(100)) for index in range(5)}
    assert sorted(closed) == list(range(5))


def test_a_flood_on_one_receiver_does_not_starve_the_others(receivers: ipc.ReceiverSet[Any]) -> None:
    flood, flood_receiver = ipc.channel(int)
    quiet, quiet_receiver = ipc.channel(int)
    with flood, quiet:
        receivers.add(flood_receiver, "flood")
        receivers.add(quiet_receiver, "quiet")
        for number in range(100):
            flood.send(number)
        quiet.send(7)
        events = receivers.select(10)
        assert sorted(event.key for event in events) == ["flood", "quiet"]
        assert sum(isinstance(event, ipc.Received) for event in everything(receivers, 99)) == 99


def test_adding_wakes_a_running_select(receivers: ipc.ReceiverSet[Any]) -> None:
    first, first_receiver = ipc.channel(int)
    second, second_receiver = ipc.channel(int)
    with first, second:
        receivers.add(first_receiver, "first")
        second.send(2)
        got: list[Any] = []
        thread = threading.Thread(target=lambda: got.extend(receivers.select()))
        thread.start()
        time.sleep(0.05)  # most likely it waits by now; right either way
        receivers.add(second_receiver, "second")
        thread.join(20)
        assert got == [ipc.Received("second", 2)]


def test_removing_the_last_receiver_ends_a_running_select(receivers: ipc.ReceiverSet[Any]) -> None:
    sender, receiver = ipc.channel(int)
    with sender:
        receivers.add(receiver, "key")
        errors: list[BaseException] = []

        def wait() -> None:
            try:
                receivers.select()
            except ValueError as error:
                errors.append(error)

        thread = threading.Thread(target=wait)
        thread.start()
        time.sleep(0.05)
        receivers.remove("key").close()
        thread.join(20)
        assert len(errors) == 1


def test_close_wakes_a_running_select_and_is_final(receivers: ipc.ReceiverSet[Any]) -> None:
    sender, receiver = ipc.channel(int)
    receivers.add(receiver)
    errors: list[BaseException] = []

    def wait() -> None:
        try:
            receivers.select()
        except ipc.ClosedError as error:
            errors.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    time.sleep(0.05)
    receivers.close()
    receivers.close()
    thread.join(20)
    assert len(errors) == 1
    assert receivers.closed
    with sender, pytest.raises(ipc.ReceiverGone):
        sender.send(1)
    other_sender, other_receiver = ipc.channel(int)
    with other_sender, other_receiver:
        for action in (
            receivers.select,
            receivers.try_select,
            receivers.fileno,
            lambda: receivers.add(other_receiver),
            lambda: receivers.remove(0),
        ):
            with pytest.raises(ipc.ClosedError):
                action()
        assert not other_receiver.closed


def test_fileno_is_readable_exactly_while_something_is_there(receivers: ipc.ReceiverSet[Any]) -> None:
    def readable() -> bool:
        return bool(select.select([receivers], [], [], 0)[0])

    sender, receiver = ipc.channel(int)
    receivers.add(receiver, "key")
    assert not readable()
    sender.send(1)
    assert readable()
    receivers.select()
    assert not readable()
    sender.close()
    assert readable()
    assert receivers.select() == [ipc.Closed("key")]
    assert not readable()


def test_an_undecodable_message_is_an_event_of_its_own(receivers: ipc.ReceiverSet[Any]) -> None:
    sender, receiver = ipc.channel(list[int])
    with sender:
        receivers.add(receiver, "key")
        sender.send([1])
        sender.send(["not an int"])  # type: ignore[list-item]
        sender.send([3])
        events = everything(receivers, 3)
        assert events[0] == ipc.Received("key", [1])
        assert isinstance(events[1], ipc.Undecodable)
        assert events[1].key == "key"
        assert isinstance(events[1].error, ipc.DecodeError)
        assert isinstance(events[1].error.__cause__, msgspec.ValidationError)
        assert events[2] == ipc.Received("key", [3])


def test_garbage_in_a_socket_is_an_event_of_its_own(receivers: ipc.ReceiverSet[Any]) -> None:
    sender, receiver = ipc.channel(int)
    with sender, socket_of(sender) as raw:
        receivers.add(receiver, "key")
        send_packet(raw, b"garbage")
        sender.send(2)
        events = everything(receivers, 2)
        assert isinstance(events[0], ipc.Undecodable)
        assert isinstance(events[0].error, ipc.ProtocolError)
        assert events[1] == ipc.Received("key", 2)


class Interrupting:
    """Raises KeyboardInterrupt the first time it is unpickled: Ctrl-C in the middle of decoding."""

    interrupted = False

    def __init__(self, value: int) -> None:
        self.value = value

    def __reduce__(self) -> tuple[Any, ...]:
        return Interrupting.revive, (self.value,)

    @staticmethod
    def revive(value: int) -> int:
        if not Interrupting.interrupted:
            Interrupting.interrupted = True
            raise KeyboardInterrupt
        return value


def test_an_interrupted_select_loses_nothing_and_repeats_nothing(receivers: ipc.ReceiverSet[Any]) -> None:
    channels = [ipc.channel() for _ in range(5)]
    for index, (sender, receiver) in enumerate(channels):
        receivers.add(receiver, index)
        sender.send(Interrupting(index) if index == 2 else index)
    Interrupting.interrupted = False
    with pytest.raises(KeyboardInterrupt):
        receivers.select()
    assert select.select([receivers], [], [], 0)[0], "what is kept makes it readable"
    assert sorted(event.message for event in everything(receivers, 5)) == [0, 1, 2, 3, 4]
    assert receivers.try_select() == []
    for sender, _ in channels:
        sender.close()


def test_ctrl_c_interrupts_a_wait(receivers: ipc.ReceiverSet[Any]) -> None:
    sender, receiver = ipc.channel(int)
    with sender:
        receivers.add(receiver)
        main = threading.main_thread().ident
        assert main is not None
        timer = threading.Timer(0.1, signal.pthread_kill, [main, signal.SIGINT])
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            receivers.select()
        timer.join()
        sender.send(1)
        assert receivers.select() == [ipc.Received(0, 1)]


def test_a_signal_with_a_handler_does_not_show(receivers: ipc.ReceiverSet[Any]) -> None:
    sender, receiver = ipc.channel(int)
    handled: list[int] = []

    def handle(number: int, frame: object) -> None:
        handled.append(number)

    before = signal.signal(signal.SIGUSR1, handle)
    try:
        with sender:
            receivers.add(receiver)
            main = threading.main_thread().ident
            assert main is not None
            timers = [
                threading.Timer(0.05, signal.pthread_kill, [main, signal.SIGUSR1]),
                threading.Timer(0.2, sender.send, [1]),
            ]
            for timer in timers:
                timer.start()
            assert receivers.select(20) == [ipc.Received(0, 1)]
            for timer in timers:
                timer.join()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert handled == [signal.SIGUSR1]


def _select_twice(receiver: ipc.Receiver[int], ready: ipc.Sender[None]) -> list[Any]:
    with ipc.ReceiverSet() as receivers, ready:
        receivers.add(receiver)
        ready.send(None)
        return [*receivers.select(20), *receivers.select(20)]


def test_sigstop_and_sigcont_in_the_middle_of_a_select() -> None:
    sender, receiver = ipc.channel(int)
    ready, ready_receiver = ipc.channel(None)
    with sender, ready_receiver:
        with ready, receiver:
            # Forkserver, not fork: a copy of `sender` in the child would keep the stream from ending.
            child = start("forkserver", _select_twice, receiver, ready)
        with child:
            ready_receiver.recv(30)
            for _ in range(3):
                time.sleep(0.02)
                os.kill(child.pid, signal.SIGSTOP)
                time.sleep(0.02)
                os.kill(child.pid, signal.SIGCONT)
            sender.send(1)
            sender.close()
            assert child.result() == [ipc.Received(0, 1), ipc.Closed(0)]


def test_threads_share_a_set_and_each_message_goes_to_one(receivers: ipc.ReceiverSet[Any]) -> None:
    count = 2000
    sender, receiver = ipc.channel(int)
    receivers.add(receiver)
    got: list[list[int]] = [[], []]

    def work(mine: list[int]) -> None:
        while True:
            try:
                events = receivers.select(20)
            except ValueError:
                return  # empty: the stream has ended
            for event in events:
                if isinstance(event, ipc.Received):
                    mine.append(event.message)

    threads = [threading.Thread(target=work, args=[mine]) for mine in got]
    for thread in threads:
        thread.start()
    for number in range(count):
        sender.send(number)
    sender.close()
    for thread in threads:
        thread.join(20)
    assert sorted(got[0] + got[1]) == list(range(count))


def test_a_hook_may_use_the_set_that_is_decoding(receivers: ipc.ReceiverSet[Any]) -> None:
    sender, receiver = ipc.channel()
    inner, inner_receiver = ipc.channel(int)
    with sender, inner:
        receivers.add(receiver, "outer")
        receivers.add(inner_receiver, "inner")
        Nested.receivers = receivers
        try:
            sender.send(Nested())
            [event] = receivers.select(10)
        finally:
            Nested.receivers = None
        assert event.message == ["inner", "outer"]


class Nested:
    receivers: Any = None

    def __reduce__(self) -> tuple[Any, ...]:
        return Nested.revive, ()

    @staticmethod
    def revive() -> list[str]:
        return sorted(Nested.receivers)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_aselect_waits_and_is_cancelled_without_loss(receivers: ipc.ReceiverSet[Any], backend: str) -> None:
    sender, receiver = ipc.channel(int)
    receivers.add(receiver, "key")

    async def main() -> None:
        with pytest.raises(TimeoutError):
            with anyio.fail_after(0.02):
                await receivers.aselect()
        async with anyio.create_task_group() as tasks:

            async def later() -> None:
                await anyio.sleep(0.02)
                sender.send(1)

            tasks.start_soon(later)
            assert await receivers.aselect() == [ipc.Received("key", 1)]
        sender.send(2)
        with anyio.CancelScope() as scope:
            scope.cancel()
            await receivers.aselect()
        assert scope.cancelled_caught, "it is a checkpoint"
        assert await receivers.aselect() == [ipc.Received("key", 2)]
        sender.close()
        assert await receivers.aselect() == [ipc.Closed("key")]
        with pytest.raises(ValueError):
            await receivers.aselect()
        receivers.close()
        with pytest.raises(ipc.ClosedError):
            await receivers.aselect()

    anyio.run(main, backend=backend)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_closing_ends_an_aselect(receivers: ipc.ReceiverSet[Any], backend: str) -> None:
    sender, receiver = ipc.channel(int)
    receivers.add(receiver, "key")

    async def main() -> None:
        async with anyio.create_task_group() as tasks:

            async def later() -> None:
                await anyio.sleep(0.02)
                receivers.close()

            tasks.start_soon(later)
            with pytest.raises(ipc.ClosedError):
                await receivers.aselect()

    anyio.run(main, backend=backend)
    sender.close()


def test_repr() -> None:
    with ipc.ReceiverSet() as receivers:
        sender, receiver = ipc.channel(int)
        receivers.add(receiver)
        assert repr(receivers) == "<ReceiverSet of 1 receivers>"
        sender.close()
    assert repr(receivers) == "<ReceiverSet closed>"


def test_an_unclosed_set_complains_and_closes() -> None:
    sender, receiver = ipc.channel(int)
    receivers = ipc.ReceiverSet[int]()
    receivers.add(receiver)
    with sender:
        with pytest.warns(ResourceWarning, match="unclosed <ReceiverSet"):
            del receivers
            gc.collect()
        with pytest.raises(ipc.ReceiverGone):
            sender.send(1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ipc.ReceiverSet[int]().close()
        gc.collect()


def test_removed_members_are_not_kept(receivers: ipc.ReceiverSet[Any]) -> None:
    for _ in range(50):
        sender, receiver = ipc.channel(int)
        key = receivers.add(receiver)
        receivers.remove(key).close()
        sender.close()
        sender, receiver = ipc.channel(int)
        receivers.add(receiver)
        sender.close()
        assert len(receivers.select(10)) == 1
    assert not receivers._members
