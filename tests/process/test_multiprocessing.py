"""Ends, shared memory and files as arguments of processes, and through multiprocessing's queues and pipes."""

from __future__ import annotations

import copy
import multiprocessing
import os
import pickle
import signal
import time
from typing import Any, Optional

import pytest

import ipc_channel as ipc
from tests.support.snippets import run_snippet
from tests.support.start_methods import START_METHODS, run, start

PICKLING = ("spawn", "forkserver")
FORKING_TOO = ("fork", "spawn", "forkserver")


@pytest.fixture(params=FORKING_TOO)
def context(request: pytest.FixtureRequest) -> Any:
    return multiprocessing.get_context(request.param)


def send_numbers(sender: ipc.Sender[int], count: int) -> None:
    with sender:
        sender.send_many(range(count))


def collect(receiver: ipc.Receiver[int]) -> list[int]:
    with receiver:
        return list(receiver)


@pytest.mark.parametrize("method", START_METHODS)
def test_a_sender_as_an_argument(method: str) -> None:
    sender, receiver = ipc.channel(int)
    with receiver, start(method, send_numbers, sender, 5, kinds=[ipc.Sender[int]]) as child:
        sender.send(-1)  # duplicated: this one is still ours
        sender.close()
        assert sorted(receiver) == [-1, 0, 1, 2, 3, 4]
        child.result()


def send_and_collect(sender: ipc.Sender[int], receiver: ipc.Receiver[int]) -> list[int]:
    sender.close()
    return collect(receiver)


@pytest.mark.parametrize("method", START_METHODS)
def test_with_receiver_process_start_is_right_under_every_start_method(method: str) -> None:
    sender, receiver = ipc.channel(int)
    sender.send(1)
    with receiver:
        child = start(method, send_and_collect, sender, receiver, kinds=[ipc.Sender[int], ipc.Receiver[int]])
    assert receiver.closed
    with child:
        with sender:
            sender.send(2)
        assert child.result() == [1, 2], "the child has what was sent before and after it started"


@pytest.mark.parametrize("method", PICKLING)
def test_a_receiver_has_moved_once_the_process_has_started(method: str) -> None:
    sender, receiver = ipc.channel(int)
    with start(method, collect, receiver) as child:
        assert receiver.closed
        with pytest.raises(ipc.ClosedError, match="moved"):
            receiver.recv(0)
        with sender:
            sender.send(1)
        # Under spawn and forkserver the child has no copy of `sender`, so it sees the end of the stream.
        assert child.result() == [1]


class Unpicklable:
    def __reduce__(self) -> Any:
        raise RuntimeError("not to be pickled")


@pytest.mark.parametrize("method", PICKLING)
def test_a_failed_start_leaves_ends_untouched_and_leaks_nothing(method: str) -> None:
    sender, receiver = ipc.channel(int)
    other, other_receiver = ipc.channel(int)
    with sender, receiver, other, other_receiver:
        process: Any = multiprocessing.get_context(method).Process(target=print, args=(receiver, other, Unpicklable()))
        with pytest.raises(RuntimeError, match="not to be pickled"):
            process.start()
        sender.send(1)
        other.send(2)
        assert (receiver.recv(10), other_receiver.recv(10)) == (1, 2)
        # And it can be tried again.
        with start(method, collect, receiver) as child:
            sender.send(3)
            sender.close()
            assert child.result() == [3]


def test_a_start_that_fails_after_pickling_leaves_the_receiver_usable(monkeypatch: pytest.MonkeyPatch) -> None:
    from multiprocessing import util

    def refuse(*arguments: Any) -> int:
        raise OSError("no more processes")

    sender, receiver = ipc.channel(int)
    with sender, receiver:
        with monkeypatch.context() as patch:
            patch.setattr(util, "spawnv_passfds", refuse)
            process: Any = multiprocessing.get_context("spawn").Process(target=print, args=(receiver,))
            with pytest.raises(OSError, match="no more processes") as caught:
                process.start()
        sender.send(1)
        assert receiver.recv(10) == 1, "even while the traceback still holds everything of the failed start"
        del caught


def several(
    typed: ipc.Sender[list[int]],
    pickling: ipc.Sender[Any],
    raw: ipc.BytesSender,
    opaque: ipc.OpaqueSender,
    raw_receiver: ipc.BytesReceiver,
    opaque_receiver: ipc.OpaqueReceiver,
) -> list[Any]:
    kinds = [type(end).__name__ for end in (typed, pickling, raw, opaque, raw_receiver, opaque_receiver)]
    with typed, pickling, raw, opaque.to(str) as named, raw_receiver, opaque_receiver.to(int) as numbers:
        typed.send([1])
        pickling.send({2})
        raw.send(b"3")
        named.send("4")
        return [kinds, raw_receiver.recv(30), numbers.recv(30)]


@pytest.mark.parametrize("method", START_METHODS)
def test_every_kind_of_end_as_an_argument(method: str) -> None:
    typed, typed_receiver = ipc.channel(list[int])
    pickling, pickling_receiver = ipc.channel()
    raw, raw_receiver = ipc.bytes_channel()
    hidden, hidden_receiver = ipc.channel(str)
    to_child, to_child_receiver = ipc.bytes_channel()
    numbers, numbers_receiver = ipc.channel(int)
    arguments = (
        typed,
        pickling,
        raw,
        hidden.to_opaque(),
        to_child_receiver,
        numbers_receiver.to_opaque(),
    )
    kinds: list[Any] = [
        ipc.Sender[list[int]],
        ipc.Sender,
        ipc.BytesSender,
        ipc.OpaqueSender,
        ipc.BytesReceiver,
        ipc.OpaqueReceiver,
    ]
    to_child.send(b"5")
    numbers.send(6)
    with typed_receiver, pickling_receiver, raw_receiver, hidden_receiver, to_child, numbers:
        with start(method, several, *arguments, kinds=kinds) as child:
            for end in arguments:
                end.close()
            assert typed_receiver.recv(30) == [1]
            assert pickling_receiver.recv(30) == {2}
            assert raw_receiver.recv(30) == b"3"
            assert hidden_receiver.recv(30) == "4"
            names = [getattr(kind, "__origin__", kind).__name__ for kind in kinds]
            assert child.result() == [names, b"5", 6]


def types_of(*senders: ipc.Sender[Any]) -> list[str]:
    names = [repr(sender) for sender in senders]
    for sender in senders:
        sender.close()
    return names


@pytest.mark.parametrize("method", PICKLING)
def test_the_type_goes_along(method: str) -> None:
    forms: list[Any] = [int | str, Optional[int], dict[str, list[int]], ipc.Sender[int], None]  # noqa: UP045
    channels = [ipc.channel(form) for form in forms]
    names = [repr(sender) for sender, _ in channels]
    with start(method, types_of, *[sender for sender, _ in channels]) as child:
        assert child.result() == names
    for sender, receiver in channels:
        sender.close()
        receiver.close()


def answer_once(requests: ipc.Receiver[ipc.Sender[int]], ready: ipc.Sender[None]) -> None:
    with ready, requests:
        reply = requests.recv()
        ready.send(None)
        time.sleep(3600)
        reply.close()


@pytest.mark.parametrize("method", START_METHODS)
def test_a_reply_channel_ends_when_the_replier_is_killed(method: str) -> None:
    requests, requests_receiver = ipc.channel(ipc.Sender[int])
    ready, ready_receiver = ipc.channel(None)
    kinds: list[Any] = [ipc.Receiver[ipc.Sender[int]], ipc.Sender[None]]
    with requests, ready_receiver:
        with requests_receiver:
            child = start(method, answer_once, requests_receiver, ready, kinds=kinds)
        ready.close()
        with child:
            reply, reply_receiver = ipc.channel(int)
            with reply_receiver:
                requests.send(reply)
                ready_receiver.recv(30)
                child.kill(signal.SIGKILL)
                with pytest.raises(ipc.Disconnected):
                    reply_receiver.recv(30)
            with pytest.raises(ipc.ReceiverGone):
                for _ in range(1000):
                    extra, extra_receiver = ipc.channel(int)
                    with extra, extra_receiver:
                        requests.send(extra)


def send_and_wait(sender: ipc.Sender[int]) -> None:
    sender.send_many(range(100))
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("method", START_METHODS)
def test_what_was_sent_before_a_kill_is_delivered_and_then_the_end(method: str) -> None:
    sender, receiver = ipc.channel(int)
    with receiver, start(method, send_and_wait, sender, kinds=[ipc.Sender[int]]) as child:
        sender.close()
        assert list(receiver) == list(range(100))
        assert child.wait() == -signal.SIGKILL


def exit_without_closing(sender: ipc.Sender[int]) -> None:
    sender.send(1)
    os._exit(0)


@pytest.mark.parametrize("method", START_METHODS)
def test_the_last_message_of_a_process_that_exits_at_once(method: str) -> None:
    sender, receiver = ipc.channel(int)
    with receiver, start(method, exit_without_closing, sender, kinds=[ipc.Sender[int]]):
        sender.close()
        assert list(receiver) == [1]


def memory_and_file(memory: ipc.SharedMemory, mutable: ipc.SharedMemory, file: ipc.Fd) -> tuple[bytes, bool]:
    with memory, mutable, file:
        mutable[0] = 42
        os.write(file.fileno(), b"from the child")
        return bytes(memory), memory.frozen


@pytest.mark.parametrize("method", FORKING_TOO)
def test_shared_memory_and_files_as_arguments(method: str) -> None:
    reading, writing = os.pipe()
    with ipc.SharedMemory.create(5) as memory, ipc.SharedMemory.create(1, mutable=True) as mutable:
        memory[:] = b"bytes"
        content, frozen = run(method, memory_and_file, memory, mutable, ipc.Fd(writing))
        assert content == b"bytes"
        assert frozen == (method != "fork"), "sending it to another process freezes it"
        assert mutable[0] == 42
        assert not memory.closed, "duplicated, not moved"
    assert os.read(reading, 100) == b"from the child"
    os.close(reading)
    os.close(writing)


@pytest.mark.parametrize("method", PICKLING)
def test_memory_that_is_being_written_is_not_passed(method: str) -> None:
    with ipc.SharedMemory.create(5) as memory:
        view = memoryview(memory)
        process: Any = multiprocessing.get_context(method).Process(target=print, args=(memory,))
        with pytest.raises(BufferError):
            process.start()
        view.release()


def inheritable_descriptors(sender: ipc.Sender[int], receiver: ipc.Receiver[int]) -> list[bool]:
    with sender, receiver:
        return [os.get_inheritable(sender.fileno()), os.get_inheritable(receiver.fileno())]


@pytest.mark.parametrize("method", START_METHODS)
def test_descriptors_in_a_child_are_not_inherited_further(method: str) -> None:
    sender, receiver = ipc.channel(int)
    with sender, receiver:
        kinds = [ipc.Sender[int], ipc.Receiver[int]]
        assert run(method, inheritable_descriptors, sender, receiver, kinds=kinds) == [False, False]


@pytest.mark.parametrize("method", PICKLING)
def test_an_end_twice_among_the_arguments_is_one_end(method: str) -> None:
    sender, receiver = ipc.channel(int)
    with sender, receiver:
        assert run(method, the_same, receiver, receiver, [receiver]) is True


def the_same(first: Any, second: Any, third: list[Any]) -> bool:
    with first:
        return first is second is third[0]


@pytest.mark.parametrize("method", PICKLING)
def test_a_closed_end_is_refused(method: str) -> None:
    sender, receiver = ipc.channel(int)
    sender.close()
    receiver.close()
    for end in (sender, receiver):
        process: Any = multiprocessing.get_context(method).Process(target=print, args=(end,))
        with pytest.raises(ipc.ClosedError):
            process.start()


@pytest.mark.parametrize("method", PICKLING)
def test_popen_is_itself_again_after_the_start(method: str) -> None:
    sender, receiver = ipc.channel(int)
    context: Any = multiprocessing.get_context(method)
    process = context.Process(target=collect, args=(receiver,))
    process.start()
    sender.close()
    assert "_ipc_channel_cargo" not in process._popen.__dict__
    assert type(process._popen).__dict__.get("pid") is None
    process.join(30)
    assert process.exitcode == 0
    process.close()


@pytest.mark.parametrize("picklers", [pickle.dumps, copy.copy, copy.deepcopy], ids=["dumps", "copy", "deepcopy"])
def test_other_picklers_are_told_what_to_do(picklers: Any) -> None:
    sender, receiver = ipc.channel(int)
    with sender, receiver:
        for end in (sender, receiver):
            with pytest.raises(TypeError):
                picklers(end)
            assert not end.closed
        if picklers is pickle.dumps:
            with pytest.raises(TypeError, match=r"message .* argument, .*passing"):
                pickle.dumps(sender)


class PicklesInside:
    def __init__(self, end: Any) -> None:
        self.end = end

    def __reduce__(self) -> Any:
        return bytes, (pickle.dumps(self.end),)


def test_a_plain_pickle_inside_multiprocessings_is_refused_too() -> None:
    sender, receiver = ipc.channel(int)
    with sender, receiver:
        process: Any = multiprocessing.get_context("spawn").Process(target=print, args=(PicklesInside(receiver),))
        with pytest.raises(TypeError, match="message"):
            process.start()
        assert not receiver.closed


# Through queues, pipes and managers


def use_queue(queue: Any, back: Any) -> None:
    sender, receiver = queue.get()
    with sender, receiver:
        sender.send(receiver.recv(30) + 1)
    reply, reply_receiver = ipc.channel(str)
    back.put(reply_receiver)
    with reply:
        reply.send("from the child")
    # What a queue holds is fetched from this process, so it has to stay until then.
    assert queue.get() == "fetched"


@pytest.mark.parametrize("kind", ["Queue", "SimpleQueue", "JoinableQueue"])
def test_through_queues(context: Any, kind: str) -> None:
    queue, back = getattr(context, kind)(), getattr(context, kind)()
    process = context.Process(target=use_queue, args=(queue, back))
    process.start()
    to_child, to_child_receiver = ipc.channel(int)
    from_child, from_child_receiver = ipc.channel(int)
    with to_child, from_child_receiver:
        queue.put((from_child, to_child_receiver))
        to_child.send(41)
        assert from_child_receiver.recv(30) == 42
        from_child.close()
        with pytest.raises(ipc.Disconnected):
            from_child_receiver.recv(30)
    with back.get() as reply:
        assert list(reply) == ["from the child"]
    queue.put("fetched")
    process.join(30)
    assert process.exitcode == 0
    process.close()
    for each in (queue, back):
        each.close()
        if hasattr(each, "join_thread"):
            each.join_thread()
    # What a feeder thread pickled last it still refers to until it ends.
    assert to_child_receiver.closed


def use_pipe(connection: Any) -> None:
    with connection, connection.recv() as receiver, connection.recv() as sender:
        for number in receiver:
            sender.send(number * 2)


def test_through_a_pipe(context: Any) -> None:
    ours, theirs = context.Pipe()
    process = context.Process(target=use_pipe, args=(theirs,))
    process.start()
    theirs.close()
    to_child, to_child_receiver = ipc.channel(int)
    from_child, from_child_receiver = ipc.channel(int)
    with ours, from_child_receiver:
        ours.send(to_child_receiver)
        assert to_child_receiver.closed, "a receiver moves when it is pickled"
        ours.send(from_child)
        assert not from_child.closed, "a sender is duplicated"
        from_child.close()
        with to_child:
            to_child.send_many(range(3))
        assert list(from_child_receiver) == [0, 2, 4]
    process.join(30)
    assert process.exitcode == 0
    process.close()


def use_manager(queue: Any) -> None:
    with queue.get() as receiver, queue.get() as sender:
        sender.send_many(receiver)


def test_through_a_managers_queue(context: Any) -> None:
    with context.Manager() as manager:
        queue = manager.Queue()
        process = context.Process(target=use_manager, args=(queue,))
        process.start()
        to_child, to_child_receiver = ipc.channel(int)
        from_child, from_child_receiver = ipc.channel(int)
        with from_child_receiver:
            queue.put(to_child_receiver)
            queue.put(from_child)
            from_child.close()
            with to_child:
                to_child.send_many(range(3))
            assert [from_child_receiver.recv(30) for _ in range(3)] == [0, 1, 2]
        process.join(30)
        assert process.exitcode == 0
        process.close()


def test_memory_and_files_through_a_pipe() -> None:
    ours, theirs = multiprocessing.Pipe()
    reading, writing = os.pipe()
    with ours, theirs, ipc.SharedMemory.from_bytes(b"bytes") as memory:
        ours.send([memory, ipc.Fd(writing)])
        received, file = theirs.recv()
        with received, file:
            assert bytes(received) == b"bytes"
            assert file.owned
            os.write(file.fileno(), b"x")
    assert os.read(reading, 1) == b"x"
    os.close(reading)
    os.close(writing)


def test_nothing_heavy_is_imported() -> None:
    run_snippet(
        "import sys, pickle, ipc_channel as ipc\n"
        "sender, receiver = ipc.channel(int)\n"
        "with sender, receiver:\n"
        "    try:\n"
        "        pickle.dumps(sender)\n"
        "    except TypeError:\n"
        "        pass\n"
        "    else:\n"
        "        sys.exit('pickled')\n"
        "for name in ('multiprocessing', 'anyio', 'asyncio', 'trio', 'rich', 'subprocess'):\n"
        "    assert name not in sys.modules, name\n"
    )
